"""`Bus`: what deploykit and its users publish and subscribe with.

    with Bus("stomp://broker") as bus:
        bus.listen(RefUpdated, on_push)
        bus.send(Notice(text="hello", source="git/host"))

`subscribe` and `publish` do the same with bytes and destinations.

Rules: no call outlives its time; no call needs to know whether there is a connection at the moment; nothing global, no
signal handlers; a bus belongs to the process that started it, a forked child's copy refuses to work.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from time import monotonic
from types import TracebackType
from typing import Self, Unpack

from deploykit.bus.certificates import Certificates
from deploykit.bus.checks import checked, in_bounds
from deploykit.bus.delivery import Handler
from deploykit.bus.events import BusState, Closed, Counters, Event
from deploykit.bus.eventthread import EventDispatcher
from deploykit.bus.keepalive import Keeper
from deploykit.bus.listening import MessageHandler, MessageT, SubscribeOptions, listen_to
from deploykit.bus.ports import Ids
from deploykit.bus.publishing import BusPublisher
from deploykit.bus.receipt import GRACE, check_may_wait
from deploykit.bus.services import BusServices
from deploykit.bus.stomp.compile import OnFailure, SubscriptionSpec
from deploykit.bus.subscription import Subscription
from deploykit.bus.supervisor import Supervisor
from deploykit.bus.unconfirmed import UnconfirmedPublishes
from deploykit.errors import BusClosed, BusError
from deploykit.messages.base import Message
from deploykit.messages.topics import TopicMap, topic_of
from deploykit.settings.address import parse_address
from deploykit.settings.bus import BusSettings
from deploykit.wire.frame import Frame
from deploykit.wire.people import frame_for

logger = logging.getLogger(__name__)


class Bus:
    """A connection to a list of brokers that repairs itself.

    Args:
        settings: where to connect, and how; an address alone stands for `BusSettings(address=...)`.
        on_event: called with each `deploykit.bus.events.Event`, in order, on a thread of its own.
        ids: a store of handled ids (`deploykit.ids.IdStore`), asked before each handler of a message that has an id.
        client_id: for `settings.client_id`, where that is empty.

    Raises:
        SettingsError: a setting is wrong, the address included; all problems are in `problems`.
    """

    def __init__(
        self,
        settings: BusSettings | str,
        *,
        on_event: Callable[[Event], object] | None = None,
        ids: Ids | None = None,
        client_id: str = "",
    ) -> None:
        settings = checked(settings, client_id=client_id)
        address = parse_address(settings.address)
        for warning in address.warnings:
            logger.warning("%s", warning)
        self.settings = settings
        self.counters = Counters()
        self._ids = ids
        self._events = EventDispatcher(on_event, self.counters)
        self._unconfirmed = UnconfirmedPublishes(
            window=settings.window,
            in_flight=min(settings.in_flight, settings.window),
            window_bytes=settings.window_bytes,
            counters=self.counters,
            on_settled=None if on_event is None else self._events.emit_settled,
        )
        self._supervisor = Supervisor(
            settings,
            address,
            Certificates(settings) if address.tls else None,
            unconfirmed=self._unconfirmed,
            counters=self.counters,
            emit=self._events.emit,
        )
        self._publisher = BusPublisher(self._unconfirmed, self._supervisor, self._check_process)
        self._services = BusServices(
            settings,
            self.counters,
            self._supervisor,
            self._publisher,
            emit=self._events.emit,
            check_process=self._check_process,
        )
        self._pid = 0
        self._lock = threading.Lock()
        self._stopped = False
        self._numbers = itertools.count(1)

    def __repr__(self) -> str:
        return f"<Bus {self._supervisor.address} {self.state.value}>"

    # -- life --------------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Begin to connect, in the background.

        Raises:
            BusClosed: it was stopped before; make a new one.
        """
        with self._lock:
            if self._stopped:
                raise BusClosed("this bus was stopped", "make a new one")
            if self._pid == 0:
                self._pid = os.getpid()
                self._events.start()
                self._supervisor.thread.start()
                if self.settings.keepalive:
                    Keeper(self._services).begin()
        return self

    def stop(self, timeout: float = 10.0) -> None:
        """End the bus within `timeout` seconds: let running handlers finish, and wait for the last receipts.

        What is not finished by then is handed back: unacknowledged messages are delivered to another subscriber, and
        futures of unconfirmed messages raise `BusClosed`. Idempotent. A handler may call it; then it returns at once,
        and the bus ends when the handler has returned.
        """
        timeout = in_bounds(timeout)
        if self._pid not in (0, os.getpid()):
            # A forked child's copy: the threads are the parent's, and a lock that one of them held is never given back.
            self._stopped = True
            self._supervisor.abandon()
            return
        with self._lock:
            if self._stopped:
                return
            self._stopped = True
        self._services.close()
        if self._services.in_callback:
            # What the handler has in hand can be acknowledged only after it has returned.
            threading.Thread(target=self._end, args=(timeout,), name="deploykit-bus-stop", daemon=False).start()
        else:
            self._end(timeout)

    def _end(self, timeout: float) -> None:
        closed = BusClosed("the bus was stopped", "the message may or may not have arrived: keep it and send it again")
        if self._pid == 0:
            self._unconfirmed.close(closed)
            self._supervisor.abandon()
            return
        deadline = monotonic() + timeout
        for subscription in self._services.subscriptions:
            subscription.stop()
        for subscription in self._services.subscriptions:
            if not subscription.join(deadline):
                logger.warning("a handler of %s did not finish in time", subscription.destination)
        self._supervisor.end(deadline)
        self._unconfirmed.close(closed)
        self._events.emit(Closed())
        self._events.stop(GRACE)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    @property
    def state(self) -> BusState:
        """The present state."""
        return BusState.CLOSED if self._stopped else self._supervisor.state

    @property
    def problem(self) -> BusError | None:
        """The last problem that kept us from being connected; None while we are."""
        return self._supervisor.problem

    def wait_connected(self, timeout: float) -> bool:
        """Return whether there is a connection and the broker has answered every subscription, waiting for both.

        Raises:
            LoginRefused: every broker refused the login, and none ever took it.
            BusClosed: the bus was stopped.
        """
        self._check_usable()
        check_may_wait("wait_connected()")
        supervisor = self._supervisor
        with supervisor.changed:
            supervisor.changed.wait_for(
                lambda: supervisor.ready or supervisor.hopeless is not None or self._stopped, in_bounds(timeout)
            )
            if self._stopped:
                raise BusClosed("the bus was stopped", "make a new one")
            if supervisor.hopeless is not None:
                raise supervisor.hopeless
            return supervisor.ready

    def add_listener(self, callback: Callable[[Event], object]) -> Callable[[], None]:
        """Have `callback` called with each event from now on, beside `on_event` and others; return what removes it.

        While there is a connection, the first event it gets is the `Connected` of that one. All are called in turn, on
        one thread: be quick. What one raises is logged, and costs the others nothing. Removing twice does no harm.

        Raises:
            BusClosed: the bus was stopped, or belongs to the process that was forked.
        """
        if self._stopped or self._pid not in (0, os.getpid()):
            self._check_usable()
        self._unconfirmed.on_settled = self._events.emit_settled
        return self._events.add(callback)

    # -- publishing --------------------------------------------------------------------------------------------

    def publish(
        self,
        destination: str,
        frame: Frame,
        *,
        timeout: float = 10.0,
        persistent: bool = True,
        ttl: float | None = None,
    ) -> None:
        """Send a message and return when the broker has confirmed it.

        Args:
            destination: `/queue/NAME` or `/topic/NAME`.
            frame: headers and body. An id is put into the header `deploykit-id` unless there is one.
            timeout: seconds; also while there is no connection.
            persistent: the broker keeps it over a restart.
            ttl: seconds after which the broker may drop it; None: never.

        Raises:
            WindowFull: too many messages waited for receipts all the time; it was not sent.
            PublishError: not confirmed in time; it may or may not have arrived. Send it again, with the same id.
            PublishRefused: the broker or this bus refused this very message.
            LoginRefused: every broker refused the login, and none ever took it.
            BusClosed: the bus was stopped.
        """
        timeout = in_bounds(timeout)
        self._publisher.publish(destination, frame, timeout=timeout, persistent=persistent, ttl=ttl)

    def send(
        self,
        message: Message,
        *,
        topics: TopicMap | None = None,
        timeout: float = 10.0,
        persistent: bool = True,
        ttl: float | None = None,
    ) -> None:
        """Send a message to the topic it belongs to, unsigned, and return when the broker has confirmed it.

        Args:
            message: any message of `deploykit.messages`.
            topics: which topic belongs to which message; default: deploykit's own names.
            timeout, persistent, ttl: as for `publish`.

        Raises:
            MessageError: a field holds what no reader would accept.
            PublishError, LoginRefused, BusClosed: as for `publish`.
        """
        destination = topic_of(message, topics or TopicMap())
        self.publish(destination, frame_for(message, destination), timeout=timeout, persistent=persistent, ttl=ttl)

    def publish_nowait(
        self,
        destination: str,
        frame: Frame,
        *,
        timeout: float | None = None,
        persistent: bool = True,
        ttl: float | None = None,
    ) -> Future[None]:
        """Send a message without waiting; the future ends when the broker has confirmed it.

        The call never blocks, connected or not. A callback of the future runs on the bus's own thread: be quick. Calls
        that would wait for an answer raise `UsageError` there.

        Args:
            destination, frame, persistent, ttl: as for `publish`.
            timeout: seconds until it must be confirmed; default: `settings.publish_timeout`.

        Returns:
            A future that ends with the receipt, or raises what `publish` raises.

        Raises:
            WindowFull: `settings.window` messages wait for receipts; it was not sent. `publish` waits for room.
            PublishRefused: this bus refused this very message.
            BusClosed: the bus was stopped.
        """
        timeout = self.settings.publish_timeout if timeout is None else in_bounds(timeout)
        return self._publisher.publish_nowait(destination, frame, timeout=timeout, persistent=persistent, ttl=ttl)

    def publish_many(
        self, messages: Iterable[tuple[str, Frame]], *, timeout: float = 30.0, persistent: bool = True
    ) -> int:
        """Send any number of messages, many on their way at once; return their number when all are confirmed.

        The fastest way to publish. `messages` is read only as fast as the broker confirms, and not past `timeout`.

        Raises:
            PublishManyFailed: some were not confirmed; its `outcomes` say which. Those that are None arrived. Of an
                iterator that was not read to its end, what it still holds was not sent, and has no outcome.
        """
        return self._publisher.publish_many(messages, timeout=in_bounds(timeout), persistent=persistent)

    # -- subscribing -------------------------------------------------------------------------------------------

    def subscribe(
        self,
        destination: str,
        handler: Handler,
        *,
        durable: str | None = None,
        prefetch: int = 128,
        on_failure: OnFailure = "dead-letter",
        workers: int = 1,
        max_attempts: int = 5,
        selector: str | None = None,
        ids: Ids | None = None,
    ) -> Subscription:
        """Hand every message of a destination to `handler`, in worker threads, over all reconnects.

        Args:
            handler: takes a `Delivery`; returns or raises a verdict (`Ack`, `Retry`, `Reject`), None is `Ack`. Any
                other exception is a failed attempt.
            durable: name under which the broker keeps a topic's messages while we are away.
            prefetch: most messages here that are not settled.
            on_failure: what becomes of a message that was rejected, or failed `max_attempts` times.
            workers: threads. With one, messages are handled in order.
            max_attempts: how often one message is handed to the handler.
            selector: the broker's filter expression, where it has any.
            ids: the store of handled ids for this subscription; default: the bus's.

        Raises:
            DialectError: the broker we are connected to cannot do this without losing messages. While there is no
                connection, `Subscription.wait_active` and the event `SubscriptionRefused` report it later.
            UsageError: an argument makes no sense.
        """
        self._check_usable()
        spec = SubscriptionSpec(
            destination=destination,
            id=f"deploykit-{next(self._numbers)}",
            durable=durable,
            prefetch=prefetch,
            on_failure=on_failure,
            selector=selector,
        )
        return self._services.subscribe(spec, handler, workers=workers, max_attempts=max_attempts, ids=ids or self._ids)

    def listen(
        self,
        kinds: type[MessageT] | tuple[type[MessageT], ...],
        handler: MessageHandler[MessageT],
        *,
        topics: TopicMap | None = None,
        **options: Unpack[SubscribeOptions],
    ) -> tuple[Subscription, ...]:
        """Hand every message of some classes to `handler(message, delivery)`, in worker threads, over all reconnects.

        Each delivery is decoded once. What is no message is rejected (`on_failure` decides), and the handler does not
        see it. A message of another class is acknowledged: name all classes you want from a queue in one call.

        Args:
            kinds: a message class, or several. `Message` stands for everything.
            handler: takes a message and its `Delivery`; answers as a handler of `subscribe` does.
            topics: which topic belongs to which message; default: deploykit's own names.
            options: those of `subscribe`. `durable` needs classes of one topic.

        Returns:
            A subscription for each topic of these classes; usually one.

        Raises:
            DialectError, UsageError: as for `subscribe`; or `durable` was given and the classes have several topics.
        """
        return listen_to(self.subscribe, kinds, handler, topics or TopicMap(), **options)

    def _check_process(self) -> None:
        """Refuse to work in a process that did not start this bus; while it is being stopped, handlers go on."""
        if self._pid != os.getpid():
            self._check_usable()

    def _check_usable(self) -> None:
        if self._stopped:
            raise BusClosed("the bus was stopped", "make a new one")
        if self._pid == 0:
            raise BusClosed("the bus was not started", "use `with Bus(...) as bus:` or call start()")
        if self._pid != os.getpid():
            raise BusClosed("this bus belongs to the process that was forked", "make one in the child")
