"""Deliveries and messages as asynchronous iterators: one in hand at a time, settled by going on."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from deploykit.aio.threads import in_thread
from deploykit.bus.delivery import Delivery
from deploykit.bus.verdicts import Ack, Reject, Retry, Verdict
from deploykit.errors import BusClosed, DeploykitError

if TYPE_CHECKING:
    from deploykit.bus.subscription import Subscription

_T = TypeVar("_T")


@dataclass(slots=True)
class EventLoop:
    """The event loop that a bus was started in, as the bus's threads reach it."""

    loop: asyncio.AbstractEventLoop
    subscriptions: set[AsyncSubscription[Any]] = field(default_factory=set)
    ended: bool = False

    def call(self, action: Callable[..., object], *args: object) -> bool:
        """Run `action` in the event loop; return False when the loop has ended."""
        try:
            self.loop.call_soon_threadsafe(action, *args)
        except RuntimeError:  # the loop is closed
            return False
        return True


@dataclass(frozen=True, slots=True)
class _Arrived(Generic[_T]):
    """What came, and what its worker thread waits for."""

    item: _T
    delivery: Delivery
    verdict: Future[Verdict]


class AsyncSubscription(Generic[_T]):
    """Deliveries or messages in order, one at a time. Made by `AsyncBus.subscribe` and `AsyncBus.listen`."""

    def __init__(
        self, loop: EventLoop, title: str, begin: Callable[[Callable[[_T, Delivery], Verdict]], Sequence[Subscription]]
    ) -> None:
        self._loop = loop
        self._title = title
        self._begin = begin
        self._begun: Sequence[Subscription] = ()
        self._starting: asyncio.Future[Sequence[Subscription]] | None = None
        self._arrived: asyncio.Queue[_Arrived[_T] | None] = asyncio.Queue()
        self._in_hand: _Arrived[_T] | None = None
        self._lock = threading.Lock()
        self._unsettled: set[Future[Verdict]] = set()
        self._giving_back = False

    def __repr__(self) -> str:
        return f"<AsyncSubscription {self._title}>"

    async def start(self) -> Self:
        """Subscribe, unless that was done. `async with` and `async for` do it by themselves.

        Raises:
            DialectError: the broker we are connected to cannot do this without losing messages.
            UsageError: an option makes no sense.
            BusClosed: the bus or this subscription was stopped.
        """
        if self._starting is None:
            if self._giving_back:
                raise BusClosed("the subscription was ended", "make a new one")
            self._loop.subscriptions.add(self)
            self._starting = asyncio.ensure_future(in_thread(lambda: self._begin(self._hand_over)))
            self._starting.add_done_callback(self._started)
        await asyncio.shield(self._starting)
        return self

    def _started(self, starting: asyncio.Future[Sequence[Subscription]]) -> None:
        """Take over what was begun; whoever waited for it may be cancelled, or have ended it meanwhile."""
        if starting.cancelled() or starting.exception() is not None:
            self._loop.subscriptions.discard(self)
            return
        self._begun = starting.result()
        if self._giving_back:
            self._stop_workers()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        if error is None:
            self.ack()
        await self.stop()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> _T:
        self.ack()
        if not self._giving_back:
            await self.start()
        while True:
            arrived = await self._arrived.get()
            if arrived is None:
                self._arrived.put_nowait(None)  # for whoever else iterates
                raise StopAsyncIteration
            if not arrived.verdict.done():  # else it was given back meanwhile
                self._in_hand = arrived
                return arrived.item

    @property
    def delivery(self) -> Delivery | None:
        """The delivery in hand; None before the first, and once it is settled."""
        return None if self._in_hand is None else self._in_hand.delivery

    def ack(self) -> None:
        """Settle the delivery in hand now: done. Does nothing when none is in hand."""
        self._settle(Ack())

    def retry(self, after: float = 1.0) -> None:
        """Settle the delivery in hand: hand it out again in `after` seconds. Counts as an attempt."""
        self._settle(Retry(after))

    def reject(self, reason: str) -> None:
        """Settle the delivery in hand: it will not get better; `on_failure` decides what becomes of it."""
        self._settle(Reject(reason))

    def close(self) -> None:
        """End the iteration as soon as the delivery in hand is settled. For signal handlers and other tasks."""
        self._arrived.put_nowait(None)
        self._give_back(but=self._in_hand)

    async def stop(self, timeout: float = 10.0) -> None:
        """End the subscription at the broker and every iteration; what is not settled goes back. Idempotent."""
        self._give_back()
        if self._starting is not None:
            with contextlib.suppress(DeploykitError):  # whoever started it gets it
                await asyncio.shield(self._starting)
        begun, self._begun = self._begun, ()
        for subscription in begun if not self._loop.ended else ():
            await in_thread(partial(subscription.unsubscribe, timeout=timeout))
        self._end()

    def _hand_over(self, item: _T, delivery: Delivery) -> Verdict:
        """Put a delivery into the loop's queue, and wait for its verdict. Runs on a worker thread of the bus."""
        arrived = _Arrived(item, delivery, Future())
        with self._lock:
            if self._giving_back:
                return Retry()
            self._unsettled.add(arrived.verdict)
        if not self._loop.call(self._arrived.put_nowait, arrived):
            return Retry()
        try:
            return arrived.verdict.result()
        finally:
            with self._lock:
                self._unsettled.discard(arrived.verdict)

    def _settle(self, verdict: Verdict) -> None:
        in_hand, self._in_hand = self._in_hand, None
        if in_hand is not None and not in_hand.verdict.done():
            in_hand.verdict.set_result(verdict)

    def _give_back(self, but: _Arrived[_T] | None = None) -> None:
        """Hand what is not settled back to the bus, but for one delivery, and take nothing more."""
        with self._lock:
            self._giving_back = True
            unsettled = [verdict for verdict in self._unsettled if but is None or verdict is not but.verdict]
        self._in_hand = but
        self._stop_workers()
        for verdict in unsettled:
            if not verdict.done():
                verdict.set_result(Retry())

    def _stop_workers(self) -> None:
        """Let the bus hand nothing over any more: what comes is left for the broker, and counts no attempt."""
        for subscription in self._begun:
            subscription.stop()

    def _end(self) -> None:
        """End every iteration, now and later; what nobody took was given back already."""
        self._loop.subscriptions.discard(self)
        while not self._arrived.empty():
            self._arrived.get_nowait()
        self._arrived.put_nowait(None)
