"""What becomes of a message that a handler gets: attempts, verdicts, acknowledgements, redelivery."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.bus import Ack, Bus, Delivery, Reject, Retry, Subscription, subscriptions
from deploykit.bus.events import DeadLettered, Subscribed
from deploykit.errors import ConnectError
from deploykit.system.backoff import Backoff
from tests.support.badservers import FloodServer, PoisonServer
from tests.support.bus import Collector, Events, fast, running, text
from tests.support.wait import wait_until


def _after(event: threading.Event) -> None:
    event.wait(60)


def test_a_poison_message_is_handled_exactly_so_often_and_then_a_dead_letter(broker: EmbeddedBroker) -> None:
    def fail(delivery: Delivery) -> None:
        raise Retry(0.01) if delivery.attempt < 3 else ValueError("secret text")

    collector, events, dead = Collector(fail), Events(), Collector()
    with running(fast(broker.address), on_event=events) as bus:
        bus.subscribe("/queue/q", collector, max_attempts=4)
        bus.subscribe(bus.settings.dead_letter, dead)
        bus.publish("/queue/q", text("poison", subject="s"))
        (letter,) = dead.wait(1)
        assert [d.attempt for d in collector.deliveries] == [1, 2, 3, 4]
        assert letter.body == b"poison"
        assert letter.headers["original-destination"] == "/queue/q"
        assert letter.headers["dead-letter-attempts"] == "4"
        assert "ValueError" in letter.headers["dead-letter-reason"]
        assert "secret" not in letter.headers["dead-letter-reason"]
        assert letter.headers["subject"] == "s"
        assert letter.id == collector.deliveries[0].id
        wait_until(lambda: len(events.of(DeadLettered)) == 1)  # events are told on a thread of their own
    assert broker.peek("/queue/q") == ()


def test_attempts_are_counted_over_reconnects(broker: EmbeddedBroker) -> None:
    def fail(_: Delivery) -> Retry:
        threading.Thread(target=broker.faults.drop).start()
        return Retry(2)  # of the copy at work: one that comes again beside it waits for its verdict

    collector, dead = Collector(fail), Collector()
    with running(fast(broker.address)) as bus:
        bus.subscribe("/queue/q", collector, max_attempts=3)
        bus.subscribe(bus.settings.dead_letter, dead)
        bus.publish("/queue/q", text("poison"))
        dead.wait(1)
        assert len(collector) == 3


@pytest.mark.parametrize(("verdict", "left"), [(Ack(), 0), (Reject("no"), 0), (None, 0)])
def test_verdicts_may_be_returned_or_raised(broker: EmbeddedBroker, verdict: Ack | Reject | None, left: int) -> None:
    def raises(_: Delivery) -> None:
        if verdict is not None:
            raise verdict

    with running(fast(broker.address)) as bus:
        returned = Collector(lambda _: verdict)
        bus.subscribe("/queue/returned", returned, on_failure="drop")
        bus.subscribe("/queue/raised", raises, on_failure="drop")
        bus.publish("/queue/returned", text("x"))
        bus.publish("/queue/raised", text("x"))
        wait_until(lambda: bus.counters.acked == 2)
    assert len(broker.peek("/queue/returned")) == left


def test_a_reason_may_be_the_exception_itself(broker: EmbeddedBroker) -> None:
    with running(fast(broker.address)) as bus:
        bus.subscribe("/queue/q", lambda _: Reject(ValueError("no such site")))  # type: ignore[arg-type]  # as handlers do
        bus.publish("/queue/q", text("x"))
        wait_until(lambda: bus.counters.acked == 1)
    (dead,) = broker.peek(bus.settings.dead_letter)
    assert dead.headers["dead-letter-reason"] == "no such site"


def test_a_handler_that_returns_nonsense_or_exits_does_not_end_its_worker(broker: EmbeddedBroker) -> None:
    def bad(delivery: Delivery) -> None:
        if delivery.body == b"exit":
            raise SystemExit(1)
        if delivery.body == b"nonsense":
            return True  # type: ignore[return-value]
        return None

    collector = Collector(bad)
    with running(fast(broker.address)) as bus:
        bus.subscribe("/queue/q", collector, max_attempts=1, on_failure="drop")
        for body in ("exit", "nonsense", "good"):
            bus.publish("/queue/q", text(body))
        collector.wait(3)
        wait_until(lambda: bus.counters.acked == 3)
        assert bus.counters.dropped == 2


def test_requeue_gives_the_message_to_somebody_else_without_a_hot_loop(broker: EmbeddedBroker) -> None:
    collector = Collector(lambda _: Reject("not mine"))
    with running(fast(broker.address)) as bus:
        bus.subscribe("/queue/q", collector, on_failure="requeue")
        bus.publish("/queue/q", text("x"))
        wait_until(lambda: len(collector) >= 2)
        began = time.monotonic()
        assert bus.counters.handed_back >= 1
        time.sleep(0.5)
        assert len(collector) <= 3 + (time.monotonic() - began), "it goes round about once in a second"
    assert len(broker.peek("/queue/q")) == 1


def test_an_acknowledgement_goes_only_to_the_connection_that_delivered(broker: EmbeddedBroker) -> None:
    """The embedded broker ends a connection that acknowledges what it was not given, so a stray ack would show."""
    release = threading.Event()
    collector = Collector(lambda _: _after(release))
    with running(fast(broker.address)) as bus:
        bus.subscribe("/queue/q", collector)
        bus.publish("/queue/q", text("x"))
        collector.wait(1)
        broker.faults.drop()
        wait_until(lambda: bus.counters.connects == 2)
        release.set()
        wait_until(lambda: bus.counters.acked == 1)
        assert bus.counters.stale_acks == 1
        assert bus.counters.duplicates == 1
        assert bus.counters.losses == 1
        assert len(collector) == 1  # the copy that came again was recognised, while the first was in work
    assert broker.peek("/queue/q") == ()


def test_a_lost_acknowledgement_is_made_good_without_handling_twice(broker: EmbeddedBroker) -> None:
    collector = Collector()
    with running(fast(broker.address)) as bus:
        bus.subscribe("/queue/q", collector)
        broker.faults.lose_acks(5)
        for n in range(5):
            bus.publish("/queue/q", text(str(n)))
        wait_until(lambda: broker._fault_state.lose_acks == 0)
        broker.faults.drop()
        wait_until(lambda: bus.counters.duplicates == 5)
        assert len(collector) == 5
    assert broker.peek("/queue/q") == ()


def test_a_durable_subscription_loses_nothing_over_a_crash_of_the_broker(tmp_path: Path) -> None:
    with EmbeddedBroker(users={"ada": "s3cret"}, data=tmp_path) as broker:
        collector = Collector()
        with running(fast(broker.address)) as bus:
            assert bus.subscribe("/topic/t", collector, durable="d").wait_active(30)
        with running(fast(broker.address)) as bus:
            for n in range(50):
                bus.publish("/topic/t", text(str(n)))
        broker.restart()
        with running(fast(broker.address)) as bus:
            bus.subscribe("/topic/t", collector, durable="d")
            collector.wait(50)
            broker.restart()
            bus.publish("/topic/t", text("after"))
            collector.wait(51)
        assert collector.bodies == [*map(str, range(50)), "after"]


def test_a_flood_beyond_the_bound_stops_reading_and_nothing_is_lost() -> None:
    """A broker that knows no prefetch: we bound what is in memory by not reading, and catch up later."""
    hold = threading.Event()
    collector = Collector(lambda _: _after(hold))
    with FloodServer(5000) as server, Bus(fast(server.address)) as bus:
        bus.subscribe("/queue/q", collector)
        wait_until(lambda: bus.counters.received > 900)
        time.sleep(0.3)
        assert bus.counters.received < 4000
        hold.set()
        wait_until(lambda: len(collector) == 5000)
        assert [int(body) for body in collector.bodies] == list(range(5000))


@pytest.mark.parametrize("end", [lambda bus, _: bus.stop(20), lambda _, subscription: subscription.unsubscribe()])
def test_what_ends_under_a_flood_does_not_wait_for_an_answer_behind_what_is_not_read(
    end: Callable[[Bus, Subscription], None],
) -> None:
    """More than fits between the broker and us: it reads our goodbye when we have read what it wrote before."""
    with FloodServer(3000, 8000) as server, Bus(fast(server.address)) as bus:
        subscription = bus.subscribe("/queue/q", lambda _: time.sleep(0.001))
        wait_until(lambda: subscription.queued >= 1000)
        began = time.monotonic()
        end(bus, subscription)
        assert time.monotonic() - began < 18


def test_a_refused_subscription_is_tried_again_and_does_not_disturb_the_others(
    broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    # After so long that whoever waits gets to see the refusal.
    monkeypatch.setattr(subscriptions, "_RESUBSCRIBE", Backoff(initial=5.0, maximum=5.0, minimum=5.0))
    good, late = Collector(), Collector()
    with running(fast(broker.address)) as bus:
        assert bus.subscribe("/queue/good", good).wait_active(30)
        broker.faults.error_next("SUBSCRIBE", "not now", close=False)
        subscription = bus.subscribe("/queue/late", late)
        with pytest.raises(ConnectError, match="not now"):
            subscription.wait_active(30)
        bus.publish("/queue/good", text("x"))
        bus.publish("/queue/late", text("y"))
        good.wait(1)
        late.wait(1)
        assert bus.counters.losses == 0


def test_a_subscription_that_ends_connections_is_tried_alone() -> None:
    with PoisonServer(b"/queue/forbidden") as server:
        events = Events()
        with Bus(fast(server.address), on_event=events) as bus:
            bad = bus.subscribe("/queue/forbidden", Collector())
            good = bus.subscribe("/queue/good", Collector())
            wait_until(lambda: good.active)
            wait_until(lambda: bad.problem is not None)
            bus.publish("/queue/q", text("x"), timeout=30)
            wait_until(lambda: any(event.destination == "/queue/good" for event in events.of(Subscribed)))
