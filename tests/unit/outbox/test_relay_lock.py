"""One relay at a time; the next one knows what a full disk has no mark of."""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from deploykit.config import parse_settings
from deploykit.daemons import relay as daemon
from deploykit.daemons.service.group import ServiceGroup
from deploykit.errors import LockBusy
from deploykit.outbox import Outbox, Outgoing, RelayLock
from deploykit.outbox.relay import Relay
from deploykit.settings import Settings
from deploykit.testing.fakes import FakeBus
from tests.support.relaying import quick, running
from tests.support.spools import A, B, frame, outbox_of, put, waiting
from tests.support.wait import wait_until


def test_a_second_relay_is_refused_while_one_is_at_work(outbox: Outbox) -> None:
    with RelayLock(outbox.path), pytest.raises(LockBusy):
        Relay(outbox, FakeBus()).drain_once(1)
    assert Relay(outbox, FakeBus()).drain_once(1).complete


def test_a_second_daemon_stands_by_and_takes_over(outbox: Outbox) -> None:
    bus = FakeBus()
    first = ExitStack()
    first.enter_context(RelayLock(outbox.path))
    with first, running(Relay(outbox_of(outbox), bus)):
        put(outbox, "1")
        time.sleep(0.1)
        assert bus.sent == []
        first.close()
        wait_until(lambda: bus.bodies == [b"1"])


def test_a_record_put_as_a_once_relay_ends_is_not_left_behind(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    # The writer saw a relay listening and started none; the relay had done its last scan.
    bus = FakeBus()
    relay = Relay(outbox, bus)
    drain = relay._drain  # the instant between the last scan and the end has no other name
    late = iter(["late"])

    def drain_then_late(end: float) -> bool:
        done = drain(end)
        for text in late:
            put(outbox_of(outbox), text)
        return done

    monkeypatch.setattr(relay, "_drain", drain_then_late)
    put(outbox, "1")
    assert relay.drain_once(5).complete
    assert bus.bodies == [b"1", b"late"]


def test_a_relay_that_came_between_two_of_a_daemons_does_not_end_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HUP: the old relay lets go of the lock, and a hook's `relay --once` may have it before the next one."""
    settings = parse_settings(f'node = "a"\n[outbox]\npath = "{tmp_path}/spool"\n'.encode(), where="it", mode=None)
    monkeypatch.setattr("deploykit.daemons.service.link.Bus", lambda *_, **__: FakeBus())

    def serve(load: Callable[[], Settings], make: Callable[[Settings], ServiceGroup], **_: object) -> None:
        first = make(load())
        with RelayLock(f"{tmp_path}/spool"), pytest.raises(LockBusy), first:
            pass
        second = make(load())
        with RelayLock(f"{tmp_path}/spool"):
            second.__enter__()
            assert second.newly_ready() == []
            assert "standing by: another relay works on spool" in second.status
        wait_until(lambda: second.newly_ready() == [f"relay of {tmp_path}/spool"])
        second.__exit__(None, None, None)

    monkeypatch.setattr("deploykit.daemons.service.lifecycle.serve", serve)
    daemon.run(lambda: settings, on_ready=lambda _: None)


def test_what_a_full_disk_has_no_mark_of_is_not_sent_again_after_hup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = parse_settings(f'node = "a"\n[outbox]\npath = "{tmp_path}/spool"\n'.encode(), where="it", mode=None)
    held = FakeBus(lambda sent: FakeBus.SILENCE if sent.destination == B else None)
    free = FakeBus()
    buses = iter([held, free])
    monkeypatch.setattr("deploykit.daemons.service.link.Bus", lambda *_, **__: next(buses))
    monkeypatch.setattr("deploykit.outbox.relay._GRACE", 0.0)

    def no_room(*_: object) -> bool:
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr("deploykit.outbox.removal.mark", no_room)

    def serve(load: Callable[[], Settings], make: Callable[[Settings], ServiceGroup], **_: object) -> None:
        for bus, wanted in ((held, 2), (free, 1)):
            with make(load()):
                bus.wait_sent(wanted)
                if bus is free:
                    wait_until(lambda: waiting(box) == [])

    box = Outbox(tmp_path / "spool")
    box.put_many([Outgoing(A, frame("1")), Outgoing(B, frame("2"))])
    monkeypatch.setattr("deploykit.daemons.service.lifecycle.serve", serve)
    daemon.run(lambda: settings, on_ready=lambda _: None)
    assert (held.bodies, free.bodies) == ([b"1", b"2"], [b"2"])
    assert waiting(box) == []


def test_a_relay_whose_lock_has_room_again_takes_it_though_its_window_is_full_or_stands_by(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "deploykit")
    working = RelayLock._take
    now: dict[str, Exception] = {"trouble": OSError(errno.ENOSPC, "no room for the lock")}

    def take(self: RelayLock) -> int:
        if "trouble" in now:
            raise now["trouble"]
        return working(self)

    monkeypatch.setattr(RelayLock, "_take", take)
    put(outbox, "1", "2")
    bus = FakeBus(lambda _: FakeBus.SILENCE)
    stop = threading.Event()
    thread = threading.Thread(target=quick(outbox, bus, window=1).run, args=(stop,), kwargs={"stand_by": False})
    thread.start()
    try:
        bus.wait_sent(1)
        now["trouble"] = LockBusy("another relay was quicker")
        wait_until(lambda: "standing by" in caplog.text)
        del now["trouble"]
        bus.answer = lambda _: None
        bus.confirm()
        wait_until(lambda: waiting(outbox) == [])
        assert bus.bodies == [b"1", b"2"]
    finally:
        stop.set()
        thread.join(60)


@pytest.mark.parametrize("here", [True, False])
def test_a_second_relay_of_one_process_is_no_line_of_its_log(
    outbox: Outbox, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, here: bool
) -> None:
    """`deploykit run agent jenkins`: both have a relay, and the first one sends for both."""
    caplog.set_level(logging.DEBUG, logger="deploykit.outbox.relay")
    stop = threading.Event()
    with RelayLock(outbox.path):
        if not here:
            monkeypatch.setattr("deploykit.outbox.relaylock._HELD", set())
        thread = threading.Thread(target=quick(outbox, FakeBus()).run, args=(stop,))
        thread.start()
        try:
            wait_until(lambda: "standing by" in caplog.text)
        finally:
            stop.set()
            thread.join(60)
    (record,) = (each for each in caplog.records if "standing by" in each.message)
    assert record.levelno == (logging.DEBUG if here else logging.INFO)
    assert not RelayLock(outbox.path).held_here
