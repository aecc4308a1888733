"""Subscriptions bound what is here, live while idle, and end: on every broker, by every version, plain and TLS."""

from __future__ import annotations

import threading
import time

from deploykit.bus import Bus, Delivery
from deploykit.bus.events import SubscriptionRefused
from tests.support.bus import UNHURRIED, Collector, Events, quiet, running, text
from tests.support.conformance import Place
from tests.support.wait import wait_until


def test_subscriptions_that_end_while_messages_pour_in_lose_none_and_stop_nobody(
    place: Place, unique_name: str
) -> None:
    """RabbitMQ keeps what crosses the end of a subscription for the connection, and tells of it by an ERROR."""
    queue, topic = f"/queue/{unique_name}", f"/topic/{unique_name}"
    collector, events, pouring = Collector(), Events(), threading.Event()
    sent = 0

    def pour(bus: Bus) -> None:
        nonlocal sent
        while not pouring.is_set():
            bus.publish_many((to, text(str(sent + n))) for n in range(100) for to in (queue, topic))
            sent += 100

    with running(place.bus(client_id="")) as source:
        thread = threading.Thread(target=pour, args=(source,))
        with running(place.bus(client_id=unique_name), on_event=events) as bus:
            thread.start()
            try:
                for _ in range(3):
                    one = bus.subscribe(queue, collector)
                    two = bus.subscribe(topic, lambda _: None, durable=unique_name)
                    assert one.wait_active(30)
                    assert two.wait_active(30)
                    collector.wait(len(collector) + 1)
                    one.unsubscribe()
                    two.unsubscribe(forget=True)
            finally:
                pouring.set()
                thread.join()
            bus.subscribe(queue, collector)
            wait_until(lambda: len(set(collector.bodies)) == sent, timeout=120)
    assert events.of(SubscriptionRefused) == []


def test_prefetch_bounds_what_is_here_and_not_settled(place: Place, unique_name: str) -> None:
    release = threading.Event()

    def hold(_: Delivery) -> None:
        release.wait(60)

    with running(place.settings) as bus:
        bus.publish_many((f"/queue/{unique_name}", text(str(n))) for n in range(50))
        collector = Collector(hold)
        bus.subscribe(f"/queue/{unique_name}", collector, prefetch=5)
        wait_until(lambda: bus.counters.received >= 5)
        time.sleep(0.3)
        assert bus.counters.received == 5
        release.set()
        collector.wait(50)


def test_an_idle_connection_lives(place: Place) -> None:
    with running(place.bus(heartbeat=0.5)) as bus:
        quiet(bus.counters, 2.3)
        wait_until(lambda: bus.counters.beats_sent > 3)


def test_a_round_trip_leaves_nothing_behind(place: Place, unique_name: str) -> None:
    with running(place.bus(heartbeat=UNHURRIED)) as bus:
        connection = bus._supervisor.connection
        assert connection is not None
        for number in range(3):
            connection.round_trip(f"test-{number}")
        bus.publish(f"/topic/{unique_name}", text("after what a round trip left"), timeout=30)
        assert bus.counters.errors_received == 0


def test_ending_a_subscription_gives_the_rest_to_the_next_one(place: Place, unique_name: str) -> None:
    started = threading.Event()

    def slow(_: Delivery) -> None:
        started.set()
        time.sleep(0.2)

    first, second = Collector(slow), Collector()
    with running(place.settings) as bus:
        bus.publish_many((f"/queue/{unique_name}", text(str(n))) for n in range(10))
        subscription = bus.subscribe(f"/queue/{unique_name}", first, prefetch=8)
        assert started.wait(30)
        subscription.unsubscribe()
        bus.subscribe(f"/queue/{unique_name}", second)
        wait_until(lambda: len(first) + len(second) >= 10)
        time.sleep(0.2)
    assert sorted(first.bodies + second.bodies, key=int) == [str(n) for n in range(10)]
