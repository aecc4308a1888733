"""From a message about a package to its acknowledgement.

    decode -> parse -> sources -> ticket of the refresher -> … -> Ack

Rules:

* A message is acknowledged when its ticket is done. Until then it stays in hand, and is looked at again in a moment:
  no thread waits for it, so hundreds may wait together for one run.
* What came before the connection was lost comes again. A copy with an id finds its ticket; one without, as the
  original's, is acted on again.
* What is no message is a dead letter. What names no possible package, or is too long, is refused: acknowledged, with
  one line. So what is in hand takes some megabytes, whoever sent it.
* Nobody signs these messages: whatever they say can have configured sources read, and nothing else.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from deploykit.bus import Ack, Delivery, Reject, Retry, Verdict
from deploykit.daemons.packages.packagenames import parse_announcement
from deploykit.daemons.packages.packagerules import sources_for
from deploykit.daemons.packages.refresher import AnnouncementTicket, PackageRefresher
from deploykit.daemons.service.throttle import LogThrottle
from deploykit.errors import InvalidName, MessageError
from deploykit.messages import PackagePublished
from deploykit.settings.packages import PackagesSettings
from deploykit.system.backoff import Backoff
from deploykit.wire.codec import TYPE_HEADER

_log = logging.getLogger(__name__)

#: Most messages in hand.
IN_HAND: Final = 500
#: Bytes of an announcement: it is kept until its sources are read. Ours have some kilobytes at most.
MOST_BYTES: Final = 64 << 10
#: Seconds between two looks at a ticket; the longest says how late an acknowledgement may be.
LOOKS: Final = Backoff(initial=0.1, maximum=1.0)
#: Seconds for which a message is put off that the next daemon is to have.
_HAND_BACK_AFTER: Final = 900.0


class AnnouncementHandler:
    """Hands announcements to the refresher, and acknowledges them. Use it from any thread.

    Args:
        settings: which sources there are.
        refresher: acts on them.
        ending: set when the daemon ends.
        count: called with a message's type and `ack` or `reject`, once a message.
    """

    def __init__(
        self,
        settings: PackagesSettings,
        refresher: PackageRefresher,
        *,
        ending: threading.Event,
        count: Callable[[str, str], object],
    ) -> None:
        self._settings = settings
        self._refresher = refresher
        self._ending = ending
        self._count = count
        self._lock = threading.Lock()
        self._tickets: dict[tuple[str, bytes], AnnouncementTicket] = {}
        self._refused = LogThrottle()
        self._unmatched = LogThrottle()

    @property
    def waiting(self) -> int:
        """How many announcements are not done yet."""
        with self._lock:
            return sum(not ticket.done for ticket in self._tickets.values())

    def wait_acknowledged(self, end: float) -> None:
        """Wait until the messages of all tickets that are done are acknowledged, until `end` (monotonic)."""
        while time.monotonic() < end:
            with self._lock:
                if not any(ticket.done for ticket in self._tickets.values()):
                    return
            time.sleep(0.02)  # a worker of the bus looks at the tickets, and signals nobody

    def handle(self, delivery: Delivery) -> Verdict:
        """Look at a message, for the first time or again."""
        key = _key(delivery)
        with self._lock:
            ticket = self._tickets.get(key)
            if ticket is not None and ticket.done:
                del self._tickets[key]
        if ticket is None:
            if self._ending.is_set():
                return Retry(after=_HAND_BACK_AFTER)
            verdict = self._begin(delivery, key)
        else:
            verdict = Ack() if ticket.done else None
        if verdict is None:
            return Retry(after=LOOKS.pause(delivery.attempt))
        self._count(delivery.headers.get(TYPE_HEADER, ""), "reject" if isinstance(verdict, Reject) else "ack")
        return verdict

    def flush(self, now: float) -> None:
        """Log what was counted since the last lines; `now` in monotonic seconds, infinite at the end."""
        for throttle, text in ((self._refused, "refused"), (self._unmatched, "nothing is read for")):
            count, why = throttle.flush(now)
            if count:
                _log.info("%s %d more messages, the last one: %s", text, count, why)

    def _begin(self, delivery: Delivery, key: tuple[str, bytes]) -> Verdict | None:
        """Return what is done with a new message; None: it has a ticket from now on."""
        if (size := len(delivery.body)) > MOST_BYTES:
            return self._refuse(f"an announcement of {size} bytes: more than {MOST_BYTES} are not read")
        try:
            message = delivery.message
        except MessageError as error:
            return Reject(str(error))
        if not isinstance(message, PackagePublished):
            return Ack()
        try:
            package = parse_announcement(message, self._settings.tool)
        except InvalidName as error:
            return self._refuse(str(error))
        sources = sources_for(package.distribution, self._settings)
        if not sources:
            if self._unmatched.add(message.summary, time.monotonic()):
                _log.info("no source has distribution %s, nothing is read: %s", package.distribution, message.summary)
            return Ack()
        with self._lock:
            if len(self._tickets) >= 2 * IN_HAND:  # of messages that were lost with their connection
                self._tickets = {each: ticket for each, ticket in self._tickets.items() if not ticket.done}
            self._tickets[key] = self._refresher.submit(package, sources)
        return None

    def _refuse(self, why: str) -> Verdict:
        """Acknowledge a message that is not acted on; one line a minute says why."""
        if count := self._refused.add(why, time.monotonic()):
            _log.warning("refused%s: %s", f" {count} messages, the last one" if count > 1 else "", why)
        return Ack()


def _key(delivery: Delivery) -> tuple[str, bytes]:
    """Return what is the same each time that a message is handed over here; without an id, on this connection only."""
    name = delivery.id or f"{delivery.epoch}/{delivery.message_id}"
    return name, hashlib.sha256(delivery.body).digest()


__all__ = ["IN_HAND", "LOOKS", "MOST_BYTES", "AnnouncementHandler"]
