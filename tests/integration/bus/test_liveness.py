"""A connection that is dead is noticed in time, and one that is idle or busy is kept."""

from __future__ import annotations

import itertools
import time

import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.bus import Delivery
from deploykit.bus.events import Connected, ConnectionLost
from tests.support.bus import Events, fast, in_time, quiet, running, text
from tests.support.faults import proxied, through
from tests.support.wait import wait_until


@pytest.mark.parametrize("version", ["1.0", "1.1", "1.2"])
def test_a_black_hole_is_noticed_within_two_heart_beats(broker: EmbeddedBroker, version: str) -> None:
    with proxied(broker) as proxy:
        events = Events()
        with running(fast(through(proxy), versions=(version,), heartbeat=0.4), on_event=events) as bus:

            def noticed() -> float:
                time.sleep(0.5)
                losses = len(events.of(ConnectionLost))
                proxy.black_hole()
                began = time.monotonic()
                events.wait(ConnectionLost, losses + 1)
                took = time.monotonic() - began
                proxy.clear()
                proxy.drop()
                bus.publish("/queue/q", text("x"), timeout=30)
                return took

            in_time(2 * 0.4 + 0.2, noticed)


def test_a_half_open_connection_is_noticed(broker: EmbeddedBroker) -> None:
    with proxied(broker) as proxy:
        events = Events()
        with running(fast(through(proxy), heartbeat=1.0), on_event=events) as bus:
            proxy.half_open("client")
            bus.publish("/queue/q", text("x"), timeout=30)
            events.wait(ConnectionLost)


def test_a_frozen_broker_that_refuses_heart_beats_is_noticed_by_the_probe(broker: EmbeddedBroker) -> None:
    broker.faults.refuse_heartbeats()
    events = Events()
    with running(fast(broker.address, heartbeat=0.8), on_event=events) as bus:
        assert "emulated" in events.wait(Connected)[0].beats
        quiet(bus.counters, 3.0)
        assert bus.counters.probes_sent >= 2

        def noticed() -> float:
            losses = len(events.of(ConnectionLost))
            broker.faults.freeze()
            began = time.monotonic()
            events.wait(ConnectionLost, losses + 1)
            took = time.monotonic() - began
            broker.faults.freeze(False)
            bus.publish("/queue/q", text("x"), timeout=30)
            return took

        in_time(2 * 0.8 + 0.2, noticed)


def test_a_broker_that_promises_beats_and_sends_none_is_left(broker: EmbeddedBroker) -> None:
    events = Events()
    with running(fast(broker.address, heartbeat=1.0), on_event=events):
        broker.faults.heartbeats_off()
        events.wait(ConnectionLost)


@pytest.mark.parametrize("refuse", [False, True], ids=["native", "emulated"])
def test_an_idle_connection_survives_four_times_a_firewalls_patience(broker: EmbeddedBroker, refuse: bool) -> None:
    broker.faults.refuse_heartbeats(refuse)
    with proxied(broker) as proxy, running(fast(through(proxy), heartbeat=0.7)) as bus:
        proxy.forget_idle(1.5)
        quiet(bus.counters, 6)
        bus.publish("/queue/q", text("x"), timeout=30)


def test_a_slow_handler_costs_nothing(broker: EmbeddedBroker) -> None:
    def slow(_: Delivery) -> None:
        time.sleep(2.0)

    with running(fast(broker.address, heartbeat=0.8)) as bus:
        bus.subscribe("/queue/q", slow)
        handled = itertools.count(1)

        def cost() -> float:  # once without a loss is enough, as with `quiet`
            before, number = bus.counters.losses + bus.counters.stale_acks, next(handled)
            bus.publish("/queue/q", text("x"), timeout=60)
            wait_until(lambda: bus.counters.acked >= number)
            return bus.counters.losses + bus.counters.stale_acks - before

        in_time(1, cost)
