"""One station of a trace. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal

import attrs

from deploykit.fleet.tracetrust import SignatureVerdict

StationKind = Literal["push", "build", "mirror", "rollout", "command", "release"]
#: The way's own order. A build's three stations are in that of their states.
RANKS: Final[dict[str, int]] = {"push": 0, "build": 1, "mirror": 2, "rollout": 3, "command": 4, "release": 5}


@attrs.frozen(kw_only=True, slots=True)
class Station:
    """One line of a trace.

    Args:
        kind: which part of the way.
        subject: whose: a ref, a job and number, a node, a rollout.
        state: what became of it, in a word.
        at: when it was recorded first; of one that was not seen, when its effect was.
        until: when the last of its messages was recorded.
        text: one line for people.
        seen: whether there is a message of it.
        because: of one that was not seen: which effect proves it.
        sent: when the sender says that it was sent.
        ids: of its messages; at most 20.
        verdict: what its signature is worth; None where it was not seen.
        rank: within its kind, of equal times.
    """

    kind: StationKind
    subject: str
    state: str
    at: datetime
    until: datetime
    text: str
    seen: bool = True
    because: str = ""
    sent: datetime | None = None
    ids: tuple[str, ...] = ()
    verdict: SignatureVerdict | None = None
    rank: int = 0

    @property
    def order(self) -> tuple[datetime, int, int, bool, str, str, str, tuple[str, ...]]:
        """By what stations are sorted."""
        return self.at, RANKS[self.kind], self.rank, self.seen, self.subject, self.state, self.text, self.ids
