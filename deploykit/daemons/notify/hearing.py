"""From a delivery to news: decode, judge, and leave out what was heard before.

Rules:

* What must be signed and is not believed is counted and not sent. Without keys all counts, and each line says so.
* A copy is known by its body: nobody can spend the id of a message that is still to come.
* What is verified is remembered apart: a flood of unsigned messages makes none of it new again.
* What may hold a password never gets here: the topic of access is not subscribed to.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime
from typing import Final, Literal

from deploykit.bus import Delivery
from deploykit.daemons.notify.news import NewsItem, kinds_of, news_of
from deploykit.daemons.service.throttle import LogThrottle
from deploykit.errors import MessageError
from deploykit.fleet.recordformat import RecordedMessage
from deploykit.fleet.tracetrust import TraceTrust, judge
from deploykit.messages import Message, one_line, utc_now
from deploykit.messages.topics import TopicMap

_log = logging.getLogger(__name__)

#: Bodies that are remembered, so that a copy is not sent again.
REMEMBERED: Final = 10_000

HearResult = Literal["taken", "ignored", "repeated", "distrusted", "unreadable"]


class HeardBodies:
    """The digests of what was sent already, the newest. Use it from any thread."""

    def __init__(self, most: int = REMEMBERED) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._verified: OrderedDict[str, None] = OrderedDict()
        self._others: OrderedDict[str, None] = OrderedDict()

    def first(self, digest: str, *, verified: bool = False) -> bool:
        """Return whether a digest is new, and remember it. A verified message is new after its unsigned copy."""
        known = self._verified if verified else self._others
        with self._lock:
            if digest in self._verified or digest in known:
                return False
            known[digest] = None
            if len(known) > self._most:
                known.popitem(last=False)
            return True


def destinations_of_news(topics: TopicMap) -> tuple[str, ...]:
    """Return what is subscribed to: where news goes, but never where requests for access go."""
    named = (topics.source, topics.build, topics.build_success, topics.build_failure, topics.package, topics.mirror)
    more = (topics.deploy, topics.report, topics.notice, *topics.notices.values())
    return tuple(name for name in dict.fromkeys((*named, *more)) if name and name != topics.access)


class NewsHearing:
    """Judges what comes. Use it from any thread.

    Args:
        trust: whom to believe; None: nobody can be told from anybody.
        console: where the console is, for links.
        heard: what was sent already.
        now: the wall clock, aware UTC.
    """

    def __init__(
        self,
        trust: TraceTrust | None,
        *,
        console: str = "",
        heard: HeardBodies | None = None,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._trust = trust
        self._console = console
        self._heard = heard or HeardBodies()
        self._now = now
        self._distrust = LogThrottle()

    def hear(self, delivery: Delivery) -> tuple[HearResult, NewsItem | None]:
        """Return what became of a delivery, and the news in it."""
        try:
            message = delivery.message
        except MessageError:
            return "unreadable", None
        if message is None:
            return "ignored", None
        if not kinds_of(message):
            return "ignored", None
        record = RecordedMessage(
            received=self._now(), destination=delivery.destination, headers=delivery.headers, body=delivery.body
        )
        item = self.item_of(record, message)
        if item is None:
            return "distrusted", None
        if item == "old":
            return "ignored", None
        return ("taken", item) if self._heard.first(item.digest, verified=item.verified) else ("repeated", None)

    def item_of(self, record: RecordedMessage, message: Message) -> NewsItem | Literal["old"] | None:
        """Return the news in a message; `old` for what is none any more, None for what is not believed."""
        verdict = judge(record, message, self._trust)
        if not verdict.counts or (self._trust is not None and verdict.standing == "not verified"):
            self._doubt(message, verdict.why)
            return None
        found = news_of(message, verdict, body=record.body, received=record.received, console=self._console)
        return found or "old"

    def _doubt(self, message: Message, why: str) -> None:
        line = one_line(f"{message.TYPE} from {message.source}: {why}", 300)
        count = self._distrust.add(line, time.monotonic())
        if count:
            _log.warning("%d messages are not believed and not sent, the last: %s", count, line)


__all__ = ["REMEMBERED", "HearResult", "HeardBodies", "NewsHearing", "destinations_of_news"]
