"""A relay that drains: confirmed before it is forgotten, in order, within its windows and its deadline."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from deploykit.errors import BusClosed, OutboxError
from deploykit.outbox import Outbox, Outgoing
from deploykit.outbox.relay import Relay
from deploykit.testing.fakes import FakeBus
from tests.support.relaying import quick, running
from tests.support.spools import A, B, frame, put, waiting
from tests.support.wait import wait_until


def test_a_drain_sends_all_in_order_and_empties_the_spool(outbox: Outbox) -> None:
    put(outbox, "1", "2")
    outbox.put_many([Outgoing(B, frame("3")), Outgoing(A, frame("4"))])
    bus = FakeBus()
    report = Relay(outbox, bus).drain_once(5)
    assert bus.bodies == [b"1", b"2", b"3", b"4"]
    assert (report.sent, report.complete, report.problem, report.dead_letters) == (4, True, "", ())
    assert waiting(outbox) == []


def test_a_record_stays_until_its_receipt_came(outbox: Outbox) -> None:
    put(outbox, "1", "2")
    bus = FakeBus(lambda _: FakeBus.SILENCE)
    with running(Relay(outbox, bus)):
        bus.wait_sent(2)
        assert waiting(outbox) == [b"1", b"2"]
        bus.confirm(1)
        wait_until(lambda: waiting(outbox) == [b"2"])
        bus.confirm()
        wait_until(lambda: waiting(outbox) == [])
    assert bus.bodies == [b"1", b"2"], "nothing is sent twice while its receipt is awaited"


def test_a_drain_ends_at_its_deadline_with_what_is_left_and_why(outbox: Outbox) -> None:
    put(outbox, "1")
    bus = FakeBus()
    bus.disconnect()
    report = Relay(outbox, bus).drain_once(0.1)
    assert (report.sent, report.complete) == (0, False)
    assert "broker" in report.problem
    assert waiting(outbox) == [b"1"]


def test_a_drain_of_an_empty_spool_is_complete(outbox: Outbox) -> None:
    assert Relay(outbox, FakeBus()).drain_once(1).complete


def test_a_window_bounds_what_is_in_flight(outbox: Outbox) -> None:
    put(outbox, *map(str, range(10)))
    bus = FakeBus(lambda _: FakeBus.SILENCE)
    with running(Relay(outbox, bus, window=3)):
        bus.wait_sent(3)
        assert len(bus.sent) == 3
        bus.confirm(1)
        bus.wait_sent(4)
        assert len(bus.sent) == 4
        bus.answer = lambda _: None
        bus.confirm()
        wait_until(lambda: waiting(outbox) == [])


def test_a_window_of_bytes_bounds_what_is_in_flight(outbox: Outbox) -> None:
    put(outbox, *("x" * 5000 for _ in range(6)))
    bus = FakeBus(lambda _: FakeBus.SILENCE)
    with running(Relay(outbox, bus, window_bytes=11_000)):
        bus.wait_sent(2)
        time.sleep(0.05)
        assert len(bus.sent) == 2
        bus.answer = lambda _: None
        bus.confirm()
        wait_until(lambda: waiting(outbox) == [])


def test_a_drain_is_not_complete_while_a_file_cannot_be_read(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    put(outbox, "1", "2")
    bad = min(Path(outbox.path).glob("*.rec")).name
    real = os.open

    def fail(name: str, *args: int, **kwargs: int) -> int:
        if name == bad:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(name, *args, **kwargs)

    bus = FakeBus()
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", fail)
        report = quick(outbox, bus).drain_once(2.0)  # the other one has to be sent by then
    assert bus.bodies == [b"2"]
    assert (report.complete, report.problem) == (False, "1 files of the spool cannot be read")
    assert quick(outbox, bus).drain_once(5).complete
    assert bus.bodies == [b"2", b"1"]


def test_a_drain_is_not_complete_while_the_spool_refuses_to_forget(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox.put_many([Outgoing(A, frame("1")), Outgoing(A, frame("2"))])
    real_remove = Outbox.ack

    def marked_but_not_removed(self: Outbox, record: object) -> None:
        real_remove(self, record)  # type: ignore[arg-type]
        raise OutboxError("cannot remove a record: I/O error")

    monkeypatch.setattr(Outbox, "ack", marked_but_not_removed)
    report = quick(outbox, FakeBus()).drain_once(2.0)  # the first has to be sent by then
    assert not report.complete
    assert "I/O error" in report.problem


def test_a_drain_on_a_closed_bus_says_so(outbox: Outbox) -> None:
    put(outbox, "1")
    bus = FakeBus()
    bus.close()
    with pytest.raises(BusClosed):
        Relay(outbox, bus).drain_once(1)
