"""Hands events to the embedding program on a thread of their own, in order, and never lets it slow the bus.

Rules:

* each listener gets the events that were emitted after it was added, in order;
* a listener that is added while there is a connection gets the `Connected` of it first;
* what one listener raises is logged, and the others get the event all the same;
* without a listener there is no thread, and no event is kept.
"""

from __future__ import annotations

import itertools
import logging
import queue
import threading
from collections.abc import Callable
from typing import Final

from deploykit.bus.events import Closed, Connected, ConnectionLost, Counters, Event, Published, PublishFailed
from deploykit.bus.unconfirmed import PendingPublish
from deploykit.errors import BusError

logger = logging.getLogger(__name__)

Listener = Callable[[Event], object]

#: Events that may wait for a slow listener; more are dropped and counted.
_BACKLOG: Final = 10_000


class EventDispatcher:
    """Calls the listeners for each event.

    Args:
        on_event: the first listener, if there is one from the beginning.
        counters: where dropped events are counted.
    """

    def __init__(self, on_event: Listener | None, counters: Counters) -> None:
        self._counters = counters
        self._numbers = itertools.count(1)
        self._listeners: dict[int, Listener] = {} if on_event is None else {0: on_event}
        self._connected: Connected | None = None
        #: Events, each with the numbers of the listeners that are to get it.
        self._queue: queue.SimpleQueue[tuple[Event, tuple[int, ...]] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._started = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread, now or with the first listener."""
        with self._lock:
            self._started = True
            self._start_thread()

    def add(self, listener: Listener) -> Callable[[], None]:
        """Add a listener; return what removes it. Any thread."""
        number = next(self._numbers)
        with self._lock:
            self._listeners[number] = listener
            self._start_thread()
            if self._connected is not None:
                self._queue.put((self._connected, (number,)))

        def remove() -> None:
            self._listeners.pop(number, None)  # without the lock: a forked child may call it

        return remove

    def emit(self, event: Event) -> None:
        """Queue an event for the listeners there are. Any thread."""
        about_connection = isinstance(event, Connected | ConnectionLost | Closed)
        if not self._listeners and not about_connection:
            return
        with self._lock:  # a listener that is being added gets this event after what it is told first
            if about_connection:
                self._connected = event if isinstance(event, Connected) else None
            listeners = tuple(self._listeners)
            if not listeners:
                return
            if self._queue.qsize() >= _BACKLOG:
                self._counters.events_dropped += 1
            else:
                self._queue.put((event, listeners))

    def emit_settled(self, message: PendingPublish, error: BusError | None) -> None:
        """Queue what became of a message that was published."""
        if not self._listeners:
            return
        if error is None:
            self.emit(Published(destination=message.destination, id=message.id))
        else:
            self.emit(PublishFailed(destination=message.destination, id=message.id, problem=str(error)))

    def stop(self, timeout: float) -> None:
        """Let the thread end after the events that wait; leave a listener that hangs behind."""
        with self._lock:
            self._started = False
            thread = self._thread
        if thread is not None and thread.is_alive():
            self._queue.put(None)
            if thread is not threading.current_thread():
                thread.join(timeout)

    def _start_thread(self) -> None:
        if self._started and self._listeners and self._thread is None:
            self._thread = threading.Thread(target=self._run, name="deploykit-bus-events", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            event, wanted = item
            for number in wanted:
                listener = self._listeners.get(number)
                if listener is None:
                    continue  # removed meanwhile
                try:
                    listener(event)
                except Exception:  # logged: a bug of one listener must not cost the others their events
                    logger.exception("a listener failed for %s: %r", type(event).__name__, listener)
