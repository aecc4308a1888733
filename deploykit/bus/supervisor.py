"""The one thread of a bus that talks to brokers: connects, serves, loses, waits, and begins again.

Rules:

* a connection is made for one attempt and thrown away; the broker list is walked from the one after the last loss;
* after a whole list failed there is a pause, growing with jitter; a broker that takes us and drops us at once counts
  as failed too;
* on a new connection the subscriptions come first, then the messages that have no receipt yet, in order;
* a subscription that seems to end connections is tried later and alone, so that the others live.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import random
import ssl
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from time import monotonic
from typing import TYPE_CHECKING, Final

from deploykit.bus.address import Address, Broker
from deploykit.bus.backoff import Backoff
from deploykit.bus.consumer import Subscription
from deploykit.bus.dialect import Intent, compile_subscription, durable_end, is_topic, keeps_messages
from deploykit.bus.events import (
    BrokerError,
    Connected,
    ConnectFailed,
    Connecting,
    Counters,
    Event,
    Lost,
    RetryIn,
    State,
    Subscribed,
    SubscriptionRefused,
)
from deploykit.bus.ledger import Ledger, Outbound
from deploykit.bus.waiter import Interrupted, Waiter
from deploykit.errors import BusError, ConnectError, DialectError, LoginRefused, PublishRefused
from deploykit.settings import BusSettings

if TYPE_CHECKING:
    from deploykit.bus.connection import Connection
    from deploykit.bus.frames import Received

logger = logging.getLogger(__name__)

#: A connection that lived shorter counts as a failed attempt.
_TOO_SHORT: Final = 2.0
#: So many connections ended by the broker before a subscription was confirmed: it waits and is tried alone.
_SUSPECT_AFTER: Final = 2
_RESUBSCRIBE: Final = Backoff(initial=0.5, maximum=60.0, minimum=0.2)
_BYE: Final = b"bye"
_PROOF: Final = "proof"


class Supervisor:
    """Everything that happens on the supervisor thread. `Bus` is its face.

    Args:
        settings, address, context: where to connect, and how.
        ledger: the messages on their way.
        counters: where to count.
        tell: takes events.
    """

    def __init__(
        self,
        settings: BusSettings,
        address: Address,
        context: ssl.SSLContext | None,
        *,
        ledger: Ledger,
        counters: Counters,
        tell: Callable[[Event], None],
    ) -> None:
        self.waiter = Waiter(self._housekeeping)
        self.state = State.CONNECTING
        self.connection: Connection | None = None
        #: The last thing that went wrong, for whoever waits.
        self.problem: BusError | None = None
        #: The broker refused our login everywhere, and has never taken us.
        self.hopeless: LoginRefused | None = None
        self.changed = threading.Condition()
        self.address = address
        self._settings = settings
        self._context = context
        self._ledger = ledger
        self._counters = counters
        self._tell = tell
        self._brokers = list(address.brokers)
        if address.randomize is not False:
            random.shuffle(self._brokers)
        self._backoff = Backoff(
            initial=settings.backoff_initial if address.backoff_initial is None else address.backoff_initial,
            maximum=settings.backoff_max if address.backoff_max is None else address.backoff_max,
            multiplier=address.backoff_multiplier or 2.0,
        )
        self._connect_timeout = address.connect_timeout or settings.connect_timeout
        self._epoch = 0
        self._lock = threading.RLock()
        self._subscriptions: dict[str, Subscription] = {}
        self._unconfirmed: dict[str, Subscription] = {}  # receipt -> subscription, on this connection
        self._receipts = itertools.count(1)
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._timer_numbers = itertools.count()
        self._ended: dict[str, Future[None]] = {}
        self._drain_until: float | None = None
        self._recycle = ""
        self._said = ""
        self._said_at = 0.0
        self._bye_sent = self._bye_seen = False
        self.thread = threading.Thread(target=self._run, name="deploykit-bus", daemon=True)

    # -- any thread --------------------------------------------------------------------------------------------

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Run `action` on the supervisor thread after a while. It must be quick."""
        with self._lock:
            heapq.heappush(self._timers, (monotonic() + seconds, next(self._timer_numbers), action))
        self.waiter.wake()

    def add(self, subscription: Subscription) -> None:
        """Take a subscription in, and send it if there is a connection.

        Raises:
            DialectError: the broker we are connected to cannot do what it asks for.
        """
        with self._lock:
            connection = self.connection
            if connection is not None and connection.up:
                compile_subscription(connection.dialect, subscription.intent)
                self._check_client_id(connection, subscription.intent)
            self._subscriptions[subscription.intent.id] = subscription
            subscription.start()
            if connection is not None and connection.up:
                self._subscribe(connection, subscription)

    def remove(self, subscription: Subscription, *, forget: bool, timeout: float) -> None:
        """Take a subscription out, at the broker too; wait for its word when it is to forget."""
        done: Future[None] = Future()
        with self._lock:
            if self._subscriptions.pop(subscription.intent.id, None) is None:
                return
            connection = self.connection
            if connection is None or not connection.up:
                if forget and subscription.intent.durable:
                    raise ConnectError(
                        "not connected: the durable subscription was not deleted at the broker", "try it again"
                    )
                return
            headers = (
                durable_end(
                    connection.dialect,
                    subscription.intent,
                    version=connection.version,
                    client_id=connection.client_id,
                )
                if forget
                else {}
            )
            receipt = f"end-{next(self._receipts)}"
            self._ended[receipt] = done
            if headers and connection.dialect.durable_end_after:
                connection.unsubscribe(subscription.intent.id, {}, f"{receipt}-first")
            connection.unsubscribe(subscription.intent.id, headers, receipt)
        try:
            done.result(timeout)
        except (BusError, FutureTimeout) as error:
            if forget:
                shown = error if isinstance(error, BusError) else "no answer from the broker in time"
                raise ConnectError(f"the durable subscription was not deleted: {shown}", "try it again") from None
        finally:
            self._ended.pop(receipt, None)
            left = subscription.leave()
            if left and not connection.dialect.gives_back_on_unsubscribe and keeps_messages(subscription.intent):
                self._give_back(connection, left)

    def flush_now(self) -> None:
        """Get what waits on its way, for a caller who is about to wait for it."""
        connection = self.connection
        if connection is not None and connection.up:
            connection.flush_now()
        else:
            self.waiter.wake()

    def _give_back(self, connection: Connection, count: int) -> None:
        """Let the broker have messages back that it gives to nobody else while this connection lives."""
        if self._drain_until is None and connection is self.connection:
            self._recycle = f"given up, so that {count} unsettled messages of an ended subscription go back"
            self.waiter.wake()

    def resume(self) -> None:
        """Read on, if reading was paused and the workers have caught up."""
        connection = self.connection
        if connection is not None and connection.paused and not self._overfull(0.5):
            connection.paused = False
            self.waiter.wake()

    @property
    def ready(self) -> bool:
        """Whether there is a connection, and the broker has confirmed every subscription or said no to it."""
        if self.state is not State.CONNECTED:
            return False
        with self._lock:
            return all(one.active or one.problem is not None for one in self._subscriptions.values())

    def drain(self, until: float) -> None:
        """Send what is left, say goodbye, and end; not past a monotonic time."""
        self._drain_until = until
        self.waiter.wake()
        if self.state is not State.CONNECTED:
            self.waiter.stop()

    def abandon(self) -> None:
        """Free what this process holds, without a word to the broker: never started, or a forked child's copy."""
        if self.connection is not None:
            self.connection.close()
        self.waiter.close()

    def why_unconfirmed(self, entry: Outbound) -> str:
        """Say what stands between a message and its receipt."""
        if self.state is not State.CONNECTED:
            return f"not connected: {self.problem}" if self.problem else "not connected yet"
        if self._said and self._said_at > monotonic() - 60:
            return f"the broker said: {self._said}"
        if not entry.sent:
            return "the broker does not read (a memory or disk alarm?)"
        return "the broker took it and sends no receipt (a memory or disk alarm?)"

    # -- the thread --------------------------------------------------------------------------------------------

    def _run(self) -> None:
        rounds = 0
        try:
            while not self.waiter.stopping and self._drain_until is None:
                lived = self._try_each()
                rounds = 0 if lived >= _TOO_SHORT else rounds + 1
                if lived and not rounds:
                    continue
                self._pause(rounds)
        except Interrupted:
            pass
        except Exception:
            logger.exception("the bus's own thread failed; this is a bug")
            raise
        finally:
            self._set_state(State.CLOSED)
            if self.connection is not None:
                self.connection.close()
            self.waiter.close()

    def _pause(self, rounds: int) -> None:
        seconds = self._backoff.pause(rounds)
        self._set_state(State.WAITING)
        self._tell(RetryIn(seconds=seconds, round=rounds))
        self.waiter.wait_for(None, 0, monotonic() + seconds)

    def _try_each(self) -> float:
        """Try every broker once; serve the first that takes us. Return how long that lasted, 0.0: none did."""
        refusals = []
        for broker in list(self._brokers):
            self._set_state(State.CONNECTING)
            self._tell(Connecting(broker=str(broker)))
            connection = self._new_connection(broker)
            try:
                connection = self._open(connection)
            except ConnectError as error:
                self._counters.connect_failures += 1
                self.problem = error
                refusals.append(isinstance(error, LoginRefused))
                logger.info("%s", error)
                self._tell(ConnectFailed(broker=str(broker), problem=str(error)))
                continue
            # Next time, begin after the one that may just have died.
            self._brokers.append(self._brokers.pop(self._brokers.index(broker)))
            return self._serve(connection)
        if all(refusals) and not self._counters.connects and isinstance(self.problem, LoginRefused):
            with self.changed:
                self.hopeless = self.problem
                self.changed.notify_all()
        return 0.0

    def _open(self, connection: Connection) -> Connection:
        """Open it; where a backslash in the credentials may have been the obstacle, try it the other way too."""
        try:
            connection.open(self._connect_timeout)
        except BaseException as error:
            connection.close()
            if not isinstance(error, ConnectError) or not connection.backslash:
                raise
            connection = self._new_connection(connection.broker, escape_login=False)
            try:
                connection.open(self._connect_timeout)
            except BaseException:
                connection.close()
                raise
        return connection

    def _new_connection(self, broker: Broker, *, escape_login: bool = True) -> Connection:
        from deploykit.bus.connection import Connection  # here, because stomp.py takes 80 ms to load

        self._epoch += 1
        return Connection(
            broker,
            self._settings,
            epoch=self._epoch,
            context=self._context if broker.tls else None,
            waiter=self.waiter,
            ledger=self._ledger,
            counters=self._counters,
            sink=self,
            client_id=self._client_id(),
            escape_login=escape_login,
        )

    def _serve(self, connection: Connection) -> float:
        from deploykit.bus import connection as wire

        born = monotonic()
        self._counters.connects += 1
        self._recycle = ""
        self.problem = self.hopeless = None
        with self._lock:
            self.connection = connection
            self._unconfirmed.clear()
            for subscription in list(self._subscriptions.values()):
                self._subscribe(connection, subscription)
            if self._ledger.careful:
                connection.round_trip(_PROOF)
        self._set_state(State.CONNECTED)
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
        except wire.Lost as lost:
            self._lost(connection, lost.reason, by_broker=lost.by_broker)
        finally:
            connection.close()
            self.connection = None
        return max(monotonic() - born, 0.001)

    def _turn_until_lost(self, connection: Connection) -> None:
        from deploykit.bus.connection import Lost as ConnectionLost

        confirmed, progress = self._counters.published, monotonic()
        while True:
            connection.turn(monotonic() + 1.0)
            now = monotonic()
            if self._recycle:
                raise ConnectionLost(self._recycle)
            if self._counters.published != confirmed or not len(self._ledger):
                confirmed, progress = self._counters.published, now
            elif now - progress > self._settings.stall_timeout:
                raise ConnectionLost(f"no receipt for {now - progress:.0f} s")
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
        connection.up = False
        if self._bye_sent:
            raise Interrupted  # the broker took its leave without the receipt
        self._counters.losses += 1
        problem = ConnectError(f"{connection.broker}: connection lost: {reason}", "it is being made anew")
        self.problem = problem
        logger.warning("%s", problem.problem)
        with self._lock:
            self.connection = None
            for subscription in self._unconfirmed.values():
                subscription.losses += by_broker
            self._unconfirmed.clear()
            for receipt in list(self._ended):
                if (ended := self._ended.pop(receipt, None)) is not None:
                    ended.set_exception(problem)
            for subscription in self._subscriptions.values():
                subscription.connection_lost()
        self._ledger.connection_lost(by_broker=by_broker)
        self._set_state(State.CONNECTING)
        self._tell(Lost(broker=str(connection.broker), reason=reason, epoch=connection.epoch))
        if self._drain_until is not None:
            raise Interrupted

    def _set_state(self, state: State) -> None:
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

    # -- subscriptions -----------------------------------------------------------------------------------------

    def _client_id(self) -> str:
        if self._settings.client_id:
            return self._settings.client_id
        with self._lock:
            names = {s.intent.durable for s in self._subscriptions.values() if s.intent.durable}
        # With exactly one durable subscription its own name is as good; with more, the owner has to choose.
        return names.pop() if len(names) == 1 else ""

    def _check_client_id(self, connection: Connection, intent: Intent) -> None:
        """See to the client-id that durable subscriptions need on some brokers.

        Raises:
            DialectError: there is none, and none can be chosen.
        """
        if intent.durable is None or not connection.dialect.client_id or not is_topic(intent.destination):
            return
        if self._settings.client_id:
            return
        names = {s.intent.durable for s in self._subscriptions.values() if s.intent.durable} | {intent.durable}
        if len(names) > 1:
            raise DialectError(
                f"{connection.dialect.title} keeps durable subscriptions by client id, and there is none",
                "set client_id to a name that no other connection uses",
            )
        if connection.client_id != intent.durable:
            self._recycle = "to tell the broker our client id"

    def _subscribe(self, connection: Connection, subscription: Subscription) -> None:
        if subscription.losses >= _SUSPECT_AFTER:
            seconds = _RESUBSCRIBE.pause(subscription.losses)
            self._refused(
                subscription,
                ConnectError(
                    f"the broker ended {subscription.losses} connections when asked for {subscription.destination}",
                    "look at the broker's log; the other subscriptions go on",
                ),
            )
            self._try_again(connection, subscription, max(0.5, seconds))
            return
        self._subscribe_now(connection, subscription)

    def _subscribe_now(self, connection: Connection, subscription: Subscription) -> None:
        try:
            compiled = compile_subscription(connection.dialect, subscription.intent)
            self._check_client_id(connection, subscription.intent)
        except DialectError as error:
            self._refused(subscription, error)
            return
        receipt = f"sub-{next(self._receipts)}"
        subscription.compiled_for(compiled)
        self._unconfirmed[receipt] = subscription
        connection.subscribe(compiled, receipt)

    def _refused(self, subscription: Subscription, problem: BusError) -> None:
        logger.warning("subscription to %s refused: %s", subscription.destination, problem)
        subscription.refused(problem)
        self._tell(SubscriptionRefused(destination=subscription.destination, problem=str(problem)))
        with self.changed:
            self.changed.notify_all()

    def _try_again(self, connection: Connection, subscription: Subscription, seconds: float) -> None:
        def again() -> None:
            with self._lock:
                if connection.up and self._subscriptions.get(subscription.intent.id) is subscription:
                    if self._unconfirmed and subscription.losses >= _SUSPECT_AFTER:
                        self._try_again(connection, subscription, 0.5)  # alone, or others would be suspected
                    else:
                        self._subscribe_now(connection, subscription)

        self.later(seconds, again)

    def _overfull(self, share: float) -> bool:
        """Whether more messages wait for workers than a subscription's bound (or a share of it)."""
        with self._lock:
            return any(one.queued > share * max(1000, 2 * one.intent.prefetch) for one in self._subscriptions.values())

    # -- what a connection hands on ----------------------------------------------------------------------------

    def on_receipts(self, receipts: list[bytes]) -> None:
        """Receipts of everything but messages."""
        for receipt in receipts:
            subscription = self._unconfirmed.pop(receipt.decode("ascii", "replace"), None)
            connection = self.connection
            if subscription is not None and connection is not None:
                subscription.confirmed(connection.epoch)
                self._tell(Subscribed(destination=subscription.destination, epoch=connection.epoch))
                with self.changed:
                    self.changed.notify_all()
            elif receipt == _BYE:
                self._bye_seen = True
            elif receipt == _PROOF.encode():
                self._ledger.proved()
            elif (ended := self._ended.pop(receipt.decode("ascii", "replace"), None)) is not None:
                ended.set_result(None)

    def on_message(self, frame: Received) -> None:
        """A MESSAGE: put it into its subscription's queue."""
        connection = self.connection
        subscription = self._subscriptions.get(frame.headers.get("subscription", ""))
        if subscription is None:
            subscription = self._by_destination(frame)
        if connection is not None and subscription is not None and subscription.stopping:
            # It goes back with the rest when the running handlers are done; giving up the connection now, as some
            # brokers need, would take their acknowledgements along.
            subscription.take_unread(frame, connection)
            return
        if connection is None or subscription is None:
            # It crossed our UNSUBSCRIBE on the way.
            self._counters.handed_back += 1
            if connection is not None and not connection.dialect.gives_back_on_unsubscribe:
                self._give_back(connection, 1)
            return
        self._counters.received += 1
        subscription.take(frame, connection)
        if subscription.queued > max(1000, 2 * subscription.intent.prefetch):
            connection.paused = True

    def _by_destination(self, frame: Received) -> Subscription | None:
        """STOMP 1.0 brokers need not name the subscription."""
        destination = frame.headers.get("destination")
        if "subscription" in frame.headers:
            return None
        with self._lock:
            return next((s for s in self._subscriptions.values() if s.destination == destination), None)

    def on_error(self, frame: Received, shown: str) -> None:
        """An ERROR: find whom it concerns."""
        connection = self.connection
        if connection is None:
            return
        receipt = frame.headers.get("receipt-id", "")
        with self._lock:
            subscription = self._unconfirmed.pop(receipt, None)
            if subscription is None and not receipt and len(self._unconfirmed) == 1 and not len(self._ledger):
                _, subscription = self._unconfirmed.popitem()
            if subscription is None and not receipt and frame.headers.get("subscription") in self._subscriptions:
                # Its queue was deleted. RabbitMQ would not make it again on this connection, neither for us nor for
                # what we publish there, and confirm what goes nowhere: everything begins anew.
                self._recycle = f"the broker ended the subscription {frame.headers['subscription']}: {shown}"
                return
        if subscription is not None:
            self._refused(subscription, ConnectError(f"{connection.broker}: {shown}", "look at the broker's log"))
            self._try_again(connection, subscription, max(0.2, _RESUBSCRIBE.pause(subscription.refusals)))
            return
        if (ended := self._ended.pop(receipt, None)) is not None:
            ended.set_exception(ConnectError(f"{connection.broker}: {shown}"))
            return
        problem = PublishRefused(f"{connection.broker} refused the message: {shown}", "look at the broker's log")
        if receipt and self._ledger.refuse_receipt(receipt, problem):
            return
        self._said, self._said_at = shown, monotonic()
        logger.warning("%s: ERROR: %s", connection.broker, shown)
        self._tell(BrokerError(broker=str(connection.broker), problem=shown))
