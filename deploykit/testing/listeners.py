"""The listeners of a `FakeBus`. They are called in the thread of the test, which needs to wait for nothing."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from typing import Final

from deploykit.bus.events import Closed, Connected, ConnectionLost, Event

logger = logging.getLogger(__name__)

#: The broker of every fake bus.
BROKER: Final = "stomp://fake"


class FakeListeners:
    """Who hears of the events of a fake bus, and which of its events there are. It begins connected."""

    def __init__(self) -> None:
        self._listeners: dict[int, Callable[[Event], object]] = {}
        self._numbers = itertools.count(1)
        self._epoch = 1
        self._state: Event = _connected(1)

    def add(self, listener: Callable[[Event], object]) -> Callable[[], None]:
        """Add a listener, which hears of the connection first if there is one; return what removes it."""
        number = next(self._numbers)
        self._listeners[number] = listener
        if isinstance(self._state, Connected):
            _call(listener, self._state)

        def remove() -> None:
            self._listeners.pop(number, None)

        return remove

    def emit(self, event: Event) -> None:
        """Hand an event to each listener, in the order in which they were added; what one raises is logged."""
        for number, listener in tuple(self._listeners.items()):
            if number in self._listeners:
                _call(listener, event)

    def connected(self) -> None:
        """Emit `Connected`, unless it is so."""
        if not isinstance(self._state, Connected):
            self._epoch += 1
            self._turn(_connected(self._epoch))

    def lost(self, reason: str) -> None:
        """Emit `ConnectionLost`, if there was a connection."""
        if isinstance(self._state, Connected):
            self._turn(ConnectionLost(broker=BROKER, reason=reason, epoch=self._epoch))

    def closed(self) -> None:
        """Emit `Closed`, once."""
        if not isinstance(self._state, Closed):
            self._turn(Closed())

    def _turn(self, event: Event) -> None:
        self._state = event
        self.emit(event)


def _call(listener: Callable[[Event], object], event: Event) -> None:
    try:
        listener(event)
    except Exception:  # logged, as the bus does
        logger.exception("a listener failed for %s: %r", type(event).__name__, listener)


def _connected(epoch: int) -> Connected:
    return Connected(broker=BROKER, server="FakeBus", version="1.2", dialect="generic", epoch=epoch, beats="off")
