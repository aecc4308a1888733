"""The publishers of a chaos run: three threads on one bus, one for each way to publish."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial

from deploykit.bus import Bus
from deploykit.errors import BusError, PublishManyFailed
from deploykit.wire.codec import ID_HEADER
from deploykit.wire.frame import Frame
from tests.chaos.accounts import Accounts
from tests.chaos.options import body_of

_TIMEOUT = 20.0
#: No more deliveries than this may be missing before writers wait: a backlog, and not a heap.
_BACKLOG = 3000


class Writers:
    """Publish until `stop`. What is not confirmed in time is not sent again: its fate is unknown.

    Args:
        bus: returns the bus of the moment; it may be stopped and replaced.
        rate: messages a second of each thread.
    """

    def __init__(
        self, accounts: Accounts, bus: Callable[[], Bus], destinations: list[str], *, rate: float, seed: int
    ) -> None:
        self._accounts = accounts
        self._bus = bus
        self._destinations = destinations
        self._pace = 1.0 / rate
        self._seed = seed
        self.problems: list[str] = []
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(name, way), name=f"chaos-{name}")
            for name, way in (("one", self._one), ("many", self._many), ("soon", self._soon))
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End; futures may still be under way."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _run(self, writer: str, way: Callable[[Iterator[tuple[str, str]]], int]) -> None:
        messages = self._messages(writer)
        due = time.monotonic()
        while not self._over.is_set():
            if self._accounts.backlog() > _BACKLOG:
                self._over.wait(0.1)
                continue
            try:
                sent = way(messages)
            except Exception as error:
                self.problems.append(f"writer {writer}: {type(error).__name__}: {error}")
                return
            due = max(due + sent * self._pace, time.monotonic() - 1.0)
            self._over.wait(max(0.001, due - time.monotonic()))

    def _messages(self, writer: str) -> Iterator[tuple[str, str]]:
        """Yield ids and destinations; each is entered into the books as it is taken."""
        dice = random.Random(f"{self._seed}-{writer}")
        number = 0
        while True:
            number += 1
            identity, destination = f"{writer}-{number}", dice.choice(self._destinations)
            self._accounts.begin(identity, writer, number, destination)
            yield destination, identity

    def _end(self, identity: str, error: BaseException | None) -> None:
        self._accounts.end(identity, "confirmed" if error is None else "unknown")

    def _one(self, messages: Iterator[tuple[str, str]]) -> int:
        destination, identity = next(messages)
        error: BusError | None = None
        try:
            self._bus().publish(destination, frame_of(identity), timeout=_TIMEOUT)
        except BusError as problem:
            error = problem
        self._end(identity, error)
        return 1

    def _many(self, messages: Iterator[tuple[str, str]]) -> int:
        taken: list[str] = []

        def some() -> Iterator[tuple[str, Frame]]:
            for _ in range(25):
                destination, identity = next(messages)
                taken.append(identity)
                yield destination, frame_of(identity)

        outcomes: tuple[BusError | None, ...] = ()
        try:
            self._bus().publish_many(some(), timeout=_TIMEOUT)
        except PublishManyFailed as failed:
            outcomes = failed.outcomes
        except BusError as problem:
            outcomes = (problem,) * 25
        for number, identity in enumerate(taken):
            self._end(identity, outcomes[number] if outcomes else None)
        return len(taken)

    def _soon(self, messages: Iterator[tuple[str, str]]) -> int:
        for _ in range(25):
            destination, identity = next(messages)
            try:
                future = self._bus().publish_nowait(destination, frame_of(identity), timeout=_TIMEOUT)
            except BusError as problem:
                self._end(identity, problem)
                continue
            future.add_done_callback(partial(self._came, identity))
        return 25

    def _came(self, identity: str, future: Future[None]) -> None:
        self._end(identity, future.exception())


def frame_of(identity: str) -> Frame:
    """Return the message with this id."""
    return Frame({ID_HEADER: identity, "content-type": "application/octet-stream"}, body_of(identity))
