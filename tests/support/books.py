"""Books kept over a bus under fire: what was acknowledged must be received, and nothing handled twice to the end.

A `World` is one producer (an outbox, its relay, and direct publishing), one broker and one consumer with a store of
handled ids. Tests do things to it in any order; `settle` heals everything, waits, and compares the books.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager, suppress
from datetime import datetime
from functools import partial
from pathlib import Path

import attrs

from deploykit.bus import Bus, Delivery, Retry, Verdict
from deploykit.bus.events import Published
from deploykit.errors import BusError
from deploykit.ids import Claim, IdStore
from deploykit.outbox import Outbox, Outgoing
from deploykit.outbox.relay import Relay
from deploykit.settings import BusSettings
from deploykit.wire.frame import Frame
from tests.support.wait import wait_until


@attrs.frozen
class Control:
    """What a test may do to a broker; `declared` returns when what was subscribed is on its disk."""

    address: Callable[[], str]
    kill: Callable[[], object]
    start: Callable[[], object]
    running: Callable[[], bool]
    heal: Callable[[], object]
    declared: Callable[[], object] = lambda: None


class Diary:
    """A store of ids that remembers who asked what when, for the message of a failed test."""

    def __init__(self, store: IdStore) -> None:
        self._store = store
        self.entries: list[tuple[float, str, str, object]] = []

    def note(self, identity: str, what: object) -> None:
        self.entries.append((time.monotonic(), threading.current_thread().name, identity, what))

    def about(self, identity: str) -> list[str]:
        return [f"{at:.3f} {who} {what}" for at, who, about, what in self.entries if about == identity]

    def claim(self, key: str, id: str, digest: bytes, now: datetime) -> Claim:
        claim = self._store.claim(key, id, digest, now)
        self.note(id, (key, claim))
        return claim

    def done(self, key: str, id: str, reply: bytes, now: datetime) -> None:
        self._store.done(key, id, reply, now)
        self.note(id, (key, "done"))

    def locked(self, key: str, id: str, *, timeout: float = 0.0) -> AbstractContextManager[None]:
        return self._store.locked(key, id, timeout=timeout)


class World:
    """Producer, broker and consumer, with the books."""

    def __init__(self, control: Control, directory: Path, name: str, *, settings: BusSettings) -> None:
        self.control = control
        self.queue = f"/queue/{name}"
        self.topic = f"/topic/{name}"
        self.acknowledged: set[str] = set()
        self.attempts: Counter[str] = Counter()
        self.handled: Counter[str] = Counter()
        self._settings = settings
        self._name = name
        self._outbox = Outbox(directory / "spool", shared=False)
        self._ids = IdStore(directory / "ids.sqlite")
        self.diary = Diary(self._ids)
        self._numbers = itertools.count(1)
        self._books = threading.Lock()
        self._fail_next = 0
        self._direct: list[tuple[str, Future[None]]] = []
        self._start_consumer()
        self._start_relay()

    # -- doing things ------------------------------------------------------------------------------------------

    def send(self, count: int, *, to_topic: bool) -> None:
        """Put messages into the outbox: acknowledged as soon as the outbox has them."""
        destination = self.topic if to_topic else self.queue
        frames = [self._frame() for _ in range(count)]
        self._outbox.put_many([Outgoing(destination, frame) for frame in frames])
        self.acknowledged |= {frame.headers["deploykit-id"] for frame in frames}

    def publish(self, count: int, *, to_topic: bool) -> None:
        """Publish without the outbox: acknowledged when the broker's receipt came."""
        destination = self.topic if to_topic else self.queue
        for _ in range(count):
            frame = self._frame()
            with suppress(BusError):
                future = self._relay_bus.publish_nowait(destination, frame, timeout=30)
                future.add_done_callback(partial(self._ended, frame.headers["deploykit-id"]))
                self._direct.append((frame.headers["deploykit-id"], future))

    def fail_next(self, count: int) -> None:
        """Let the handler ask for another attempt so often."""
        self._fail_next = count

    def restart_relay(self) -> None:
        """End the relay and its bus in the middle of what they do, and begin anew."""
        self.diary.note("world", "relay restarts")
        self._stop_relay()
        self._start_relay()

    def restart_consumer(self) -> None:
        """End the consumer in the middle of what it does, and begin anew with the same store of ids."""
        self.diary.note("world", "consumer restarts")
        self._consumer.stop(0.2)
        self.diary.note("world", "consumer stopped")
        self._start_consumer()

    # -- the end -----------------------------------------------------------------------------------------------

    def settle(self, timeout: float) -> None:
        """Heal everything, wait until all is handled, and compare the books."""
        self.control.heal()
        if not self.control.running():
            self.control.start()
        for identity, future in self._direct:
            with suppress(BusError):
                future.result(timeout)
                self.acknowledged.add(identity)
        lost = "acknowledged minus received is not 0"
        try:
            wait_until(lambda: self.acknowledged <= {*self.handled, *self._refused()}, lost, timeout)
            wait_until(lambda: next(iter(self._outbox.pending()), None) is None, "the outbox is not empty", timeout)
        except AssertionError as error:
            missing = sorted(self.acknowledged - {*self.handled, *self._refused()})
            waiting = sum(1 for _ in self._outbox.pending())
            raise AssertionError(
                f"{error}; missing {missing[:10]}; outbox {waiting}; consumer {self._consumer.counters}, "
                f"{self._consumer.state}; relay {self._relay_bus.counters}, {self._relay_bus.state}; "
                f"what is known of them: { {one: self.diary.about(one) for one in missing[:10]} }; "
                f"the world: {self.diary.about('world')}"
            ) from None
        twice = {identity: count for identity, count in self.handled.items() if count > 1}
        assert not twice, f"handled twice to the end: { {identity: self.diary.about(identity) for identity in twice} }"
        assert self._consumer.counters.dead_lettered == 0

    def _refused(self) -> set[str]:
        """Messages that the broker refused with an ERROR: the relay keeps them as dead letters."""
        return {record.frame.headers["deploykit-id"] for record in self._outbox.dead()}

    def close(self) -> None:
        """End everything; the durable subscription goes too."""
        self._stop_relay()
        with suppress(BusError):
            self._durable.unsubscribe(forget=True, timeout=1)
        self._consumer.stop(2)
        self._ids.close()

    # -- plumbing ----------------------------------------------------------------------------------------------

    def _frame(self) -> Frame:
        identity = f"{self._name}-{next(self._numbers)}"
        return Frame({"deploykit-id": identity, "content-type": "text/plain"}, f"body of {identity}".encode())

    def _handle(self, delivery: Delivery) -> Verdict | None:
        with self._books:
            self.attempts[delivery.id] += 1
            if self._fail_next > 0:
                self._fail_next -= 1
                return Retry(0.01)
        with self._books:
            self.handled[delivery.id] += 1
            self.diary.note(delivery.id, f"handled, attempt {delivery.attempt}, epoch {delivery.epoch}")
        return None

    def _start_consumer(self) -> None:
        settings = attrs.evolve(self._settings, address=self.control.address(), client_id=f"{self._name}-consumer")
        self._consumer = Bus(
            settings, ids=self.diary, on_event=lambda e: self.diary.note("world", f"consumer: {e}")
        ).start()
        self._consumer.subscribe(self.queue, self._handle, workers=2, max_attempts=1000)
        self._durable = self._consumer.subscribe(
            self.topic, self._handle, durable=self._name, workers=2, max_attempts=1000
        )
        if not self.attempts and not self.acknowledged:
            # A topic's messages are kept from the first confirmation of the subscription on, not before.
            assert self._consumer.wait_connected(60)
            self.control.declared()

    def _start_relay(self) -> None:
        settings = attrs.evolve(self._settings, address=self.control.address(), client_id=f"{self._name}-relay")
        self._relay_bus = Bus(settings, on_event=self._told_relay).start()
        self._relay_stop = threading.Event()
        relay = Relay(self._outbox, self._relay_bus, pause=0.05, pause_max=0.2, rescan=0.5, max_attempts=1000)
        self._relay_thread = threading.Thread(target=relay.run, args=(self._relay_stop,))
        self._relay_thread.start()

    def _ended(self, identity: str, future: Future[None]) -> None:
        self.diary.note(identity, f"published: {future.exception() or 'confirmed'}")

    def _told_relay(self, event: object) -> None:
        if not isinstance(event, Published):
            self.diary.note("world", f"relay: {event}")

    def _stop_relay(self) -> None:
        self._relay_stop.set()
        self._relay_bus.stop(0.05)
        self._relay_thread.join(30)
        assert not self._relay_thread.is_alive()
