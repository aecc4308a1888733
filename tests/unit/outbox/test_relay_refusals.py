"""A relay whose broker or spool refuses something: order is kept, the rest goes on, nothing is sent for ever."""

from __future__ import annotations

import json
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploykit.errors import MessageError, OutboxError, PublishError, PublishRefused
from deploykit.outbox import Outbox, Outgoing, Record, RecordId
from deploykit.outbox.format import pack
from deploykit.outbox.relay import DeadLetter, Relay
from deploykit.testing.fakes import FakeBus, Sent
from deploykit.wire.frame import Frame
from tests.support.relaying import quick, refuse, running
from tests.support.spools import A, B, frame, put, waiting
from tests.support.wait import wait_until


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
        wait_until(lambda: waiting(outbox) == [])
    accepted = [s.frame.body for s in bus.sent if s.future.exception() is None]
    assert accepted == [b"1", b"3", b"4"]
    assert bus.bodies.count(b"bad") == 1, "sent again it would come after 3 and 4"
    assert "later messages there were accepted" in next(outbox.dead()).reason


def test_a_refused_record_that_was_overtaken_is_a_gap_though_the_last_outcome_is_unknown(outbox: Outbox) -> None:
    put(outbox, "bad", "2", "3")
    bus = FakeBus(lambda _: FakeBus.SILENCE)
    with running(quick(outbox, bus)):
        bus.wait_sent(3)
        bad, second, third = bus.sent
        bus.answer = lambda _: None
        bad.future.set_exception(PublishRefused("no"))
        second.future.set_result(None)
        third.future.set_exception(PublishError("the connection was lost"))
        wait_until(lambda: waiting(outbox) == [])
    assert bus.bodies == [b"bad", b"2", b"3", b"3"]
    assert [dead.frame.body for dead in outbox.dead()] == [b"bad"]


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
        wait_until(lambda: waiting(outbox) == [])
    assert bus.bodies == [b"1", b"2", b"3", b"1", b"1", b"1", b"2", b"3"]
    assert list(outbox.dead()) == []


def test_a_destination_in_trouble_does_not_hold_up_the_others(outbox: Outbox) -> None:
    put(outbox, "a1", "a2")
    put(outbox, "b1", "b2", to=B)
    bus = FakeBus(lambda sent: FakeBus.SILENCE if sent.destination == A else None)
    with running(Relay(outbox, bus, pause=60.0)):
        wait_until(lambda: waiting(outbox) == [b"a1", b"a2"])
        bus.fail(PublishRefused("denied"))
        put(outbox, "b3", to=B)
        wait_until(lambda: b"b3" in bus.bodies)
        wait_until(lambda: waiting(outbox) == [b"a1", b"a2"])


def test_order_is_kept_when_the_fate_of_some_is_unknown(outbox: Outbox) -> None:
    put(outbox, "1", "2", "3", "4")
    bus = FakeBus(lambda _: FakeBus.SILENCE)
    with running(quick(outbox, bus)):
        bus.wait_sent(4)
        bus.answer = lambda _: None
        bus.confirm(1)
        bus.fail(PublishError("no receipt in time"))
        wait_until(lambda: waiting(outbox) == [])
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
        def publish_nowait(self, destination: str, frame: Frame, **options: object):  # type: ignore[no-untyped-def]
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
        wait_until(lambda: waiting(outbox) == [])
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
            wait_until(lambda: waiting(outbox) == [b"1", b"2"])
        broken.clear()
        wait_until(lambda: waiting(outbox) == [])
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
    report = quick(outbox, bus, window=4).drain_once(2.0)  # five have to be sent by then
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
        wait_until(lambda: waiting(outbox) == [b"never"])
        put(outbox, "3")
        wait_until(lambda: waiting(outbox) == [b"never"])
        full.clear()
        wait_until(lambda: waiting(outbox) == [])
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
    report = quick(outbox, FakeBus()).drain_once(3.0)  # by then all have to be sent, and tried once more
    assert not report.complete
    assert 6 < len(tried) <= 6 + 4 * 10
    assert sorted(r.message for r in caplog.records if r.levelname == "ERROR") == [
        "relay: trouble 0",
        "relay: trouble 1",
    ]
