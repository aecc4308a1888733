"""Locks as nodes show them: which one holds a site on a node; and what a coordinator passes on of them.

Rules:

* A node that is believed shows the statement that decides there. What it says of the lock counts for that node.
* Which of several statements is the newer one is judged here, by the keys and grants of this machine.
* Where this machine lacks the nodes' keys or grants, it publishes nothing.
* A coordinator publishes a statement when it first hears of it: nodes that were away hear it too.
* It does so again when a node shows an older one, at most once in a few seconds.
"""

from __future__ import annotations

import contextlib
from datetime import datetime, timedelta
from typing import Final

from deploykit.bus import Bus
from deploykit.errors import BusError, DeploykitError, MessageError
from deploykit.fleet.drift import ShownLock
from deploykit.messages import SiteLocked, SiteState, one_line
from deploykit.messages.statement import SignedStatement
from deploykit.messages.topics import TopicMap
from deploykit.names import SiteName
from deploykit.trust.check import Trust
from deploykit.trust.lockrules import judge
from deploykit.trust.locks import LockBook
from deploykit.trust.statements import frame_again, frame_of
from deploykit.wire import decode

#: Seconds after which a statement is published again to who shows an older one.
_AGAIN_AFTER: Final = 5.0
#: Seconds within which the broker must take it.
_WITHIN: Final = 10.0


def shown_lock(state: SiteState, trust: Trust, now: datetime) -> ShownLock | None:
    """Return the lock that holds a site on the node that describes it; None where none does.

    The node is believed: where this machine cannot verify the statement, it is shown as the node's word.
    """
    if state.lock is None:
        return None
    try:
        known = judge(state.lock, trust, now)
        if known.site != state.site or not known.in_force(now, trust.policy.skew):
            return None
        assert isinstance(known.message, SiteLocked)  # noqa: S101 -- only locks are in force
        return ShownLock(holder=_holder(known.message), until=known.message.until, text=str(known))
    except DeploykitError:
        return _unverified(state, now, trust.policy.skew)


def _unverified(state: SiteState, now: datetime, skew: timedelta) -> ShownLock | None:
    with contextlib.suppress(MessageError):  # no message holds no lock
        frame = frame_of(state.lock) if state.lock is not None else None
        lock = decode(frame.headers, frame.body) if frame is not None else None
        if not isinstance(lock, SiteLocked) or lock.site != state.site or now - lock.until > skew:
            return None
        if lock.since is not None and lock.since - now > skew:
            return None
        why = f": {lock.reason}" if lock.reason else ""
        who = f" by {_holder(lock)}" if lock.holder else ""
        text = f"locked{who} until {lock.until:%Y-%m-%d %H:%M} UTC{why} (as the node says; not verified here)"
        return ShownLock(holder=_holder(lock), until=lock.until, text=one_line(text))
    return None


def _holder(lock: SiteLocked) -> str:
    return one_line(lock.holder, 100)


class LockWatch:
    """Hears of locks in the reports of one rollout, and publishes what others lack. Not for several threads.

    Args:
        site: of the rollout.
        bus: where statements are published.
        topics: says where.
        trust: judges them.
    """

    def __init__(self, site: SiteName, bus: Bus, topics: TopicMap, trust: Trust) -> None:
        self._site = site
        self._bus = bus
        self._topics = topics
        self._trust = trust
        self._book = LockBook(trust)
        self._published: dict[bytes, float] = {}
        #: The statement that decides: thousands of nodes may show it, and it is judged once.
        self._latest: SignedStatement | None = None

    def hear(self, statement: SignedStatement | None, now: datetime, monotonic: float) -> None:
        """Take the lock of a believed report; publish it if it is new here, or the newer one that is known.

        Args:
            statement: for which a command was refused, or which it overrode; None for none.
            now: aware.
            monotonic: seconds.
        """
        if statement is None or statement == self._latest:
            return
        try:
            noted = self._book.add(statement, now)
        except DeploykitError:  # the node that shows it counts it; here it does not count
            return
        self._latest = noted.statement.signed if noted.newer is None else self._latest
        wanted = noted.newer or (noted.statement if noted.news else None)
        if wanted is None or wanted.site != self._site:
            return
        if monotonic - self._published.get(wanted.rank[2], float("-inf")) < _AGAIN_AFTER:
            return
        self._published[wanted.rank[2]] = monotonic
        with contextlib.suppress(BusError):  # another report shows it again
            self._bus.publish_nowait(self._topics.deploy, frame_again(wanted.signed), timeout=_WITHIN)


__all__ = ["LockWatch", "shown_lock"]
