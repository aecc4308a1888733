"""Events for open pages: what they say, and which of them a reader has missed. Pure but for its lock."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Mapping
from datetime import datetime
from typing import Final, Literal

import attrs

EventKind = Literal["push", "build", "mirror", "deploy", "step", "log", "node", "lock", "notice", "health", "reset"]
#: Events that are kept for readers who come back.
KEPT: Final = 10_000


@attrs.frozen(kw_only=True, slots=True)
class LiveEvent:
    """Something changed. `data` is small: what a page needs to know where to look, and the words of one line.

    Args:
        number: counts up, over restarts too.
        site: whose viewers may hear of it; empty: those who see all sites.
    """

    number: int
    kind: EventKind
    time: datetime
    site: str = ""
    correlation: str = ""
    data: Mapping[str, object] = attrs.field(factory=dict, eq=dict, hash=False)

    def encoded(self) -> bytes:
        """Return it as a block of `text/event-stream`."""
        body = {"time": self.time.isoformat(), "site": self.site, "correlation": self.correlation, **self.data}
        return f"id: {self.number}\nevent: {self.kind}\ndata: {json.dumps(body)}\n\n".encode()


class EventRing:
    """The last events, for readers that come back. Use it from any thread.

    Args:
        start: number of the first event; higher than any of an earlier process: milliseconds of the clock.
    """

    def __init__(self, start: int, *, kept: int = KEPT) -> None:
        self._lock = threading.Lock()
        self._next = start
        self._events: deque[LiveEvent] = deque(maxlen=kept)

    def add(
        self,
        kind: EventKind,
        time: datetime,
        *,
        site: str = "",
        correlation: str = "",
        data: Mapping[str, object] | None = None,
    ) -> LiveEvent:
        """Keep an event and return it."""
        with self._lock:
            event = LiveEvent(
                number=self._next, kind=kind, time=time, site=site, correlation=correlation, data=data or {}
            )
            self._next += 1
            self._events.append(event)
        return event
