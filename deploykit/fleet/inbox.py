"""What a coordinator hears: reports, progress, and what happens to the connection; kept until it looks.

Rules:

* Reports wait in a bounded queue: a flood makes the broker wait, and costs no memory.
* Progress is for people: of too much, the oldest is left out, and none of it delays a report.
"""

from __future__ import annotations

import contextlib
import queue
from collections import deque
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Final, Self

from deploykit.bus import Ack, Bus, Delivery, Verdict
from deploykit.bus.events import Connected, ConnectionLost, Event
from deploykit.errors import ConnectError
from deploykit.messages.topics import TopicMap

#: Most reports that wait to be judged.
_MOST_WAITING: Final = 2000
#: Most progress events that wait to be shown.
_MOST_SHOWN: Final = 1000


class RolloutInbox:
    """Hears the bus while its `with` block runs.

    Args:
        bus: started.
        topics: where reports and progress come from.
        concerns: returns whether a delivery on the report topic is worth keeping; called on the bus's threads.
        timeout: seconds to wait for the broker.

    Raises:
        ConnectError: (on entering) the broker did not answer.
    """

    def __init__(self, bus: Bus, topics: TopicMap, concerns: Callable[[Delivery], bool], timeout: float) -> None:
        self._bus = bus
        self._topics = topics
        self._concerns = concerns
        self._timeout = timeout
        self._arrived: queue.Queue[Delivery | Event] = queue.Queue(_MOST_WAITING)
        self._progress: deque[Delivery] = deque(maxlen=_MOST_SHOWN)
        self._closing = False
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.callback(setattr, self, "_closing", True)
            reports = self._bus.subscribe(self._topics.report, self._keep_report)
            stack.callback(reports.unsubscribe)
            progress = self._bus.subscribe(self._topics.progress, self._keep_progress)  # nothing depends on it
            stack.callback(progress.unsubscribe)
            if not reports.wait_active(self._timeout):
                raise ConnectError("no broker reachable in time: nothing was sent", "try again")
            stack.callback(self._bus.add_listener(self._keep_event))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stack.close()

    def arrivals(self, wait: float) -> Iterator[Delivery | Event]:
        """Yield what comes within `wait` seconds, and what is there already; a bounded number.

        An event is `Connected` or `ConnectionLost`.
        """
        with contextlib.suppress(queue.Empty):
            yield self._arrived.get(timeout=wait)
            for _ in range(_MOST_WAITING):
                yield self._arrived.get_nowait()

    def progress(self) -> Iterator[Delivery]:
        """Yield the progress that waits to be shown, up to when a report comes.

        What comes meanwhile waits for the next call: nodes can send it quicker than signatures can be looked at.
        """
        for _ in range(len(self._progress)):
            if not self._arrived.empty():
                return
            yield self._progress.popleft()

    def _keep_report(self, delivery: Delivery) -> Verdict:
        if self._concerns(delivery):
            while not self._closing:
                with contextlib.suppress(queue.Full):
                    self._arrived.put(delivery, timeout=1.0)
                    break
        return Ack()

    def _keep_progress(self, delivery: Delivery) -> Verdict:
        self._progress.append(delivery)
        return Ack()

    def _keep_event(self, event: Event) -> None:
        if isinstance(event, Connected | ConnectionLost):
            with contextlib.suppress(queue.Full):  # many reports wait: there is a connection
                self._arrived.put_nowait(event)


__all__ = ["RolloutInbox"]
