"""Agents keep each other's knowledge of locks up to date: one asks what it missed, one that knows publishes it again.

    statement heard -> `LockSync.handle` -> an older one: the newer again, after a random delay
    LocksWanted     -> `LockSync.asked`  -> the same for each site of which the asker shows another serial
    connected       -> after a long absence LocksWanted, signed as this node

Rules:

* Whoever sends an older statement than the one that decides, hears the newer one again. So does everybody else.
* A node asks when it has never asked about a site, or was not connected for more than an hour.
* Only a question that is signed as a node is answered; of each key one a second, and each copy once.
* Where the broker does not let this node publish, it logs that once and publishes nothing from then on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from datetime import datetime, timedelta
from typing import Final

from deploykit.bus import Bus, Verdict
from deploykit.bus.events import BusState
from deploykit.daemons.agent.locks import LockKeeper
from deploykit.daemons.agent.locktimes import LockTimes
from deploykit.daemons.service.throttle import KeyedThrottle
from deploykit.errors import BusError, PublishRefused
from deploykit.messages import LocksWanted, utc_now
from deploykit.messages.topics import TopicMap
from deploykit.names import NodeName
from deploykit.trust.check import Verified
from deploykit.trust.signature import BodySigner, sign
from deploykit.trust.statements import frame_again
from deploykit.wire import Frame, encode

_log = logging.getLogger(__name__)

#: After so long without a connection a node asks what it missed.
AWAY: Final = timedelta(hours=1)
#: Seconds between two notes of when the node was connected.
_NOTE_EVERY: Final = 600.0
#: A question is answered once, and not when it is older: its age is judged by clocks that may be an hour wrong.
_QUESTION_AGE: Final = timedelta(hours=2)
#: A question spares others theirs only while it is as young as this by their clocks: its answers are yet to come.
_SPARES: Final = timedelta(seconds=5)
#: Seconds within which the broker must confirm what is published.
_PUBLISH_WITHIN: Final = 10.0
#: Most sites in a question.
_MOST_SITES: Final = 1000


class LockSync:
    """Asks other agents about the locks of this node's sites, and answers them. Use it from any thread.

    Args:
        node: who we are.
        topics: where statements and questions go.
        key: the node's own; without one it asks nothing: nobody would answer.
        keeper: knows the statements.
        times: decides when to ask and to answer.
        now: the wall clock, aware UTC.
    """

    def __init__(
        self,
        node: NodeName,
        topics: TopicMap,
        key: BodySigner | None,
        keeper: LockKeeper,
        *,
        times: LockTimes | None = None,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._node = node
        self._topics = topics
        self._key = key
        self._keeper = keeper
        self._times = times or LockTimes()
        self._now = now
        self._seen_connected: float | None = None
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._askers = KeyedThrottle(1.0)
        self._questions = KeyedThrottle(_QUESTION_AGE.total_seconds())
        self._forbidden = False

    # -- what is heard -------------------------------------------------------------------------------------------------

    def handle(self, stated: Verified) -> Verdict:
        """Take a genuine statement; where it is an older one, the newer is published again later."""
        verdict, noted = self._keeper.take(stated)
        if noted is not None:
            site = noted.statement.site
            newest = self._keeper.newest(site)
            with self._lock:
                if noted.newer is not None:
                    self._times.owe(site, time.monotonic())
                elif newest is not None and newest.rank == noted.statement.rank:
                    self._times.on_the_wire(site, time.monotonic())
            self._wake.set()
        return verdict

    def asked(self, question: Verified) -> None:
        """Take a genuine message on the topic of questions: what a node lacks is published later."""
        wanted = question.message
        if not isinstance(wanted, LocksWanted) or not self._is_fresh(wanted, question):
            return
        serials = self._keeper.serials
        now = time.monotonic()
        # A copy of an older question is answered by nobody, for all have answered it before.
        is_new = wanted.node != self._node and abs(self._now() - wanted.time) <= _SPARES
        with self._lock:
            spared = is_new and self._times.another_asked(question.key, wanted.known, serials, now)
            for site, serial in serials.items():
                if serial and wanted.known.get(site, serial) != serial:
                    self._times.owe(site, now)
        if spared:  # the answers reach this node too
            self._keeper.note_asked()
            self._note_connected(now)
        self._wake.set()

    def _is_fresh(self, wanted: LocksWanted, question: Verified) -> bool:
        if not question.policy.may_speak_for(question.signer, wanted.node, wanted):
            return False
        now = time.monotonic()
        return (
            abs(self._now() - wanted.time) <= _QUESTION_AGE
            and self._askers.due(question.key, now)
            and self._questions.due(question.digest, now)
        )

    def on_connected(self) -> None:
        """Ask soon what was missed, where this node was away for long or is new: the bus has a new connection."""
        now, before = time.monotonic(), self._keeper.connected
        away = before is None or abs(self._now() - before) > AWAY
        away = away or (self._seen_connected is not None and now - self._seen_connected > AWAY.total_seconds())
        if self._keeper.sites and (away or not self._keeper.asked_about_all):
            self._seen_connected = now  # noted for the next start when it has asked
            with self._lock:
                self._times.ask_soon(now)
        else:
            self._note_connected(now)
        self._wake.set()

    # -- what it does of itself ----------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Have `run` look at `stop`."""
        self._wake.set()

    def run(self, bus: Bus, stop: threading.Event) -> None:
        """Ask and answer when that is due, until `stop` is set and `wake` was called."""
        if bus.state is BusState.CONNECTED:  # a shared bus emits no event of that
            self.on_connected()
        while not stop.is_set():
            pause = _NOTE_EVERY
            if bus.state is BusState.CONNECTED:
                self._step(bus)
                with self._lock:
                    pause = min(pause, self._times.wait(time.monotonic()))
            self._wake.wait(pause)
            self._wake.clear()

    def _step(self, bus: Bus) -> None:
        now = time.monotonic()
        if self._seen_connected is None or now - self._seen_connected >= _NOTE_EVERY:
            self._note_connected(now)
        with self._lock:
            due, ask = self._times.due(now), self._times.ask_is_due(now)
        for site in due:
            newest = self._keeper.newest(site)
            if newest is not None:
                _log.info("published again, for somebody lacks it: %s", newest.message.summary)
                self._publish(bus, self._topics.deploy, frame_again(newest.signed), persistent=True)
        if ask and self._key is not None:
            self._ask(bus, self._key)

    def _ask(self, bus: Bus, key: BodySigner) -> None:
        known: dict[str, object] = dict(list(self._keeper.serials.items())[:_MOST_SITES])
        wanted = LocksWanted(source=f"agent/{self._node}", time=self._now(), node=self._node, known=known)
        if self._publish(bus, self._topics.node, sign(encode(wanted), key), persistent=False):
            _log.info("%s", wanted.summary)
            self._keeper.note_asked()
            self._note_connected(time.monotonic())

    def _publish(self, bus: Bus, topic: str, frame: Frame, *, persistent: bool) -> bool:
        if self._forbidden:
            return False
        try:
            sent = bus.publish_nowait(topic, frame, timeout=_PUBLISH_WITHIN, persistent=persistent)
        except BusError:  # the connection was lost just now: others answer, and the next absence asks again
            return False
        sent.add_done_callback(lambda future: self._sent(topic, future))
        return True

    def _sent(self, topic: str, future: Future[None]) -> None:
        error = None if future.cancelled() else future.exception()
        if isinstance(error, PublishRefused) and not self._forbidden:
            self._forbidden = True
            _log.warning("this node may not write to %s: it tells nobody what they missed of locks: %s", topic, error)

    def _note_connected(self, now: float) -> None:
        self._seen_connected = now
        self._keeper.note_connected()
