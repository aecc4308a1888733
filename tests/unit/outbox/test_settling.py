"""Records that are done with: removed, marked, or kept as dead letters."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from deploykit.errors import OutboxError
from deploykit.outbox import Outbox, Outgoing
from deploykit.wire.frame import Frame
from tests.support.spools import A, bodies, frame, mode_of, packed, the_file


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
