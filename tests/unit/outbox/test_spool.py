"""The outbox: durable in one step, in order, trusting nothing it finds."""

from __future__ import annotations

import errno
import json
import os
import socket
import stat
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from deploykit.errors import OutboxError
from deploykit.outbox import Outbox, Outgoing
from deploykit.outbox.format import MAX_BODY
from deploykit.wire.frame import Frame

A, B = "/topic/a", "/topic/b"


def frame(text: str = "x", **headers: str) -> Frame:
    return Frame(headers, text.encode())


def bodies(outbox: Outbox) -> list[str]:
    return [record.frame.body.decode() for record in outbox.pending()]


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def the_file(outbox: Outbox) -> Path:
    (path,) = Path(outbox.path).glob("*.rec")
    return path


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    return Outbox(tmp_path / "spool")


@pytest.fixture
def spool(outbox: Outbox) -> Path:
    return Path(outbox.path)


# -- putting ---------------------------------------------------------------------------------------------------------


def test_what_was_put_comes_out_as_it_was(outbox: Outbox) -> None:
    headers = {
        "subject": "[repo] 2 caf\xe9 \N{PARTY POPPER}",
        "content-type": "application/cloudevents+json",
        "empty": "",
    }
    body = bytes(range(256))
    record_id = outbox.put("/topic/a b", Frame(headers, body))
    (record,) = outbox.pending()
    assert (record.id, record.destination, record.frame) == (record_id, "/topic/a b", Frame(headers, body))
    assert (record.uid, record.number, record.of, record.state) == (os.geteuid(), 1, 1, "waiting")
    assert abs(record.queued - time.time()) < 60


def test_a_push_is_one_file_in_the_order_given(outbox: Outbox, spool: Path) -> None:
    ids = outbox.put_many([Outgoing(A, frame("1")), Outgoing(B, frame("2")), Outgoing(A, frame("3"))])
    assert [(r.id, r.destination, r.frame.body) for r in outbox.pending()] == [
        (ids[0], A, b"1"),
        (ids[1], B, b"2"),
        (ids[2], A, b"3"),
    ]
    assert len(list(spool.glob("*.rec"))) == 1


def test_an_empty_push_leaves_nothing(outbox: Outbox, spool: Path) -> None:
    assert outbox.put_many([]) == ()
    assert list(spool.glob("*.rec")) == []


def test_a_push_is_on_the_disk_before_put_returns(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    # File contents before the name, the name before the return.
    steps: list[str] = []
    real = {name: getattr(os, name) for name in ("fsync", "rename")}

    def fsync(fd: int) -> None:
        steps.append("fsync directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else "fsync file")
        real["fsync"](fd)

    def rename(*args: object, **kwargs: object) -> None:
        steps.append("rename")
        real["rename"](*args, **kwargs)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    outbox.put_many(Outgoing(A, frame(str(n))) for n in range(100))
    assert steps == ["fsync file", "rename", "fsync directory"]


@pytest.mark.parametrize("step", ["write", "fsync", "rename"])
def test_a_failed_put_reports_it_and_leaves_nothing(
    outbox: Outbox, spool: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    outbox.put(A, frame("before"))
    before = sorted(spool.iterdir())

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, step, fail)
        with pytest.raises(OutboxError, match=r"cannot write to spool .*No space left.*df -i") as caught:
            outbox.put(A, frame("lost"))
    assert str(spool) in str(caught.value)
    assert sorted(spool.iterdir()) == before
    assert bodies(outbox) == ["before"]


def test_a_directory_that_cannot_be_synced_is_no_success(
    outbox: Outbox, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def fsync(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(5, "Input/output error")
        real(fd)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(OutboxError, match="Input/output error"):
            outbox.put(A, frame("lost"))
    assert bodies(outbox) == [], "what was reported lost must not be sent"


@pytest.mark.parametrize(
    ("destination", "sent", "says"),
    [
        ("", frame(), "has no destination"),
        ("/topic/a\nreceipt:1", frame(), "line end"),
        (A, frame(evil="x\r\ny"), "'evil'"),
        (A, frame(evil="x\0"), "'evil'"),
        (A, frame(evil="\ud800"), "'evil'"),
        (A, Frame({}, b"x" * (MAX_BODY + 1)), "too big"),
        (A, frame(huge="x" * 8193), "8192 bytes"),
        (A, frame(**{f"h{n}": "x" * 1000 for n in range(9)}), "8192 bytes"),
        (A, Frame({"number": 1}, b""), "not text"),  # type: ignore[dict-item]
    ],
)
def test_what_could_never_be_sent_is_refused_where_it_is_made(
    outbox: Outbox, destination: str, sent: Frame, says: str
) -> None:
    with pytest.raises(OutboxError, match=says):
        outbox.put_many([Outgoing(A, frame("good")), Outgoing(destination, sent)])
    assert bodies(outbox) == [], "all or nothing"


def test_an_error_never_shows_a_header_or_a_body(outbox: Outbox) -> None:
    with pytest.raises(OutboxError) as caught:
        outbox.put(A, Frame({"password": "canary-1\n"}, b"canary-2"))
    assert "canary" not in str(caught.value) + repr(caught.value)
    assert "canary-2" not in repr(Outgoing(A, Frame({}, b"canary-2")))


# -- modes (threat 27) -----------------------------------------------------------------------------------------------


def test_threat_27_a_new_spool_is_3770_and_its_records_cannot_be_written_by_the_group(
    outbox: Outbox, spool: Path
) -> None:
    os.umask(os.umask(0o077))
    outbox.put(A, frame())
    assert mode_of(spool) == mode_of(spool / "dead") == mode_of(spool / "bad") == 0o3770
    assert mode_of(the_file(outbox)) == 0o640


def test_threat_27_a_private_spool_shows_nothing_to_the_group(tmp_path: Path) -> None:
    private = Outbox(tmp_path / "own", shared=False)
    private.put(A, frame())
    assert mode_of(Path(private.path)) == 0o700
    assert mode_of(the_file(private)) == 0o600
    assert bodies(private) == ["x"]


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
def test_threat_27_modes_do_not_depend_on_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        box = Outbox(tmp_path / "spool")
        box.put(A, frame())
    finally:
        os.umask(before)
    assert mode_of(Path(box.path)) == 0o3770
    assert mode_of(the_file(box)) == 0o640


@pytest.mark.parametrize("mode", [0o3777, 0o1777, 0o3775, 0o2770, 0o1770, 0o770, 0o755])
def test_threat_27_a_looser_directory_is_refused_with_the_way_out(outbox: Outbox, spool: Path, mode: int) -> None:
    spool.chmod(mode)
    for act in (lambda: outbox.put(A, frame()), lambda: list(outbox.pending()), lambda: Outbox(spool)):
        with pytest.raises(OutboxError, match=f"mode {mode:04o}.*chmod 3770 {spool}"):
            act()
    assert list(spool.glob("*.rec")) == []


def test_a_missing_parent_is_made_and_a_missing_spool_is_not_when_told_so(tmp_path: Path) -> None:
    assert Path(Outbox(tmp_path / "a" / "b").path).is_dir()
    with pytest.raises(OutboxError, match="owned by the relay's user, mode 3770"):
        Outbox(tmp_path / "c", create=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutboxError, match="Not a directory"):
        Outbox(tmp_path / "file" / "spool")
    with pytest.raises(OutboxError, match="no group 'no-such-group'"):
        Outbox(tmp_path / "d", group="no-such-group")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "file"], "nothing half-made is left"


# -- order -----------------------------------------------------------------------------------------------------------


class Clocks:
    """The clocks that keys are made from, moved by the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wall = 1_800_000_000 * 10**9
        self.boot = 1000 * 10**9
        self.boot_id = "first"
        monkeypatch.setattr("deploykit.outbox.keys.time.time_ns", lambda: self.wall)
        monkeypatch.setattr("deploykit.outbox.keys.time.clock_gettime_ns", lambda _: self.boot)
        monkeypatch.setattr("deploykit.outbox.keys._boot_id", lambda: self.boot_id)

    def tick(self, seconds: float = 1.0) -> None:
        self.wall += int(seconds * 10**9)
        self.boot += int(seconds * 10**9)

    def reboot(self, boot_id: str, wall_jump: float = 0.0) -> None:
        self.boot_id, self.boot = boot_id, 5 * 10**9
        self.wall += int((30 + wall_jump) * 10**9)


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    return Clocks(monkeypatch)


def put_in_turn(outbox: Outbox, clocks: Clocks, *texts: str) -> None:
    for text in texts:
        Outbox(outbox.path).put(A, frame(text))
        clocks.tick()


@pytest.mark.parametrize("jump", [-3600, 3600, -10 * 365 * 86400])
def test_a_clock_that_jumps_does_not_turn_the_order(outbox: Outbox, clocks: Clocks, jump: int) -> None:
    put_in_turn(outbox, clocks, "1", "2")
    clocks.wall += jump * 10**9
    put_in_turn(outbox, clocks, "3", "4")
    clocks.wall -= jump * 10**9
    put_in_turn(outbox, clocks, "5")
    assert bodies(outbox) == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize("jump", [0, -3600, 3600, -40 * 365 * 86400])
def test_a_reboot_with_a_wrong_clock_does_not_turn_the_order(outbox: Outbox, clocks: Clocks, jump: int) -> None:
    put_in_turn(outbox, clocks, "1", "2")
    clocks.reboot("second", jump)
    put_in_turn(outbox, clocks, "3", "4")
    clocks.reboot("third", -jump)
    put_in_turn(outbox, clocks, "5", "6")
    assert bodies(outbox) == ["1", "2", "3", "4", "5", "6"]


@pytest.mark.parametrize("anchor", ["", "no number", "-5", "9" * 20, "9" * 4000, "1.5"])
def test_a_damaged_anchor_costs_no_record(outbox: Outbox, clocks: Clocks, spool: Path, anchor: str) -> None:
    if anchor:
        (spool / ".clock-first").symlink_to(anchor)
    else:
        (spool / ".clock-first").write_text("a file")
    put_in_turn(outbox, clocks, "1", "2")
    assert bodies(outbox) == ["1", "2"]


def test_without_a_boot_id_the_wall_clock_serves(outbox: Outbox, clocks: Clocks) -> None:
    clocks.boot_id = ""
    put_in_turn(outbox, clocks, "1", "2")
    assert bodies(outbox) == ["1", "2"]


def test_a_name_from_the_far_future_does_not_use_up_the_digits(outbox: Outbox, clocks: Clocks, spool: Path) -> None:
    outbox.put(A, frame("joke"))
    the_file(outbox).rename(spool / f"{'9' * 20}-00000000.rec")
    clocks.reboot("second")
    put_in_turn(outbox, clocks, "1", "2")
    assert bodies(outbox) == ["1", "2", "joke"]


def test_order_holds_across_processes(outbox: Outbox) -> None:
    code = "import sys; from deploykit.outbox import Outbox; from deploykit.wire.frame import Frame\n"
    code += "Outbox(sys.argv[1]).put('/topic/a', Frame({}, sys.argv[2].encode()))"
    for n in range(4):
        subprocess.run([sys.executable, "-c", code, outbox.path, str(2 * n)], check=True)
        outbox.put(A, frame(str(2 * n + 1)))
    assert bodies(outbox) == list("01234567")


def test_writers_at_the_same_time_lose_nothing_and_each_keeps_its_own_order(outbox: Outbox) -> None:
    code = "import sys; from deploykit.outbox import Outbox; from deploykit.wire.frame import Frame\n"
    code += "box, me = Outbox(sys.argv[1]), sys.argv[2].encode()\n"
    code += "for n in range(50): box.put('/topic/a', Frame({}, b'%s %d' % (me, n)))"
    writers = [subprocess.Popen([sys.executable, "-c", code, outbox.path, f"w{n}"]) for n in range(4)]
    assert [w.wait(60) for w in writers] == [0] * 4
    found = [text.split() for text in bodies(outbox)]
    for n in range(4):
        assert [int(number) for who, number in found if who == f"w{n}"] == list(range(50))
    assert len(found) == 200


def test_pending_goes_round_by_round_without_skipping_or_repeating(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploykit.outbox.reader.ROUND", 3)
    for n in range(3):
        outbox.put(A, frame(str(n)))
        outbox.put_many([Outgoing(A, frame(f"{n}a")), Outgoing(A, frame(f"{n}b"))])
    assert bodies(outbox) == ["0", "0a", "0b", "1", "1a", "1b", "2", "2a", "2b"]


# -- settling --------------------------------------------------------------------------------------------------------


def test_done_removes_one_record_of_a_push_and_another_process_sees_it(outbox: Outbox, spool: Path) -> None:
    outbox.put_many(Outgoing(A, frame(str(n))) for n in range(3))
    records = list(outbox.pending())
    outbox.ack(records[1])
    assert bodies(Outbox(outbox.path)) == ["0", "2"]
    outbox.ack(records[1])
    outbox.ack(records[2])
    outbox.ack(records[0])
    assert [p.name for p in spool.iterdir() if not p.name.startswith(".")] in (["dead", "bad"], ["bad", "dead"])
    outbox.ack(records[0])


def test_marks_of_two_processes_add_up(outbox: Outbox, spool: Path) -> None:
    outbox.put_many(Outgoing(A, frame(str(n))) for n in range(2))
    mine, theirs = list(outbox.pending()), list(Outbox(outbox.path).pending())
    outbox.ack(mine[0])
    Outbox(outbox.path).ack(theirs[1])
    assert list(spool.glob("[0-9]*")) == []


def test_settling_one_record_of_a_large_push_takes_no_more_steps_than_of_a_small_one(tmp_path: Path) -> None:
    """A push of 2,000 refs is one file of thousands of records; steps for each of them, each time, would be squared."""

    def steps(records: int) -> int:
        box = Outbox(tmp_path / f"spool-{records}")
        box.put_many(Outgoing(A, frame()) for _ in range(records))
        *_, one, last = box.pending()
        box.ack(last)
        lines = 0

        def count(_frame: FrameType, event: str, _arg: object) -> Any:
            nonlocal lines
            lines += event == "line"
            return count

        before = sys.gettrace()
        sys.settrace(count)
        try:
            box.ack(one)
        finally:
            sys.settrace(before)
        return lines

    assert steps(3000) == steps(3)


def test_what_either_file_marks_counts(outbox: Outbox, spool: Path) -> None:
    """The relay of the owner writes one file, that of the writer the other."""
    outbox.put_many(Outgoing(A, frame(str(n))) for n in range(300))
    stem = the_file(outbox).stem
    (spool / f"{stem}.done").write_bytes(b"deploykit-done 1\n" + b"x\0" * 150)
    (spool / f"{stem}.mine").write_bytes(b"deploykit-done 1\n" + b"\0x\0\0" * 74)
    assert bodies(outbox) == [str(n) for n in range(300) if n % 4 == 3 or n == 297]


def test_a_push_whose_relay_was_cut_off_before_the_last_step_is_tidied_away(outbox: Outbox, spool: Path) -> None:
    outbox.put_many(Outgoing(A, frame(str(n))) for n in range(2))
    kept = the_file(outbox), the_file(outbox).read_bytes()
    first, second = outbox.pending()
    outbox.ack(first)
    marks = kept[0].with_suffix(".done")
    outbox.ack(second)
    kept[0].write_bytes(kept[1])
    marks.write_bytes(b"deploykit-done 1\nxx")
    assert list(outbox.pending()) == []
    assert list(spool.glob("[0-9]*")) == []


def test_marks_whose_file_is_gone_are_tidied_away(outbox: Outbox, spool: Path) -> None:
    outbox.put_many(Outgoing(A, frame(str(n))) for n in range(2))
    outbox.ack(next(outbox.pending()))
    the_file(outbox).unlink()
    assert list(outbox.pending()) == []
    assert list(spool.glob("*.done")) == []


@pytest.mark.parametrize("content", [b"", b"deploykit-done 2\nxx", b"junk", b"deploykit-done 1\n\0\0"])
def test_damaged_marks_cost_a_second_delivery_never_a_record(outbox: Outbox, spool: Path, content: bytes) -> None:
    outbox.put_many(Outgoing(A, frame(str(n))) for n in range(2))
    the_file(outbox).with_suffix(".done").write_bytes(content)
    assert bodies(outbox) == ["0", "1"]
    for record in list(outbox.pending()):
        outbox.ack(record)
    assert bodies(outbox) == []


def test_a_dead_letter_keeps_its_id_and_contents_and_says_why(outbox: Outbox, spool: Path) -> None:
    outbox.put_many(Outgoing(A, frame(str(n), subject=f"line {n}")) for n in range(3))
    records = list(outbox.pending())
    assert outbox.dead_letter(records[1], "refused:\n no such topic") == records[1].id
    assert bodies(outbox) == ["0", "2"]
    (dead,) = outbox.dead()
    assert (dead.id, dead.state, dead.frame) == (records[1].id, "dead", records[1].frame)
    assert dead.reason == "refused: no such topic"
    assert dead.dead_since.endswith("+00:00")
    assert mode_of(spool / "dead" / f"{dead.id}.rec") == 0o640


def test_a_record_buried_twice_after_a_crash_is_one_dead_letter(outbox: Outbox) -> None:
    outbox.put(A, frame())
    (record,) = outbox.pending()
    outbox.dead_letter(record, "first time")
    outbox.dead_letter(record, "second time")
    assert [dead.reason for dead in outbox.dead()] == ["second time"]


def test_a_record_that_cannot_be_buried_still_waits(
    outbox: Outbox, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox.put(A, frame())
    (record,) = outbox.pending()
    (spool / "dead").rmdir()

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "mkdir", full)
        with pytest.raises(OutboxError, match="cannot write a dead letter"):
            outbox.dead_letter(record, "no way")
    assert bodies(outbox) == ["x"]


@pytest.mark.parametrize("folder", ["dead", "bad"])
@pytest.mark.parametrize("kind", ["link", "file", "fifo", "missing"])
def test_what_lies_where_a_folder_of_ours_belongs_is_cleared_away_and_never_followed(
    outbox: Outbox, spool: Path, tmp_path: Path, folder: str, kind: str
) -> None:
    outbox.put(A, frame())
    (spool / "not a record").write_text("x")
    (spool / folder).rmdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    match kind:
        case "link":
            (spool / folder).symlink_to(elsewhere)
        case "file":
            (spool / folder).write_text("mine")
        case "fifo":
            os.mkfifo(spool / folder)
    (record,) = outbox.pending()
    outbox.dead_letter(record, "no such topic")
    assert [dead.reason for dead in outbox.dead()] == ["no such topic"]
    assert [aside.name for aside in outbox.set_aside()] == ["not a record"]
    assert list(elsewhere.iterdir()) == []
    assert mode_of(spool / folder) == 0o3770


def test_a_folder_of_the_owners_that_is_open_to_others_is_refused_and_left(outbox: Outbox, spool: Path) -> None:
    outbox.put(A, frame())
    (record,) = outbox.pending()
    (spool / "dead").chmod(0o777)
    with pytest.raises(OutboxError, match="open to others"):
        outbox.dead_letter(record, "no way")
    assert bodies(outbox) == ["x"]


def test_a_directory_in_the_place_of_a_dead_letter_does_not_keep_a_record_from_being_buried(
    outbox: Outbox, spool: Path
) -> None:
    outbox.put(A, frame())
    (record,) = outbox.pending()
    (spool / "dead" / f"{record.id}.rec" / "full").mkdir(parents=True)
    outbox.dead_letter(record, "no such topic")
    assert [dead.reason for dead in outbox.dead()] == ["no such topic"]
    assert bodies(outbox) == []


def test_a_dead_letter_keeps_the_longest_headers_that_a_stranger_can_write(outbox: Outbox, spool: Path) -> None:
    line = json.dumps({"destination": A, "headers": {"x": "é" * 60_000}, "body": 1}, ensure_ascii=False)
    (spool / f"{'0' * 20}-00000000.rec").write_bytes(packed(line.encode() + b"\nx\n"))
    (spool / f"{'0' * 20}-00000000.rec").chmod(0o640)
    (record,) = outbox.pending()
    outbox.dead_letter(record, "é" * 5000)
    (dead,) = outbox.dead()
    assert dead.frame.headers == {"x": "é" * 60_000}


@pytest.mark.parametrize("name", ["x" * 255, "é" * 127, "a\nb", "\udcff"])
def test_names_of_any_length_and_bytes_are_set_aside_twice(outbox: Outbox, spool: Path, name: str) -> None:
    for _ in (1, 2):
        (spool / name).write_text("x")
        assert bodies(outbox) == []
        assert not (spool / name).exists()
    assert len(list(outbox.set_aside())) == 2


def test_a_dead_letter_queued_again_comes_last(outbox: Outbox) -> None:
    outbox.put(A, frame("1"))
    (record,) = outbox.pending()
    outbox.dead_letter(record, "no way")
    outbox.put(A, frame("2"))
    new_id = outbox.retry(next(outbox.dead()))
    assert bodies(outbox) == ["2", "1"]
    assert [r.id for r in outbox.pending()][1] == new_id
    assert list(outbox.dead()) == []
    with pytest.raises(OutboxError, match="still waiting to be sent"):
        outbox.retry(next(outbox.pending()))


def test_find_takes_any_unambiguous_end_of_an_id(outbox: Outbox) -> None:
    first, second = outbox.put(A, frame("1")), outbox.put(A, frame("2"))
    assert outbox.find(first).id == first
    assert outbox.find(second[21:]).frame.body == b"2"
    for wrong in ("", "nothing", "0"):
        with pytest.raises(OutboxError, match=r"no record|more than one"):
            outbox.find(wrong)


# -- what is no record -----------------------------------------------------------------------------------------------

GOOD_NAME = "0" * 20 + "-00000000.rec"


def packed(payload: bytes, *, records: int = 1, crc: int | None = None, size: int | None = None) -> bytes:
    crc = zlib.crc32(payload) if crc is None else crc
    size = len(payload) if size is None else size
    return b"deploykit-outbox 1 crc32=%08x size=%012d records=%d\n" % (crc, size, records) + payload


LINE = b'{"destination": "/topic/a", "headers": {}, "body": 1}\n'
BAD_FILES = {
    "empty": b"",
    "not ours": b"hello\n",
    "another version": packed(LINE + b"x\n").replace(b"outbox 1", b"outbox 2"),
    "cut off": packed(LINE + b"x\n")[:-3],
    "longer than it says": packed(LINE + b"x\n") + b"more",
    "one bit flipped": packed(LINE + b"x\n", crc=zlib.crc32(LINE + b"y\n")),
    "head without numbers": b"deploykit-outbox 1 crc32=zz size= records=\n",
    "no newline": b"deploykit-outbox 1 " + b"x" * 500,
    "negative size": b"deploykit-outbox 1 crc32=00000000 size=-1 records=1\n",
    "no records": packed(b"", records=0),
    "more records than there is memory for": packed(LINE + b"x\n", records=10**12),
    "fewer records than it says": packed(LINE + b"x\n", records=2),
    "more records than it says": packed((LINE + b"x\n") * 2),
    "no json": packed(b"{nope\nx\n"),
    "a json bomb": packed(b"[" * 100_000 + b"\n"),
    "an endless line": packed(b"[" * 300_000),
    "json that is no object": packed(b"[]\nx\n"),
    "no destination": packed(b'{"headers": {}, "body": 1}\nx\n'),
    "a destination with a line end": packed(b'{"destination": "/a\\nb", "headers": {}, "body": 1}\nx\n'),
    "headers that are no texts": packed(b'{"destination": "/a", "headers": {"a": 1}, "body": 1}\nx\n'),
    "a header with a line end": packed(b'{"destination": "/a", "headers": {"a": "b\\nc"}, "body": 1}\nx\n'),
    "a negative body": packed(b'{"destination": "/a", "headers": {}, "body": -1}\nx\n'),
    "a body larger than the file": packed(b'{"destination": "/a", "headers": {}, "body": 100}\nx\n'),
    "a body that is true": packed(b'{"destination": "/a", "headers": {}, "body": true}\nx\n'),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_torn_record_is_set_aside_and_the_rest_is_given(outbox: Outbox, spool: Path, kind: str) -> None:
    outbox.put(A, frame("before"))
    (spool / GOOD_NAME).write_bytes(BAD_FILES[kind])
    (spool / GOOD_NAME).chmod(0o640)
    outbox.put(A, frame("after"))
    assert bodies(outbox)[-2:] == ["before", "after"]
    (aside,) = outbox.set_aside()
    assert aside.name == GOOD_NAME
    assert aside.reason
    assert (spool / "bad" / GOOD_NAME).read_bytes() == BAD_FILES[kind], "kept for a person to look at"
    assert bodies(outbox) == ["before", "after"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EMFILE, errno.EIO, errno.ESTALE, errno.ENOMEM])
def test_a_machine_in_trouble_does_not_make_a_good_record_a_bad_one(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    outbox.put(A, frame("good"))
    real = os.open

    def fail(name: str, *args: int, **kwargs: int) -> int:
        if str(name).endswith(".rec"):
            raise OSError(number, os.strerror(number))
        return real(name, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", fail)
        if number in (errno.EMFILE, errno.ENOMEM):
            with pytest.raises(OutboxError, match="cannot read spool"):
                bodies(outbox)
        else:
            assert bodies(outbox) == []
            assert outbox.unreadable == {the_file(outbox).name}
    assert bodies(outbox) == ["good"]
    assert list(outbox.set_aside()) == []


def test_a_good_file_passes_the_same_check(outbox: Outbox, spool: Path) -> None:
    (spool / GOOD_NAME).write_bytes(packed(LINE + b"x\n"))
    (spool / GOOD_NAME).chmod(0o640)
    assert bodies(outbox) == ["x"]


def test_strangers_are_set_aside_and_never_followed_or_opened(
    outbox: Outbox, spool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(packed(LINE + b"x\n"))
    names = [f"{n:020d}-00000000.rec" for n in range(6)]
    alone = tmp_path / "alone"
    alone.write_bytes(packed(LINE + b"x\n"))
    (spool / names[0]).symlink_to(alone)
    (spool / names[1]).hardlink_to(secret)
    os.mkfifo(spool / names[2])
    (spool / names[3]).mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        with monkeypatch.context() as patch:
            patch.chdir(spool)  # a socket's name must be short
            server.bind(names[4])
        (spool / names[5]).symlink_to("/dev/zero")
        (spool / "README").write_text("hello")
        outbox.put(A, frame("good"))
        assert bodies(outbox) == ["good"]
    assert sorted(p.name for p in (spool / "bad").iterdir()) == sorted([*names, "README"])
    assert secret.read_bytes() == packed(LINE + b"x\n")


def test_a_second_stranger_of_the_same_name_does_not_replace_the_first(outbox: Outbox, spool: Path) -> None:
    for text in ("one", "two"):
        (spool / "junk").write_text(text)
        assert list(outbox.pending()) == []
    assert sorted(p.read_text() for p in (spool / "bad").iterdir()) == ["one", "two"]


def test_a_sparse_giant_is_set_aside_unread(outbox: Outbox, spool: Path) -> None:
    with (spool / GOOD_NAME).open("wb") as file:
        file.truncate(1 << 40)
    start = time.process_time()
    assert bodies(outbox) == []
    assert time.process_time() - start < 2
    assert "too big" in next(outbox.set_aside()).reason


def test_a_file_that_anybody_may_write_is_no_record(outbox: Outbox) -> None:
    outbox.put(A, frame())
    the_file(outbox).chmod(0o666)
    assert bodies(outbox) == []
    assert "writable by others" in next(outbox.set_aside()).reason


def test_temporary_files_of_living_writers_are_left_alone_and_stale_ones_go(outbox: Outbox, spool: Path) -> None:
    (spool / ".tmp-young").write_text("half")
    (spool / ".tmp-old").write_text("half")
    os.utime(spool / ".tmp-old", (0, 0))
    assert bodies(outbox) == []
    assert (spool / ".tmp-young").exists()
    assert not (spool / ".tmp-old").exists()


def test_a_record_is_readable_by_people(outbox: Outbox) -> None:
    outbox.put(A, Frame({"subject": "[repo] main moved"}, b'{"ref": "refs/heads/main"}'))
    head, envelope, body = the_file(outbox).read_text().splitlines()
    assert head.startswith("deploykit-outbox 1 crc32=")
    assert envelope == '{"destination": "/topic/a", "headers": {"subject": "[repo] main moved"}, "body": 26}'
    assert body == '{"ref": "refs/heads/main"}'


# -- waiting ---------------------------------------------------------------------------------------------------------


def test_wait_ends_at_once_for_a_new_record_and_not_before(outbox: Outbox) -> None:
    listener = Outbox(outbox.path)
    try:
        assert not listener.wait(0.01)
        outbox.put(A, frame())
        start = time.monotonic()
        assert listener.wait(30)
        assert time.monotonic() - start < 10
        assert not listener.wait(0.01), "each announcement counts once"
    finally:
        listener.close()


def test_the_first_wait_knows_of_what_was_put_before(outbox: Outbox) -> None:
    outbox.put(A, frame())
    try:
        assert outbox.wait(30)
    finally:
        outbox.close()


def test_wake_ends_a_wait_without_pretending_that_something_came(outbox: Outbox) -> None:
    try:
        outbox.wait(0)
        outbox.interrupt()
        start = time.monotonic()
        assert not outbox.wait(30)
        assert time.monotonic() - start < 10
        outbox.interrupt()
        outbox.put(A, frame())
        assert outbox.wait(30)
    finally:
        outbox.close()


def test_relay_listens_tells_a_living_relay_from_a_dead_one(outbox: Outbox) -> None:
    other = Outbox(outbox.path)
    assert not other.relay_listens()
    outbox.wait(0)
    assert other.relay_listens()
    outbox.close()
    assert not other.relay_listens()


def test_a_put_never_blocks_on_a_relay_that_does_not_read(outbox: Outbox) -> None:
    listener = Outbox(outbox.path)
    try:
        listener.wait(0)
        for _ in range(70_000):
            assert outbox.relay_listens()
        outbox.put(A, frame())
        assert listener.wait(30)
        assert not listener.wait(0)
    finally:
        listener.close()


def test_a_forked_child_listens_for_itself(outbox: Outbox) -> None:
    outbox.wait(0)
    pid = os.fork()
    if not pid:
        ok = not outbox.wait(0.01)
        os._exit(0 if ok else 1)
    assert os.waitpid(pid, 0)[1] == 0
    outbox.put(A, frame())
    assert outbox.wait(30)
    outbox.close()


# -- the path of a push ----------------------------------------------------------------------------------------------


def loaded_by(code: str, *args: str) -> set[str]:
    """The modules that a bare interpreter loads for `code`."""
    script = f"import sys; sys.path[:0] = {sys.path!r}; bare = set(sys.modules)\n{code}\n"
    script += "print(*sorted(set(sys.modules) - bare))"
    done = subprocess.run([sys.executable, "-S", "-c", script, *args], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_a_push_does_not_pay_for_what_it_does_not_use(tmp_path: Path) -> None:
    Outbox(tmp_path / "spool")
    encode = "from deploykit.wire import Frame, encode\n"
    put = "from deploykit.outbox import Outbox, Outgoing\n"
    put += "Outbox(sys.argv[1]).put_many([Outgoing('/topic/a', Frame({}, b'x'))])"
    loaded = loaded_by(encode + put, str(tmp_path / "spool"))
    heavy = {
        *("cattrs", "tenacity", "stomp", "dulwich", "click", "rich", "cryptography", "asyncio", "ssl", "socket"),
        *("subprocess", "tempfile", "ctypes", "sqlite3", "concurrent", "email", "http", "deploykit.bus"),
    }
    assert heavy.isdisjoint(loaded), sorted(heavy & loaded)
    ours = loaded - loaded_by(encode)
    assert ours == {
        *("errno", "zlib", "deploykit.outbox", "deploykit.outbox.format", "deploykit.outbox.keys"),
        *("deploykit.outbox.directory", "deploykit.outbox.notify", "deploykit.outbox.spool"),
    }


def test_on_a_full_disk_marking_is_tried_again_now_and_then_and_the_marks_are_not_read_for_each_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a file of n records costs n * n steps on a full disk."""
    from deploykit.outbox import notes, removal

    box = Outbox(tmp_path / "spool")
    box.put_many(Outgoing("/topic/a", Frame({}, b"%d" % n)) for n in range(50))
    calls = {"mark": 0, "settled_of": 0}
    full = True
    now = 1000.0

    def counted(name: str) -> Callable[..., object]:
        working = getattr(removal, name)

        def call(*args: object) -> object:
            calls[name] += 1
            if full and name == "mark":
                raise OSError(errno.ENOSPC, "no space")
            return working(*args)

        return call

    for name in calls:
        monkeypatch.setattr(removal, name, counted(name))
    monkeypatch.setattr(notes, "monotonic", lambda: now)
    records = list(box.pending())
    for record in records[:40]:
        box.ack(record)
    assert calls == {"mark": 1, "settled_of": 1}
    assert len(list(box.pending())) == 10
    assert len(list(Outbox(tmp_path / "spool").pending())) == 50
    full, now = False, now + 60
    box.ack(records[40])
    assert len(list(Outbox(tmp_path / "spool").pending())) == 9, "all that was noted is marked"
    full = True
    for record in records[41:]:
        box.ack(record)
    assert list((tmp_path / "spool").glob("*.rec")) == []
