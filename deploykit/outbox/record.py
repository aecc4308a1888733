"""Values read from the spool: a record, and a file that was set aside."""

from __future__ import annotations

from typing import Literal

import attrs

from deploykit.outbox.format import RecordId
from deploykit.wire.frame import Frame


@attrs.frozen(kw_only=True, slots=True)
class Record:
    """One message in the spool.

    Args:
        id: its name in the spool; not the message's own id, which is inside the frame.
        destination, frame: what was put.
        uid: user id of its writer.
        queued: when, seconds since 1970 by that user's clock (the file's mtime).
        number, of: its place among the records of one `put_many`, and how many there are.
        state: waiting to be sent, or a dead letter.
        reason, dead_since: of a dead letter: why, and since when (UTC, ISO 8601). It keeps the id it had in the spool.
    """

    id: RecordId
    destination: str
    frame: Frame
    uid: int
    queued: float
    number: int = 1
    of: int = 1
    state: Literal["waiting", "dead"] = "waiting"
    reason: str = ""
    dead_since: str = ""

    @property
    def stem(self) -> str:
        """The name of the file that holds it, without suffix."""
        return str(self.id) if self.state == "dead" else self.id.partition(".")[0]


@attrs.frozen(kw_only=True, slots=True)
class SetAside:
    """A file that is not a record: its name in the spool, the reason, and whether it could be moved to `bad/`."""

    name: str
    reason: str
    moved: bool
