"""A subscription: a queue between the connection and the handlers, and the threads that work it off.

Rules:

* the I/O thread only puts messages into the queue; handlers run in worker threads, and take as long as they want;
* what was not finished when the bus stops is handed back by saying nothing: the broker gives it to the next one.

What happens to a message in a worker is in `settlement`.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import re
import threading
from time import monotonic, sleep
from typing import Final, get_args

from deploykit.bus.checks import in_bounds
from deploykit.bus.delivery import Handler, Item
from deploykit.bus.ports import BrokerConnection, Ids, SubscriptionServices
from deploykit.bus.receipt import check_may_wait
from deploykit.bus.settlement import Settler
from deploykit.bus.stomp.compile import CompiledSubscription, OnFailure, SubscriptionSpec
from deploykit.bus.stomp.frames import Received
from deploykit.errors import BusError, UsageError
from deploykit.messages.destinations import check_destination
from deploykit.system.threads import has_ended

logger = logging.getLogger(__name__)


_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")


def check_options(spec: SubscriptionSpec, *, workers: int, max_attempts: int) -> None:
    """Check what `Bus.subscribe` was given.

    Raises:
        UsageError: an argument makes no sense.
        DialectError: no broker would take the destination.
    """
    if spec.durable is not None and not _NAME.match(spec.durable):
        raise UsageError(f"durable={spec.durable[:40]!r} is no name", "letters, digits, . _ -, at most 100")
    if not 1 <= spec.prefetch <= 65535 or not 1 <= workers <= 1000 or not 1 <= max_attempts <= 1_000_000:
        raise UsageError("prefetch, workers or max_attempts is out of range", "1 and up")
    if spec.on_failure not in get_args(OnFailure):
        raise UsageError(f"on_failure={spec.on_failure!a} is not known", f"one of {', '.join(get_args(OnFailure))}")
    check_destination(spec.destination)


class Subscription:
    """A subscription of a bus; made by `Bus.subscribe`. It survives reconnects.

    `active`: the broker has confirmed it on the present connection.
    """

    def __init__(
        self,
        services: SubscriptionServices,
        spec: SubscriptionSpec,
        handler: Handler,
        *,
        workers: int,
        max_attempts: int,
        ids: Ids | None,
    ) -> None:
        self.spec = spec
        self.problem: BusError | None = None
        self.refusals = 0
        self.losses = 0
        self.last_error = ""
        self._services = services
        self._queue: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
        self._settler = Settler(services, spec, handler, max_attempts=max_attempts, ids=ids, requeue=self._queue.put)
        self._stopping = False
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._active = 0
        self._left: list[Item] = []
        self._untaken = 0  # came on this connection after `stop`
        self._threads = [
            threading.Thread(target=self._work, name=f"deploykit-bus-{spec.id}-{n}", daemon=True)
            for n in range(1, workers + 1)
        ]

    def __repr__(self) -> str:
        return f"<Subscription {self.spec.destination} {'active' if self.active else 'not active'}>"

    @property
    def destination(self) -> str:
        """The destination as it was asked for."""
        return self.spec.destination

    @property
    def active(self) -> bool:
        """Whether the broker has confirmed this subscription on the present connection."""
        return self._active > 0

    @property
    def stopping(self) -> bool:
        """Whether it is being ended."""
        return self._stopping

    @property
    def ended_worker(self) -> str:
        """The name of a worker that was started and has ended; empty where all live."""
        return next((thread.name for thread in self._threads if has_ended(thread)), "")

    @property
    def works_here(self) -> bool:
        """Whether the calling thread is one of its workers."""
        return threading.current_thread() in self._threads

    @property
    def queued(self) -> int:
        """Messages that wait for a worker."""
        return self._queue.qsize()

    def held(self, share: float) -> bool:
        """Return whether more messages than a share of the bound wait here, for a worker or for another attempt.

        The bound is above `prefetch`, so that a broker that keeps to that never reaches it.
        """
        return self._queue.qsize() + self._settler.waiting > share * max(1000, 2 * self.spec.prefetch)

    def wait_active(self, timeout: float) -> bool:
        """Return whether the broker has confirmed the subscription, waiting for that.

        Raises:
            BusError: it was refused, and why.
            UsageError: called by a callback of a future, see `Bus.publish_nowait`.
        """
        check_may_wait("wait_active()")
        with self._changed:
            self._changed.wait_for(lambda: self._active or self.problem is not None, in_bounds(timeout))
            if self._active:
                return True
            if self.problem is not None:
                raise self.problem
            return False

    def unsubscribe(self, *, forget: bool = False, timeout: float = 10.0) -> None:
        """End the subscription: running handlers finish, queued messages go back to the broker.

        A handler may call it, for its own subscription or another of its bus; then it returns at once, the subscription
        ends when its running handlers have returned, and what goes wrong is logged. So two handlers may end each other.

        Args:
            forget: delete a durable subscription at the broker, with the messages it holds.
            timeout: seconds to wait for running handlers; what they do after that may be done again elsewhere.

        Raises:
            ConnectError: `forget`, and the broker did not confirm it.
        """
        timeout = in_bounds(timeout)
        self.stop()
        if self._services.in_callback:
            # What the handler has in hand can be acknowledged only after it has returned.
            name = f"deploykit-bus-{self.spec.id}-end"
            threading.Thread(target=self._end_later, args=(forget, timeout), name=name, daemon=False).start()
            return
        self.join(monotonic() + timeout)
        self._services.end_subscription(self.spec.id, forget=forget)

    def _end_later(self, forget: bool, timeout: float) -> None:
        self.join(monotonic() + timeout)
        try:
            self._services.end_subscription(self.spec.id, forget=forget)
        except BusError as error:
            logger.warning("the end of the subscription to %s: %s", self.destination, error)

    def forget_unsettled(self, timeout: float = 1.0) -> None:
        """Forget messages that wait for another attempt, waiting for the first: they were settled elsewhere."""
        end = monotonic() + timeout
        while not self._settler.waiting and monotonic() < end:
            sleep(0.005)
        for item in self._settler.take_waiting():
            self._settler.forget(item)
            self.catch_up(item.connection)

    def leave(self) -> int:
        """Forget everything that is not settled; return how many messages that were."""
        left = [item for item in (*self._left, *self._empty(), *self._settler.take_waiting()) if item.connection.up]
        self._left.clear()
        self._services.counters.handed_back += len(left)
        # What a handler still works on is unsettled, whether it has an id or not.
        in_hand = max(self._settler.in_work, sum(thread.is_alive() for thread in self._threads))
        return len(left) + self._untaken + in_hand

    def _empty(self) -> list[Item]:
        """Take everything out of the queue but the sign to stop."""
        items = []
        with contextlib.suppress(queue.Empty):
            while True:
                if (item := self._queue.get_nowait()) is not None:
                    items.append(item)
        if self._stopping:
            self._queue.put(None)
        return items

    # -- the supervisor's thread -------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the workers."""
        for thread in self._threads:
            thread.start()

    def compiled_for(self, compiled: CompiledSubscription) -> None:
        """Take note of how the subscription is written on the new connection."""
        self._settler.compiled = compiled

    def confirmed(self, epoch: int) -> None:
        """Take note that the broker confirmed it on this connection."""
        with self._changed:
            self._active, self.problem, self.refusals, self.losses, self.last_error = epoch, None, 0, 0, ""
            self._changed.notify_all()

    def refused(self, problem: BusError) -> None:
        """Take note of why it does not work on this connection."""
        with self._changed:
            self._active, self.problem = 0, problem
            self.refusals += 1
            self._changed.notify_all()

    def connection_lost(self) -> None:
        """Forget what waits: it cannot be acknowledged any more, and the broker will deliver it again."""
        self._active = self._untaken = 0
        lost = [*self._left, *self._settler.take_waiting(), *self._empty()]
        self._left.clear()
        self._services.counters.handed_back += len(lost)
        for item in lost:
            self._settler.forget(item)

    def take(self, frame: Received, connection: BrokerConnection) -> None:
        """Put a message into the queue."""
        self._queue.put(Item(frame, connection))

    def leave_unread(self) -> None:
        """Count a message that came after `stop`: it is not kept, and goes back with the rest."""
        self._untaken += 1
        self._services.counters.handed_back += 1

    def catch_up(self, connection: BrokerConnection) -> None:
        """Have a paused connection read on, once half of what was held is done. Workers call it too."""
        if connection.paused and not self.held(0.5):
            connection.resume()

    # -- stopping ----------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Let every worker end after the handler it is in."""
        if not self._stopping:
            self._stopping = True
            self._queue.put(None)

    def join(self, deadline: float) -> bool:
        """Return whether all workers have ended, waiting for them until a monotonic time."""
        for thread in self._threads:
            if thread is not threading.current_thread() and thread.ident is not None:
                thread.join(max(0.0, deadline - monotonic()))
        return not any(t.is_alive() and t is not threading.current_thread() for t in self._threads)

    # -- the workers -------------------------------------------------------------------------------------------

    def _work(self) -> None:
        take, counters = self._queue.get, self._services.counters
        while (item := take()) is not None:
            if self._stopping:
                self._left.append(item)
                continue
            if not item.connection.up:
                counters.handed_back += 1
                self._settler.forget(item)
                continue
            self.catch_up(item.connection)
            try:
                self._settler.handle(item)
            except Exception:
                # A bug of ours must not end the worker: the message stays unacknowledged and comes again.
                logger.exception("settling a message from %s failed", self.destination)
                self._settler.forget(item)
        self._queue.put(None)  # for the next worker
