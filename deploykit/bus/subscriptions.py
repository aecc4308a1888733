"""Which subscriptions a bus has, and where each of them stands on the present connection.

Rules:

* a subscription is sent again on each new connection, and counts once the broker has confirmed it there;
* one that is refused is tried again after a growing pause; one that seems to end connections is tried later and alone,
  so that the others live;
* an ERROR that names nothing may be the broker's last word on this connection: RabbitMQ confirms the very subscription
  that it ends the connection for. What is confirmed after one counts when the connection has outlived it: `suspects`;
* the client id that durable subscriptions need on ActiveMQ: see `clientid`;
* where the broker does not bound what it delivers, each subscription has a `DedicatedConnection`: there
  reading may pause, and receipts of messages and of other subscriptions do not wait behind the deliveries;
* everything that touches the table holds the supervisor's lock.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from concurrent.futures import TimeoutError as FutureTimeout
from random import random
from time import monotonic, sleep
from typing import Final

from deploykit.bus.clientid import choose_client_id, has_client_id
from deploykit.bus.events import Counters, Event, Subscribed, SubscriptionRefused
from deploykit.bus.ports import BrokerConnection, ConnectionControl, DedicatedConnection
from deploykit.bus.stomp.compile import (
    CompiledSubscription,
    SubscriptionSpec,
    compile_subscription,
    crossed_the_end,
    durable_end,
    keeps_messages,
)
from deploykit.bus.stomp.frames import Received
from deploykit.bus.subscription import Subscription
from deploykit.bus.suspects import Blame, SubscriptionSuspects, after_error, is_suspect
from deploykit.bus.unsubscribes import Unsubscribes
from deploykit.errors import BusError, ConnectError, DialectError
from deploykit.system.backoff import Backoff

logger = logging.getLogger(__name__)

_RESUBSCRIBE: Final = Backoff(initial=0.5, maximum=60.0, minimum=0.2)


class SubscriptionTable:
    """The subscriptions of a bus.

    Args:
        control: the supervisor.
        lock: the supervisor's.
        client_id: from the settings; may be empty.
        counters: where to count.
        emit: takes events.
        alone: the one subscription of a connection that has nothing else to do; None: any number, see `Bus.subscribe`.
    """

    def __init__(
        self,
        control: ConnectionControl,
        lock: threading.RLock,
        *,
        client_id: str,
        counters: Counters,
        emit: Callable[[Event], None],
        alone: Subscription | None = None,
    ) -> None:
        self._control = control
        self._lock = lock
        self._own_client_id = client_id
        self._counters = counters
        self._emit = emit
        self._subscriptions: dict[str, Subscription] = {} if alone is None else {alone.spec.id: alone}
        self._alone = alone is not None
        self._dedicated: dict[str, DedicatedConnection] = {}  # subscription id -> its own connection
        self._prefetch_broken = False
        self._suspects: SubscriptionSuspects[Subscription] = SubscriptionSuspects()
        self._unsubscribes = Unsubscribes()
        self._receipts = itertools.count(1)

    # -- any thread --------------------------------------------------------------------------------------------

    def add(self, subscription: Subscription) -> None:
        """Take a subscription in, and send it if there is a connection.

        Raises:
            DialectError: the broker we are connected to cannot do what it asks for.
        """
        with self._lock:
            connection = self._control.connection
            if connection is not None and connection.up:
                compiled = compile_subscription(connection.dialect, subscription.spec)
                if not self._needs_dedicated(compiled):
                    self._check_client_id(connection, subscription.spec)
            self._subscriptions[subscription.spec.id] = subscription
            subscription.start()
            if connection is not None and connection.up:
                self._subscribe(connection, subscription)

    def get(self, subscription: str) -> Subscription:
        """Return the subscription of this id."""
        return self._subscriptions[subscription]

    def remove(self, subscription: Subscription, *, timeout: float) -> None:
        """Take a subscription out, at the broker too; what it holds goes back."""
        spec = subscription.spec
        with self._lock:
            if self._subscriptions.pop(spec.id, None) is None:
                return
            own = self._dedicated.pop(spec.id, None)
            connection = self._control.connection if own is None else None
            if own is None:
                if connection is None or not connection.up:
                    return
                if not subscription.active and not self._suspects.waits(subscription):
                    return  # the broker does not know it
                receipt, done = self._unsubscribes.send(connection, spec, {}, goes_back=keeps_messages(spec))
        if connection is None:
            subscription.leave()
            if own is not None:
                own.end(monotonic() + timeout)  # what is not settled goes back with the connection
            return
        with contextlib.suppress(BusError, FutureTimeout, CancelledError):
            done.result(timeout)
        self._unsubscribes.forget(receipt)
        if (left := subscription.leave()) and keeps_messages(spec):  # else no one else is to have them
            self._give_back(connection, left)

    def forget(self, subscription: Subscription, *, timeout: float) -> None:
        """Take a durable subscription out, and have the broker delete it with the messages it holds.

        It stays in the table until the broker has confirmed that; where the connection is lost meanwhile, the next is
        used.

        Raises:
            ConnectError: no broker did it in time, or it refused. Try it again.
            DialectError: this broker cannot.
        """
        deadline = monotonic() + timeout
        spec = subscription.spec
        try:
            while self._subscriptions.get(spec.id) is subscription:
                left = max(0.0, deadline - monotonic())
                if not subscription.wait_active(left) or not left:
                    raise ConnectError("not connected to a broker that confirms it")
                own = self._dedicated.get(spec.id)
                if (self if own is None else own).delete_durable(spec.id, left):
                    with self._lock:
                        self._subscriptions.pop(spec.id, None)
                        own = self._dedicated.pop(spec.id, None)
                    subscription.leave()  # the broker has deleted what it held
                    if own is not None:
                        own.end(deadline)
        except DialectError:
            raise
        except (BusError, FutureTimeout) as error:
            shown = error if isinstance(error, BusError) else "no answer from the broker in time"
            raise ConnectError(f"the durable subscription was not deleted: {shown}", "try it again") from None

    def delete_durable(self, subscription: str, timeout: float) -> bool:
        """Ask the broker of the present connection to delete a durable subscription.

        Returns:
            Whether the connection outlived the answer.
        """
        with self._lock:
            if (known := self._subscriptions.get(subscription)) is None:
                return True
            spec = known.spec
            connection = self._control.connection
            if connection is not None and connection.up:
                headers = durable_end(
                    connection.dialect, spec, version=connection.version, client_id=connection.client_id
                )
                receipt, done = self._unsubscribes.send(connection, spec, headers, goes_back=False)
        if connection is None or not connection.up:
            sleep(0.01)
            return False
        try:
            done.result(timeout)
        except CancelledError:
            return False
        finally:
            self._unsubscribes.forget(receipt)
        return True

    def _give_back(self, connection: BrokerConnection, count: int) -> None:
        """Return messages that some brokers give to no one else while the connection lives."""
        if not connection.dialect.gives_back_on_unsubscribe and connection is self._control.connection:
            self._control.reconnect(f"given up, so that {count} unsettled messages of an ended subscription go back")

    def _crossed(self, subscription: str, connection: BrokerConnection) -> None:
        """Handle what arrived for a subscription that we already ended."""
        if self._unsubscribes.goes_back(subscription):
            self._counters.handed_back += 1
            self._give_back(connection, 1)

    @property
    def settled(self) -> bool:
        """Whether the broker has confirmed or refused every subscription."""
        # Without the lock: the caller holds another one, which a thread that holds this one may wait for.
        return all(one.active or one.problem is not None for one in list(self._subscriptions.values()))

    @property
    def dedicated(self) -> list[DedicatedConnection]:
        """The connections of subscriptions that have their own."""
        return list(self._dedicated.values())

    def _needs_dedicated(self, compiled: CompiledSubscription) -> bool:
        """Return whether a subscription needs a connection of its own: the broker does not bound what it delivers."""
        return not self._alone and (self._prefetch_broken or not compiled.prefetched)

    def client_id(self) -> str:
        """Return the client id for the next CONNECT; may be empty."""
        return choose_client_id(self._own_client_id, self._durable_names(), alone=self._alone)

    def _durable_names(self) -> set[str]:
        with self._lock:
            return {one.spec.durable for one in self._subscriptions.values() if one.spec.durable}

    def _check_client_id(self, connection: BrokerConnection, spec: SubscriptionSpec) -> bool:
        """Return whether this connection has the client id that a subscription needs; if not, a new one is asked for.

        Raises:
            DialectError: there is none, and none can be chosen.
        """
        durable = self._durable_names()
        if has_client_id(connection.dialect, spec, self._own_client_id, durable, connected_as=connection.client_id):
            return True
        self._control.reconnect("to give the broker our client id")
        return False

    # -- connections come and go, under the lock -----------------------------------------------------------------

    def begin(self, connection: BrokerConnection) -> None:
        """Subscribe to everything on a new connection."""
        self._suspects.begin()
        self._unsubscribes.begin()
        for subscription in list(self._subscriptions.values()):
            self._subscribe(connection, subscription)

    def lost(self, *, by_broker: bool, last_error: str = "") -> bool:
        """Take note that the connection is over; `last_error` is what the broker reported before.

        Returns:
            Whether that counts against subscriptions alone.
        """
        blame = self._suspects.ended(monotonic(), by_broker=by_broker, last_error=last_error)
        self._unsubscribes.cancel()
        for own in self.dedicated:
            own.cut()
        self._dedicated.clear()
        for subscription in self._subscriptions.values():
            subscription.connection_lost()
        return blame is Blame.SUBSCRIPTIONS

    def _subscribe(self, connection: BrokerConnection, subscription: Subscription) -> None:
        if is_suspect(subscription):
            seconds = _RESUBSCRIBE.pause(subscription.losses, random())  # noqa: S311 - no secret
            self._refused(
                subscription,
                ConnectError(
                    f"the broker ended {subscription.losses} connections when asked for {subscription.destination}"
                    + after_error(subscription.last_error),
                    "look at the broker's log; the other subscriptions go on",
                ),
            )
            self._try_again(connection, subscription, max(0.5, seconds))
            return
        self._subscribe_now(connection, subscription)

    def _open_dedicated(self, connection: BrokerConnection, subscription: Subscription) -> None:
        try:
            self._dedicated[subscription.spec.id] = self._control.open_dedicated(subscription.spec.id, connection)
        except (OSError, RuntimeError) as error:  # no descriptor or thread left
            self._refused(
                subscription, BusError(f"{subscription.destination}: {error}", "it is tried again (ulimit -n, -u)")
            )
            self._try_again(connection, subscription, 1.0)

    def _subscribe_now(self, connection: BrokerConnection, subscription: Subscription) -> None:
        try:
            compiled = compile_subscription(connection.dialect, subscription.spec)
            if self._needs_dedicated(compiled):
                self._open_dedicated(connection, subscription)
                return
            if not self._check_client_id(connection, subscription.spec):
                # Not on this connection: ActiveMQ would keep messages for ever for a client whose id it made up.
                return
        except DialectError as error:
            self._refused(subscription, error)
            return
        receipt = f"sub-{next(self._receipts)}"
        subscription.compiled_for(compiled)
        self._suspects.asked(receipt, subscription)
        connection.subscribe(compiled, receipt)

    def _refused(self, subscription: Subscription, problem: BusError) -> None:
        logger.warning("subscription to %s refused: %s", subscription.destination, problem)
        subscription.refused(problem)
        self._emit(SubscriptionRefused(destination=subscription.destination, problem=str(problem)))
        self._control.notify_changed()

    def _try_again(self, connection: BrokerConnection, subscription: Subscription, seconds: float) -> None:
        def again() -> None:
            with self._lock:
                if connection.up and self._subscriptions.get(subscription.spec.id) is subscription:
                    if self._suspects and is_suspect(subscription):
                        self._try_again(connection, subscription, 0.5)  # alone, or others would be suspected
                    else:
                        self._subscribe_now(connection, subscription)

        self._control.call_later(seconds, again)

    # -- what a connection hands on, the supervisor's thread -----------------------------------------------------

    def on_receipt(self, receipt: str, connection: BrokerConnection) -> bool:
        """Take a receipt; return whether it was for a subscription."""
        if self._suspects.waits_for(receipt):
            if (doubt := self._suspects.doubt(monotonic())) > 0:
                self._control.call_later(doubt, lambda: self._confirm(receipt, connection))
            else:
                self._confirm(receipt, connection)
            return True
        return self._unsubscribes.confirmed(receipt)

    def _confirm(self, receipt: str, connection: BrokerConnection) -> None:
        with self._lock:
            subscription = self._suspects.confirmed(receipt) if connection.up else None
            if subscription is None:
                return
            subscription.confirmed(connection.epoch)
        self._emit(Subscribed(destination=subscription.destination, epoch=connection.epoch))
        self._control.notify_changed()

    def on_message(self, frame: Received, connection: BrokerConnection) -> None:
        """Put a MESSAGE into its subscription's queue."""
        subscription = self._subscriptions.get(frame.headers.get("subscription", ""))
        if subscription is None:
            subscription = self._by_destination(frame)
        if subscription is None:
            self._crossed(frame.headers.get("subscription", ""), connection)
        elif subscription.stopping:
            # It goes back with the rest when the running handlers are done; giving up the connection now, as some
            # brokers need, would take their acknowledgements along.
            subscription.leave_unread()
        else:
            self._counters.received += 1
            subscription.take(frame, connection)
            if subscription.held(1.0):
                self._overfull(subscription, connection)

    def _overfull(self, subscription: Subscription, connection: BrokerConnection) -> None:
        """Bound what is in memory: stop reading, on a connection on which no answers are waited for."""
        if self._alone:
            connection.paused = True
            subscription.catch_up(connection)  # the workers may have finished meanwhile
        elif not self._prefetch_broken:
            self._prefetch_broken = True
            self._control.reconnect(f"the broker sends more for {subscription.destination} than prefetch allows")

    def _by_destination(self, frame: Received) -> Subscription | None:
        """Return the subscription to where a message came from: STOMP 1.0 brokers need not name it."""
        destination = frame.headers.get("destination")
        if "subscription" in frame.headers:
            return None
        with self._lock:
            return next((s for s in self._subscriptions.values() if s.destination == destination), None)

    def on_error(self, frame: Received, shown: str, connection: BrokerConnection, *, alone: bool) -> bool:
        """Take an ERROR; return whether it was about a subscription.

        Args:
            alone: nothing but subscriptions waits for an answer, so an ERROR that names nothing is about one of them.
        """
        receipt = frame.headers.get("receipt-id", "")
        if (crossed := crossed_the_end(connection.dialect, frame.body)) is not None:
            self._crossed(crossed, connection)
            return True
        with self._lock:
            subscription = self._suspects.refused(receipt)
            if not receipt and "subscription" not in frame.headers:
                subscription = self._suspects.unnamed_error(monotonic(), alone=alone)
            if subscription is None and not receipt and frame.headers.get("subscription") in self._subscriptions:
                # Its queue was deleted. RabbitMQ would not make it again on this connection, neither for us nor for
                # what we publish there, and confirm what goes nowhere: everything begins anew.
                self._control.reconnect(f"the broker ended the subscription {frame.headers['subscription']}: {shown}")
                return True
        if subscription is not None:
            self._refused(subscription, ConnectError(f"{connection.broker}: {shown}", "look at the broker's log"))
            self._try_again(connection, subscription, _RESUBSCRIBE.pause(subscription.refusals, random()))  # noqa: S311
            return True
        return self._unsubscribes.refused(receipt, ConnectError(f"{connection.broker}: {shown}"))
