"""A node describes itself unasked: when it is connected, when something has changed, and every few minutes.

Rules:

* All of it is spread: a thousand nodes that lost the same broker do not speak in the same instant.
* A change is what readers would see: a description equal to the last one is not sent for a change.
* A deploy that ended is looked at at once; everything else, files of facts too, every `LOOK` seconds.
* What could not be sent is sent when there is a connection again.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Final

from deploykit.bus import Bus
from deploykit.bus.events import BusState
from deploykit.daemons.agent.description import NodeDescriber
from deploykit.daemons.agent.factsources import FactSources
from deploykit.daemons.agent.queries import publish_description
from deploykit.errors import BusError
from deploykit.messages import NodeDescribed
from deploykit.messages.topics import TopicMap
from deploykit.settings.facts import FactsSettings
from deploykit.trust.signature import BodySigner

_log = logging.getLogger(__name__)

#: Seconds between two looks at what may have changed.
LOOK: Final = 30.0
#: A description for a connection or a change comes within so many seconds.
SPREAD: Final = 1.0
#: Part of `every` by which the periodic ones are spread, in both directions.
TENTH: Final = 0.1


class DescriptionTimes:
    """Decides when a description is due. Pure: `now` is an argument, in monotonic seconds. Not for several threads.

    Args:
        every: seconds between two periodic descriptions.
        draw: returns a random number between two others.
    """

    def __init__(self, every: float, draw: Callable[[float, float], float] = random.uniform) -> None:
        self._every = every
        self._draw = draw
        self._due = float("inf")
        self._look = float("inf")

    def connected(self, now: float) -> None:
        """Note a new connection."""
        self._due = min(self._due, now + self._draw(0.0, SPREAD))

    def changed(self, now: float) -> None:
        """Note that something may have changed."""
        self._look = min(self._look, now + self._draw(0.0, SPREAD))

    def is_due(self, now: float) -> bool:
        """Return whether a description is due, changed or not."""
        return now >= self._due

    def may_have_changed(self, now: float) -> bool:
        """Return whether it is time to look for a change."""
        return now >= self._look

    def looked(self, now: float) -> None:
        """Note that nothing has changed."""
        self._look = now + LOOK

    def sent(self, now: float) -> None:
        """Note that a description was sent."""
        self._due = now + self._every * self._draw(1 - TENTH, 1 + TENTH)
        self._look = now + LOOK

    def not_sent(self) -> None:
        """Note that there is no connection; the next one makes a description due."""
        self._due = self._look = float("inf")

    def wait(self, now: float) -> float:
        """Return the seconds until something is due."""
        return min(LOOK, max(0.0, min(self._due, self._look) - now))


class SelfDescription:
    """Describes one node unasked. Use it from any thread.

    Args:
        settings: the `[facts]` table.
        topics: where descriptions go.
        describer: knows the node.
        sources: the facts, which are refreshed here.
        key: the node's own; without one nothing is sent.
    """

    def __init__(
        self,
        settings: FactsSettings,
        topics: TopicMap,
        describer: NodeDescriber,
        sources: FactSources,
        key: BodySigner | None,
    ) -> None:
        self._topics = topics
        self._describer = describer
        self._sources = sources
        self._key = key
        self._times = DescriptionTimes(settings.every)
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._marks: tuple[object, ...] = ()
        self._sent: object = None

    def on_connected(self) -> None:
        """Describe the node soon: the bus has a new connection."""
        with self._lock:
            self._times.connected(time.monotonic())
        self._wake.set()

    def on_change(self) -> None:
        """Look soon whether the node has changed: a deploy has ended."""
        with self._lock:
            self._times.changed(time.monotonic())
        self._wake.set()

    def wake(self) -> None:
        """Have `run` look at `stop`."""
        self._wake.set()

    def run(self, bus: Bus, stop: threading.Event) -> None:
        """Describe the node when that is due, until `stop` is set and `wake` was called."""
        self.on_connected()  # a shared bus may be connected already, and emits no event of it
        while self._key is not None and not stop.is_set():
            self._sources.refresh()
            self._step(bus, self._key)
            with self._lock:
                pause = self._times.wait(time.monotonic())
            self._wake.wait(pause)
            self._wake.clear()

    def _step(self, bus: Bus, key: BodySigner) -> None:
        now = time.monotonic()
        with self._lock:
            due, look = self._times.is_due(now), self._times.may_have_changed(now)
        if not (due or look):
            return
        if bus.state is not BusState.CONNECTED:
            with self._lock:
                self._times.not_sent()
            return
        try:
            sent = self._describe(bus, key, always=due)
        except BusError:  # the connection was lost just now, or the window is full: the next look tries again
            sent = False
            self._sent, self._marks = None, ()
        except Exception:  # noqa: BLE001 -- what cannot be described must not end the agent
            _log.exception("this node cannot describe itself")
            sent = True
        with self._lock:
            if sent:
                self._times.sent(time.monotonic())
            else:
                self._times.looked(time.monotonic())

    def _describe(self, bus: Bus, key: BodySigner, *, always: bool) -> bool:
        """Send a description if it is due or differs from the last one; return whether it was sent."""
        marks = self._describer.marks()
        if marks == self._marks and not always:
            return False
        described = self._describer.unasked()
        content = _content(described)
        self._marks = marks
        if content == self._sent and not always:
            return False
        publish_description(bus, self._topics, key, described)
        self._sent = content
        return True


def _content(described: NodeDescribed) -> object:
    """Return what a reader would see change."""
    return described.facts, described.classes, described.sites, described.twins, described.cut
