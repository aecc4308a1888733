"""The table of subscriptions by itself: who is sent when, who is blamed for what."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, cast

import pytest

from deploykit.bus.connection import Connection
from deploykit.bus.consumer import Subscription
from deploykit.bus.dialect import ACTIVEMQ, EMBEDDED, RABBITMQ, Compiled, Dialect, Intent
from deploykit.bus.events import Counters, Event, SubscriptionRefused
from deploykit.bus.frames import Received
from deploykit.bus.roster import Roster
from deploykit.errors import ConnectError, DialectError


class Wire:
    """A connection that writes down what it is told to send."""

    def __init__(self, dialect: Dialect = RABBITMQ, client_id: str = "") -> None:
        self.dialect, self.client_id = dialect, client_id
        self.version, self.broker, self.epoch, self.up, self.paused = "1.2", "stomp://b", 1, True, False
        self.sent: list[tuple[str, str]] = []  # destination -> receipt

    def subscribe(self, compiled: Compiled, receipt: str) -> None:
        self.sent.append((compiled.headers["destination"], receipt))

    def unsubscribe(self, subscription: str, headers: Mapping[str, str], receipt: str) -> None:
        self.sent.append((subscription, receipt))


class Table:
    """A roster, with its supervisor played by this class."""

    def __init__(self, wire: Wire | None, *, client_id: str = "") -> None:
        self.wire = wire
        self.renewals: list[str] = []
        self.timers: list[Callable[[], None]] = []
        self.events: list[Event] = []
        self.counters = Counters()
        self.roster = Roster(
            self, threading.RLock(), client_id=client_id, counters=self.counters, tell=self.events.append
        )

    @property
    def connection(self) -> Connection | None:
        return cast("Connection | None", self.wire)

    @property
    def present(self) -> Connection:
        assert self.connection is not None
        return self.connection

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        self.timers.append(action)

    def renew(self, reason: str) -> None:
        self.renewals.append(reason)

    def news(self) -> None:
        """Nobody waits here."""

    def add(self, destination: str, durable: str | None = None) -> Subscription:
        intent = Intent(destination=destination, id=f"id {destination}", durable=durable)
        subscription = Subscription(cast("Any", self), intent, lambda _: None, workers=0, max_attempts=1, ids=None)
        self.roster.add(subscription)
        return subscription

    def again(self, *, by_broker: bool = True) -> Wire:
        """The connection is lost, and there is a new one."""
        assert self.wire is not None
        self.roster.lost(ConnectError("lost"), by_broker=by_broker)
        self.wire = Wire(self.wire.dialect)
        self.roster.begin(self.present)
        return self.wire


def test_a_receipt_makes_a_subscription_active_and_a_loss_takes_that_back() -> None:
    wire = Wire()
    table = Table(wire)
    one = table.add("/queue/one")
    stood = [(one.active, table.roster.settled)]
    assert table.roster.on_receipt(wire.sent[0][1], table.present)
    stood.append((one.active, table.roster.settled))
    assert not table.roster.on_receipt("not ours", table.present)
    assert [destination for destination, _ in table.again().sent] == ["/queue/one"]
    stood.append((one.active, table.roster.settled))
    assert stood == [(False, False), (True, True), (False, False)]


def test_who_ends_connections_is_sent_later_and_alone() -> None:
    table = Table(Wire())
    bad, good = table.add("/queue/bad"), table.add("/queue/good")
    for _ in range(2):  # each time the broker confirms the good one and hangs up over the other
        assert table.wire is not None
        (receipt,) = [receipt for destination, receipt in table.wire.sent if destination == "/queue/good"]
        table.roster.on_receipt(receipt, table.present)
        wire = table.again()
    assert [destination for destination, _ in wire.sent] == ["/queue/good"]
    assert bad.problem is not None
    assert good.problem is None
    assert any(isinstance(event, SubscriptionRefused) for event in table.events)
    table.timers.pop()()  # too early: the good one is not confirmed, and would be suspected too
    assert [destination for destination, _ in wire.sent] == ["/queue/good"]
    table.roster.on_receipt(wire.sent[0][1], table.present)
    table.timers.pop()()
    assert [destination for destination, _ in wire.sent] == ["/queue/good", "/queue/bad"]


def test_losses_that_are_not_the_brokers_doing_blame_nobody() -> None:
    table = Table(Wire())
    table.add("/queue/one")
    for _ in range(5):
        wire = table.again(by_broker=False)
    assert [destination for destination, _ in wire.sent] == ["/queue/one"]


def test_an_error_that_names_nothing_is_about_the_one_subscription_that_waits() -> None:
    table = Table(Wire())
    one = table.add("/queue/one")
    error = Received("ERROR", {"message": "no"})
    assert not table.roster.on_error(error, "no", table.present, alone=False)  # it may be about a message
    assert table.roster.on_error(error, "no", table.present, alone=True)
    assert "no" in str(one.problem)
    table.timers.pop()()
    assert table.wire is not None
    assert [destination for destination, _ in table.wire.sent] == ["/queue/one", "/queue/one"]


def test_a_subscription_that_the_broker_ends_makes_the_connection_new() -> None:
    table = Table(Wire())
    one = table.add("/queue/one")
    assert table.roster.on_error(
        Received("ERROR", {"subscription": one.intent.id}), "queue deleted", table.present, alone=False
    )
    assert "queue deleted" in table.renewals[0]


@pytest.mark.parametrize(("dialect", "renewals"), [(RABBITMQ, 1), (EMBEDDED, 0), (ACTIVEMQ, 0)])
def test_a_message_for_nobody_goes_back_in_the_brokers_own_way(dialect: Dialect, renewals: int) -> None:
    table = Table(Wire(dialect))
    table.roster.on_message(Received("MESSAGE", {"subscription": "gone"}), table.present)
    assert len(table.renewals) == renewals
    assert table.counters.handed_back == 1


def test_one_durable_name_is_a_client_id_and_two_need_one_of_their_own() -> None:
    table = Table(Wire(ACTIVEMQ))
    table.add("/topic/a", durable="one")
    assert table.roster.client_id() == "one"
    assert table.renewals  # the present connection does not say so
    with pytest.raises(DialectError, match="client_id"):
        table.add("/topic/b", durable="two")
    own = Table(Wire(ACTIVEMQ, client_id="me"), client_id="me")
    own.add("/topic/a", durable="one")
    own.add("/topic/b", durable="two")
    assert own.roster.client_id() == "me"
    assert own.renewals == []
    plain = Table(Wire(RABBITMQ))
    plain.add("/topic/a", durable="one")
    plain.add("/topic/b", durable="two")
    assert (plain.roster.client_id(), plain.renewals) == ("", [])


def test_forgetting_a_durable_subscription_without_a_connection_is_no_success() -> None:
    table = Table(None)
    one = table.add("/topic/a", durable="one")
    with pytest.raises(ConnectError, match="not deleted"):
        table.roster.remove(one, forget=True, timeout=0.1)


@pytest.mark.parametrize(
    ("forget", "durable", "given_back"), [(True, "two", False), (False, "two", True), (True, None, True)]
)
def test_what_a_forgotten_subscription_holds_is_given_back_to_nobody(
    forget: bool, durable: str | None, given_back: bool
) -> None:
    """Giving back takes a new connection, which whatever is said on the old one at that moment does not survive."""
    table = Table(Wire())

    class Answering(Wire):
        def unsubscribe(self, subscription: str, headers: Mapping[str, str], receipt: str) -> None:
            table.roster.on_receipt(receipt, table.present)

    table.wire = Answering()
    one = table.add("/topic/two" if durable else "/queue/two", durable=durable)
    one.take_unread(Received("MESSAGE", {}, b""), table.present)
    table.roster.remove(one, forget=forget, timeout=5)
    assert bool(table.renewals) is given_back


def test_a_broker_that_does_not_answer_unsubscribe_costs_no_more_than_the_time() -> None:
    table = Table(Wire())
    one, two = table.add("/queue/one"), table.add("/topic/two", durable="two")
    table.roster.remove(one, forget=False, timeout=0.01)
    with pytest.raises(ConnectError, match="no answer"):
        table.roster.remove(two, forget=True, timeout=0.01)
