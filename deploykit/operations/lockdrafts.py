"""Statements on a site's lock, as a person makes them before they are signed. Pure."""

from __future__ import annotations

import socket
from datetime import datetime, timedelta
from typing import Final

from deploykit.errors import UsageError
from deploykit.messages import SiteLocked, SiteUnlocked
from deploykit.messages.lock import MAX_LOCK
from deploykit.messages.statement import SignedStatement
from deploykit.names import SiteName
from deploykit.operations.deploy import user_name
from deploykit.trust.lockrules import lock_problem

#: How long a lock lasts where nobody says it.
DEFAULT_LOCK: Final = timedelta(hours=24)


def lock_message(
    site: SiteName,
    reason: str,
    now: datetime,
    *,
    until: datetime | None = None,
    since: datetime | None = None,
    allow_rollback: bool = True,
    serial: int = 0,
    holder: str | None = None,
) -> SiteLocked:
    """Return a lock of a site.

    Args:
        reason: for everybody whom it keeps from deploying.
        now: aware.
        until: when it ends by itself; 24 hours after it begins by default.
        since: when it begins; at once by default.
        allow_rollback: nodes may still go back to their previous release.
        serial: higher than that of every statement that is known.
        holder: who locks, in words for a person; whoever runs this process when None.

    Raises:
        UsageError: no reason, or times that no lock may have.
    """
    if not reason.strip():
        raise UsageError("a lock says why", "--reason TEXT")
    message = SiteLocked(
        source=f"operator/{socket.gethostname()}",
        time=now,
        site=site,
        serial=serial,
        holder=user_name() if holder is None else holder,
        reason=reason,
        since=since,
        until=until or (since or now) + DEFAULT_LOCK,
        allow_rollback=allow_rollback,
    )
    if problem := lock_problem(message, now):
        raise UsageError(problem, f"--until at most {MAX_LOCK.days} days after it begins")
    return message


def unlock_message(
    site: SiteName, reason: str, now: datetime, *, locked: SignedStatement, serial: int, holder: str | None = None
) -> SiteUnlocked:
    """Return the end of a lock. Arguments as for `lock_message`.

    Args:
        locked: the lock that it lifts.
    """
    return SiteUnlocked(
        source=f"operator/{socket.gethostname()}",
        time=now,
        site=site,
        serial=serial,
        holder=user_name() if holder is None else holder,
        reason=reason,
        locked=locked,
    )


__all__ = ["DEFAULT_LOCK", "lock_message", "unlock_message"]
