"""A relay on a bus that has no room for all: its window is smaller than the relay's, or others fill it."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from deploykit.errors import WindowFull
from deploykit.outbox import Outbox
from deploykit.outbox.relay import Relay
from deploykit.testing.fakes import FakeBus
from deploykit.wire.frame import Frame

A = "/topic/a"
B = "/topic/b"


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    return Outbox(tmp_path / "spool")


def put(outbox: Outbox, *bodies: str, to: str = A) -> None:
    for body in bodies:
        outbox.put(to, Frame({}, body.encode()))


@pytest.mark.parametrize("window", [1, 2, 3])
def test_records_wait_for_room_and_go_in_order(outbox: Outbox, window: int) -> None:
    put(outbox, "1", "2", "3", "4", "5")
    put(outbox, "6", to=B)
    bus = FakeBus(lambda _: FakeBus.SILENCE, window=window)
    done = threading.Event()

    def confirm() -> None:
        while not done.wait(0.001):
            bus.confirm(1)

    thread = threading.Thread(target=confirm)
    thread.start()
    try:
        report = Relay(outbox, bus).drain_once(60)
    finally:
        done.set()
        thread.join()
    assert (report.sent, report.dead_letters, report.complete, report.problem) == (6, (), True, "")
    assert [sent.frame.body for sent in bus.sent if sent.destination == A] == [b"1", b"2", b"3", b"4", b"5"]
    assert len(bus.sent) == 6


def test_a_bus_that_others_fill_costs_time_and_no_attempt(outbox: Outbox) -> None:
    put(outbox, "1")
    bus = FakeBus(lambda _: FakeBus.SILENCE, window=1)
    other = bus.publish_nowait(B, Frame({}, b"of another"))
    report = Relay(outbox, bus, max_attempts=1).drain_once(0.5)
    assert (report.sent, report.dead_letters, report.complete) == (0, (), False)
    assert bus.bodies == [b"of another"]
    bus.respond(lambda _: None)
    other.result(1)
    assert Relay(outbox, bus).drain_once(60).sent == 1


def test_a_relay_that_waits_for_room_ends_when_told(outbox: Outbox) -> None:
    put(outbox, "1", "2")
    bus = FakeBus(lambda _: FakeBus.SILENCE, window=1)
    bus.publish_nowait(B, Frame({}, b"of another"))
    stop = threading.Event()
    thread = threading.Thread(target=Relay(outbox, bus).run, args=(stop,))
    thread.start()
    stop.set()
    thread.join(60)
    assert not thread.is_alive()


def test_a_full_window_is_no_refusal_however_often_it_is_met(outbox: Outbox) -> None:
    put(outbox, "1", "2")

    class Full(FakeBus):
        tries = 0

        def publish_nowait(self, destination: str, frame: Frame, **options: Any) -> Future[None]:
            self.tries += 1
            if self.tries <= 10:
                raise WindowFull("no room")
            return super().publish_nowait(destination, frame, **options)

    bus = Full()
    report = Relay(outbox, bus, max_attempts=1, pause=60.0, pause_max=60.0).drain_once(60)
    assert (report.sent, report.dead_letters, report.complete) == (2, (), True)
    assert bus.bodies == [b"1", b"2"]
