"""What the parts of the bus need of each other, and of the world: Protocols, each as small as its user allows.

Some brokers do not bound what they deliver to a subscription, and some that were asked to do not. Then only not reading
bounds what is in memory, and what is not read holds back everything behind it: receipts, answers to other
subscriptions, heart-beats. So on such brokers

* the bus's own connection carries everything but deliveries, and is always read;
* each subscription has a `DedicatedConnection` to the same broker. It ends with the bus's connection, and is made again
  by itself when it alone is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Protocol

from deploykit.bus.events import Counters, Event
from deploykit.bus.stomp.compile import CompiledSubscription
from deploykit.bus.stomp.dialect import Dialect
from deploykit.bus.stomp.frames import Received
from deploykit.errors import BusError
from deploykit.ids import Claim
from deploykit.settings.address import Broker
from deploykit.settings.bus import BusSettings
from deploykit.wire.frame import Frame


class Ids(Protocol):
    """The part of `deploykit.ids.IdStore` that settles duplicates."""

    def claim(self, key: str, id: str, digest: bytes, now: datetime) -> Claim:
        """Claim an id before acting."""

    def done(self, key: str, id: str, reply: bytes, now: datetime) -> None:
        """Mark an id as handled to the end."""

    def locked(self, key: str, id: str, *, timeout: float = 0.0) -> AbstractContextManager[None]:
        """Keep others from handling an id meanwhile; `LockBusy` where one is at it."""


# -- connections ---------------------------------------------------------------------------------------------------


class BrokerConnection(Protocol):
    """A connection as subscriptions and deliveries see it."""

    broker: Broker
    dialect: Dialect
    version: str
    client_id: str
    epoch: int
    up: bool
    #: While set, nothing is read.
    paused: bool

    def resume(self) -> None:
        """Read on, if reading was paused."""

    def ack(self, delivered: Mapping[str, str]) -> None:
        """Acknowledge the message that came with these headers."""

    def nack(self, delivered: Mapping[str, str], headers: Mapping[str, str]) -> None:
        """Refuse the message that came with the headers `delivered`."""

    def subscribe(self, compiled: CompiledSubscription, receipt: str) -> None:
        """Send SUBSCRIBE."""

    def unsubscribe(self, subscription: str, headers: Mapping[str, str], receipt: str) -> None:
        """Send UNSUBSCRIBE."""


class FrameSink(Protocol):
    """Where a connection puts what comes in. Called on the supervisor's thread; must be quick and never raise."""

    def on_receipts(self, receipts: list[bytes]) -> None:
        """Take receipts that belong to no message."""

    def on_message(self, frame: Received) -> None:
        """Take a MESSAGE."""

    def on_error(self, frame: Received, shown: str) -> None:
        """Take an ERROR; `shown` is what may be logged of it."""

    def may_send(self) -> bool:
        """Return whether messages may go out already: what was subscribed to before comes first."""


class ConnectionControl(Protocol):
    """The present connection, and the ways to replace it; for the table of subscriptions."""

    @property
    def connection(self) -> BrokerConnection | None:
        """The present connection."""

    def call_later(self, seconds: float, action: Callable[[], None]) -> None:
        """Run `action` after a while, on the supervisor's thread."""

    def reconnect(self, reason: str) -> None:
        """Give the present connection up, and make a new one."""

    def notify_changed(self) -> None:
        """Wake those who wait for a change."""

    def open_dedicated(self, subscription: str, connection: BrokerConnection) -> DedicatedConnection:
        """Begin to connect to the same broker once more, for the subscription of this id alone."""


class DedicatedConnection(Protocol):
    """A subscription's own connection: a supervisor that has nothing else to do."""

    def delete_durable(self, subscription: str, timeout: float) -> bool:
        """Have the broker delete the durable subscription; return whether the connection outlived the answer."""

    def end(self, until: float) -> None:
        """Send what is left, say goodbye, and wait for the end; not past a monotonic time."""

    def drain(self, until: float) -> None:
        """Do the same without waiting."""

    def cut(self) -> None:
        """End at once, without a word to the broker."""

    def abandon(self) -> None:
        """Free what this process holds, in a forked child."""


# -- services of the bus -------------------------------------------------------------------------------------------


class SettlementServices(Protocol):
    """What settling a delivery takes: timers, publishing, events."""

    counters: Counters

    def call_later(self, seconds: float, action: Callable[[], None]) -> None:
        """Run `action` after a while, on the supervisor's thread."""

    def publish_dead_letter(self, frame: Frame) -> None:
        """Publish to the dead letters; return when confirmed, raise `BusError` otherwise."""

    def publish_again(self, destination: str, frame: Frame) -> None:
        """Publish to where a message came from; return when confirmed, raise `BusError` otherwise."""

    def emit(self, event: Event) -> None:
        """Hand an event to the embedding program."""


class SubscriptionServices(SettlementServices, Protocol):
    """What a subscription takes beside what its settling takes."""

    @property
    def in_callback(self) -> bool:
        """Whether the calling thread is a worker of any subscription, or calls back with the outcome of a message."""

    def end_subscription(self, subscription: str, *, forget: bool) -> None:
        """Take the subscription of this id away, at the broker too."""


class KeepaliveServices(Protocol):
    """What sending keepalives takes. Nothing here waits."""

    settings: BusSettings

    @property
    def dialect(self) -> Dialect | None:
        """What the broker of the present connection can do; None while there is none."""

    def call_later(self, seconds: float, action: Callable[[], None]) -> None:
        """Run `action` after a while, on the supervisor's thread."""

    def enqueue(
        self,
        destination: str,
        frame: Frame,
        *,
        timeout: float,
        persistent: bool,
        ttl: float | None,
        done: Callable[[BusError | None], None],
    ) -> None:
        """Put a message on its way; `done` is called with its outcome. `WindowFull` where there is no room."""
