"""Events for open pages: what they say, and which of them a reader has missed. Pure but for its lock.

Rules:

* An event is encoded once, when it is added, for all readers.
* A reader that was away gets what it missed. If that is no longer kept, it gets a `reset`: load the page again.
* Nobody gets an event of a site at which they may not look.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final, Literal, get_args

import attrs

from deploykit.web.viewer import Viewer

EventKind = Literal[
    "push",
    "build",
    "mirror",
    "deploy",
    "step",
    "log",
    "node",
    "lock",
    "access",
    "presence",
    "notice",
    "health",
    "reset",
]
#: What a reader can ask for; a `reset` comes to every reader.
TOPICS: Final[tuple[EventKind, ...]] = tuple(kind for kind in get_args(EventKind) if kind != "reset")
#: Events that are kept for readers who come back.
KEPT: Final = 10_000
#: Bytes of one event; a longer one is sent without its data: the page asks for the rest.
MAX_BLOCK: Final = 16 * 1024
#: Events in one piece of a replay: bounds the memory of a reader that was away.
PIECE: Final = 500


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
        known = {"time": self.time.isoformat(), "site": self.site, "correlation": self.correlation}
        block = self._block({**known, **self.data})
        return block if len(block) <= MAX_BLOCK else self._block({**known, "cut": True})

    def _block(self, body: Mapping[str, object]) -> bytes:
        # `default`: what cannot be JSON must not stop the thread that keeps the projection.
        return f"id: {self.number}\nevent: {self.kind}\ndata: {json.dumps(body, default=str)}\n\n".encode()


@attrs.frozen(kw_only=True, slots=True)
class EventFilter:
    """Which events a reader wants and may have. Readers with an equal filter share the bytes.

    Args:
        topics: kinds; empty: all.
        site: only events of this site, and those of the console's health; empty: all.
    """

    viewer: Viewer
    topics: frozenset[str] = frozenset()
    site: str = ""

    def takes(self, kind: EventKind, site: str) -> bool:
        """Return whether an event passes."""
        if self.topics and kind not in self.topics:
            return False
        if kind == "health":
            return bool(self.viewer.grants)
        if self.site and site != self.site:
            return False
        return self.viewer.sees(site) if site else self.viewer.sees_all


@attrs.frozen(kw_only=True, slots=True)
class EventBatch:
    """What follows an event, for one filter.

    Args:
        blocks: `text/event-stream`; empty where nothing passed the filter.
        last: number of the last event that was looked at: ask from here next.
        reset: what was missed is no longer kept; `blocks` is a `reset`.
        more: there is more already.
    """

    blocks: bytes
    last: int
    reset: bool = False
    more: bool = False


@attrs.frozen(kw_only=True, slots=True)
class _Kept:
    number: int
    kind: EventKind
    site: str
    block: bytes


class EventRing:
    """The last events, for readers that come back. Use it from any thread.

    Args:
        start: number of the first event; higher than any of an earlier process: milliseconds of the clock.
    """

    def __init__(self, start: int, *, kept: int = KEPT) -> None:
        self._lock = threading.Lock()
        self._start = self._next = start
        self._events: deque[_Kept] = deque(maxlen=kept)
        self._listeners: tuple[Callable[[], None], ...] = ()
        self._closed = False

    def add(
        self,
        kind: EventKind,
        time: datetime,
        *,
        site: str = "",
        correlation: str = "",
        data: Mapping[str, object] | None = None,
    ) -> LiveEvent:
        """Keep an event and return it; readers hear of it within milliseconds."""
        with self._lock:
            event = LiveEvent(
                number=self._next, kind=kind, time=time, site=site, correlation=correlation, data=data or {}
            )
            self._next += 1
            self._events.append(_Kept(number=event.number, kind=kind, site=site, block=event.encoded()))
            listeners = self._listeners
        for listener in listeners:
            listener()
        return event

    @property
    def newest(self) -> int:
        """The number of the last event; a page that was drawn just now missed nothing up to it."""
        with self._lock:
            return self._next - 1

    @property
    def closed(self) -> bool:
        """Whether no events will come any more."""
        return self._closed

    def after(self, number: int, wanted: EventFilter, *, most: int = PIECE) -> EventBatch:
        """Return what followed event `number`, at most `most` events of it."""
        with self._lock:
            newest = self._next - 1
            oldest = self._events[0].number if self._events else self._next
            if not oldest - 1 <= number <= newest:
                return EventBatch(blocks=_reset(newest), last=newest, reset=True)
            missed = []
            for event in reversed(self._events):
                if event.number <= number:
                    break
                missed.append(event)
        piece = missed[::-1][:most]
        last = piece[-1].number if piece else newest
        blocks = b"".join(event.block for event in piece if wanted.takes(event.kind, event.site))
        return EventBatch(blocks=blocks, last=last, more=last < newest)

    def subscribe(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` after each event, and once when the ring is closed; return what ends that.

        It is called in the thread that adds the event, and must neither block nor raise. Readers in an event loop
        use `live.broadcast`, which needs one listener for all of them.
        """
        with self._lock:
            self._listeners = (*self._listeners, listener)

        def end() -> None:
            with self._lock:
                self._listeners = tuple(each for each in self._listeners if each is not listener)

        return end

    def close(self) -> None:
        """End the streams of all readers: the console ends. They come back, to the next process."""
        self._closed = True
        with self._lock:
            listeners = self._listeners
        for listener in listeners:
            listener()


def _reset(number: int) -> bytes:
    return f"id: {number}\nevent: reset\ndata: {{}}\n\n".encode()


__all__ = ["KEPT", "PIECE", "TOPICS", "EventBatch", "EventFilter", "EventKind", "EventRing", "LiveEvent"]
