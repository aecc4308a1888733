"""Each message is handled and passed on, and each order kept, however much waits and whatever is lost on the way."""

from __future__ import annotations

import errno
import threading
from pathlib import Path

import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.bus import Bus, Delivery, Reject
from deploykit.bus.events import DeadLettered
from deploykit.wire.frame import Frame
from tests.support.bus import Collector, Events, bus_threads, fast, text
from tests.support.busplaces import FLOOD, UNKNOWN, WAIT, Place
from tests.support.wait import wait_until


@pytest.mark.parametrize(("workers", "prefetch"), [(1, 1), (8, 128)])
def test_every_worker_publishes_each_message_it_gets(place: Place, workers: int, prefetch: int) -> None:
    """To a broker that bounds nothing 6,000 were sent: none was handled in half a minute."""
    place.flood()
    with place.bus(window=16, in_flight=4) as bus:
        handled: set[bytes] = set()

        def handle(delivery: Delivery) -> None:
            bus.publish(place.out, text(delivery.body.decode()), persistent=False, timeout=WAIT)
            if len(handled) % 50 == 0:  # not more: ActiveMQ's receipt and next message then are 40 ms apart (Nagle)
                bus.publish_many([(place.out, text("soon"))] * 20, persistent=False)
            handled.add(delivery.body)

        bus.subscribe(place.flooded, handle, workers=workers, prefetch=prefetch)
        # ActiveMQ takes its time over each (see above): that the last ones come too is shown on the embedded broker.
        enough = FLOOD // 8 if place.real else FLOOD
        wait_until(lambda: len(handled) >= enough, f"{enough} handled", timeout=120)
        assert bus.counters.publish_failed == 0


def test_dead_letters_are_copied_while_more_waits_than_may_be_here(place: Place) -> None:
    place.flood()
    events = Events()
    with place.bus(events) as bus:
        bus.subscribe(place.flooded, lambda _: Reject("no"), workers=2)
        wait_until(lambda: bus.counters.dead_lettered >= FLOOD, timeout=60)
        assert bus.counters.publish_failed == 0
        events.wait(DeadLettered, FLOOD)


def test_a_queue_is_fed_by_its_own_handler(place: Place) -> None:
    """Each message asks for two more, until there are enough."""
    with place.bus(window=50) as bus:
        handled: set[str] = set()

        def handle(delivery: Delivery) -> None:
            number = int(delivery.body)
            for child in (2 * number, 2 * number + 1):
                if child <= FLOOD:
                    bus.publish(place.flooded, text(str(child)), persistent=False, timeout=WAIT)
            handled.add(delivery.body.decode())

        bus.subscribe(place.flooded, handle, workers=4, prefetch=10)
        bus.publish(place.flooded, text("1"))
        wait_until(lambda: len(handled) == FLOOD, timeout=60)


@pytest.mark.parametrize("version", ["1.0", "1.1", "1.2"])
def test_the_books_are_right_where_connections_are_lost_and_nothing_bounds_deliveries(
    version: str, tmp_path: Path
) -> None:
    """What was sent is handled, and what is handled is passed on, however often which connection is lost."""
    with EmbeddedBroker(server=UNKNOWN, data=tmp_path) as broker:
        settings = fast(broker.address, versions=(version,), heartbeat=1.0)
        place = Place(settings=settings, name="books", durable=False)
        place.flood(persistent=True)
        passed_on = Collector()
        with place.bus() as bus:

            def handle(delivery: Delivery) -> None:
                bus.publish(place.other, Frame({"deploykit-id": f"on {delivery.id}"}, delivery.body), timeout=60)

            bus.subscribe(place.flooded, handle, workers=4)
            bus.subscribe(place.other, passed_on)
            for n, lose in enumerate((broker.faults.drop, broker.faults.half_open, broker.restart) * 3):
                passed_on.wait(100 * (n + 1), 60)
                lose()
            wait_until(lambda: {*passed_on.bodies} == {str(n) for n in range(FLOOD)}, timeout=120)
            wait_until(lambda: sum(broker.stats().queues.values()) == 0, timeout=60)
            assert bus.counters.publish_failed == 0
            assert len(passed_on) == FLOOD
        assert bus_threads() == []


def test_what_is_published_after_a_subscription_does_not_overtake_it(place: Place) -> None:
    """On a topic, what comes before the subscription is lost."""
    with place.bus() as bus:
        for n in range(5):
            heard = Collector()
            bus.subscribe(f"{place.out}-{n}", heard)
            bus.publish(f"{place.out}-{n}", text("after"), timeout=WAIT)
            heard.wait(1)


@pytest.mark.parametrize("server", [UNKNOWN, "deploykit"])
def test_what_waits_for_a_new_connection_goes_out_after_its_subscriptions(server: str) -> None:
    with EmbeddedBroker(server=server) as broker, Bus(fast(broker.address)) as bus:
        heard = Collector()
        assert bus.subscribe("/topic/t", heard).wait_active(WAIT)
        for n in range(5):
            broker.faults.drop()
            bus.publish("/topic/t", text(str(n)), timeout=WAIT)
            wait_until(lambda n=n: str(n) in heard.bodies)  # type: ignore[misc]


def test_a_moment_without_descriptors_ends_neither_the_bus_nor_a_subscription(monkeypatch: pytest.MonkeyPatch) -> None:
    with EmbeddedBroker(server=UNKNOWN) as broker, Bus(fast(broker.address)) as bus:
        heard = Collector()
        assert bus.subscribe("/topic/t", heard).wait_active(WAIT)
        tried = threading.Event()

        def none_left(*_: object) -> None:
            tried.set()
            raise OSError(errno.EMFILE, "Too many open files")

        with monkeypatch.context() as patch:
            patch.setattr("deploykit.system.hosts.select.epoll", none_left)
            broker.faults.drop()
            assert tried.wait(WAIT)
        assert bus.wait_connected(WAIT)
        bus.publish("/topic/t", text("x"), timeout=WAIT)
        heard.wait(1)
