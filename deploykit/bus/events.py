"""What the bus reports to the program that embeds it: typed events, and counters.

Events are handed to `on_event` and to each listener in order, on a thread of their own: a slow or failing one costs
neither the connection nor a message. No event carries a passcode or a body.
"""

from __future__ import annotations

import enum

import attrs


class BusState(enum.Enum):
    """Where the bus stands."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    WAITING = "waiting"
    CLOSED = "closed"


@attrs.frozen(kw_only=True, slots=True)
class Event:
    """The root of the events."""


@attrs.frozen(kw_only=True, slots=True)
class Connecting(Event):
    """An attempt begins."""

    broker: str


@attrs.frozen(kw_only=True, slots=True)
class ConnectFailed(Event):
    """An attempt failed; the next broker follows, or a pause."""

    broker: str
    problem: str


@attrs.frozen(kw_only=True, slots=True)
class Connected(Event):
    """A broker accepted us. `server` is its own name for itself, `beats` how liveness is watched."""

    broker: str
    server: str
    version: str
    dialect: str
    epoch: int
    beats: str


@attrs.frozen(kw_only=True, slots=True)
class ConnectionLost(Event):
    """The connection is gone. What was not confirmed is sent again on the next one."""

    broker: str
    reason: str
    epoch: int


@attrs.frozen(kw_only=True, slots=True)
class RetryIn(Event):
    """The whole broker list failed; the next round comes after `seconds`."""

    seconds: float
    round: int


@attrs.frozen(kw_only=True, slots=True)
class Subscribed(Event):
    """The broker confirmed a subscription (again, after a reconnect)."""

    destination: str
    epoch: int


@attrs.frozen(kw_only=True, slots=True)
class SubscriptionRefused(Event):
    """This subscription does not work here; the others do. It is tried again after the next reconnect."""

    destination: str
    problem: str


@attrs.frozen(kw_only=True, slots=True)
class Published(Event):
    """The broker confirmed a message."""

    destination: str
    id: str


@attrs.frozen(kw_only=True, slots=True)
class PublishFailed(Event):
    """A message was not confirmed in time, or refused. The caller has the error too."""

    destination: str
    id: str
    problem: str


@attrs.frozen(kw_only=True, slots=True)
class DeadLettered(Event):
    """A message was given up: copied to the dead-letter destination with the reason, then acknowledged."""

    destination: str
    id: str
    reason: str


@attrs.frozen(kw_only=True, slots=True)
class Dropped(Event):
    """A message was given up and dropped, as the subscription's `on_failure` says."""

    destination: str
    id: str
    reason: str


@attrs.frozen(kw_only=True, slots=True)
class BrokerReportedError(Event):
    """The broker sent an ERROR that we cannot attribute to a message or subscription."""

    broker: str
    problem: str


@attrs.frozen(kw_only=True, slots=True)
class Closed(Event):
    """The bus has ended."""


@attrs.define(slots=True)
class Counters:
    """Plain numbers since the bus was made; read them at any time from any thread."""

    connects: int = 0
    connect_failures: int = 0
    losses: int = 0
    published: int = 0
    publish_failed: int = 0
    resent: int = 0
    late_receipts: int = 0
    received: int = 0
    acked: int = 0
    stale_acks: int = 0
    retried: int = 0
    handed_back: int = 0
    duplicates: int = 0
    dead_lettered: int = 0
    dropped: int = 0
    oversized: int = 0
    beats_sent: int = 0
    probes_sent: int = 0
    errors_received: int = 0
    events_dropped: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
