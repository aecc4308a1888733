"""The one thread of a bus that talks to brokers: it connects, serves, waits, and begins again.

Rules:

* each attempt has a connection of its own; the broker list is walked from the one after the last loss,
  and each one's addresses as `connect` has it (see `brokerlist`);
* after a whole list failed there is a pause, growing with jitter; a broker that accepts us and drops us at
  once counts as failed too;
* on a new connection the subscriptions (see `subscriptions`) come first, then the messages that have no receipt yet,
  in order.
"""

from __future__ import annotations

import itertools
import logging
import socket
import threading
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Final

import attrs
from tenacity import RetryCallState, Retrying, retry_if_result

from deploykit.bus.brokerlist import BrokerList
from deploykit.bus.certificates import Certificates
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
from deploykit.bus.incoming import GOODBYE, PROOF, IncomingFrames
from deploykit.bus.poller import Interrupted, Poller
from deploykit.bus.ports import BrokerConnection, DedicatedConnection
from deploykit.bus.receipt import GRACE, answers_here
from deploykit.bus.subscription import Subscription
from deploykit.bus.subscriptions import SubscriptionTable
from deploykit.bus.timers import Timers
from deploykit.bus.unconfirmed import PendingPublish, UnconfirmedPublishes
from deploykit.errors import BusError, ConnectError, LoginRefused
from deploykit.settings.address import Address, Broker
from deploykit.settings.bus import BusSettings

if TYPE_CHECKING:
    from deploykit.bus.stomp.connection import Connection

logger = logging.getLogger(__name__)

#: A connection that lived shorter counts as a failed attempt.
_TOO_SHORT: Final = 2.0
#: Seconds that messages wait for subscriptions that are connecting, each over its own connection.
_DEDICATED_FIRST: Final = 2.0
_NO_ROOM: Final = "this process may open no more descriptors or threads (ulimit -n, -u)"


class Supervisor:
    """Everything that happens on the supervisor thread. `Bus` is its face.

    Args:
        settings, address, certificates: where to connect, and how.
        unconfirmed: the messages on their way.
        counters: where to count.
        emit: takes events.
        alone: the subscription whose own connection this is; None: everything of a bus.
    """

    def __init__(
        self,
        settings: BusSettings,
        address: Address,
        certificates: Certificates | None,
        *,
        unconfirmed: UnconfirmedPublishes,
        counters: Counters,
        emit: Callable[[Event], None],
        alone: Subscription | None = None,
    ) -> None:
        self.poller = Poller(self._housekeeping)
        self.state = BusState.CONNECTING
        self.connection: Connection | None = None
        #: The last problem, for those who wait.
        self.problem: BusError | None = None
        #: Every broker refused our login for `login_retry` seconds, and none ever accepted it.
        self.hopeless: LoginRefused | None = None
        self.changed = threading.Condition()
        self.address = address
        self._alone = alone is not None
        self._settings = settings
        self._certificates = certificates
        self._unconfirmed = unconfirmed
        self._counters = counters
        self._emit = emit
        self._brokers = BrokerList(settings, address, certificates, self.poller, self._new_connection)
        self._epochs = itertools.count(1)
        self._lock = threading.RLock()
        self.subscriptions = SubscriptionTable(
            self, self._lock, client_id=settings.client_id, counters=counters, emit=emit, alone=alone
        )
        self._incoming = IncomingFrames(unconfirmed, self.subscriptions, present=lambda: self.connection, emit=emit)
        self._timers = Timers()
        self._drain_until: float | None = None
        self._reconnect_reason = ""
        self._goodbye_sent = False
        name = "deploykit-bus" if alone is None else f"deploykit-bus-{alone.spec.id}-feed"
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)

    # -- any thread --------------------------------------------------------------------------------------------

    def call_later(self, seconds: float, action: Callable[[], None]) -> None:
        """Run `action` on the supervisor thread after a while. It must be quick."""
        self._timers.call_later(seconds, action)
        self.poller.wake()

    def flush_now(self) -> None:
        """Write what waits, for a caller who is about to wait for its receipt."""
        connection = self.connection
        if connection is not None and connection.up:
            connection.flush_now()
        else:
            self.poller.wake()

    def reconnect(self, reason: str) -> None:
        """Give the present connection up, and make a new one; not while the bus is being closed."""
        if self._drain_until is None:
            self._reconnect_reason = reason
            self.poller.wake()

    def notify_changed(self) -> None:
        """Wake those who wait for a change."""
        with self.changed:
            self.changed.notify_all()

    def open_dedicated(self, subscription: str, connection: BrokerConnection) -> DedicatedConnection:
        """Begin to connect to the same broker once more, for the subscription of this id alone."""
        alone = self.subscriptions.get(subscription)

        def emit(event: Event) -> None:
            if isinstance(event, ConnectFailed):
                alone.refused(ConnectError(event.problem))
                event = SubscriptionRefused(destination=alone.destination, problem=event.problem)
            if isinstance(event, Subscribed | SubscriptionRefused | BrokerReportedError):
                self._emit(event)
                self.notify_changed()
                self.poller.wake()

        child = Supervisor(
            self._settings,
            attrs.evolve(self.address, brokers=(connection.broker,)),
            self._certificates,
            unconfirmed=UnconfirmedPublishes(window=1, in_flight=1, window_bytes=1, counters=self._counters),
            counters=self._counters,
            emit=emit,
            alone=alone,
        )
        child._epochs = self._epochs
        child._brokers.begin_like(self._brokers, connection.broker)
        self._incoming.send_from = monotonic() + _DEDICATED_FIRST
        child.thread.start()
        return child

    @property
    def ready(self) -> bool:
        """Whether there is a connection, and the broker has confirmed or refused every subscription."""
        return self.state is BusState.CONNECTED and self.subscriptions.settled

    def drain(self, until: float) -> None:
        """Send what is left, say goodbye, and end; not past a monotonic time."""
        for dedicated in self.subscriptions.dedicated:
            dedicated.drain(until)
        self._drain_until = until
        if (connection := self.connection) is not None:
            connection.resume()  # the last receipt comes behind what was not read
        self.poller.wake()
        if self.state is not BusState.CONNECTED:
            self.poller.stop()

    def end(self, until: float) -> None:
        """Send what is left, say goodbye, and wait for the end; not past a monotonic time."""
        self.drain(until)
        if self.thread is not threading.current_thread():
            self.thread.join(max(0.0, until - monotonic()) + GRACE)
        for dedicated in self.subscriptions.dedicated:
            dedicated.end(until)
        self.poller.stop()

    def delete_durable(self, subscription: str, timeout: float) -> bool:
        """Have the broker delete the durable subscription; return whether the connection outlived the answer."""
        return self.subscriptions.delete_durable(subscription, timeout)

    def cut(self) -> None:
        """End at once, without a word to the broker."""
        if (connection := self.connection) is not None:
            connection.give_up()
        with self._lock:
            self.subscriptions.lost(by_broker=False)
        self.drain(0.0)

    def abandon(self) -> None:
        """Free what this process holds, without a word to the broker: never started, or a forked child's copy."""
        for dedicated in self.subscriptions.dedicated:
            dedicated.abandon()
        if self.connection is not None:
            self.connection.close()
        self.poller.close()

    def why_unconfirmed(self, entry: PendingPublish) -> str:
        """Return what stands between a message and its receipt."""
        if self.state is not BusState.CONNECTED:
            return f"not connected: {self.problem}" if self.problem else "not connected yet"
        if error := self._incoming.recent_error(monotonic()):
            return f"the broker reported: {error}"
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
            wait=lambda state: self._brokers.pause(state.attempt_number),
            before_sleep=self._announce_pause,
            sleep=self._pause,
        )
        try:
            while not self.poller.stopping and self._drain_until is None:
                rounds(self._try_each)
        except Interrupted:
            pass
        except Exception:
            logger.exception("the bus's own thread failed; this is a bug")
            raise
        finally:
            self._set_state(BusState.CLOSED)
            for dedicated in self.subscriptions.dedicated:
                dedicated.drain(self._drain_until or 0.0)  # those that were made meanwhile
            if self.connection is not None:
                self.connection.close()
            self.poller.close()

    def _announce_pause(self, state: RetryCallState) -> None:
        self._set_state(BusState.WAITING)
        self._emit(RetryIn(seconds=state.upcoming_sleep, round=state.attempt_number))

    def _pause(self, seconds: float) -> None:
        self.poller.wait_for(None, 0, monotonic() + seconds)
        if self._drain_until is not None:
            raise Interrupted

    def _try_each(self) -> float:
        """Try every broker once; serve the first that accepts us. Return for how many seconds; 0.0: none did."""
        problems: list[ConnectError] = []
        for broker in self._brokers:
            self._set_state(BusState.CONNECTING)
            self._emit(Connecting(broker=str(broker)))
            try:
                connection = self._brokers.open(broker)
            except (ConnectError, OSError, RuntimeError) as problem:
                # Without descriptors or threads nothing can be opened now: the same as a broker that is away.
                error = problem if isinstance(problem, ConnectError) else ConnectError(f"{broker}: {problem}", _NO_ROOM)
                self._counters.connect_failures += 1
                self.problem = error
                problems.append(error)
                logger.info("%s", error)
                self._emit(ConnectFailed(broker=str(broker), problem=str(error)))
                continue
            self._brokers.connected(broker)
            lived = self._serve(connection)
            self._brokers.ended(broker, at_once=lived < _TOO_SHORT)
            return lived
        if not self._counters.connects and (refused := self._brokers.given_up(problems)) is not None:
            with self.changed:
                self.hopeless = refused
                self.changed.notify_all()
        return 0.0

    def _new_connection(
        self, broker: Broker, settings: BusSettings, sock: socket.socket, *, escape_login: bool
    ) -> Connection:
        from deploykit.bus.stomp.connection import Connection  # here, because stomp.py takes 80 ms to load

        return Connection(
            broker,
            settings,
            sock,
            epoch=next(self._epochs),
            poller=self.poller,
            unconfirmed=self._unconfirmed,
            counters=self._counters,
            sink=self._incoming,
            client_id=self.subscriptions.client_id(),
            escape_login=escape_login,
        )

    def _serve(self, connection: Connection) -> float:
        from deploykit.bus.stomp import connection as wire

        born = monotonic()
        self._counters.connects += 1
        self._reconnect_reason = ""
        self.problem = self.hopeless = None
        with self._lock:
            self.subscriptions.begin(connection)
            self.connection = connection  # from here on other threads write to it: subscriptions are before messages
        self._set_state(BusState.CONNECTED)
        logger.info(
            "connected to %s: %s, STOMP %s, beats %s",
            connection.broker,
            connection.server or "no name",
            connection.version,
            connection.beats,
        )
        self._emit(
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
            self._serve_until_lost(connection)
        except wire.ConnectionBroken as lost:
            self._connection_lost(connection, lost.reason, by_broker=lost.by_broker)
        finally:
            connection.close()
            self.connection = None
        return max(monotonic() - born, 0.001)

    def _serve_until_lost(self, connection: Connection) -> None:
        from deploykit.bus.stomp.connection import ConnectionBroken

        confirmed, progress = self._counters.published, monotonic()
        while True:
            if self._unconfirmed.needs_proof():
                connection.round_trip(PROOF)
            connection.step(monotonic() + 1.0)
            now = monotonic()
            if self._reconnect_reason:
                raise ConnectionBroken(self._reconnect_reason)
            if self._counters.published != confirmed or not len(self._unconfirmed):
                confirmed, progress = self._counters.published, now
            elif now - progress > self._settings.stall_timeout:
                raise ConnectionBroken(f"no receipt for {now - progress:.0f} s")
            if self._drain_until is not None and self._is_drained(connection, now, self._drain_until):
                self.poller.stop()
                raise Interrupted

    def _is_drained(self, connection: Connection, now: float, until: float) -> bool:
        if now >= until or self._incoming.goodbye:
            return True
        if not self._goodbye_sent and not len(self._unconfirmed):
            self._goodbye_sent = True
            connection.disconnect(GOODBYE)
        return False

    def _connection_lost(self, connection: Connection, reason: str, *, by_broker: bool) -> None:
        connection.give_up()
        if self._goodbye_sent:
            raise Interrupted  # the broker ended the connection without the receipt
        self._counters.losses += 1
        last_error = self._incoming.last_words(connection.epoch, monotonic()) if by_broker else ""
        reason += f" after an ERROR: {last_error}" if last_error else ""
        problem = ConnectError(f"{connection.broker}: connection lost: {reason}", "it is being made anew")
        self.problem = problem
        logger.warning("%s", problem.problem)
        with self._lock:
            self.connection = None
            by_subscription = self.subscriptions.lost(by_broker=by_broker, last_error=last_error)
        self._unconfirmed.connection_lost(by_broker=by_broker and not by_subscription, last_error=last_error)
        self._set_state(BusState.CONNECTING)
        self._emit(ConnectionLost(broker=str(connection.broker), reason=reason, epoch=connection.epoch))
        if self._drain_until is not None:
            raise Interrupted

    def _set_state(self, state: BusState) -> None:
        with self.changed:
            self.state = state
            self.changed.notify_all()

    def _housekeeping(self, now: float) -> float:
        """Fire timers and overdue messages; return when to be called again."""
        self._timers.run_due(now)
        due = self._unconfirmed.expire(now, self.why_unconfirmed)
        return min(due, self._timers.next_due)
