"""`FakeBus`: a stand-in for `deploykit.bus.Bus` in tests, without a network. The test plays the broker.

What the code under test publishes is in `sent`; `deliver` hands a message to its handlers, in the calling thread:

    >>> from deploykit.bus import Reject
    >>> from deploykit.wire.frame import Frame
    >>> bus = FakeBus()
    >>> bus.publish("/topic/a", Frame({}, b"one"))
    >>> [sent.destination for sent in bus.sent]
    ['/topic/a']
    >>> _ = bus.subscribe("/queue/b", lambda delivery: Reject(f"no {delivery.body.decode()}"))
    >>> bus.deliver("/queue/b", Frame({}, b"thanks"))
    (Reject('no thanks'),)

Rules:

* Each method that `Bus` has too takes the same arguments.
* `deliver` returns what the handler decided and does not act on it: no other attempt, no dead letter, no store of ids.
  To test another attempt, deliver the message again with `attempt=2`.
* An exception of a handler that is not a verdict leaves `deliver`. A `Bus` would count it as a failed attempt.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from time import monotonic
from types import TracebackType
from typing import Self, TypeVar, Unpack

import attrs

from deploykit.bus.delivery import Delivery, Handler
from deploykit.bus.events import BusState, Counters, Event
from deploykit.bus.listening import MessageHandler, SubscribeOptions, listen_to
from deploykit.bus.ports import Ids
from deploykit.bus.stomp.compile import OnFailure
from deploykit.bus.verdicts import Verdict
from deploykit.errors import BusClosed, BusError, ConnectError, PublishError, PublishManyFailed, UsageError, WindowFull
from deploykit.messages.base import Message
from deploykit.messages.destinations import check_destination
from deploykit.messages.topics import TopicMap, topic_of
from deploykit.testing.listeners import BROKER, FakeListeners
from deploykit.testing.verdict import verdict_of
from deploykit.wire.frame import ID_HEADER, Frame
from deploykit.wire.people import frame_for

_M = TypeVar("_M", bound=Message)


@attrs.frozen(slots=True)
class Sent:
    """One message that was handed to the bus, how, and the future its publisher holds."""

    destination: str
    frame: Frame
    future: Future[None] = attrs.field(repr=False, eq=False)
    persistent: bool = attrs.field(default=True, kw_only=True)
    ttl: float | None = attrs.field(default=None, kw_only=True)

    def settle(self, answer: object) -> None:
        """End the future with the broker's answer: an exception is a refusal, everything else a receipt."""
        if isinstance(answer, BaseException):
            self.future.set_exception(answer)
        else:
            self.future.set_result(None)


@attrs.frozen(kw_only=True, slots=True)
class Handled:
    """One delivery to one handler, and the handler's verdict; None from a handler is `Ack`."""

    subscription: FakeSubscription
    delivery: Delivery
    verdict: Verdict


class FakeSubscription:
    """A subscription of a `FakeBus`. `options` holds what `subscribe` was given; none of it has an effect."""

    def __init__(self, bus: FakeBus, destination: str, handler: Handler, options: SubscribeOptions) -> None:
        self.destination, self.handler, self.options = destination, handler, options
        self._bus = bus

    @property
    def active(self) -> bool:
        """Whether it takes messages: it was not ended, and the fake broker is there."""
        return self in self._bus.subscriptions and self._bus.state is BusState.CONNECTED

    def wait_active(self, timeout: float) -> bool:
        """Wait until it takes messages; see `Subscription.wait_active`."""
        return self._bus.wait_connected(timeout) and self.active

    def stop(self) -> None:
        """Take nothing more; see `Subscription.stop`."""
        self.unsubscribe()

    def unsubscribe(self, *, forget: bool = False, timeout: float = 10.0) -> None:
        """End the subscription; see `Subscription.unsubscribe`."""
        self._bus.subscriptions = tuple(one for one in self._bus.subscriptions if one is not self)


class FakeBus:
    """A bus whose broker is the test. Safe to use from several threads.

    Args:
        answer: called for each message, on the publisher's thread; its result is the broker's answer: None for a
            receipt, an exception for a refusal, `FakeBus.SILENCE` for no answer until `confirm` or `fail`.
        window: most messages that may wait for an answer; None: any number.
    """

    #: No answer yet.
    SILENCE = object()

    def __init__(self, answer: Callable[[Sent], object] = lambda _: None, *, window: int | None = None) -> None:
        self.answer = answer
        self.window = window
        #: All messages handed over, in order, and those that wait for an answer.
        self.sent: list[Sent] = []
        self.waiting: list[Sent] = []
        #: The subscriptions that were not ended.
        self.subscriptions: tuple[FakeSubscription, ...] = ()
        #: What `deliver` came to, in order.
        self.handled: list[Handled] = []
        self.counters = Counters()
        self._changed, self._connected, self._closed = threading.Condition(), True, False
        #: What `disconnect` was given, until `connect`; see `Bus.problem`.
        self.problem: BusError | None = None
        self._listeners, self._deliveries = FakeListeners(), 0

    # -- what `Bus` has: life ----------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Do nothing: a fake bus works from the beginning; see `Bus.start`."""
        self._check_open()
        return self

    def stop(self, timeout: float = 10.0) -> None:
        """Close the bus, as `close` does; see `Bus.stop`."""
        self.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    @property
    def state(self) -> BusState:
        """Whether the bus is closed, connected, or waiting for its broker; see `Bus.state`."""
        if self._closed:
            return BusState.CLOSED
        return BusState.CONNECTED if self._connected else BusState.WAITING

    def add_listener(self, callback: Callable[[Event], object]) -> Callable[[], None]:
        """Call `callback` for each event, in the thread that makes it happen; see `Bus.add_listener`."""
        self._check_open()
        return self._listeners.add(callback)

    def wait_connected(self, timeout: float) -> bool:
        """Wait for the fake broker, at most `timeout` seconds; return whether it is there. See `Bus.wait_connected`."""
        with self._changed:
            connected = self._changed.wait_for(lambda: self._connected or self._closed, timeout)
            self._check_open()
            return connected

    # -- what `Bus` has: publishing ----------------------------------------------------------------------------------

    def publish_nowait(
        self,
        destination: str,
        frame: Frame,
        *,
        timeout: float | None = None,
        persistent: bool = True,
        ttl: float | None = None,
    ) -> Future[None]:
        """Take a message, or raise `WindowFull` at once; see `Bus.publish_nowait`. `timeout` has no effect."""
        self._check_open()
        sent = Sent(destination, frame, Future(), persistent=persistent, ttl=ttl)
        with self._changed:
            if self.window is not None and len(self.waiting) >= self.window:
                raise WindowFull(f"{len(self.waiting)} messages wait for an answer: no room, not sent")
            self.sent.append(sent)
            answer = self.answer(sent)
            if answer is self.SILENCE:
                self.waiting.append(sent)
            self._changed.notify_all()
        if answer is not self.SILENCE:
            sent.settle(answer)
        return sent.future

    def publish(
        self,
        destination: str,
        frame: Frame,
        *,
        timeout: float = 10.0,
        persistent: bool = True,
        ttl: float | None = None,
    ) -> None:
        """Take a message, waiting for room and for the answer; see `Bus.publish`."""
        end = monotonic() + timeout
        with self._changed:  # kept until it is sent: no other thread takes the room
            self._changed.wait_for(self._has_room, timeout)
            future = self.publish_nowait(destination, frame, persistent=persistent, ttl=ttl)
        try:
            future.result(max(0.0, end - monotonic()))
        except TimeoutError:
            raise PublishError(f"no receipt for a message to {destination} in {timeout} s") from None

    def publish_many(
        self, messages: Iterable[tuple[str, Frame]], *, timeout: float = 30.0, persistent: bool = True
    ) -> int:
        """Take messages one after the other, waiting for each answer; see `Bus.publish_many`."""
        end = monotonic() + timeout
        outcomes: list[BusError | None] = []
        for destination, frame in messages:
            try:
                self.publish(destination, frame, timeout=max(0.0, end - monotonic()), persistent=persistent)
            except PublishError as error:
                outcomes.append(error)
            else:
                outcomes.append(None)
        if any(outcomes):
            raise PublishManyFailed("some messages are not confirmed", outcomes=tuple(outcomes))
        return len(outcomes)

    def send(
        self,
        message: Message,
        *,
        topics: TopicMap | None = None,
        timeout: float = 10.0,
        persistent: bool = True,
        ttl: float | None = None,
    ) -> None:
        """Take a message for the topic it belongs to, waiting for the answer; see `Bus.send`."""
        destination = topic_of(message, topics or TopicMap())
        self.publish(destination, frame_for(message, destination), timeout=timeout, persistent=persistent, ttl=ttl)

    # -- what `Bus` has: subscribing ---------------------------------------------------------------------------------

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
    ) -> FakeSubscription:
        """Let `deliver` call `handler` for a destination; see `Bus.subscribe`. The options are kept, and do nothing."""
        self._check_open()
        check_destination(destination)
        options = SubscribeOptions(
            durable=durable,
            prefetch=prefetch,
            on_failure=on_failure,
            workers=workers,
            max_attempts=max_attempts,
            selector=selector,
            ids=ids,
        )
        subscription = FakeSubscription(self, destination, handler, options)
        self.subscriptions += (subscription,)
        return subscription

    def listen(
        self,
        kinds: type[_M] | tuple[type[_M], ...],
        handler: MessageHandler[_M],
        *,
        topics: TopicMap | None = None,
        **options: Unpack[SubscribeOptions],
    ) -> tuple[FakeSubscription, ...]:
        """Let `deliver` call `handler(message, delivery)` for the topics of some classes; see `Bus.listen`."""
        return listen_to(self.subscribe, kinds, handler, topics or TopicMap(), **options)

    # -- the test as the broker --------------------------------------------------------------------------------------

    def deliver(
        self, destination: str, content: Frame | Message, *, attempt: int = 1, redelivered: bool = False
    ) -> tuple[Verdict, ...]:
        """Hand a message to the handlers of a destination, in this thread; return their verdicts.

        A topic has all its handlers called; a queue one of them, in turn. `handled` records deliveries and verdicts.

        Args:
            destination: `/queue/NAME` or `/topic/NAME`, as it was subscribed.
            content: the frame, or a message to encode.
            attempt: which attempt the handler is to see, from 1.
            redelivered: whether it is to see a message that was given out before.

        Raises:
            UsageError: there is no handler for the destination, or it returned something that is no verdict.
            BusClosed: the bus was closed.
        """
        self._check_open()
        frame = content if isinstance(content, Frame) else frame_for(content, destination)
        if not (called := [one for one in self.subscriptions if one.destination == destination]):
            known = ", ".join(sorted({one.destination for one in self.subscriptions})) or "none"
            raise UsageError(f"no handler for {destination}", f"subscribed destinations: {known}")
        if destination.startswith("/queue/"):
            called = called[:1]
            self.subscriptions = (*(one for one in self.subscriptions if one is not called[0]), called[0])
        self._deliveries += 1
        number = f"fake-{self._deliveries}"
        delivery = Delivery(
            destination=destination,
            headers={**frame.headers, "destination": destination, "message-id": number},
            body=frame.body,
            message_id=number,
            id=frame.headers.get(ID_HEADER, ""),
            attempt=attempt,
            redelivered=redelivered,
            epoch=1,
        )
        verdicts = []
        for subscription in called:
            verdict = verdict_of(subscription.handler, delivery)
            self.handled.append(Handled(subscription=subscription, delivery=delivery, verdict=verdict))
            verdicts.append(verdict)
        return tuple(verdicts)

    @property
    def bodies(self) -> list[bytes]:
        """The bodies of all messages handed over, in order."""
        return [sent.frame.body for sent in self.sent]

    def wait_sent(self, number: int, timeout: float = 10.0) -> None:
        """Wait until `number` messages were handed over.

        Raises:
            AssertionError: it took too long.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.sent) >= number, timeout):
                raise AssertionError(f"{len(self.sent)} messages after {timeout} s, not {number}")

    def confirm(self, number: int | None = None) -> None:
        """Give the receipts of the first `number` messages that wait for one; of all by default."""
        for sent in self._take(number):
            sent.settle(None)

    def fail(self, error: BusError, number: int | None = None) -> None:
        """Fail the first `number` messages that wait for a receipt; all by default."""
        for sent in self._take(number):
            sent.settle(error)

    def respond(self, answer: Callable[[Sent], object]) -> None:
        """Answer every message that waits, in order, and every later one, with what `answer` returns."""
        self.answer = answer
        for sent in self._take(None):
            sent.settle(answer(sent))

    def _take(self, number: int | None) -> list[Sent]:
        with self._changed:
            number = len(self.waiting) if number is None else number
            taken, self.waiting = self.waiting[:number], self.waiting[number:]
            self._changed.notify_all()
        return taken

    def emit(self, event: Event) -> None:
        """Hand an event to the listeners, in this thread."""
        self._listeners.emit(event)

    def disconnect(self, reason: str = "taken away by the test") -> None:
        """Take the broker away, with the event `ConnectionLost`; what waits for a receipt goes on waiting."""
        with self._changed:
            self._connected = False
            self.problem = ConnectError(f"{BROKER}: connection lost: {reason}")
        self._listeners.lost(reason)

    def connect(self) -> None:
        """Bring the broker back, with the event `Connected`."""
        with self._changed:
            self._connected, self.problem = True, None
            self._changed.notify_all()
        self._listeners.connected()

    def close(self) -> None:
        """Stop the bus, with the event `Closed`: what waits fails, and nothing more is taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self.fail(BusClosed("the bus is closed"))
        self._listeners.closed()

    def _has_room(self) -> bool:
        return self._closed or self.window is None or len(self.waiting) < self.window

    def _check_open(self) -> None:
        if self._closed:
            raise BusClosed("the bus is closed")
