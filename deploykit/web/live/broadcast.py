"""The readers of one event loop: woken together, served the same bytes, cut when they fall behind.

Rules:

* One wake-up for all readers per tick, however many events came.
* What readers of an equal filter get is joined once.
* A reader that is `BEHIND` events late is cut; it comes back and gets what it missed.
* A stream ends after some minutes: whoever lost the right to look, or logged out, does not come back.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Final

import attrs

from deploykit.errors import WebError
from deploykit.web.live.events import EventBatch, EventFilter, EventRing

#: Seconds from an event to the wake-up.
TICK: Final = 0.025
#: Seconds between two looks at who is late, silent or old.
SWEEP: Final = 1.0
#: Seconds without a byte after which a reader gets a comment: proxies close silent connections.
SILENCE: Final = 15.0
#: Seconds that a stream lasts, give or take a fifth.
LASTS: Final = 300.0
#: Events that a reader may be late.
BEHIND: Final = 1000
#: Batches kept for the next reader that asks for the same: bounds the memory when many come back at once.
MOST_BATCHES: Final = 32
#: Seconds from the end of the console to the cut of streams whose browser does not read.
GRACE: Final = 0.2


class TooManyStreams(WebError):
    """The console serves as many event streams as it may. Close some tabs; the page goes on without live changes."""


@attrs.frozen(kw_only=True, slots=True)
class StreamLimits:
    """How streams are kept in bounds; the defaults are the module's.

    Args:
        readers, of_one: streams at a time, of all viewers and of one; fewer than the connections that a server takes,
            so that pages still come.
    """

    tick: float = TICK
    sweep: float = SWEEP
    silence: float = SILENCE
    lasts: float = LASTS
    behind: int = BEHIND
    readers: int = 300
    of_one: int = 200


class EventReader:
    """One open stream. Only for the event loop of its broadcast.

    Args:
        cut: ends the stream at once, even while a send waits for the browser.
    """

    def __init__(self, broadcast: Broadcast, wanted: EventFilter, after: int, *, cut: Callable[[], None]) -> None:
        self._broadcast = broadcast
        self._loop = asyncio.get_running_loop()
        self._at = after
        self._behind_from = broadcast.ring.newest
        self._last_sent = self._loop.time()
        self._ends = self._last_sent + broadcast.limits.lasts * random.uniform(0.8, 1.2)  # noqa: S311 - spreads load
        self._wake: asyncio.Future[None] | None = None
        self._closed = False
        self.wanted = wanted
        self.cut = cut

    async def next(self) -> bytes:
        """Return the next bytes of the stream; empty where it ends here."""
        while not (self._closed or self._broadcast.ring.closed or self._loop.time() >= self._ends):
            batch = self._broadcast.batch(self._at, self.wanted)
            self._at = batch.last
            quiet = self._loop.time() - self._last_sent >= self._broadcast.limits.silence
            if batch.blocks or quiet:
                self._last_sent = self._loop.time()
                # The number in a comment: a reader whose site is quiet misses nothing when it comes back.
                return batch.blocks or f": \nid: {self._at}\n\n".encode()
            if not batch.more:
                self._wake = self._loop.create_future()
                await self._wake
        return b""

    def wake(self) -> None:
        """Let `next` look again."""
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def close(self) -> None:
        """End the stream: the browser is gone."""
        self._closed = True
        self.wake()

    def swept(self, now: float, newest: int) -> None:
        """Look at the clock: wake the reader where a comment or its end is due, cut it where it is late."""
        if newest - max(self._at, self._behind_from) > self._broadcast.limits.behind:
            self.cut()
        elif now >= self._ends + self._broadcast.limits.silence:
            self.cut()  # it should have ended long ago: its browser does not read
        elif now >= self._ends or now - self._last_sent >= self._broadcast.limits.silence:
            self.wake()


class Broadcast:
    """All readers of one event loop."""

    def __init__(self, ring: EventRing, limits: StreamLimits | None = None) -> None:
        self.ring = ring
        self.limits = limits or StreamLimits()
        self.loop = asyncio.get_running_loop()
        self._readers: set[EventReader] = set()
        self._batches: dict[tuple[int, EventFilter], EventBatch] = {}
        self._armed = False
        self._unsubscribe: Callable[[], None] | None = None
        self._sweeper: asyncio.TimerHandle | None = None

    def belongs_here(self) -> bool:
        """Return whether the running event loop is its own."""
        return self.loop is asyncio.get_running_loop()

    def __len__(self) -> int:
        return len(self._readers)

    def open(self, wanted: EventFilter, after: int | None, *, cut: Callable[[], None]) -> EventReader:
        """Return a new reader; `close_reader` ends it.

        Args:
            after: number of the last event that the browser has; None: only what comes now.
            cut: ends its stream at once.

        Raises:
            TooManyStreams: there are as many as there may be.
        """
        of_one = sum(reader.wanted.viewer.name == wanted.viewer.name for reader in self._readers)
        if len(self._readers) >= self.limits.readers or of_one >= self.limits.of_one:
            raise TooManyStreams("too many event streams are open", "close some tabs, try again in a minute")
        if not self._readers:
            self._unsubscribe = self.ring.subscribe(self._notify)
            self._sweeper = self.loop.call_later(self.limits.sweep, self._sweep)
        reader = EventReader(self, wanted, self.ring.newest if after is None else after, cut=cut)
        self._readers.add(reader)
        return reader

    def close_reader(self, reader: EventReader) -> None:
        """Forget a reader."""
        reader.close()
        self._readers.discard(reader)
        if not self._readers:
            if self._unsubscribe is not None:
                self._unsubscribe()
            if self._sweeper is not None:
                self._sweeper.cancel()
            self._batches.clear()

    def batch(self, after: int, wanted: EventFilter) -> EventBatch:
        """Return what follows an event for a filter, made once per tick."""
        key = (after, wanted)
        found = self._batches.get(key)
        if found is None:
            if len(self._batches) >= MOST_BATCHES:
                self._batches.clear()
            found = self._batches[key] = self.ring.after(after, wanted)
        return found

    def _notify(self) -> None:
        """Plan a wake-up, from any thread."""
        if not self._armed:
            self._armed = True
            try:
                self.loop.call_soon_threadsafe(self._arm)
            except RuntimeError:  # the loop is closed: nobody reads any more
                return

    def _arm(self) -> None:
        if self.ring.closed:
            self._tick()
        else:
            self.loop.call_later(self.limits.tick, self._tick)

    def _tick(self) -> None:
        self._armed = False
        self._batches.clear()
        for reader in self._readers:
            reader.wake()
        if self.ring.closed:
            self.loop.call_later(GRACE, self._cut_all)

    def _cut_all(self) -> None:
        for reader in tuple(self._readers):
            reader.cut()

    def _sweep(self) -> None:
        self._sweeper = self.loop.call_later(self.limits.sweep, self._sweep)
        now, newest = self.loop.time(), self.ring.newest
        self._batches.clear()
        for reader in tuple(self._readers):
            reader.swept(now, newest)


__all__ = ["BEHIND", "SILENCE", "TICK", "Broadcast", "EventReader", "StreamLimits", "TooManyStreams"]
