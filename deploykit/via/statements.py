"""Locks and unlocks that are signed here and relayed by a console: what it says of a lock is looked at first. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from deploykit.errors import MessageError, PolicyRefused
from deploykit.messages import SiteLocked
from deploykit.messages.statement import SignedStatement
from deploykit.names import SiteName
from deploykit.trust.statements import frame_of
from deploykit.web.actions.shown import LockState
from deploykit.wire import decode

#: By how much a serial may be ahead of the clock: serials are seconds, and two people lock within the same one.
_AHEAD: Final = timedelta(days=1)


def require_serial(state: LockState, now: datetime) -> int:
    """Return the serial of the next statement.

    Raises:
        PolicyRefused: it lies far ahead. Signed, it would keep everybody from ever making a higher one.
    """
    if state.serial > (now + _AHEAD).timestamp():
        raise PolicyRefused(
            f"the console asks for a statement with serial {state.serial}, far ahead of this clock",
            "nothing was signed; look at `deploykit nodes --long` on a machine with the broker",
        )
    return max(state.serial, int(now.timestamp()))


def lifted_lock(state: LockState, site: SiteName) -> tuple[SignedStatement, SiteLocked] | None:
    """Return the lock that an unlock lifts, decoded from its own bytes; None where the site is not locked.

    Raises:
        PolicyRefused: what the console gives is no lock of this site.
    """
    if not state.body:
        return None
    statement = SignedStatement(body=state.body, signature=state.signature)
    try:
        frame = frame_of(statement)
        message = decode(frame.headers, frame.body)
    except MessageError as error:
        raise PolicyRefused(f"the console shows a lock that is none: {error.problem}", "nothing was signed") from None
    if not isinstance(message, SiteLocked) or message.site != site:
        raise PolicyRefused(f"the console shows another thing than a lock of {site}", "nothing was signed")
    return statement, message


__all__ = ["lifted_lock", "require_serial"]
