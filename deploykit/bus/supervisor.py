"""The one thread of a bus that talks to brokers: connects, serves, loses, waits, and begins again.

Rules:

* a connection is made for one attempt and thrown away; the broker list is walked from the one after the last loss,
  and each one's addresses as `dial` has it;
* after a whole list failed there is a pause, growing with jitter; a broker that takes us and drops us at once counts
  as failed too;
* on a new connection the subscriptions (see `roster`) come first, then the messages that have no receipt yet, in order.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import random
import socket
import threading
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Final

import attrs
from tenacity import RetryCallState, Retrying, retry_if_result

from deploykit.bus.certificates import Certificates
from deploykit.bus.connect import Connector
from deploykit.bus.events import (
    BrokerReportedError,
    BusState,
    Connected,
    ConnectFailed,
    Connecting,
    ConnectionLost,
    Counters,
    Event,
    RetryIn,
    Subscribed,
    SubscriptionRefused,
)
from deploykit.bus.poller import Interrupted, Poller
from deploykit.bus.receipt import answers_here
from deploykit.bus.stomp.handshake import credentials
from deploykit.bus.subscriptions import SubscriptionTable
from deploykit.bus.unconfirmed import PendingPublish, UnconfirmedPublishes
from deploykit.errors import BusError, ConnectError, LoginRefused, PublishRefused
from deploykit.settings.address import Address, Broker
from deploykit.settings.bus import BusSettings
from deploykit.system.backoff import Backoff

if TYPE_CHECKING:
    from deploykit.bus.ports import Feed
    from deploykit.bus.stomp.connection import Connection
    from deploykit.bus.stomp.frames import Received
    from deploykit.bus.subscription import Subscription

logger = logging.getLogger(__name__)

#: A connection that lived shorter counts as a failed attempt.
_TOO_SHORT: Final = 2.0
#: A broker that refuses at once is left alone for so long at least, seconds.
_SHORTEST_PAUSE: Final = 0.02
#: Whoever waits for the end of the thread waits so much longer than it was given, in seconds.
_GRACE: Final = 1.0
#: So long messages wait for subscriptions that are connecting, each over its own way, in seconds.
_FEEDS_FIRST: Final = 2.0
_NO_ROOM: Final = "this process may open no more descriptors or threads (ulimit -n, -u)"
_BYE: Final = b"bye"
_PROOF: Final = "proof"


class Supervisor:
    """Everything that happens on the supervisor thread. `Bus` is its face.

    Args:
        settings, address, certificates: where to connect, and how.
        ledger: the messages on their way.
        counters: where to count.
        tell: takes events.
        alone: the subscription whose own connection this is; None: everything of a bus.
    """

    def __init__(
        self,
        settings: BusSettings,
        address: Address,
        certificates: Certificates | None,
        *,
        ledger: UnconfirmedPublishes,
        counters: Counters,
        tell: Callable[[Event], None],
        alone: Subscription | None = None,
    ) -> None:
        self.waiter = Poller(self._housekeeping)
        self.state = BusState.CONNECTING
        self.connection: Connection | None = None
        #: The last thing that went wrong, for whoever waits.
        self.problem: BusError | None = None
        #: The broker refused our login everywhere, and has never taken us.
        self.hopeless: LoginRefused | None = None
        self.changed = threading.Condition()
        self.address = address
        self._alone = alone is not None
        self._settings = settings
        self._certificates = certificates
        self._ledger = ledger
        self._counters = counters
        self._tell = tell
        self._brokers = list(address.brokers)
        if address.randomize is not False:
            random.shuffle(self._brokers)
        self._diallers = {broker: Connector(broker, certificates, self.waiter) for broker in self._brokers}
        self._backoff = Backoff(
            initial=settings.backoff_initial if address.backoff_initial is None else address.backoff_initial,
            maximum=settings.backoff_max if address.backoff_max is None else address.backoff_max,
            multiplier=address.backoff_multiplier or 2.0,
            minimum=_SHORTEST_PAUSE,
        )
        self._connect_timeout = address.connect_timeout or settings.connect_timeout
        self._epochs = itertools.count(1)
        self._lock = threading.RLock()
        self.roster = SubscriptionTable(
            self, self._lock, client_id=settings.client_id, counters=counters, tell=tell, alone=alone
        )
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._timer_numbers = itertools.count()
        self._drain_until: float | None = None
        self._recycle = ""
        self._said = ""
        self._said_at = 0.0
        self._bye_sent = self._bye_seen = False
        self._send_from = 0.0
        name = "deploykit-bus" if alone is None else f"deploykit-bus-{alone.intent.id}-feed"
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)

    # -- any thread --------------------------------------------------------------------------------------------

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Run `action` on the supervisor thread after a while. It must be quick."""
        with self._lock:
            heapq.heappush(self._timers, (monotonic() + seconds, next(self._timer_numbers), action))
        self.waiter.wake()

    def flush_now(self) -> None:
        """Get what waits on its way, for a caller who is about to wait for it."""
        connection = self.connection
        if connection is not None and connection.up:
            connection.flush_now()
        else:
            self.waiter.wake()

    def reconnect(self, reason: str) -> None:
        """Give the present connection up, and make a new one; not while the bus is being closed."""
        if self._drain_until is None:
            self._recycle = reason
            self.waiter.wake()

    def news(self) -> None:
        """Wake whoever waits for a change."""
        with self.changed:
            self.changed.notify_all()

    def feed(self, subscription: Subscription, connection: Connection) -> Feed:
        """Begin to connect to the same broker once more, for this subscription alone: see `feeds`."""

        def tell(event: Event) -> None:
            if isinstance(event, ConnectFailed):
                subscription.refused(ConnectError(event.problem))
                event = SubscriptionRefused(destination=subscription.destination, problem=event.problem)
            if isinstance(event, Subscribed | SubscriptionRefused | BrokerReportedError):
                self._tell(event)
                self.news()
                self.waiter.wake()

        child = Supervisor(
            self._settings,
            attrs.evolve(self.address, brokers=(connection.broker,)),
            self._certificates,
            ledger=UnconfirmedPublishes(window=1, in_flight=1, window_bytes=1, counters=self._counters),
            counters=self._counters,
            tell=tell,
            alone=subscription,
        )
        child._epochs = self._epochs
        child._diallers[connection.broker].begin_like(self._diallers[connection.broker])
        self._send_from = monotonic() + _FEEDS_FIRST
        child.thread.start()
        return child

    def may_send(self) -> bool:
        """Whether messages may go out already: what was subscribed to before comes first."""
        return monotonic() >= self._send_from or self.roster.settled

    @property
    def ready(self) -> bool:
        """Whether there is a connection, and the broker has confirmed every subscription or said no to it."""
        return self.state is BusState.CONNECTED and self.roster.settled

    def drain(self, until: float) -> None:
        """Send what is left, say goodbye, and end; not past a monotonic time."""
        for feed in self.roster.feeds:
            feed.drain(until)
        self._drain_until = until
        if (connection := self.connection) is not None:
            connection.resume()  # the last receipt comes behind what was not read
        self.waiter.wake()
        if self.state is not BusState.CONNECTED:
            self.waiter.stop()

    def end(self, until: float) -> None:
        """Send what is left, say goodbye, and wait for the end; not past a monotonic time."""
        self.drain(until)
        if self.thread is not threading.current_thread():
            self.thread.join(max(0.0, until - monotonic()) + _GRACE)
        for feed in self.roster.feeds:
            feed.end(until)
        self.waiter.stop()

    def cut(self) -> None:
        """End at once, without a word to the broker."""
        if (connection := self.connection) is not None:
            connection.give_up()
        with self._lock:
            self.roster.lost(by_broker=False)
        self.drain(0.0)

    def abandon(self) -> None:
        """Free what this process holds, without a word to the broker: never started, or a forked child's copy."""
        for feed in self.roster.feeds:
            feed.abandon()
        if self.connection is not None:
            self.connection.close()
        self.waiter.close()

    def why_unconfirmed(self, entry: PendingPublish) -> str:
        """Say what stands between a message and its receipt."""
        if self.state is not BusState.CONNECTED:
            return f"not connected: {self.problem}" if self.problem else "not connected yet"
        if self._said and self._said_at > monotonic() - 60:
            return f"the broker said: {self._said}"
        if not entry.sent:
            return "the broker does not read (a memory or disk alarm?)"
        return "the broker took it and sends no receipt (a memory or disk alarm?)"

    # -- the thread --------------------------------------------------------------------------------------------

    def _run(self) -> None:
        if not self._alone:
            answers_here()
        # One call of it makes rounds until a connection was worth something; the next call counts from 1 again.
        rounds = Retrying(
            retry=retry_if_result(lambda lived: lived < _TOO_SHORT),
            wait=lambda state: self._backoff.pause(state.attempt_number, random.random()),  # noqa: S311 - no secret
            before_sleep=self._announce_pause,
            sleep=self._pause,
        )
        try:
            while not self.waiter.stopping and self._drain_until is None:
                rounds(self._try_each)
        except Interrupted:
            pass
        except Exception:
            logger.exception("the bus's own thread failed; this is a bug")
            raise
        finally:
            self._set_state(BusState.CLOSED)
            for feed in self.roster.feeds:
                feed.drain(self._drain_until or 0.0)  # those that were made while we were told to end
            if self.connection is not None:
                self.connection.close()
            self.waiter.close()

    def _announce_pause(self, state: RetryCallState) -> None:
        self._set_state(BusState.WAITING)
        self._tell(RetryIn(seconds=state.upcoming_sleep, round=state.attempt_number))

    def _pause(self, seconds: float) -> None:
        self.waiter.wait_for(None, 0, monotonic() + seconds)
        if self._drain_until is not None:
            raise Interrupted

    def _try_each(self) -> float:
        """Try every broker once; serve the first that takes us. Return how long that lasted, 0.0: none did."""
        refusals = []
        for broker in list(self._brokers):
            self._set_state(BusState.CONNECTING)
            self._tell(Connecting(broker=str(broker)))
            try:
                connection = self._open(broker)
            except (ConnectError, OSError, RuntimeError) as problem:
                # Without descriptors or threads nothing can be opened now: as good as a broker that is away.
                error = problem if isinstance(problem, ConnectError) else ConnectError(f"{broker}: {problem}", _NO_ROOM)
                self._counters.connect_failures += 1
                self.problem = error
                refusals.append(isinstance(error, LoginRefused))
                logger.info("%s", error)
                self._tell(ConnectFailed(broker=str(broker), problem=str(error)))
                continue
            # Next time, begin after the one that may just have died.
            self._brokers.append(self._brokers.pop(self._brokers.index(broker)))
            lived = self._serve(connection)
            self._diallers[broker].ended(at_once=lived < _TOO_SHORT)
            return lived
        if all(refusals) and not self._counters.connects and isinstance(self.problem, LoginRefused):
            with self.changed:
                self.hopeless = self.problem
                self.changed.notify_all()
        return 0.0

    def _open(self, broker: Broker) -> Connection:
        """Open a connection; where a backslash in the credentials may have been the obstacle, try it the other way."""
        dialler, greeted = self._diallers[broker], False

        def greet(sock: socket.socket, deadline: float, *, escape_login: bool = True) -> Connection:
            nonlocal greeted
            greeted = True
            connection = self._new_connection(broker, sock, escape_login=escape_login)
            try:
                connection.open(deadline)
            except BaseException:
                connection.close()
                raise
            return connection

        try:
            connection = dialler.reach(self._connect_timeout, greet)
        except ConnectError:
            if not greeted or "\\" not in "".join(credentials(broker, self._settings)):
                raise
            connection = dialler.reach(self._connect_timeout, partial(greet, escape_login=False))
        connection.passed_over = dialler.passed_over
        return connection

    def _new_connection(self, broker: Broker, sock: socket.socket, *, escape_login: bool) -> Connection:
        from deploykit.bus.stomp.connection import Connection  # here, because stomp.py takes 80 ms to load

        return Connection(
            broker,
            self._settings,
            sock,
            epoch=next(self._epochs),
            waiter=self.waiter,
            ledger=self._ledger,
            counters=self._counters,
            sink=self,
            client_id=self.roster.client_id(),
            escape_login=escape_login,
        )

    def _serve(self, connection: Connection) -> float:
        from deploykit.bus.stomp import connection as wire

        born = monotonic()
        self._counters.connects += 1
        self._recycle = ""
        self.problem = self.hopeless = None
        with self._lock:
            self.roster.begin(connection)
            self.connection = connection  # from here on other threads write to it: subscriptions are before messages
        self._set_state(BusState.CONNECTED)
        logger.info(
            "connected to %s: %s, STOMP %s, beats %s",
            connection.broker,
            connection.server or "no name",
            connection.version,
            connection.beats,
        )
        self._tell(
            Connected(
                broker=str(connection.broker),
                server=connection.server,
                version=connection.version,
                dialect=connection.dialect.name,
                epoch=connection.epoch,
                beats=str(connection.beats),
            )
        )
        try:
            self._turn_until_lost(connection)
        except wire.ConnectionBroken as lost:
            self._lost(connection, lost.reason, by_broker=lost.by_broker)
        finally:
            connection.close()
            self.connection = None
        return max(monotonic() - born, 0.001)

    def _turn_until_lost(self, connection: Connection) -> None:
        from deploykit.bus.stomp.connection import ConnectionBroken

        confirmed, progress = self._counters.published, monotonic()
        while True:
            if self._ledger.needs_proof():
                connection.round_trip(_PROOF)
            connection.step(monotonic() + 1.0)
            now = monotonic()
            if self._recycle:
                raise ConnectionBroken(self._recycle)
            if self._counters.published != confirmed or not len(self._ledger):
                confirmed, progress = self._counters.published, now
            elif now - progress > self._settings.stall_timeout:
                raise ConnectionBroken(f"no receipt for {now - progress:.0f} s")
            if self._drain_until is not None and self._said_goodbye(connection, now, self._drain_until):
                self.waiter.stop()
                raise Interrupted

    def _said_goodbye(self, connection: Connection, now: float, until: float) -> bool:
        if now >= until or self._bye_seen:
            return True
        if not self._bye_sent and not len(self._ledger):
            self._bye_sent = True
            connection.disconnect(_BYE.decode())
        return False

    def _lost(self, connection: Connection, reason: str, *, by_broker: bool) -> None:
        connection.give_up()
        if self._bye_sent:
            raise Interrupted  # the broker took its leave without the receipt
        self._counters.losses += 1
        problem = ConnectError(f"{connection.broker}: connection lost: {reason}", "it is being made anew")
        self.problem = problem
        logger.warning("%s", problem.problem)
        with self._lock:
            self.connection = None
            by_subscription = self.roster.lost(by_broker=by_broker)
        self._ledger.connection_lost(by_broker=by_broker and not by_subscription)
        self._set_state(BusState.CONNECTING)
        self._tell(ConnectionLost(broker=str(connection.broker), reason=reason, epoch=connection.epoch))
        if self._drain_until is not None:
            raise Interrupted

    def _set_state(self, state: BusState) -> None:
        with self.changed:
            self.state = state
            self.changed.notify_all()

    def _housekeeping(self, now: float) -> float:
        """Fire timers and overdue messages; return when to be called again."""
        while self._timers and self._timers[0][0] <= now:
            with self._lock:
                _, _, action = heapq.heappop(self._timers)
            action()
        due = self._ledger.expire(now, self.why_unconfirmed)
        return min(due, self._timers[0][0]) if self._timers else due

    # -- what a connection hands on ----------------------------------------------------------------------------

    def on_receipts(self, receipts: list[bytes]) -> None:
        """Receipts of everything but messages."""
        connection = self.connection
        for receipt in receipts:
            if receipt == _BYE:
                self._bye_seen = True
            elif receipt == _PROOF.encode():
                self._ledger.proved()
            elif connection is not None:
                self.roster.on_receipt(receipt.decode("ascii", "replace"), connection)

    def on_message(self, frame: Received) -> None:
        """A MESSAGE."""
        if self.connection is not None:
            self.roster.on_message(frame, self.connection)

    def on_error(self, frame: Received, shown: str) -> None:
        """An ERROR: find whom it concerns."""
        connection = self.connection
        if connection is None:
            return
        if self.roster.on_error(frame, shown, connection, alone=not len(self._ledger)):
            return
        receipt = frame.headers.get("receipt-id", "")
        problem = PublishRefused(f"{connection.broker} refused the message: {shown}", "look at the broker's log")
        if receipt and self._ledger.refuse_receipt(receipt, problem):
            return
        self._said, self._said_at = shown, monotonic()
        logger.warning("%s: ERROR: %s", connection.broker, shown)
        self._tell(BrokerReportedError(broker=str(connection.broker), problem=shown))
