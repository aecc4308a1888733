"""The signed commands of a rollout: made once, kept as exact bytes, sent again as they are. Pure.

Rules:

* One command for each phase and target that the core asks for, and for at most 100 nodes: every node of it gets the
  whole audience.
* A command expires when its report is no longer waited for, as late as nodes accept, or with its mandate.
* Ids are claimed by key, id and body: the same bytes are never acted on twice, however often they come.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

import attrs

from deploykit.errors import RolloutError
from deploykit.fleet.mandates import HeldMandate
from deploykit.fleet.plan import Target
from deploykit.messages import BuildEvidence, DeployPhase, DeployRequested, RolloutAbort
from deploykit.names import NodeName, SiteName
from deploykit.trust.signature import BodySigner, copy_digest, sign
from deploykit.wire import Frame, decode, encode
from deploykit.wire.codec import ID_HEADER

#: Most nodes in the audience of one command.
MOST_NODES: Final = 100
#: Phases that a build gate is asked in: only their commands carry build results.
_GATED: Final[tuple[DeployPhase, ...]] = ("deploy", "prepare", "activate")


@attrs.frozen(kw_only=True, slots=True)
class CommandMaker:
    """What all commands of a rollout have in common.

    Args:
        rollout, site, requested_by, correlation_id: of the rollout.
        key: signs them.
        expires_in: how long a command may be obeyed.
        evidence, without_build: what the gates of nodes are to know, see `DeployRequested`.
        override_lock: why they are to be obeyed although the site is locked; empty where they are not.
        mandate: what people signed for the rollout; None where nobody had to. No command is good for longer than it.
    """

    rollout: str
    site: SiteName
    requested_by: str
    correlation_id: str
    key: BodySigner
    expires_in: timedelta
    evidence: tuple[BuildEvidence, ...] = ()
    without_build: bool = False
    override_lock: str = ""
    mandate: HeldMandate | None = None

    def deploys(
        self, phase: DeployPhase, target: Target, nodes: Sequence[NodeName], now: datetime
    ) -> Iterator[SentCommand]:
        """Yield the commands for these nodes, signed.

        Args:
            phase, target: what is asked.
            nodes: of whom.
            now: aware.

        Raises:
            MessageError: the evidence is more than a message holds.
        """
        for at in range(0, len(nodes), MOST_NODES):
            request = DeployRequested(
                source=f"operator/{socket.gethostname()}",
                time=now,
                correlation_id=self.correlation_id,
                site=self.site,
                ref=target.ref,
                commit=target.commit,
                parts=target.parts,
                audience=tuple(nodes[at : at + MOST_NODES]),
                expires=self._expires(phase, now),
                phase=phase,
                requested_by=self.requested_by,
                evidence=self.evidence if phase in _GATED else (),
                without_build=self.without_build and phase in _GATED,
                rollout=self.rollout,
                mandate=self.mandate.digest if self.mandate is not None else None,
                override_lock=self.override_lock if phase != "discard" else "",
            )
            yield SentCommand(request=request, frame=sign(encode(request), self.key))

    def _expires(self, phase: DeployPhase, now: datetime) -> datetime:
        """Return when a command expires: at the end of its mandate at the latest, but for what needs none."""
        expires = now + self.expires_in
        return expires if self.mandate is None or phase == "discard" else min(expires, self.mandate.message.not_after)

    def abort(self, reason: str, now: datetime) -> SentAbort:
        """Return the command that ends the rollout on every node, signed."""
        message = RolloutAbort(
            source=f"operator/{socket.gethostname()}",
            time=now,
            correlation_id=self.correlation_id,
            site=self.site,
            rollout=self.rollout,
            expires=now + self.expires_in,
            requested_by=self.requested_by,
            reason=reason,
        )
        return SentAbort(message=message, frame=sign(encode(message), self.key))


@attrs.frozen(kw_only=True, slots=True)
class SentCommand:
    """A command as it goes out, also again: its message, and the frame that nodes verify.

    Args:
        copy: names this very copy in the reports on it: made once, for bodies with build results are long.
    """

    request: DeployRequested
    frame: Frame = attrs.field(repr=False)
    copy: str = attrs.field(init=False, eq=False, repr=False)

    @copy.default
    def _copy_of_frame(self) -> str:
        return copy_digest(self.frame)

    @classmethod
    def of_frame(cls, frame: Frame) -> SentCommand:
        """Return the command in a frame that this machine has signed.

        Raises:
            MessageError: no message.
            RolloutError: another message.
        """
        message = decode(frame.headers, frame.body)
        if not isinstance(message, DeployRequested):
            raise RolloutError(f"a {type(message).__name__} is no deploy command")
        return cls(request=message, frame=frame)


@attrs.frozen(kw_only=True, slots=True)
class SentAbort:
    """The end of a rollout as it goes out."""

    message: RolloutAbort
    frame: Frame = attrs.field(repr=False)

    @classmethod
    def of_frame(cls, frame: Frame) -> SentAbort:
        """Return the abort in a frame that this machine has signed.

        Raises:
            MessageError: no message.
            RolloutError: another message.
        """
        message = decode(frame.headers, frame.body)
        if not isinstance(message, RolloutAbort):
            raise RolloutError(f"a {type(message).__name__} does not abort a rollout")
        return cls(message=message, frame=frame)


def copy_of(frame: Frame, mark: str) -> Frame:
    """Return the same signed bytes under another transport id: a bus drops a copy under an id that it has handled."""
    headers: Mapping[str, str] = frame.headers
    return Frame({**headers, ID_HEADER: f"{headers[ID_HEADER]}/{mark}"}, frame.body)


__all__ = ["MOST_NODES", "CommandMaker", "SentAbort", "SentCommand", "copy_of"]
