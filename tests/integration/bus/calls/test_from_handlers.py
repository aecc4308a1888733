"""What a handler, or a callback for events, calls on its own bus works, while more messages wait than may be in memory.

On brokers that bound deliveries and on those that do not.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from time import monotonic

import pytest

from deploykit.bus import Bus, Delivery, Subscription, Verdict
from deploykit.bus.events import Event, Subscribed
from deploykit.errors import BusClosed
from tests.support.bus import Collector, text
from tests.support.buscalls import CALLS, Scene, scene_at
from tests.support.busplaces import FLOOD, WAIT, Place, full
from tests.support.wait import wait_until


@pytest.mark.parametrize("call", CALLS)
def test_a_handler_may_call_it_while_more_waits_than_may_be_here(place: Place, call: Callable[[Scene], None]) -> None:
    place.flood()
    done: Future[None] = Future()
    began = threading.Event()
    collector = Collector()

    with scene_at(place) as scene:

        def handle(delivery: Delivery) -> None:
            collector(delivery)
            if began.is_set():
                return
            began.set()
            try:
                wait_until(lambda: full(scene.bus, place) or scene.bus.counters.losses, timeout=WAIT)
                call(scene)
            except BaseException as error:
                done.set_exception(error)
            else:
                done.set_result(None)

        scene.own = scene.bus.subscribe(place.flooded, handle, prefetch=50)
        done.result(120)
        wait_until(lambda: len({body for body in collector.bodies if body != "again"}) == FLOOD, timeout=60)
        if scene.bus.counters.losses == 0:
            assert [body for body in collector.bodies if body != "again"] == [str(n) for n in range(FLOOD)]


@pytest.mark.parametrize("call", CALLS)
def test_a_callback_for_events_may_call_it(place: Place, call: Callable[[Scene], None]) -> None:
    done: Future[None] = Future()
    scenes: list[Scene] = []
    hold = threading.Event()
    place.flood()

    def on_event(event: Event) -> None:
        if isinstance(event, Subscribed) and event.destination == place.flooded and not done.done():
            try:
                wait_until(lambda: full(scenes[0].bus, place) or scenes[0].bus.counters.losses, timeout=WAIT)
                call(scenes[0])
            except BaseException as error:
                done.set_exception(error)
            else:
                done.set_result(None)

    with scene_at(place, on_event) as scene:
        scenes.append(scene)
        scene.own = scene.bus.subscribe(place.flooded, lambda _: _after(hold), prefetch=50)
        try:
            done.result(120)
        finally:
            hold.set()


def test_two_handlers_that_end_each_others_subscription_both_end(place: Place) -> None:
    with place.bus() as bus:
        both = threading.Barrier(2, timeout=WAIT)
        subscriptions: list[Subscription] = []

        def handle(delivery: Delivery) -> None:
            both.wait()
            other = subscriptions[0] if delivery.body == b"1" else subscriptions[1]
            other.unsubscribe(timeout=600)

        subscriptions += [bus.subscribe(place.flooded, handle), bus.subscribe(place.other, handle)]
        bus.publish_many([(place.flooded, text("0")), (place.other, text("1"))])
        wait_until(lambda: not bus._services.subscriptions)
        assert bus.counters.acked == 2


@pytest.mark.parametrize("where", ["handler", "event", "outside"])
def test_a_bus_may_be_stopped_while_more_waits_than_may_be_here(place: Place, where: str) -> None:
    """And what it did not handle is given to the next one; what it did handle, is not."""
    place.flood(size=8000)  # more than lies between the broker and us
    handled, rest = Collector(), Collector()
    stopped = threading.Event()
    buses: list[Bus] = []
    began: list[float] = []

    def stop() -> None:
        wait_until(lambda: full(buses[0], place) or buses[0].counters.losses, timeout=WAIT)
        began.append(monotonic())
        buses[0].stop(timeout=WAIT)
        stopped.set()

    def on_event(event: Event) -> None:
        if where == "event" and isinstance(event, Subscribed) and event.destination == place.flooded:
            stop()

    def handle(delivery: Delivery) -> Verdict | None:
        handled(delivery)
        if where == "handler" and not stopped.is_set():
            stop()
        elif where != "handler":
            stopped.wait(0.01)
        return None

    with place.bus(on_event) as bus:
        buses.append(bus)
        bus.subscribe(place.flooded, handle)
        if where == "outside":
            stop()
        wait_until(lambda: stopped.is_set() and not bus._supervisor.thread.is_alive())
        assert monotonic() - began[0] < WAIT / 2  # the last answers were read, behind all that nobody wanted any more
        with pytest.raises(BusClosed):
            bus.publish(place.out, text("x"))
    with place.bus() as bus:
        bus.subscribe(place.flooded, rest)
        lost_once = {str(n) for n in range(FLOOD)} - {body.strip() for body in handled.bodies}
        wait_until(lambda: lost_once <= {body.strip() for body in rest.bodies}, timeout=60)


def _after(event: threading.Event) -> None:
    event.wait(60)
