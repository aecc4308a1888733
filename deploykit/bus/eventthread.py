"""Hands events to the embedding program on a thread of their own, in order, and never lets it slow the bus."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import Final

from deploykit.bus.events import Counters, Event, Published, PublishFailed
from deploykit.bus.unconfirmed import PendingPublish
from deploykit.errors import BusError

logger = logging.getLogger(__name__)

#: Events that may wait for a slow callback; more are dropped and counted.
_BACKLOG: Final = 10_000


class EventDispatcher:
    """Calls `on_event` for each event. Without a callback it costs nothing.

    Args:
        on_event: the embedding program's callback; what it raises is logged.
        counters: where dropped events are counted.
    """

    def __init__(self, on_event: Callable[[Event], object] | None, counters: Counters) -> None:
        self.wanted = on_event is not None
        self._on_event = on_event or _ignore
        self._counters = counters
        self._queue: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread, if there is a callback."""
        if self.wanted:
            self._thread = threading.Thread(target=self._run, name="deploykit-bus-events", daemon=True)
            self._thread.start()

    def emit(self, event: Event) -> None:
        """Queue an event. Any thread."""
        if not self.wanted:
            return
        if self._queue.qsize() >= _BACKLOG:
            self._counters.events_dropped += 1
            return
        self._queue.put(event)

    def emit_settled(self, message: PendingPublish, error: BusError | None) -> None:
        """Queue what became of a message that was published."""
        if error is None:
            self.emit(Published(destination=message.destination, id=message.id))
        else:
            self.emit(PublishFailed(destination=message.destination, id=message.id, problem=str(error)))

    def stop(self, timeout: float) -> None:
        """Let the thread end after the events that wait; leave a callback that hangs behind."""
        thread = self._thread
        if thread is not None and thread.is_alive():
            self._queue.put(None)
            if thread is not threading.current_thread():
                thread.join(timeout)

    def _run(self) -> None:
        while (event := self._queue.get()) is not None:
            try:
                self._on_event(event)
            except Exception:
                logger.exception("on_event failed for %s", type(event).__name__)


def _ignore(_: Event) -> None:
    """Ignore an event."""
