"""The topics of single nodes, for whoever listens to everything: commands go to `<topics.deploy>.node.<NAME>`.

Where the broker has a name for all topics below one, that is one subscription. Elsewhere each node's topic is
subscribed to when the node is first heard, so that a command before that is missed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from deploykit.bus import Bus
from deploykit.bus.inspection import connection_of
from deploykit.errors import BusError
from deploykit.messages import Message
from deploykit.messages.topics import TopicMap

_log = logging.getLogger(__name__)

#: Most nodes that are subscribed to one by one.
MOST_NODES: Final = 1000


def topic_of_all(bus: Bus, topics: TopicMap) -> str | None:
    """Return one topic for the commands to every node; None where there is no connection, or the broker has none."""
    connection = connection_of(bus)
    below = connection.dialect.below if connection is not None else ""
    return topics.deploy_to(below) if below else None


class NodeTopics:
    """Subscribes to the nodes' own topics. Use it from any thread.

    Args:
        bus: started.
        topics: the names.
        subscribe: subscribes to one topic.
    """

    def __init__(self, bus: Bus, topics: TopicMap, subscribe: Callable[[str], object]) -> None:
        self._bus = bus
        self._topics = topics
        self._subscribe = subscribe
        self._lock = threading.Lock()
        self._known: set[str] = set()
        self._all = False

    def look(self) -> None:
        """Subscribe to all of them at once, where the broker can, and has not been asked yet. Call it now and then."""
        if self._all:
            return
        topic = topic_of_all(self._bus, self._topics)
        if topic is not None and self._first(topic):
            self._all = True
            self._try(topic)

    def heard(self, message: Message | None) -> None:
        """Note which node a message is of, and subscribe to its topic where all at once is not possible."""
        node = getattr(message, "node", None)
        if self._all or not isinstance(node, str) or connection_of(self._bus) is None:
            return
        if topic_of_all(self._bus, self._topics) is not None:
            self.look()
        elif self._first(topic := self._topics.deploy_to(node)):
            self._try(topic)

    def _first(self, topic: str) -> bool:
        """Return whether a topic is to be subscribed to, once."""
        with self._lock:
            if topic in self._known or len(self._known) >= MOST_NODES:
                return False
            self._known.add(topic)
            return True

    def _try(self, topic: str) -> None:
        try:
            self._subscribe(topic)
        except BusError as error:
            _log.warning("no messages from %s: %s", topic, error)
