"""The bus of a service: whether it goes on, and what is left of a shared one when the service ends."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.bus import Bus
from deploykit.bus.events import Connected, Event
from deploykit.daemons.service.link import MOST_SILENCE, BusLink
from deploykit.settings import BusSettings
from deploykit.wire import Frame
from tests.support.bus import fast
from tests.support.wait import wait_until


@pytest.fixture
def bus(deploykit_broker: EmbeddedBroker) -> Iterator[Bus]:
    with Bus(fast(deploykit_broker.address)) as made:
        assert made.wait_connected(60)
        yield made


def test_a_bus_whose_thread_hangs_is_stuck_until_it_goes_on(bus: Bus) -> None:
    link, hangs, release = BusLink(bus.settings, bus=bus), threading.Event(), threading.Event()

    def hang() -> None:
        hangs.set()
        release.wait(60)

    bus._supervisor.call_later(0, hang)
    assert hangs.wait(60)
    now = time.monotonic()
    assert link.stuck(now) == ""
    assert link.stuck(now + MOST_SILENCE) == ""
    assert link.stuck(now + MOST_SILENCE + 1) == "the bus's own thread has not answered for 21 s"
    release.set()
    wait_until(lambda: link.stuck(now + MOST_SILENCE + 1) == "")
    assert link.failure == ""


def test_a_bus_that_waits_for_a_mute_broker_is_not_stuck() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        settings = BusSettings(address=f"stomp://127.0.0.1:{mute.getsockname()[1]}", connect_timeout=60.0)
        link = BusLink(settings)
        link.start()
        try:
            wait_until(lambda: link.bus.state.value == "connecting")
            now = time.monotonic()
            assert link.stuck(now) == ""
            wait_until(link._pulse._answered.is_set)
            assert link.stuck(now + MOST_SILENCE + 1) == ""
        finally:
            link.stop(1)


def test_a_worker_that_has_ended_is_a_failure_and_named(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    def end(*_: object) -> None:
        raise SystemExit  # a handler's would be caught

    monkeypatch.setattr("deploykit.bus.settlement.Settler.handle", end)
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    link = BusLink(bus.settings, bus=bus)
    subscription = link.subscribe("/queue/q", lambda _: None, workers=2)
    assert subscription.wait_active(60)
    assert link.failure == ""
    bus.publish("/queue/q", Frame({}, b"x"))
    wait_until(lambda: link.failure != "")
    assert link.failure.startswith("a thread of the bus has ended: deploykit-bus-deploykit-")


def test_a_shared_bus_that_its_owner_has_stopped_is_a_failure(bus: Bus) -> None:
    link = BusLink(bus.settings, bus=bus)
    bus.stop()
    assert link.failure == "the bus was stopped"


def test_of_a_shared_bus_only_what_is_its_own_ends(bus: Bus) -> None:
    events: list[Event] = []
    link = BusLink(bus.settings, bus=bus, on_event=events.append)
    link.start()
    heard: list[bytes] = []
    others = bus.subscribe("/queue/others", lambda delivery: heard.append(delivery.body))
    own = link.subscribe("/queue/own", lambda delivery: heard.append(delivery.body))
    assert own.wait_active(60)
    assert others.wait_active(60)
    wait_until(lambda: any(isinstance(event, Connected) for event in events))
    link.stop(10)
    count = len(events)
    for name in ("own", "others"):
        bus.publish(f"/queue/{name}", Frame({}, name.encode()))
    wait_until(lambda: heard != [])
    assert (heard, own.active, others.active, len(events)) == ([b"others"], own.active, True, count)
