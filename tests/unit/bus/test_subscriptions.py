"""The table of subscriptions by itself: who is sent when, who is blamed for what."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, cast

import pytest

from deploykit.bus.events import Counters, Event, Subscribed, SubscriptionRefused
from deploykit.bus.ports import BrokerConnection
from deploykit.bus.stomp.compile import CompiledSubscription, SubscriptionSpec
from deploykit.bus.stomp.connection import Connection
from deploykit.bus.stomp.dialect import ACTIVEMQ, ARTEMIS, EMBEDDED, GENERIC, RABBITMQ, Dialect
from deploykit.bus.stomp.frames import Received
from deploykit.bus.subscription import Subscription
from deploykit.bus.subscriptions import SubscriptionTable
from deploykit.errors import ConnectError, DialectError


class Wire:
    """A connection that writes down what it is told to send."""

    def __init__(self, dialect: Dialect = RABBITMQ, client_id: str = "") -> None:
        self.dialect, self.client_id = dialect, client_id
        self.version, self.broker, self.epoch, self.up, self.paused = "1.2", "stomp://b", 1, True, False
        self.sent: list[tuple[str, str]] = []  # destination -> receipt

    def resume(self) -> None:
        self.paused = False

    def subscribe(self, compiled: CompiledSubscription, receipt: str) -> None:
        self.sent.append((compiled.headers["destination"], receipt))

    def unsubscribe(self, subscription: str, headers: Mapping[str, str], receipt: str) -> None:
        self.sent.append((subscription, receipt))


class Own:
    """A subscription's own connection, that writes down how it ends."""

    def __init__(self, subscription: Subscription, table: Table) -> None:
        self.subscription, self.ended = subscription, ""
        self.connection: Connection | None = None
        self.roster = SubscriptionTable(
            cast("Any", self),
            threading.RLock(),
            client_id="",
            counters=Counters(),
            emit=table.events.append,
            alone=subscription,
        )
        self.delete_durable = self.roster.delete_durable

    def notify_changed(self) -> None:
        """Nobody waits here."""

    def end(self, _: float) -> None:
        self.ended = "in order"

    def cut(self) -> None:
        self.ended = "cut"


class Table:
    """A roster, with its supervisor played by this class."""

    def __init__(self, wire: Wire | None, *, client_id: str = "") -> None:
        self.wire = wire
        self.renewals: list[str] = []
        self.timers: list[Callable[[], None]] = []
        self.feeds: list[Own] = []
        self.events: list[Event] = []
        self.counters = Counters()
        self.roster = SubscriptionTable(
            self, threading.RLock(), client_id=client_id, counters=self.counters, emit=self.events.append
        )

    @property
    def connection(self) -> Connection | None:
        return cast("Connection | None", self.wire)

    @property
    def present(self) -> Connection:
        assert self.connection is not None
        return self.connection

    @property
    def sent(self) -> list[tuple[str, str]]:
        assert self.wire is not None
        return self.wire.sent

    def call_later(self, seconds: float, action: Callable[[], None]) -> None:
        self.timers.append(action)

    def reconnect(self, reason: str) -> None:
        self.renewals.append(reason)

    def notify_changed(self) -> None:
        """Nobody waits here."""

    def open_dedicated(self, subscription: str, _: BrokerConnection) -> Any:
        self.feeds.append(Own(self.roster.get(subscription), self))
        return self.feeds[-1]

    def add(self, destination: str, durable: str | None = None) -> Subscription:
        intent = SubscriptionSpec(destination=destination, id=f"id {destination}", durable=durable)
        subscription = Subscription(cast("Any", self), intent, lambda _: None, workers=0, max_attempts=1, ids=None)
        self.roster.add(subscription)
        return subscription

    def again(self, *, by_broker: bool = True, last_error: str = "") -> Wire:
        """The connection is lost, and there is a new one."""
        assert self.wire is not None
        self.roster.lost(by_broker=by_broker, last_error=last_error)
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


def test_who_ends_connections_is_refused_with_the_brokers_last_reason() -> None:
    table = Table(Wire())
    bad, idle = table.add("/queue/bad"), Table(Wire()).add("/queue/idle")
    table.again(last_error="ACCESS_REFUSED - access to queue 'bad'")
    table.again()
    assert str(bad.problem).startswith(
        "the broker ended 2 connections when asked for /queue/bad; "
        "its last ERROR: ACCESS_REFUSED - access to queue 'bad' (look at"
    )
    assert idle.last_error == ""
    bad.confirmed(7)
    assert bad.last_error == ""


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
        Received("ERROR", {"subscription": one.spec.id}), "queue deleted", table.present, alone=False
    )
    assert "queue deleted" in table.renewals[0]


def test_rabbitmq_confirms_the_subscription_it_ends_the_connection_for() -> None:
    """ERROR, the receipt of the refused one, the end: so it is for a queue or exchange that is missing or denied."""
    table = Table(Wire())
    bad, good = table.add("/amq/queue/missing"), table.add("/queue/good")
    for _ in range(2):
        assert not table.roster.on_error(Received("ERROR", {"message": "not_found"}), "no", table.present, alone=True)
        table.roster.on_receipt(table.sent[0][1], table.present)
        assert not any(isinstance(event, Subscribed) for event in table.events)
        wire = table.again()
    assert wire.sent == []  # one after the other from here on; first the good one
    table.timers.pop()()
    assert [destination for destination, _ in wire.sent] == ["/queue/good"]
    table.roster.on_receipt(wire.sent[0][1], table.present)
    for _ in range(2):
        table.timers.pop()()
        assert table.sent[-1][0] == "/amq/queue/missing"
        assert table.roster.on_error(Received("ERROR", {"message": "not_found"}), "no", table.present, alone=True)
        wire = table.again()
        assert [destination for destination, _ in wire.sent] == ["/queue/good"]
        table.roster.on_receipt(wire.sent[0][1], table.present)
    assert (bad.losses, good.losses, good.active) == (4, 0, True)


def test_a_confirmation_after_an_error_counts_when_the_connection_has_outlived_it() -> None:
    table = Table(Wire())
    one, two = table.add("/queue/one"), table.add("/queue/two")
    assert not table.roster.on_error(Received("ERROR", {"message": "?"}), "?", table.present, alone=True)
    for _, receipt in table.sent:
        table.roster.on_receipt(receipt, table.present)
    assert [one.active, two.active] == [False, False]
    for timer in table.timers:
        timer()
    assert [one.active, two.active] == [True, True]


def test_a_loss_that_is_a_subscriptions_doing_is_known_as_that() -> None:
    table = Table(Wire())
    table.add("/queue/one")
    assert not table.roster.lost(by_broker=True)  # without a word: it may have been a message
    table.roster.begin(table.present)
    assert table.roster.on_error(Received("ERROR", {"message": "no"}), "no", table.present, alone=True)
    assert table.roster.lost(by_broker=True)


@pytest.mark.parametrize(
    "body",
    [
        "There is no current subscription with tag 'T_{}'.",
        'Message with id "T_{}@@session-2@@1" has no subscription',
        "UNSUBSCRIBE must refer to an existing subscription.\nSubscription to \"id='{}'\" not found.\n",
    ],
)
def test_an_error_about_a_subscription_that_has_ended_blames_no_other(body: str) -> None:
    table = Table(Wire())
    new = table.add("/queue/new")
    error = Received("ERROR", {"message": "not found"}, body.format("deploykit-1").encode())
    assert table.roster.on_error(error, "not found", table.present, alone=True)
    assert new.problem is None
    assert len(table.renewals) == 1  # what it had in hand would stay with the connection


def test_what_the_broker_refused_is_not_ended_there() -> None:
    table = Table(Wire())
    one = table.add("/queue/one")
    table.roster.on_error(Received("ERROR", {"message": "no"}), "no", table.present, alone=True)
    table.roster.remove(one, timeout=5)
    assert [what for what, _ in table.sent] == ["/queue/one"]


def test_an_error_that_names_an_ended_subscription_is_not_about_the_one_that_waits() -> None:
    table = Table(Wire())
    one = table.add("/queue/one")
    table.roster.on_receipt(table.sent[0][1], table.present)
    two = table.add("/queue/two")
    error = Received("ERROR", {"subscription": one.spec.id})
    assert table.roster.on_error(error, "queue deleted", table.present, alone=True)
    assert two.problem is None
    assert "queue deleted" in table.renewals[0]


def test_each_error_that_names_nothing_makes_what_is_confirmed_after_it_doubtful(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """RabbitMQ confirms the very subscription it ends the connection for."""
    table, now, error = Table(Wire()), [100.0], Received("ERROR", {"message": "no"})
    monkeypatch.setattr("deploykit.bus.subscriptions.monotonic", lambda: now[0])
    for name in ("/queue/one", "/queue/two"):
        one = table.add(name)
        table.roster.on_error(error, "no", table.present, alone=False)
        table.roster.on_receipt(table.sent[-1][1], table.present)
        assert not one.active
        now[0] += 10.0
        table.timers.pop()()  # the connection has outlived it
        assert one.active


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
    assert table.sent == []  # so ActiveMQ would keep the subscription for a client id of its own making
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
        table.roster.forget(one, timeout=0.1)
    Answering(table)
    table.roster.begin(table.present)
    table.roster.forget(one, timeout=5)  # it was no use; this time it is
    assert [what for what, _ in table.sent] == ["/topic/a", one.spec.id]


class Answering(Wire):
    """A connection whose broker confirms everything; before the end of a subscription comes what crossed it."""

    def __init__(self, table: Table, *, crossing: Callable[[str], None] = lambda _: None) -> None:
        super().__init__()
        self._table, self._crossing = table, crossing
        table.wire = self

    def subscribe(self, compiled: CompiledSubscription, receipt: str) -> None:
        super().subscribe(compiled, receipt)
        self._table.roster.on_receipt(receipt, self._table.present)

    def unsubscribe(self, subscription: str, headers: Mapping[str, str], receipt: str) -> None:
        super().unsubscribe(subscription, headers, receipt)
        self._crossing(subscription)
        self._table.roster.on_receipt(receipt, self._table.present)


def crossed_as_message(table: Table) -> Callable[[str], None]:
    return lambda name: table.roster.on_message(Received("MESSAGE", {"subscription": name}), table.present)


def crossed_as_error(table: Table) -> Callable[[str], None]:
    def crossed(name: str) -> None:
        body = b"There is no current subscription with tag 'T_%s'." % name.encode()
        error = Received("ERROR", {"message": "Subscription not found"}, body)
        assert table.roster.on_error(error, "Subscription not found", table.present, alone=True)

    return crossed


@pytest.mark.parametrize("crossing", [crossed_as_message, crossed_as_error])
@pytest.mark.parametrize(
    ("destination", "durable", "given_back"),
    [("/topic/a", "two", True), ("/queue/a", None, True), ("/topic/a", None, False)],
)
def test_what_crosses_the_end_of_a_subscription_goes_back_if_anybody_is_to_have_it(
    crossing: Callable[[Table], Callable[[str], None]], destination: str, durable: str | None, given_back: bool
) -> None:
    table = Table(None)
    Answering(table, crossing=crossing(table))
    one = table.add(destination, durable=durable)
    one.stop()
    table.roster.remove(one, timeout=5)
    assert bool(table.renewals) is given_back


@pytest.mark.parametrize("crossing", [crossed_as_message, crossed_as_error])
def test_what_a_forgotten_subscription_holds_is_given_back_to_nobody(
    crossing: Callable[[Table], Callable[[str], None]],
) -> None:
    """Giving back takes a new connection, which whatever is said on the old one at that moment does not survive."""
    table = Table(None)
    Answering(table, crossing=crossing(table))
    one = table.add("/topic/two", durable="two")
    one.stop()
    one.leave_unread()
    table.roster.forget(one, timeout=5)
    assert table.renewals == []
    assert [destination for destination, _ in table.again().sent] == []


def test_an_error_about_a_message_that_crossed_blames_no_subscription_that_waits() -> None:
    table = Table(None)
    Answering(table)
    old = table.add("/queue/old")
    old.stop()
    table.roster.remove(old, timeout=5)
    table.wire = Wire()  # from here on it confirms nothing
    new = table.add("/queue/new")
    crossed_as_error(table)(old.spec.id)
    assert new.problem is None
    assert len(table.renewals) == 1


def test_forgetting_outlives_the_connection_it_began_on() -> None:
    table = Table(None)

    def back() -> None:
        Answering(table)
        table.roster.begin(table.present)

    class Breaking(Answering):
        def unsubscribe(self, subscription: str, headers: Mapping[str, str], receipt: str) -> None:
            table.roster.lost(by_broker=False)
            table.wire = None
            threading.Timer(0.1, back).start()

    Breaking(table)
    one = table.add("/topic/two", durable="two")
    one.stop()
    table.roster.forget(one, timeout=20)
    assert [what for what, _ in table.sent] == ["/topic/two", one.spec.id]


def test_a_broker_that_does_not_answer_unsubscribe_costs_no_more_than_the_time() -> None:
    table = Table(Wire())
    one, two = table.add("/queue/one"), table.add("/topic/two", durable="two")
    assert table.wire is not None
    table.roster.on_receipt(table.wire.sent[1][1], table.present)
    table.roster.remove(one, timeout=0.01)
    with pytest.raises(ConnectError, match="no answer"):
        table.roster.forget(two, timeout=0.01)


# -- brokers that do not bound what they deliver -------------------------------------------------------------------


@pytest.mark.parametrize("dialect", [GENERIC, ARTEMIS])
def test_where_nothing_bounds_deliveries_each_subscription_has_a_connection_of_its_own(dialect: Dialect) -> None:
    table = Table(Wire(dialect))
    one, two = table.add("/queue/one"), table.add("/queue/two")
    assert [feed.subscription for feed in table.feeds] == [one, two]
    assert table.sent == []
    wire = table.again()
    assert [feed.ended for feed in table.feeds] == ["cut", "cut", "", ""]  # with the connection, for the same broker
    assert wire.sent == []
    table.roster.remove(one, timeout=1)
    assert [feed.ended for feed in table.feeds[2:]] == ["in order", ""]
    assert [cast("Any", feed) for feed in table.roster.dedicated] == [table.feeds[3]]


def test_a_durable_subscription_is_forgotten_over_its_own_connection() -> None:
    class Confirming(Wire):
        def unsubscribe(self, subscription: str, headers: Mapping[str, str], receipt: str) -> None:
            super().unsubscribe(subscription, headers, receipt)
            threading.Timer(0.01, feed.roster.on_receipt, (receipt, self)).start()

    table = Table(Wire(ARTEMIS))
    one, two = table.add("/topic/one", durable="one"), table.add("/topic/two", durable="two")  # two clients
    feed, own = table.feeds[0], Confirming(ARTEMIS, client_id="one")
    feed.connection = cast("Connection", own)
    feed.roster.begin(feed.connection)
    feed.roster.on_receipt(own.sent[0][1], feed.connection)
    assert (one.active, two.active) == (True, False)
    one.stop()
    table.roster.forget(one, timeout=20)
    assert [what for what, _ in own.sent] == ["one", one.spec.id]
    assert feed.ended == "in order"
    assert table.sent == []
    assert [cast("Any", feed) for feed in table.roster.dedicated] == [table.feeds[1]]


def test_a_broker_that_sends_more_than_prefetch_allows_is_bounded_by_not_reading_another_connection() -> None:
    """Or whoever publishes waited for a receipt behind what is not read."""
    table = Table(Wire(EMBEDDED))
    one = table.add("/queue/one")
    frame = Received("MESSAGE", {"subscription": one.spec.id}, b"")
    for _ in range(1001):
        table.roster.on_message(frame, table.present)
    assert not table.present.paused
    assert table.renewals == ["the broker sends more for /queue/one than prefetch allows"]
    assert table.again().sent == []
    assert [feed.subscription for feed in table.feeds] == [one]


def test_reading_stops_on_a_subscriptions_own_connection_alone_and_goes_on_at_half() -> None:
    table, own = Table(Wire(GENERIC)), Wire(GENERIC)
    one = table.add("/queue/one")
    roster, line = table.feeds[0].roster, cast("Connection", own)
    frame = Received("MESSAGE", {"subscription": one.spec.id}, b"")
    paused = []
    for _ in range(1001):
        paused.append(own.paused)
        roster.on_message(frame, line)
    assert paused == [False] * 1001
    assert own.paused
    for _ in range(501):
        one.catch_up(line)
        assert own.paused
        one._queue.get()
    one.catch_up(line)
    assert not own.paused


def test_messages_that_wait_for_another_attempt_are_held_too() -> None:
    table = Table(Wire(GENERIC))
    one = table.add("/queue/one")
    one._settler._delayed.update(dict.fromkeys(range(1001), cast("Any", None)))
    assert one.held(1.0)
