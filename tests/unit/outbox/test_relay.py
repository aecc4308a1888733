"""The relay: confirmed before it is forgotten, in order, one at a time, and never stuck."""

from __future__ import annotations

import errno
import json
import os
import statistics
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

import pytest

from deploykit.config import parse_settings
from deploykit.daemons import relay as daemon
from deploykit.errors import BusClosed, LockBusy, MessageError, OutboxError, PublishError, PublishRefused
from deploykit.outbox import Outbox, Outgoing, Record, RecordId, RelayLock
from deploykit.outbox.format import pack
from deploykit.outbox.relay import DeadLetter, Relay
from deploykit.settings import Settings
from deploykit.testing.fakes import FakeBus, Sent
from deploykit.wire.frame import Frame
from tests.support.bus import in_time

A, B = "/topic/a", "/topic/b"


def frame(text: str) -> Frame:
    return Frame({}, text.encode())


def put(outbox: Outbox, *texts: str, to: str = A) -> None:
    for text in texts:
        outbox.put(to, frame(text))


def bodies(outbox: Outbox) -> list[bytes]:
    return [record.frame.body for record in outbox.pending()]


def quick(outbox: Outbox, bus: FakeBus, **options: object) -> Relay:
    return Relay(outbox, bus, pause=0.01, pause_max=0.02, **options)  # type: ignore[arg-type]


@contextmanager
def running(relay: Relay) -> Iterator[threading.Event]:
    stop = threading.Event()
    thread = threading.Thread(target=relay.run, args=(stop,))
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        thread.join(60)
        assert not thread.is_alive()


def until(condition: Callable[[], bool], timeout: float = 60.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.002)


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    box = Outbox(tmp_path / "spool")
    yield box
    box.close()


# -- draining --------------------------------------------------------------------------------------------------------


def test_a_drain_sends_all_in_order_and_empties_the_spool(outbox: Outbox) -> None:
    put(outbox, "1", "2")
    outbox.put_many([Outgoing(B, frame("3")), Outgoing(A, frame("4"))])
    bus = FakeBus()
    report = Relay(outbox, bus).drain_once(5)
    assert bus.bodies == [b"1", b"2", b"3", b"4"]
    assert (report.sent, report.complete, report.problem, report.dead_letters) == (4, True, "", ())
    assert bodies(outbox) == []


def test_a_record_stays_until_its_receipt_came(outbox: Outbox) -> None:
    put(outbox, "1", "2")
    bus = FakeBus(lambda _: FakeBus.SILENCE)
    with running(Relay(outbox, bus)):
        bus.wait_sent(2)
        assert bodies(outbox) == [b"1", b"2"]
        bus.confirm(1)
        until(lambda: bodies(outbox) == [b"2"])
        bus.confirm()
        until(lambda: bodies(outbox) == [])
    assert bus.bodies == [b"1", b"2"], "nothing is sent twice while its receipt is awaited"


def test_a_drain_ends_at_its_deadline_with_what_is_left_and_why(outbox: Outbox) -> None:
    put(outbox, "1")
    bus = FakeBus()
    bus.disconnect()
    report = Relay(outbox, bus).drain_once(0.1)
    assert (report.sent, report.complete) == (0, False)
    assert "broker" in report.problem
    assert bodies(outbox) == [b"1"]


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
        until(lambda: bodies(outbox) == [])


def test_a_window_of_bytes_bounds_what_is_in_flight(outbox: Outbox) -> None:
    put(outbox, *("x" * 5000 for _ in range(6)))
    bus = FakeBus(lambda _: FakeBus.SILENCE)
    with running(Relay(outbox, bus, window_bytes=11_000)):
        bus.wait_sent(2)
        time.sleep(0.05)
        assert len(bus.sent) == 2
        bus.answer = lambda _: None
        bus.confirm()
        until(lambda: bodies(outbox) == [])


# -- refusals and order ----------------------------------------------------------------------------------------------


def refuse(
    text: bytes, how: Callable[[], Exception] = lambda: PublishRefused("no such topic")
) -> Callable[..., object]:
    return lambda sent: how() if sent.frame.body == text else None


def test_a_refused_record_is_buried_after_the_capped_attempts_and_the_rest_goes_on(outbox: Outbox) -> None:
    put(outbox, "bad")
    attempts: list[Sent] = []

    def answer(sent: Sent) -> object:
        if sent.frame.body != b"bad":
            return None
        attempts.append(sent)
        return PublishRefused("no such topic")

    said: list[DeadLetter] = []
    report = quick(outbox, FakeBus(answer), max_attempts=3, on_dead_letter=said.append).drain_once(10)
    assert len(attempts) == 3
    assert report.complete
    (dead,) = outbox.dead()
    assert "no such topic" in dead.reason
    assert "refused 3 times" in dead.reason
    assert [b.id for b in report.dead_letters] == [b.id for b in said] == [dead.id]
    assert report.dead_letters[0].destination == A


def test_a_refused_record_that_others_overtook_is_a_gap_never_a_swap(outbox: Outbox) -> None:
    put(outbox, "1", "bad", "3", "4")
    bus = FakeBus(lambda _: FakeBus.SILENCE)
    with running(quick(outbox, bus)):
        bus.wait_sent(4)
        bus.respond(refuse(b"bad"))
        until(lambda: bodies(outbox) == [])
    accepted = [s.frame.body for s in bus.sent if s.future.exception() is None]
    assert accepted == [b"1", b"3", b"4"]
    assert bus.bodies.count(b"bad") == 1, "sent again it would come after 3 and 4"
    assert "later messages there were accepted" in next(outbox.dead()).reason


def test_when_a_whole_destination_is_refused_only_its_first_record_uses_up_attempts(outbox: Outbox) -> None:
    put(outbox, "1", "2", "3")
    seen = 0

    def answer(_: Sent) -> object:
        nonlocal seen
        seen += 1
        return PublishRefused("access refused") if seen <= 5 else None

    bus = FakeBus(lambda _: FakeBus.SILENCE)
    with running(quick(outbox, bus, max_attempts=4)):
        bus.wait_sent(3)
        bus.respond(answer)  # refuses the three in flight, and two more attempts; then the broker lets all pass
        until(lambda: bodies(outbox) == [])
    assert bus.bodies == [b"1", b"2", b"3", b"1", b"1", b"1", b"2", b"3"]
    assert list(outbox.dead()) == []


def test_a_destination_in_trouble_does_not_hold_up_the_others(outbox: Outbox) -> None:
    put(outbox, "a1", "a2")
    put(outbox, "b1", "b2", to=B)
    bus = FakeBus(lambda sent: FakeBus.SILENCE if sent.destination == A else None)
    with running(Relay(outbox, bus, pause=60.0)):
        until(lambda: bodies(outbox) == [b"a1", b"a2"])
        bus.fail(PublishRefused("denied"))
        put(outbox, "b3", to=B)
        until(lambda: b"b3" in bus.bodies)
        until(lambda: bodies(outbox) == [b"a1", b"a2"])


def test_order_is_kept_when_the_fate_of_some_is_unknown(outbox: Outbox) -> None:
    put(outbox, "1", "2", "3", "4")
    bus = FakeBus(lambda _: FakeBus.SILENCE)
    with running(quick(outbox, bus)):
        bus.wait_sent(4)
        bus.answer = lambda _: None
        bus.confirm(1)
        bus.fail(PublishError("no receipt in time"))
        until(lambda: bodies(outbox) == [])
    assert bus.bodies[4:] == [b"2", b"3", b"4"]


def test_a_record_of_unknown_fate_is_never_buried(outbox: Outbox) -> None:
    put(outbox, "1")
    tries = 0

    def answer(_: Sent) -> object:
        nonlocal tries
        tries += 1
        return PublishError("no receipt in time") if tries < 20 else None

    report = quick(outbox, FakeBus(answer), max_attempts=2).drain_once(20)
    assert (report.sent, report.dead_letters, report.complete) == (1, (), True)


def test_what_the_bus_itself_will_not_take_is_buried_at_once(outbox: Outbox) -> None:
    put(outbox, "1", "bad", "3")

    class Strict(FakeBus):
        def publish_nowait(self, destination: str, frame: Frame):  # type: ignore[no-untyped-def]
            if frame.body == b"bad":
                raise MessageError("header x cannot be sent")
            return super().publish_nowait(destination, frame)

    bus = Strict()
    report = quick(outbox, bus).drain_once(5)
    assert bus.bodies == [b"1", b"3"]
    assert [b.reason for b in report.dead_letters] == ["header x cannot be sent"]


def test_a_record_is_sent_under_the_same_id_each_time(outbox: Outbox) -> None:
    put(outbox, "1")
    outbox.put(A, Frame({"deploykit-id": "mine"}, b"2"))
    bus = FakeBus(lambda _: FakeBus.SILENCE)
    with running(quick(outbox, bus)):
        bus.wait_sent(2)
        bus.fail(PublishError("no receipt in time"))
        bus.wait_sent(3)  # the first alone, until it is known that it goes through
        bus.respond(lambda _: None)
        until(lambda: bodies(outbox) == [])
    one, two, one_again, two_again = [sent.frame.headers["deploykit-id"] for sent in bus.sent]
    assert one == one_again != ""
    assert two == two_again == "mine"


def test_what_the_spool_refuses_to_forget_is_not_sent_again_and_holds_nobody_up(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    put(outbox, "1", "2")
    bus = FakeBus()
    working = Outbox.ack
    broken = threading.Event()
    broken.set()
    monkeypatch.setattr("deploykit.outbox.settled._AGAIN", 0.05)

    def done(self: Outbox, record: Record) -> None:
        if broken.is_set() and record.frame.body in (b"1", b"2"):
            raise OutboxError("cannot remove a record: I/O error")
        working(self, record)

    monkeypatch.setattr(Outbox, "ack", done)
    with running(quick(outbox, bus)):
        bus.wait_sent(2)
        for text in ("3", "4", "5"):  # each is a pass of its own, which meets the two again
            put(outbox, text)
            until(lambda: bodies(outbox) == [b"1", b"2"])
        broken.clear()
        until(lambda: bodies(outbox) == [])
    assert bus.bodies == [b"1", b"2", b"3", b"4", b"5"]
    assert [r.message for r in caplog.records if "I/O error" in r.message] == [
        "relay: cannot remove a record: I/O error"
    ], "said once while it lasts"


def test_no_more_than_a_bounded_number_is_sent_that_cannot_be_removed(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox.put_many([Outgoing(A, frame(str(n))) for n in range(40)])
    monkeypatch.setattr("deploykit.outbox.settled._MOST_OWED", 5)

    def read_only(*_: object) -> None:
        raise OutboxError("cannot remove a record: read-only file system")

    bus = FakeBus()
    monkeypatch.setattr(Outbox, "ack", read_only)
    report = quick(outbox, bus, window=4).drain_once(0.5)
    assert 5 <= len(bus.sent) <= 5 + 4
    assert len(set(bus.bodies)) == len(bus.bodies)
    assert (report.complete, report.problem) == (False, "cannot remove a record: read-only file system")


def test_a_record_that_cannot_be_buried_yet_holds_nobody_up(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A disk without room for the dead letter: it is written when there is room, and sent in no case."""
    (Path(outbox.path) / f"{'0' * 20}-00000000.rec").write_bytes(
        pack([Outgoing(A, Frame({"destination": "/queue/other"}, b"never"))])
    )
    (Path(outbox.path) / f"{'0' * 20}-00000000.rec").chmod(0o640)
    put(outbox, "1", "2")
    bus = FakeBus()
    full = threading.Event()
    full.set()
    working = Outbox.dead_letter
    monkeypatch.setattr("deploykit.outbox.settled._AGAIN", 0.05)

    def bury(self: Outbox, record: Record, reason: str) -> RecordId:
        if full.is_set():
            raise OutboxError("cannot bury a record: no space left")
        return working(self, record, reason)

    monkeypatch.setattr(Outbox, "dead_letter", bury)
    with running(quick(outbox, bus)):
        until(lambda: bodies(outbox) == [b"never"])
        put(outbox, "3")
        until(lambda: bodies(outbox) == [b"never"])
        full.clear()
        until(lambda: bodies(outbox) == [])
    assert bus.bodies == [b"1", b"2", b"3"]
    assert len(list(outbox.dead())) == 1
    assert len([r for r in caplog.records if "no space left" in r.message]) == 1


@pytest.mark.parametrize(
    ("destination", "headers", "reason"),
    [
        (A, {"destination": "/queue/other"}, "belong to the connection: destination"),
        (A, {"receipt": "1"}, "belong to the connection: receipt"),
        (A, {"": "x"}, "one without a name"),
        (A, {"x": "y" * 100_000}, "8192 bytes"),
        (A, {f"n{n:0>90}": "" for n in range(91)}, "8192 bytes"),
        (A, {f"n{n}": "" for n in range(91)}, "more than 90"),
        ("/topic/", {}, "has no name"),
        (A, {"x": "é" * 5000}, "8192 bytes"),
        ("/topic/" + "x" * 100_000, {}, "not an acceptable destination"),
        ("/topic/a\x1b[0m", {}, "not an acceptable destination"),
    ],
)
def test_what_no_broker_takes_is_buried_when_it_is_read_and_costs_its_destination_nothing(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch, destination: str, headers: dict[str, str], reason: str
) -> None:
    line = json.dumps({"destination": destination, "headers": headers, "body": 1}).encode()
    payload = line + b"\nx\n"
    head = f"deploykit-outbox 1 crc32={zlib.crc32(payload):08x} size={len(payload):012d} records=1\n".encode()
    hand_made = Path(outbox.path) / f"{'0' * 20}-00000000.rec"
    hand_made.write_bytes(head + payload)
    hand_made.chmod(0o640)
    put(outbox, "good")
    bus = FakeBus()
    # A pause would be met if the record was ever tried.
    report = Relay(outbox, bus, pause=60.0, pause_max=60.0).drain_once(30)
    assert bus.bodies == [b"good"]
    assert [reason in buried.reason for buried in report.dead_letters] == [True]
    assert report.complete


def test_what_is_confirmed_while_its_file_is_read_again_is_not_sent_again(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox.put_many([Outgoing(A, frame("1")), Outgoing(B, frame("held")), Outgoing(A, frame("2"))])
    bus = FakeBus(lambda sent: PublishRefused("not now") if sent.destination == B else FakeBus.SILENCE)
    pending = Outbox.pending

    def confirmed_in_between(self: Outbox, **options: bool) -> Iterator[Record]:
        for record in pending(self, **options):
            if record.number == 2 and len(bus.sent) == 3:
                bus.confirm()
            yield record

    monkeypatch.setattr(Outbox, "pending", confirmed_in_between)
    with running(Relay(outbox, bus, pause=60.0, pause_max=60.0)):
        bus.wait_sent(3)
        put(outbox, "new")  # so a new pass begins at the front
        bus.wait_sent(4)
    assert bus.bodies == [b"1", b"held", b"2", b"new"]


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
        report = quick(outbox, bus).drain_once(0.3)
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
    report = quick(outbox, FakeBus()).drain_once(0.3)
    assert not report.complete
    assert "I/O error" in report.problem


# -- running ---------------------------------------------------------------------------------------------------------


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
        until(outbox_of(outbox).relay_listens)
        in_time(0.1, lambda: statistics.median(delay() for _ in range(5)))


def outbox_of(other: Outbox) -> Outbox:
    """The same spool, as another process would open it."""
    return Outbox(other.path)


def test_a_record_put_while_another_waits_for_its_receipt_is_sent_at_once(outbox: Outbox) -> None:
    bus = FakeBus(lambda _: FakeBus.SILENCE)
    with running(Relay(outbox, bus, rescan=60.0)):
        put(outbox, "1")
        bus.wait_sent(1)
        put(outbox, "2")
        bus.wait_sent(2, timeout=30)  # half of the rescan
        bus.confirm()
        until(lambda: bodies(outbox) == [])


def test_the_broker_coming_back_is_enough_to_go_on(outbox: Outbox) -> None:
    put(outbox, "1")
    bus = FakeBus()
    bus.disconnect()
    with running(Relay(outbox, bus, rescan=60.0)):
        time.sleep(0.1)
        assert bus.sent == []
        bus.connect()
        until(lambda: bodies(outbox) == [], timeout=30)  # half of the rescan


def test_a_record_that_nobody_announced_is_found_by_the_rescan(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    bus = FakeBus()
    with running(Relay(outbox, bus, rescan=0.05)):
        until(outbox.relay_listens)
        monkeypatch.setattr("deploykit.outbox.spool.notify", lambda *_, **__: False)
        put(outbox, "1")
        until(lambda: bodies(outbox) == [])


def test_a_stop_takes_in_the_receipts_that_are_on_their_way(outbox: Outbox) -> None:
    put(outbox, "1")
    bus = FakeBus(lambda _: FakeBus.SILENCE)
    with running(Relay(outbox, bus)) as stop:
        bus.wait_sent(1)
        stop.set()
        threading.Timer(0.1, bus.confirm).start()
    assert bodies(outbox) == []


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
    assert bodies(outbox) == [b"2"]


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
    assert bodies(outbox) == [b"3"]


def test_a_receipt_is_taken_in_at_once(outbox: Outbox) -> None:
    bus = FakeBus(lambda _: FakeBus.SILENCE)

    def delay() -> float:
        sent = len(bus.sent)
        put(outbox_of(outbox), str(sent))
        bus.wait_sent(sent + 1)
        time.sleep(0.05)
        start = time.monotonic()
        bus.confirm()
        until(lambda: bodies(outbox) == [])
        return time.monotonic() - start

    with running(Relay(outbox, bus)):
        in_time(0.1, lambda: statistics.median(delay() for _ in range(5)))


def test_a_drain_on_a_closed_bus_says_so(outbox: Outbox) -> None:
    put(outbox, "1")
    bus = FakeBus()
    bus.close()
    with pytest.raises(BusClosed):
        Relay(outbox, bus).drain_once(1)


# -- one at a time ---------------------------------------------------------------------------------------------------


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
        until(lambda: bus.bodies == [b"1"])


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
    monkeypatch.setattr(daemon, "Bus", lambda _: nullcontext(FakeBus()))
    monkeypatch.setattr(daemon, "_set_up_logs", lambda _: None)
    ended = threading.Event()
    ended.set()

    def serve(
        load: Callable[[], Settings], make: Callable[..., object], work: Callable[..., None], **_: object
    ) -> None:
        first = make(load())
        with RelayLock(f"{tmp_path}/spool"), pytest.raises(LockBusy):
            work(first, ended)
        with RelayLock(f"{tmp_path}/spool"):
            work(make(load()), ended)

    monkeypatch.setattr("deploykit.daemons.service.lifecycle.serve", serve)
    daemon.run(lambda: settings, on_ready=lambda _: None)


def test_what_a_full_disk_has_no_mark_of_is_not_sent_again_after_hup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = parse_settings(f'node = "a"\n[outbox]\npath = "{tmp_path}/spool"\n'.encode(), where="it", mode=None)
    held = FakeBus(lambda sent: FakeBus.SILENCE if sent.destination == B else None)
    free = FakeBus()
    buses = iter([held, free])
    monkeypatch.setattr(daemon, "Bus", lambda _: nullcontext(next(buses)))
    monkeypatch.setattr(daemon, "_set_up_logs", lambda _: None)
    monkeypatch.setattr("deploykit.outbox.relay._GRACE", 0.0)

    def no_room(*_: object) -> bool:
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr("deploykit.outbox.removal.mark", no_room)

    def serve(
        load: Callable[[], Settings], make: Callable[..., object], work: Callable[..., None], **_: object
    ) -> None:
        for bus, wanted in ((held, 2), (free, 1)):
            end = threading.Event()
            thread = threading.Thread(target=work, args=(make(load()), end))
            thread.start()
            bus.wait_sent(wanted)
            time.sleep(0.5)
            end.set()
            thread.join(60)

    box = Outbox(tmp_path / "spool")
    box.put_many([Outgoing(A, frame("1")), Outgoing(B, frame("2"))])
    monkeypatch.setattr("deploykit.daemons.service.lifecycle.serve", serve)
    daemon.run(lambda: settings, on_ready=lambda _: None)
    assert (held.bodies, free.bodies) == ([b"1", b"2"], [b"2"])
    assert bodies(box) == []


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
        until(lambda: "standing by" in caplog.text)
        del now["trouble"]
        bus.answer = lambda _: None
        bus.confirm()
        until(lambda: bodies(outbox) == [])
        assert bus.bodies == [b"1", b"2"]
    finally:
        stop.set()
        thread.join(60)


def test_what_is_owed_is_tried_again_now_and_then_though_no_more_may_be_owed_and_each_trouble_is_said_once(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("deploykit.outbox.settled._MOST_OWED", 4)
    monkeypatch.setattr("deploykit.outbox.settled._AGAIN", 0.4)
    put(outbox, *map(str, range(6)))
    tried: list[bytes] = []

    def done(_: Outbox, record: Record) -> None:
        tried.append(record.frame.body)
        raise OutboxError(f"trouble {len(tried) % 2}")

    monkeypatch.setattr(Outbox, "ack", done)
    report = quick(outbox, FakeBus()).drain_once(1.5)
    assert not report.complete
    assert 6 < len(tried) <= 6 + 4 * 6
    assert sorted(r.message for r in caplog.records if r.levelname == "ERROR") == [
        "relay: trouble 0",
        "relay: trouble 1",
    ]
