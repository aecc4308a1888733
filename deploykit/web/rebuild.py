"""Ask all nodes what they hold: at the start, after each reconnection, when something was missed, and now and then.

Rules:

* The answers come through the feed, as every description of a node does. Asking shows who is silent.
* Several reasons to ask that come together make one question.
* A question that fails because the connection was lost is asked again soon; one that is not allowed, at the usual time.
* Nodes that do not answer may be late, as after the end of a broker: they are asked again after 5 s, 10 s, 20 s …
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection
from datetime import datetime
from typing import Final, Protocol

from deploykit.bus import Bus
from deploykit.bus.events import BusState
from deploykit.errors import BusError, DeploykitError, ProjectionError
from deploykit.fleet.selection import Selection
from deploykit.messages import NodeDetail, utc_now
from deploykit.names import NodeName
from deploykit.operations.nodes import FoundNodes, find_nodes
from deploykit.settings.node import Settings
from deploykit.web.feedhealth import FeedHealth
from deploykit.web.projection.activityqueries import LISTED_REFS

_log = logging.getLogger(__name__)

DETAILS: Final[tuple[NodeDetail, ...]] = ("facts", "sites", "refs", "drift", "history", "access")
#: Operations of each site, and refs of each repository, that are asked for; a node leaves out what is too much.
HISTORY: Final = 20
REFS: Final = LISTED_REFS
#: Seconds after which a question that failed is asked again; between two looks for a connection.
_AGAIN: Final = 5.0
#: Seconds after which all are asked again where a node answered for the first time: it may have just begun to clone.
_NEWCOMERS: Final = 20.0
_LOOK: Final = 0.25

#: Asks all nodes, and returns those that answered.
NodesAsker = Callable[[Settings, Bus], FoundNodes]


class AnsweredKeeper(Protocol):
    """What notes who is silent: `projection.store.Store`."""

    def answered(self, nodes: Collection[NodeName], asked_at: datetime) -> int:
        """Note which nodes answered a question to all: those that were not heard since are silent.

        Returns:
            How many did not answer.
        """
        ...


def ask_everybody(settings: Settings, bus: Bus) -> FoundNodes:
    """Ask all nodes for all that pages show.

    Raises:
        DeploykitError: as `find_nodes`.
    """
    everybody = Selection(everybody=True)
    return find_nodes(settings, bus, everybody, details=DETAILS, history_limit=HISTORY, refs_limit=REFS)


class NodesRebuilder:
    """Asks all nodes, in a thread of its own.

    Args:
        settings: of this machine; its key signs the questions.
        bus: started.
        store: notes who is silent.
        health: hears how it goes.
        ask: asks.
        now: the wall clock, aware UTC.
    """

    def __init__(
        self,
        settings: Settings,
        bus: Bus,
        store: AnsweredKeeper,
        health: FeedHealth,
        *,
        ask: NodesAsker = ask_everybody,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._settings = settings
        self._bus = bus
        self._store = store
        self._health = health
        self._ask = ask
        self._now = now
        self._wanted = threading.Event()
        self._again = _AGAIN
        self._due = time.monotonic()
        self._known: frozenset[NodeName] = frozenset()

    def soon(self, why: str) -> None:
        """Ask as soon as there is a connection."""
        _log.info("all nodes are asked what they hold, once a broker is connected: %s", why)
        self._again = _AGAIN
        self._wanted.set()

    def end(self) -> None:
        """Wake the thread, once the event that ends it is set."""
        self._wanted.set()

    def run(self, ending: threading.Event) -> None:
        """Ask until the event is set."""
        while not ending.is_set():
            self._wanted.wait(max(0.0, min(self._due - time.monotonic(), 60.0)))
            if not ending.is_set() and (self._wanted.is_set() or time.monotonic() >= self._due):
                if self._bus.state is BusState.CONNECTED:
                    self.step()
                else:
                    ending.wait(_LOOK)

    def step(self) -> None:
        """Ask once, and note who answered."""
        self._wanted.clear()
        at = self._now()
        self._due = time.monotonic() + self._settings.web.ask_every
        try:
            found = self._ask(self._settings, self._bus)
            answered = frozenset(each.node for each in found.nodes)
            missing = self._store.answered(answered, at)
            if answered - self._known:
                self._due = min(self._due, time.monotonic() + _NEWCOMERS)
            self._known |= answered
        except (BusError, ProjectionError) as error:
            _log.info("the question to all nodes failed, and is asked again: %s", error)
            self._due = time.monotonic() + _AGAIN
        except DeploykitError as error:
            if str(error) != self._health.cannot_ask:
                _log.warning("cannot ask the nodes what they hold: %s", error)
            self._health.not_asked(str(error))
        else:
            self._health.asked(at, found.answered)
            if missing and self._again < self._settings.web.ask_every:
                self._due = min(self._due, time.monotonic() + self._again)
                self._again *= 2


__all__ = ["AnsweredKeeper", "NodesAsker", "NodesRebuilder", "ask_everybody"]
