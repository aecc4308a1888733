"""One thread for each channel: it takes what waits, sends it, and keeps trying. One that fails holds up no other."""

from __future__ import annotations

import logging
import random
import select
import socket
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime
from typing import Final, Literal

from deploykit.daemons.notify.letters import letter_of, waiting_line
from deploykit.daemons.notify.news import NewsItem
from deploykit.daemons.notify.ports import NotifyChannel, SendOutcome
from deploykit.daemons.notify.routing import goes_to
from deploykit.daemons.notify.waiting import ChannelQueue, NotifyBatch, WaitingLine
from deploykit.errors import SettingsError
from deploykit.messages import one_line, utc_now
from deploykit.settings.notify import ChannelSettings

_log = logging.getLogger(__name__)

#: Seconds for what waits at the end.
LAST: Final = 3.0
#: Seconds between two looks while nothing waits.
_LONGEST: Final = 60.0
#: Seconds between two lines in the log about a channel that still fails.
_LOG_AGAIN: Final = 600.0

SendResult = Literal["sent", "later", "refused", "folded", "expired"]


class ChannelSender:
    """Sends what goes to one channel. `take` may be called from any thread; `run` is the thread's function.

    Args:
        name, settings: of the channel.
        channel: the way there.
        keep: seconds for which a line waits.
        count: counts letters by their outcome, and lines that were left out.
        clock: monotonic.
        now: the wall clock, aware UTC.
        chance: from 0 to 1, for the pauses.
    """

    def __init__(
        self,
        name: str,
        settings: ChannelSettings,
        channel: NotifyChannel,
        *,
        keep: float,
        count: Callable[[str, SendResult, int], None] = lambda _name, _result, _number: None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = utc_now,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.name = name
        self.settings = settings
        self._channel = channel
        self._count = count
        self._clock = clock
        self._now = now
        self._chance = chance
        self._lock = threading.Lock()
        gather = settings.digest if settings.kind == "email" else 0.0
        pairs = settings.events != ("notice",)
        self._queue = ChannelQueue(per_minute=settings.per_minute, keep=keep, gather=gather, pairs=pairs)
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)
        self._problem = ""
        self._logged = float("-inf")
        self._folded = self._expired = 0

    # -- from any thread -----------------------------------------------------------------------------------------------

    def take(self, item: NewsItem) -> bool:
        """Take an item; return whether it goes to this channel."""
        if not goes_to(item, self.settings):
            return False
        line = waiting_line(item, self.settings, added=self._clock())
        if line is None:
            return False
        with self._lock:
            taken = self._queue.add(line)
            self._count_left_out()
        self.wake()
        return taken

    def resume(self, lines: Iterable[WaitingLine]) -> None:
        """Take what another sender of this channel has left."""
        with self._lock:
            self._queue.resume(lines)
        self.wake()

    def leave(self) -> tuple[WaitingLine, ...]:
        """Return what was not sent. Call it after `run` has ended."""
        with self._lock:
            return self._queue.leave()

    def wake(self) -> None:
        """Have the thread look at the queue now."""
        with suppress(OSError):  # full: it wakes anyway; closed: it has ended
            self._wake_write.send(b"w")

    @property
    def waiting(self) -> int:
        """How many lines wait."""
        with self._lock:
            return len(self._queue)

    @property
    def problem(self) -> str:
        """Why nothing can be sent now; empty while it can."""
        return self._problem

    def close(self) -> None:
        """Free the descriptors. `run` does so at its end; call it for one that never ran."""
        self._channel.close()
        self._wake_read.close()
        self._wake_write.close()

    # -- the thread ----------------------------------------------------------------------------------------------------

    def run(self, ending: threading.Event) -> None:
        """Send until the event is set; then what waits, for some seconds, as long as nothing fails."""
        while not ending.is_set():
            if not self.step():
                self._wait()
        end = self._clock() + LAST
        while self._clock() < end and self.step(at_once=True) and not self._problem:
            pass
        self.close()

    def step(self, *, at_once: bool = False) -> bool:
        """Send one letter if one is due; return whether there was one."""
        with self._lock:
            batch = self._queue.next(self._clock(), at_once=at_once)
            self._count_left_out()
        if batch is None:
            return False
        outcome = self._send(batch)
        with self._lock:
            match outcome.kind:
                case "sent":
                    self._queue.sent(self._clock())
                case "refused":
                    self._queue.refused(self._clock())
                case "later":
                    self._queue.failed(self._clock(), wait=outcome.wait, chance=self._chance())
        self._note(outcome)
        self._count(self.name, outcome.kind, 1)
        return True

    def _send(self, batch: NotifyBatch) -> SendOutcome:
        try:
            return self._channel.send(letter_of(batch, self.settings.kind, self._now()))
        except SettingsError as error:
            return SendOutcome(kind="later", why=str(error), wait=_LONGEST)
        except Exception as error:  # noqa: BLE001 -- a bug with one letter must not end the channel
            _log.exception("notify: %s: unforeseen failure", self.name)
            return SendOutcome(kind="refused", why=f"unforeseen failure: {type(error).__name__}; see the log")

    def _note(self, outcome: SendOutcome) -> None:
        why = one_line(outcome.why, 300)
        if outcome.kind == "sent":
            if self._problem:
                _log.info("notify: %s: goes on", self.name)
            if why:
                _log.warning("notify: %s: %s", self.name, why)
            self._problem = ""
            return
        if outcome.kind == "refused":
            _log.error("notify: %s: a message was dropped: %s", self.name, why)
            return
        now = self._clock()
        if not self._problem or now >= self._logged + _LOG_AGAIN:
            self._logged = now
            _log.warning("notify: %s: waits: %s", self.name, why)
        self._problem = f"{self.name}: {why}"

    def _count_left_out(self) -> None:
        """Count what the queue has left out since the last look. Call it with the lock held."""
        folded, expired = self._queue.folded - self._folded, self._queue.expired - self._expired
        self._folded, self._expired = self._queue.folded, self._queue.expired
        if folded:
            self._count(self.name, "folded", folded)
        if expired:
            self._count(self.name, "expired", expired)

    def _wait(self) -> None:
        """Wait until something is due, something came, or the other side wants an answer."""
        with self._lock:
            seconds = min(_LONGEST, self._queue.due(self._clock()))
        poller = select.poll()
        poller.register(self._wake_read.fileno(), select.POLLIN)
        other = self._channel.fileno()
        if other >= 0:
            poller.register(other, select.POLLIN)
        ready = {fd for fd, _ in poller.poll(max(1.0, seconds * 1000))}
        if self._wake_read.fileno() in ready:
            with suppress(BlockingIOError):  # it is empty now
                while self._wake_read.recv(4096):
                    pass
        if other in ready:
            self._channel.tend()


__all__ = ["LAST", "ChannelSender", "SendResult"]
