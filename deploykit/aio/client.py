"""`AsyncBus`: a `Bus` whose callers live in one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, TypeVar, Unpack

from deploykit.aio.subscription import AsyncSubscription, EventLoop
from deploykit.aio.threads import in_thread
from deploykit.bus.client import Bus
from deploykit.bus.delivery import Delivery
from deploykit.bus.events import BusState, Event
from deploykit.bus.inspection import refused_login
from deploykit.bus.listening import SubscribeOptions
from deploykit.bus.ports import Ids
from deploykit.bus.verdicts import Verdict
from deploykit.errors import BusClosed, PublishError, UsageError, WindowFull
from deploykit.messages.base import Message
from deploykit.messages.topics import TopicMap, topic_of
from deploykit.wire.frame import Frame
from deploykit.wire.people import frame_for

if TYPE_CHECKING:
    from deploykit.bus.subscription import Subscription
    from deploykit.settings.bus import BusSettings

_M = TypeVar("_M", bound=Message)

#: Seconds after which a publisher looks again, for room that another's receipt made or for a refused login.
_LOOK: Final = 0.1


class AsyncBus:
    """A `deploykit.Bus` for one event loop. Use it as an asynchronous context manager.

    Args:
        settings: where to connect, and how; or just the address.
        on_event: called with each `deploykit.Event`, in order, in the event loop.
        ids: a store of handled ids, asked before each message that has an id is handed out.
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
        self._on_event = on_event
        self._bus = Bus(
            settings, on_event=self._forward if on_event is not None else None, ids=ids, client_id=client_id
        )
        self._loop: EventLoop | None = None
        self._turn = asyncio.Lock()  # who waits for room waits in order
        self._room = asyncio.Event()
        self._full = False

    def __repr__(self) -> str:
        return f"<Async{repr(self._bus)[1:]}"

    async def __aenter__(self) -> Self:
        self._loop = EventLoop(asyncio.get_running_loop())
        await in_thread(self._bus.start)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self, timeout: float = 10.0) -> None:
        """End all iterations, hand back what is not settled, get the last receipts; at most `timeout` seconds."""
        subscriptions = list(self._loop.subscriptions) if self._loop is not None else []
        for subscription in subscriptions:
            subscription._give_back()
        await in_thread(partial(self._bus.stop, timeout))
        if self._loop is not None:
            self._loop.ended = True
        for subscription in subscriptions:
            subscription._end()

    @property
    def state(self) -> BusState:
        """Where the bus stands at the moment."""
        return self._bus.state

    async def wait_connected(self, timeout: float) -> bool:
        """Wait until there is a connection and the broker has answered every subscription; return whether it has.

        Raises:
            LoginRefused: every broker refused the login, and none ever took it.
            BusClosed: the bus was stopped.
        """
        loop = self._running().loop
        end = loop.time() + timeout
        while not self._bus.wait_connected(0.0):
            if loop.time() >= end:
                return False
            await asyncio.sleep(_LOOK)
        return True

    # -- publishing --------------------------------------------------------------------------------------------

    async def publish(
        self,
        destination: str,
        frame: Frame,
        *,
        timeout: float = 10.0,
        persistent: bool = True,
        ttl: float | None = None,
    ) -> None:
        """Send a message and return when the broker has confirmed it; wait for room first where there is none.

        The arguments are those of `Bus.publish`. Any number of tasks may publish at once. A call that is cancelled
        after its message was taken does not take it back.

        Raises:
            PublishError: not confirmed in time; it may or may not have arrived. Send it again, with the same id.
            PublishRefused: the broker or this bus refused this very message.
            LoginRefused: every broker refused the login, and none ever accepted it.
            BusClosed: the bus was stopped.
        """
        loop = self._running().loop
        end = loop.time() + timeout
        try:
            async with asyncio.timeout_at(end), self._turn:
                receipt = await self._take(destination, frame, end=end, persistent=persistent, ttl=ttl)
        except TimeoutError:
            raise PublishError(
                f"not sent to {destination}: no room in {timeout:g} s, too many messages wait for their receipts",
                "send it again later, or raise the window of the bus settings",
            ) from None
        await self._confirmed(asyncio.wrap_future(receipt))

    async def _confirmed(self, receipt: asyncio.Future[None]) -> None:
        """Wait for a receipt; not for brokers that all refused the login."""
        receipt.add_done_callback(_look_at_outcome)
        while not receipt.done() and self._bus.state is not BusState.CONNECTED:
            if (refused := refused_login(self._bus)) is not None:
                raise refused
            await asyncio.wait({receipt}, timeout=_LOOK)
        await receipt

    async def send(self, message: Message, *, topics: TopicMap | None = None, timeout: float = 10.0) -> None:
        """Encode a message, find its topic, and publish it there.

        Raises:
            MessageError: the message cannot be written.
            PublishError: as `publish`.
        """
        destination = topic_of(message, topics or TopicMap())
        await self.publish(destination, frame_for(message, destination), timeout=timeout)

    def publish_nowait(
        self,
        destination: str,
        frame: Frame,
        *,
        timeout: float | None = None,
        persistent: bool = True,
        ttl: float | None = None,
    ) -> asyncio.Future[None]:
        """Send a message; the future ends when the broker has confirmed it. See `Bus.publish_nowait`.

        Raises:
            WindowFull: too many messages wait for their receipts; `publish` waits for room.
            BusClosed: the bus was stopped.
        """
        self._running()
        receipt = self._bus.publish_nowait(destination, frame, timeout=timeout, persistent=persistent, ttl=ttl)
        receipt.add_done_callback(self._freed)
        return asyncio.wrap_future(receipt)

    async def _take(
        self, destination: str, frame: Frame, *, end: float, persistent: bool, ttl: float | None
    ) -> Future[None]:
        loop = self._running().loop
        try:
            while True:
                left = max(0.0, end - loop.time())
                try:
                    receipt = self._bus.publish_nowait(destination, frame, timeout=left, persistent=persistent, ttl=ttl)
                except WindowFull:
                    if self._full:  # the second time: no receipt came between the first and the flag
                        await self._wait_for_room()
                    self._full = True
                    self._room.clear()
                else:
                    receipt.add_done_callback(self._freed)
                    return receipt
        finally:
            self._full = False

    async def _wait_for_room(self) -> None:
        try:
            async with asyncio.timeout(_LOOK):
                await self._room.wait()
        except TimeoutError:
            pass

    def _freed(self, _: Future[None]) -> None:
        """Wake who waits for room. Runs on the bus's own thread."""
        if self._full and self._loop is not None:
            self._loop.call(self._room.set)

    # -- subscribing -------------------------------------------------------------------------------------------

    def subscribe(self, destination: str, **options: Unpack[SubscribeOptions]) -> AsyncSubscription[Delivery]:
        """Return the deliveries of a destination, for `async with` and `async for`; over all reconnects.

        Args:
            destination: `/queue/NAME` or `/topic/NAME`.
            options: those of `Bus.subscribe`: `durable`, `prefetch`, `on_failure`, `max_attempts`, `selector`, `ids`.
        """

        def begin(hand_over: Callable[[Delivery, Delivery], Verdict]) -> Sequence[Subscription]:
            return (self._bus.subscribe(destination, lambda delivery: hand_over(delivery, delivery), **options),)

        return AsyncSubscription(self._running(), destination, begin)

    def listen(
        self,
        kinds: type[_M] | tuple[type[_M], ...],
        *,
        topics: TopicMap | None = None,
        **options: Unpack[SubscribeOptions],
    ) -> AsyncSubscription[_M]:
        """Return the messages of one class or several, decoded, for `async with` and `async for`.

        What is no message becomes a dead letter; other messages of the same topics are passed over.

        Args:
            kinds: a message class, or a tuple of them.
            topics: which topic belongs to which message; default: deploykit's own names.
            options: as for `subscribe`.
        """

        def begin(hand_over: Callable[[_M, Delivery], Verdict]) -> Sequence[Subscription]:
            return self._bus.listen(kinds, hand_over, topics=topics, **options)

        loop = self._running()
        classes = kinds if isinstance(kinds, tuple) else (kinds,)
        return AsyncSubscription(loop, ", ".join(kind.__name__ for kind in classes), begin)

    # -- inside ------------------------------------------------------------------------------------------------

    def _running(self) -> EventLoop:
        if self._loop is None:
            raise BusClosed("the bus was not started", "use `async with AsyncBus(...) as bus:`")
        if asyncio.get_running_loop() is not self._loop.loop:
            raise UsageError("this bus belongs to another event loop", "make one in each loop")
        return self._loop

    def _forward(self, event: Event) -> None:
        if self._on_event is not None and self._loop is not None:
            self._loop.call(self._on_event, event)


def _look_at_outcome(receipt: asyncio.Future[None]) -> None:
    """Take note of how a message ended although its publisher left: asyncio would log an error for it."""
    if not receipt.cancelled():
        receipt.exception()
