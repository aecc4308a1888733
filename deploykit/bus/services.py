"""What a bus does for its own subscriptions and keepalives: the ports of `deploykit.bus.ports`, in one object."""

from __future__ import annotations

import threading
from collections.abc import Callable

from deploykit.bus.delivery import Handler
from deploykit.bus.events import Counters, Event
from deploykit.bus.ports import Ids
from deploykit.bus.publishing import BusPublisher
from deploykit.bus.receipt import must_not_wait
from deploykit.bus.stomp.compile import SubscriptionSpec
from deploykit.bus.stomp.dialect import Dialect
from deploykit.bus.subscription import Subscription, check_options
from deploykit.bus.supervisor import Supervisor
from deploykit.errors import BusClosed, BusError, UsageError
from deploykit.settings.bus import BusSettings
from deploykit.wire.frame import Frame


class BusServices:
    """The subscriptions of a bus, and what they take from it. Any thread.

    Args:
        settings, counters, supervisor, publisher: the bus's.
        emit: takes events.
        check_process: raises `BusClosed` in a process that the bus does not belong to.
    """

    def __init__(
        self,
        settings: BusSettings,
        counters: Counters,
        supervisor: Supervisor,
        publisher: BusPublisher,
        *,
        emit: Callable[[Event], None],
        check_process: Callable[[], None],
    ) -> None:
        self.settings = settings
        self.counters = counters
        self.subscriptions: list[Subscription] = []
        self.call_later = supervisor.call_later
        self.enqueue = publisher.enqueue
        self.emit = emit
        self._supervisor = supervisor
        self._publisher = publisher
        self._check_process = check_process
        self._lock = threading.Lock()
        self._closed = False

    @property
    def dialect(self) -> Dialect | None:
        """What the broker of the present connection can do; None while there is none."""
        connection = self._supervisor.connection
        return connection.dialect if connection is not None and connection.up else None

    @property
    def in_callback(self) -> bool:
        """Whether the calling thread is a worker of any subscription, or calls back with the outcome of a message."""
        return must_not_wait() or any(subscription.works_here for subscription in list(self.subscriptions))

    def publish_dead_letter(self, frame: Frame) -> None:
        """Publish to `settings.dead_letter`."""
        self.publish_again(self.settings.dead_letter, frame)

    def publish_again(self, destination: str, frame: Frame) -> None:
        """Publish to where a message came from."""
        self._publisher.publish(destination, frame, timeout=self.settings.publish_timeout)

    def subscribe(
        self, spec: SubscriptionSpec, handler: Handler, *, workers: int, max_attempts: int, ids: Ids | None
    ) -> Subscription:
        """Make a subscription.

        Raises:
            BusClosed: the bus was stopped.
            UsageError: an argument makes no sense, or the durable name is another subscription's.
            DialectError: the broker we are connected to cannot do what it asks for.
        """
        check_options(spec, workers=workers, max_attempts=max_attempts)
        subscription = Subscription(self, spec, handler, workers=workers, max_attempts=max_attempts, ids=ids)
        with self._lock:
            if self._closed:
                raise BusClosed("the bus was stopped", "make a new one")
            for other in self.subscriptions:
                if spec.durable and other.spec.durable == spec.durable and other.destination != spec.destination:
                    raise UsageError(
                        f"durable={spec.durable!r} is the name of the subscription to {other.destination}",
                        "ActiveMQ would forget that one's messages; use another name",
                    )
            self.subscriptions.append(subscription)
        try:
            self._supervisor.subscriptions.add(subscription)
        except BusError:
            self._drop(subscription)
            raise
        return subscription

    def end_subscription(self, subscription: str, *, forget: bool) -> None:
        """End the subscription of this id, at the broker too."""
        self._check_process()
        ended = next((one for one in list(self.subscriptions) if one.spec.id == subscription), None)
        if ended is None:
            return
        table, timeout = self._supervisor.subscriptions, self.settings.connect_timeout
        if forget and ended.spec.durable is not None:
            table.forget(ended, timeout=timeout)
        else:
            table.remove(ended, timeout=timeout)
        self._drop(ended)

    def close(self) -> None:
        """Take no more subscriptions."""
        with self._lock:
            self._closed = True

    def _drop(self, subscription: Subscription) -> None:
        with self._lock:
            if subscription in self.subscriptions:
                self.subscriptions.remove(subscription)
