"""From a caller's message to the table of unconfirmed ones, and back with the outcome.

Rules:

* what no broker would take is refused here, before it is in the table;
* only `publish` and `publish_many` wait, for room and for receipts, and never on a thread that reads receipts;
* every message has an id: the caller's, or one made here.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Iterable, Sized
from concurrent.futures import Future
from time import monotonic, time

from deploykit.bus.events import BusState
from deploykit.bus.receipt import GRACE, Batch, Receipt, check_may_wait
from deploykit.bus.supervisor import Supervisor
from deploykit.bus.unconfirmed import UnconfirmedPublishes
from deploykit.errors import BusError, DialectError, PublishError, PublishManyFailed, PublishRefused
from deploykit.messages.destinations import check_destination
from deploykit.wire.codec import ID_HEADER
from deploykit.wire.frame import CONNECTION_HEADERS, Frame


class BusPublisher:
    """The publishing half of a bus; `Bus` documents what its methods do.

    Args:
        unconfirmed: where messages go until their receipt comes.
        supervisor: sends them.
        check_process: raises `BusClosed` in a process that the bus does not belong to.
    """

    def __init__(
        self, unconfirmed: UnconfirmedPublishes, supervisor: Supervisor, check_process: Callable[[], None]
    ) -> None:
        self._unconfirmed = unconfirmed
        self._supervisor = supervisor
        self._check_process = check_process
        self._prefix = secrets.token_hex(8)
        self._numbers = itertools.count(1)
        self._destinations: set[str] = set()

    def enqueue(
        self,
        destination: str,
        frame: Frame,
        *,
        timeout: float,
        persistent: bool,
        ttl: float | None,
        done: Callable[[BusError | None], None],
        wait: bool = False,
    ) -> None:
        """Check a message and put it on its way; `done` is called with its outcome.

        Args:
            destination, frame, persistent, ttl: the message.
            timeout: seconds until it must be confirmed.
            done: called with None for a receipt, else with the error.
            wait: wait for room, as long as it may take.

        Raises:
            BusError: it was not taken; `done` is not called.
        """
        self._check_process()
        headers = frame.headers
        if not CONNECTION_HEADERS.isdisjoint(headers) or "" in headers:
            raise _refused_headers(frame)
        if destination not in self._destinations:
            self._learn(destination)
        deadline = monotonic() + timeout
        self._unconfirmed.add(
            destination,
            frame,
            id=headers.get(ID_HEADER) or f"{self._prefix}-{next(self._numbers)}",
            persistent=persistent,
            expires=None if ttl is None else time() + ttl,
            deadline=deadline,
            done=done,
            wait_until=deadline if wait else 0.0,
        )

    def publish(
        self, destination: str, frame: Frame, *, timeout: float, persistent: bool = True, ttl: float | None = None
    ) -> None:
        """Send a message and return when the broker has confirmed it."""
        check_may_wait("publish()")
        batch = Batch()
        self.enqueue(
            destination, frame, timeout=timeout, persistent=persistent, ttl=ttl, done=batch.expect(), wait=True
        )
        supervisor = self._supervisor
        supervisor.flush_now()
        if supervisor.state is not BusState.CONNECTED:
            with supervisor.changed:
                supervisor.changed.wait_for(
                    lambda: supervisor.state in (BusState.CONNECTED, BusState.CLOSED) or supervisor.hopeless, timeout
                )
            if supervisor.hopeless is not None:
                raise supervisor.hopeless
        if not batch.wait(timeout + GRACE):
            raise _held_up(destination)
        if batch.outcomes[0] is not None:
            raise batch.outcomes[0]

    def publish_nowait(
        self, destination: str, frame: Frame, *, timeout: float, persistent: bool, ttl: float | None
    ) -> Future[None]:
        """Send a message without waiting; return the future of its receipt."""
        receipt = Receipt()
        self.enqueue(destination, frame, timeout=timeout, persistent=persistent, ttl=ttl, done=receipt.settle)
        self._supervisor.poller.wake()
        return receipt

    def publish_many(self, messages: Iterable[tuple[str, Frame]], *, timeout: float, persistent: bool) -> int:
        """Send any number of messages; return their number when all are confirmed."""
        deadline = monotonic() + timeout
        check_may_wait("publish_many()")
        batch = Batch()
        wake = self._supervisor.poller.wake
        for destination, frame in messages:
            done = batch.expect()
            left = deadline - monotonic()
            if left <= 0:
                late = PublishError("not sent: the time for all of them was over", "keep it and send it again")
                done(late)
                for _ in range(len(messages) - len(batch.outcomes) if isinstance(messages, Sized) else 0):
                    batch.expect()(late)
                break
            try:
                self.enqueue(destination, frame, timeout=left, persistent=persistent, ttl=None, done=done, wait=True)
            except (PublishError, DialectError) as error:
                done(error)
            wake()
        if not batch.wait(deadline - monotonic() + GRACE):
            raise _held_up("a list of destinations")
        failed = [outcome for outcome in batch.outcomes if outcome is not None]
        if failed:
            raise PublishManyFailed(
                f"{len(failed)} of {len(batch.outcomes)} messages are not confirmed, the first: {failed[0].problem}",
                "keep those and send them again",
                outcomes=tuple(batch.outcomes),
            )
        return len(batch.outcomes)

    def _learn(self, destination: str) -> None:
        """Check a destination once, and remember it.

        Raises:
            DialectError: no broker would take it.
        """
        check_destination(destination)
        if len(self._destinations) > 1000:
            self._destinations.clear()
        self._destinations.add(destination)


def _refused_headers(frame: Frame) -> PublishRefused:
    names = ", ".join(sorted(repr(name) for name in CONNECTION_HEADERS.intersection(frame.headers))) or "an empty name"
    return PublishRefused(f"headers that belong to the connection: {names}", "use other names")


def _held_up(destination: str) -> PublishError:
    return PublishError(
        f"no receipt for a message to {destination} in time: the bus's own thread is held up",
        "it may or may not have arrived: keep it and send it again",
    )
