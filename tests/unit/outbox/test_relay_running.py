"""A relay that runs: it sends at once what comes, and ends without losing anything."""

from __future__ import annotations

import statistics
import threading
import time

import pytest

from deploykit.outbox import Outbox
from deploykit.outbox.relay import Relay
from deploykit.testing.fakes import FakeBus
from tests.support.bus import in_time
from tests.support.relaying import running
from tests.support.spools import outbox_of, put, waiting
from tests.support.wait import wait_until


def test_a_new_record_wakes_the_relay_at_once(outbox: Outbox) -> None:
    bus = FakeBus()

    def delay() -> float:
        """Without what it takes to put one: the disk may be busy."""
        time.sleep(0.02)
        sent = len(bus.sent)
        put(outbox_of(outbox), "now")
        start = time.monotonic()
        bus.wait_sent(sent + 1, timeout=70)
        return time.monotonic() - start

    with running(Relay(outbox, bus, rescan=60.0)):
        wait_until(outbox_of(outbox).relay_listens)
        in_time(0.1, lambda: statistics.median(delay() for _ in range(5)))


def test_a_record_put_while_another_waits_for_its_receipt_is_sent_at_once(outbox: Outbox) -> None:
    bus = FakeBus(lambda _: FakeBus.SILENCE)
    with running(Relay(outbox, bus, rescan=60.0)):
        put(outbox, "1")
        bus.wait_sent(1)
        put(outbox, "2")
        bus.wait_sent(2, timeout=30)  # half of the rescan
        bus.confirm()
        wait_until(lambda: waiting(outbox) == [])


def test_the_broker_coming_back_is_enough_to_go_on(outbox: Outbox) -> None:
    put(outbox, "1")
    bus = FakeBus()
    bus.disconnect()
    with running(Relay(outbox, bus, rescan=60.0)):
        time.sleep(0.1)
        assert bus.sent == []
        bus.connect()
        wait_until(lambda: waiting(outbox) == [], timeout=30)  # half of the rescan


def test_a_record_that_nobody_announced_is_found_by_the_rescan(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    bus = FakeBus()
    with running(Relay(outbox, bus, rescan=0.05)):
        wait_until(outbox.relay_listens)
        monkeypatch.setattr("deploykit.outbox.spool.notify", lambda *_, **__: False)
        put(outbox, "1")
        wait_until(lambda: waiting(outbox) == [])


def test_a_stop_takes_in_the_receipts_that_are_on_their_way(outbox: Outbox) -> None:
    put(outbox, "1")
    bus = FakeBus(lambda _: FakeBus.SILENCE)
    with running(Relay(outbox, bus)) as stop:
        bus.wait_sent(1)
        stop.set()
        threading.Timer(0.1, bus.confirm).start()
    assert waiting(outbox) == []


def test_a_closed_bus_ends_the_relay_and_loses_nothing(outbox: Outbox) -> None:
    put(outbox, "1", "2")
    bus = FakeBus(lambda _: FakeBus.SILENCE)
    relay = Relay(outbox, bus)
    thread = threading.Thread(target=relay.run, args=(threading.Event(),))
    thread.start()
    bus.wait_sent(2)
    bus.confirm(1)
    bus.close()
    thread.join(60)
    assert not thread.is_alive()
    assert waiting(outbox) == [b"2"]


def test_receipts_that_came_as_the_bus_was_closed_count(outbox: Outbox) -> None:
    put(outbox, "1", "2")

    class Ending(FakeBus):
        def wait_connected(self, timeout: float) -> bool:
            if len(self.sent) == 2:  # after the pass, before the next: both receipts, and then the end
                self.confirm()
                self.close()
            return super().wait_connected(timeout)

    bus = Ending(lambda _: FakeBus.SILENCE)
    relay = Relay(outbox, bus)
    thread = threading.Thread(target=relay.run, args=(threading.Event(),))
    thread.start()
    bus.wait_sent(2)
    put(outbox_of(outbox), "3")  # begins another pass
    thread.join(60)
    assert not thread.is_alive()
    assert waiting(outbox) == [b"3"]


def test_a_receipt_is_taken_in_at_once(outbox: Outbox) -> None:
    bus = FakeBus(lambda _: FakeBus.SILENCE)

    def delay() -> float:
        sent = len(bus.sent)
        put(outbox_of(outbox), str(sent))
        bus.wait_sent(sent + 1)
        time.sleep(0.05)
        start = time.monotonic()
        bus.confirm()
        wait_until(lambda: waiting(outbox) == [])
        return time.monotonic() - start

    with running(Relay(outbox, bus)):
        in_time(0.1, lambda: statistics.median(delay() for _ in range(5)))
