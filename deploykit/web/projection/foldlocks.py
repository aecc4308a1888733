"""What statements on locks leave in the projection, and which lock holds a site.

Rules:

* Of the statements on a site the one with the highest (serial, id) counts, in whatever order they come.
* What a node shows of a lock counts for that node, if it was described after the newest statement was heard.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final

from deploykit.errors import MessageError
from deploykit.messages import SignedStatement, SiteLocked, SiteUnlocked
from deploykit.names import SiteName
from deploykit.trust.statements import frame_of
from deploykit.web.projection.cells import Row, clean, micros, micros_or_none, moment, packed, unpacked_dict
from deploykit.web.projection.folding import at_of, audit, touch_site
from deploykit.web.projection.heard import Heard
from deploykit.web.projection.rows import WorkingRows, new_row
from deploykit.web.projection.tables import LOCKS
from deploykit.web.projection.views import SiteLockView
from deploykit.wire import decode

#: By how much a clock may be wrong before a lock counts as over, or as not yet begun.
_SKEW: Final = timedelta(minutes=2)


def fold_lock(rows: WorkingRows, heard: Heard, message: SiteLocked | SiteUnlocked) -> None:
    """Keep a statement on the lock of a site, if it is the newest."""
    locked = isinstance(message, SiteLocked)
    audit(
        rows,
        heard,
        "lock" if locked else "unlock",
        "done",
        who=message.holder,
        site=message.site,
        detail=message.reason,
    )
    touch_site(rows, message.site)
    row = rows.get(LOCKS, clean(message.site))
    if row is None or (row["serial"], row["id"]) < (message.serial, clean(message.id)):
        rows.put(LOCKS, new_row(LOCKS, at=at_of(heard), **_lock_cells(message)))


def carried_lock(statement: SignedStatement | None, site: SiteName) -> str:
    """Return what a statement that a node shows says, as a cell; empty where there is none or it cannot be read."""
    if statement is not None:
        with suppress(MessageError):  # a statement that cannot be read holds no lock
            frame = frame_of(statement)
            message = decode(frame.headers, frame.body)
            if isinstance(message, SiteLocked | SiteUnlocked) and message.site == site:
                return packed(_lock_cells(message))
    return ""


def _lock_cells(message: SiteLocked | SiteUnlocked) -> Row:
    locked = isinstance(message, SiteLocked)
    return {
        "site": clean(message.site),
        "id": clean(message.id),
        "kind": "locked" if locked else "unlocked",
        "holder": clean(message.holder, 300),
        "reason": clean(message.reason, 1000),
        "serial": message.serial,
        "since": micros(message.since or message.time) if isinstance(message, SiteLocked) else None,
        "until": micros_or_none(message.until) if isinstance(message, SiteLocked) else None,
        "allow_rollback": message.allow_rollback if isinstance(message, SiteLocked) else True,
    }


def node_lock(cell: str, seen: int | None, statement: Row | None, now: datetime) -> SiteLockView | None:
    """Return the lock that holds a site on one node; None where none does.

    Args:
        cell: what the node showed, see `carried_lock`.
        seen: when it did.
        statement: the row of the newest statement that was heard on the bus, if any.
        now: aware.
    """
    if cell and (statement is None or (seen or 0) >= statement["at"]):
        return lock_in_force(unpacked_dict(cell), now)
    return lock_in_force(statement, now)


def site_lock(cells: Iterable[tuple[str, int | None]], statement: Row | None, now: datetime) -> SiteLockView | None:
    """Return the lock that holds a site: the newest that holds on any node, or that was heard on the bus.

    Args:
        cells: what each node showed, and when.
        statement: as for `node_lock`.
        now: aware.
    """
    found = [lock for cell, seen in set(cells) if (lock := node_lock(cell, seen, statement, now)) is not None]
    if not found:
        return lock_in_force(statement, now)
    return max(found, key=lambda lock: (lock.since is not None, lock.since, lock.holder))


def lock_in_force(row: Row | None, now: datetime) -> SiteLockView | None:
    """Return the lock of a row, while it is in force."""
    if not row or row["kind"] != "locked":
        return None
    since, until = moment(row["since"]), moment(row["until"])
    if (until is not None and now - until > _SKEW) or (since is not None and since - now > _SKEW):
        return None
    return SiteLockView(
        site=row["site"],
        holder=row["holder"],
        reason=row["reason"],
        since=since,
        until=until,
        allow_rollback=row["allow_rollback"],
    )
