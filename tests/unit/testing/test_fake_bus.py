"""`FakeBus`: handlers are tried without a broker, and what works on it works on a `Bus`."""

from __future__ import annotations

import inspect
import threading

import pytest

from deploykit.bus import Ack, Bus, BusState, Delivery, Reject, Retry, Subscription, Verdict
from deploykit.bus.events import Closed, Connected, ConnectionLost, Event, SubscriptionRefused
from deploykit.errors import BusClosed, PublishManyFailed, PublishRefused, UsageError
from deploykit.messages import RefUpdated, Unknown
from deploykit.messages.base import Message
from deploykit.names import parse_object_id, parse_ref_name, parse_repo_name
from deploykit.testing.fakes import FakeBus, FakeSubscription, Sent
from deploykit.wire.codec import decode
from deploykit.wire.frame import Frame

QUEUE = "/queue/q"
TOPIC = "/topic/t"


def public(cls: type) -> set[str]:
    return {name for name, value in inspect.getmembers(cls) if callable(value) and not name.startswith("_")}


def parameters(function: object) -> list[tuple[str, object, object]]:
    assert callable(function)
    found = inspect.signature(function).parameters.values()
    return [(p.name, p.kind, p.default) for p in found]


@pytest.mark.parametrize("name", sorted(public(Bus) & public(FakeBus)))
def test_a_method_takes_the_arguments_that_the_real_one_takes(name: str) -> None:
    assert parameters(getattr(FakeBus, name)) == parameters(getattr(Bus, name))


def test_what_programs_call_on_a_bus_is_there() -> None:
    wanted = {"start", "stop", "wait_connected", "publish", "publish_nowait", "publish_many", "send", "subscribe"}
    assert wanted | {"listen", "add_listener"} <= public(FakeBus) & public(Bus)


@pytest.mark.parametrize("name", sorted(public(FakeSubscription)))
def test_a_subscription_takes_the_arguments_that_the_real_one_takes(name: str) -> None:
    assert parameters(getattr(FakeSubscription, name)) == parameters(getattr(Subscription, name))


def test_a_handler_runs_in_the_callers_thread_with_what_a_bus_would_hand_it() -> None:
    bus = FakeBus()
    seen: list[tuple[Delivery, threading.Thread]] = []

    def handle(delivery: Delivery) -> None:
        seen.append((delivery, threading.current_thread()))

    subscription = bus.subscribe(QUEUE, handle, durable=None, workers=3)
    frame = Frame({"deploykit-id": "7", "x": "y"}, b"body")
    (verdict,) = bus.deliver(QUEUE, frame, attempt=2, redelivered=True)
    ((delivery, thread),) = seen
    assert thread is threading.current_thread()
    assert (delivery.destination, delivery.body, delivery.id) == (QUEUE, b"body", "7")
    assert (delivery.attempt, delivery.redelivered, delivery.headers["x"]) == (2, True, "y")
    assert isinstance(verdict, Ack)
    assert [(one.subscription, one.delivery, one.verdict) for one in bus.handled] == [(subscription, delivery, verdict)]
    assert subscription.options["workers"] == 3


@pytest.mark.parametrize("raised", [False, True])
@pytest.mark.parametrize("verdict", [Ack(), Retry(5.0), Reject("never")])
def test_a_verdict_is_returned_as_it_is_whether_returned_or_raised(verdict: Verdict, raised: bool) -> None:
    def handle(_: Delivery) -> Verdict:
        if raised:
            raise verdict
        return verdict

    bus = FakeBus()
    bus.subscribe(QUEUE, handle)
    assert bus.deliver(QUEUE, Frame({}, b"")) == (verdict,)
    assert bus.handled[0].verdict is verdict


def test_what_a_handler_raises_beside_verdicts_comes_out() -> None:
    def handle(_: Delivery) -> None:
        raise KeyError("a bug")

    bus = FakeBus()
    bus.subscribe(QUEUE, handle)
    with pytest.raises(KeyError):
        bus.deliver(QUEUE, Frame({}, b""))


def test_a_handler_that_returns_no_verdict_is_an_error() -> None:
    bus = FakeBus()
    bus.subscribe(QUEUE, lambda _: True)  # type: ignore[arg-type,return-value]
    with pytest.raises(UsageError, match="returned bool"):
        bus.deliver(QUEUE, Frame({}, b""))


def test_a_topic_goes_to_all_and_a_queue_to_one_after_the_other() -> None:
    bus = FakeBus()
    calls: list[str] = []
    for name in ("a", "b"):
        for destination in (QUEUE, TOPIC):
            bus.subscribe(destination, lambda delivery, name=name: calls.append(name + delivery.destination[1]))  # type: ignore[misc]
    assert len(bus.deliver(TOPIC, Frame({}, b""))) == 2
    assert len(bus.deliver(QUEUE, Frame({}, b""))) == 1
    bus.deliver(QUEUE, Frame({}, b""))
    bus.deliver(QUEUE, Frame({}, b""))
    assert calls == ["at", "bt", "aq", "bq", "aq"]


def test_a_message_for_which_there_is_no_handler_is_an_error() -> None:
    bus = FakeBus()
    subscription = bus.subscribe(QUEUE, lambda _: None)
    with pytest.raises(UsageError, match="no handler for /topic/t"):
        bus.deliver(TOPIC, Frame({}, b""))
    was = [subscription.active]
    subscription.unsubscribe()
    assert [*was, subscription.active] == [True, False]
    with pytest.raises(UsageError, match="no handler for /queue/q"):
        bus.deliver(QUEUE, Frame({}, b""))


def ref_updated() -> RefUpdated:
    return RefUpdated(
        repo=parse_repo_name("app"),
        ref=parse_ref_name("refs/heads/main"),
        old=parse_object_id("1" * 40),
        new=parse_object_id("2" * 40),
        source="test",
    )


def test_listen_gives_messages_and_rejects_what_is_none() -> None:
    bus = FakeBus()
    seen: list[Message] = []

    def handle(message: RefUpdated, delivery: Delivery) -> Verdict:
        seen.append(message)
        return Retry(1.0)

    (subscription,) = bus.listen(RefUpdated, handle, prefetch=7)
    where = subscription.destination
    assert subscription.options["prefetch"] == 7
    message = ref_updated()
    (verdict,) = bus.deliver(where, message)
    assert isinstance(verdict, Retry)
    assert seen == [message]
    (verdict,) = bus.deliver(where, Frame({"content-type": "application/cloudevents+json"}, b"{"))
    assert isinstance(verdict, Reject)
    (verdict,) = bus.deliver(where, Unknown(type="org.example.other", source="test"))
    assert isinstance(verdict, Ack)
    assert seen == [message]


def test_send_publishes_to_the_topic_of_the_message_where_a_listener_gets_it() -> None:
    bus = FakeBus()
    (subscription,) = bus.listen(RefUpdated, lambda message, delivery: None)
    message = ref_updated()
    bus.send(message, persistent=False, ttl=3.0)
    (sent,) = bus.sent
    assert (sent.destination, sent.persistent, sent.ttl) == (subscription.destination, False, 3.0)
    assert decode(sent.frame.headers, sent.frame.body, sent.destination) == message


def test_publish_many_says_which_were_refused() -> None:
    def answer(sent: Sent) -> object:
        return PublishRefused("no") if sent.frame.body == b"2" else None

    bus = FakeBus(answer)
    assert bus.publish_many([(TOPIC, Frame({}, b"1")), (TOPIC, Frame({}, b"3"))]) == 2
    with pytest.raises(PublishManyFailed) as caught:
        bus.publish_many((TOPIC, Frame({}, b"%d" % n)) for n in (1, 2, 3))
    assert [outcome is None for outcome in caught.value.outcomes] == [True, False, True]


def test_the_end_of_a_with_block_closes_the_bus() -> None:
    states = []
    with FakeBus() as bus:
        states.append(bus.state)
        bus.disconnect()
        states.append(bus.state)
    assert [*states, bus.state] == [BusState.CONNECTED, BusState.WAITING, BusState.CLOSED]
    for call in (
        lambda: bus.publish(TOPIC, Frame({}, b"")),
        lambda: bus.subscribe(TOPIC, lambda _: None),
        lambda: bus.deliver(TOPIC, Frame({}, b"")),
        bus.start,
    ):
        with pytest.raises(BusClosed):
            call()


def test_listeners_hear_what_the_test_does_to_the_broker() -> None:
    bus, first, second = FakeBus(), list[Event](), list[Event]()
    remove = bus.add_listener(first.append)
    bus.disconnect("broker restarted")
    assert "broker restarted" in str(bus.problem)
    bus.add_listener(second.append)  # hears nothing first: there is no connection
    bus.connect()
    assert bus.problem is None
    remove()
    remove()
    bus.emit(SubscriptionRefused(destination=TOPIC, problem="no"))
    bus.close()
    assert [type(event) for event in first] == [Connected, ConnectionLost, Connected]
    assert [type(event) for event in second] == [Connected, SubscriptionRefused, Closed]
    with pytest.raises(BusClosed):
        bus.add_listener(first.append)


def test_what_a_listener_raises_costs_the_others_of_a_fake_bus_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def awful(_: Event) -> None:
        raise RuntimeError("no")

    bus, seen = FakeBus(), list[Event]()
    bus.add_listener(awful)
    bus.add_listener(seen.append)
    bus.disconnect()
    assert [type(event) for event in seen] == [Connected, ConnectionLost]
    assert "a listener failed for ConnectionLost" in caplog.text
