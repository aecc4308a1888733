"""Locks of sites: "not now", said by a person, kept by every node.

A lock is a statement and no command: it has no audience and does not expire. Of all statements on a site the one with
the highest (serial, id) counts, so an old copy changes nothing and may be sent again by anybody.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import ClassVar, Final

import attrs

from deploykit.messages.base import NOTHING, Count, Message, one_line
from deploykit.messages.statement import SignedStatement
from deploykit.names import NodeName, SiteName

#: Longest time from the beginning of a lock (or from when it was made) to its end.
MAX_LOCK: Final = timedelta(days=30)


@attrs.frozen(kw_only=True, slots=True)
class SiteLocked(Message):
    """A statement: nothing new goes live on this site until then. Nodes heed it only when it is signed.

    Args:
        serial: higher than that of every statement on the site that its sender knows.
        holder: who locks, in words for a person; whose lock it is, the signature says.
        since: from when; None for at once, whatever the clocks say.
        until: when it ends by itself: at most 30 days after `since`, or after `time`.
        allow_rollback: nodes may still go back to their previous release.
    """

    TYPE: ClassVar[str] = "deploykit.site.locked.v1"

    site: SiteName
    serial: Count
    holder: str = ""
    reason: str = ""
    since: datetime | None = None
    until: datetime
    allow_rollback: bool = True

    @property
    def summary(self) -> str:
        who = f" by {self.holder}" if self.holder else ""
        why = f": {self.reason}" if self.reason else ""
        return one_line(f"{self.site} locked{who} until {self.until:%Y-%m-%d %H:%M} UTC{why}")


@attrs.frozen(kw_only=True, slots=True)
class SiteUnlocked(Message):
    """A statement: the site's lock is lifted. Nodes heed it only when it is signed.

    Args:
        serial: higher than that of the lock.
        holder: who unlocks, in words for a person.
        locked: the lock that is lifted, for nodes that never heard of it: it counts again when whoever lifted it turns
            out to have no right to.
    """

    TYPE: ClassVar[str] = "deploykit.site.unlocked.v1"

    site: SiteName
    serial: Count
    holder: str = ""
    reason: str = ""
    locked: SignedStatement | None = None

    @property
    def summary(self) -> str:
        who = f" by {self.holder}" if self.holder else ""
        why = f": {self.reason}" if self.reason else ""
        return one_line(f"{self.site} unlocked{who}{why}")


@attrs.frozen(kw_only=True, slots=True)
class LocksWanted(Message):
    """A node that may have missed statements on locks asks the others to publish what is newer. Signed as that node.

    Args:
        known: the serial of the newest statement that the node knows, by site; zero for none.
    """

    TYPE: ClassVar[str] = "deploykit.site.locks-wanted.v1"

    node: NodeName
    known: Mapping[str, object] = attrs.field(default=NOTHING, eq=dict, hash=False)

    @property
    def summary(self) -> str:
        return one_line(f"{self.node} asks for locks of {', '.join(self.known) or 'no site'}")
