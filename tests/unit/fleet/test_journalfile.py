"""The journal as a file: a beginning of what was written is always readable, and only one process writes."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploykit.errors import JournalDamaged, RolloutBusy, RolloutError
from deploykit.fleet.journalfile import JournalFile, Record, is_written, parse_lines, read_ends, read_lines

HEAD: Record = {"rollout": "shop-1"}
RECORDS: list[Record] = [{"event": 1}, {"command": {"body": "x" * 200}}, {"event": 'a "quoted" \n line'}, {"end": "ü"}]


def made(path: Path) -> Path:
    with JournalFile.create(path, HEAD) as journal:
        for record in RECORDS:
            journal.append([record])
    return path


def test_what_is_appended_is_read_back(tmp_path: Path) -> None:
    lines = read_lines(made(tmp_path / "r" / "journal.jsonl"))
    assert lines.head == HEAD
    assert list(lines.records) == RECORDS
    assert read_ends(tmp_path / "r" / "journal.jsonl") == (HEAD, RECORDS[-1])


def test_a_journal_without_a_record_has_a_head_alone(tmp_path: Path) -> None:
    JournalFile.create(tmp_path / "r" / "journal.jsonl", HEAD).close()
    assert read_lines(tmp_path / "r" / "journal.jsonl").records == ()
    assert read_ends(tmp_path / "r" / "journal.jsonl") == (HEAD, None)


def test_every_torn_prefix_reads_as_a_beginning_of_its_records(tmp_path: Path) -> None:
    content = made(tmp_path / "r" / "journal.jsonl").read_bytes()
    first = content.index(b"\n") + 1
    for size in range(first, len(content) + 1):
        lines = parse_lines(content[:size])
        assert list(lines.records) == RECORDS[: len(lines.records)]
        assert lines.size <= size
        assert len(lines.records) == content[:size].count(b"\n") - 1
    for size in range(first):
        with pytest.raises(JournalDamaged, match="never begun"):
            parse_lines(content[:size])


@given(at=st.integers(0, 400), grown=st.integers(1, 50))
def test_a_file_that_grew_in_a_power_cut_without_its_bytes_reads_as_a_beginning(at: int, grown: int) -> None:
    content = b"".join(
        json.dumps(each).encode() + b"\n"
        for each in ({"format": "deploykit-rollout-journal", "version": 1, **HEAD}, *RECORDS)
    )
    first = content.index(b"\n") + 1
    cut = content[: max(first, min(at, len(content)))] + b"\0" * grown
    assert list(parse_lines(cut).records) == RECORDS[: len(parse_lines(cut).records)]
    assert list(parse_lines(cut + b"\n").records) == RECORDS[: len(parse_lines(cut + b"\n").records)]


def test_the_next_writer_cuts_a_torn_tail_off(tmp_path: Path) -> None:
    path = made(tmp_path / "r" / "journal.jsonl")
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    journal, lines = JournalFile.open(path)
    with journal:
        journal.append([{"event": "later"}])
    assert list(lines.records) == RECORDS[:-1]
    assert list(read_lines(path).records) == [*RECORDS[:-1], {"event": "later"}]


@pytest.mark.parametrize("text", [b"garbage", b'{"a": 1', b"[1]", b"\xff\xfe", b"", b"1" * 5000])
def test_a_damaged_line_is_an_error_that_names_it_and_the_way_out(tmp_path: Path, text: bytes) -> None:
    path = made(tmp_path / "r" / "journal.jsonl")
    lines = path.read_bytes().split(b"\n")
    lines[2] = text
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(JournalDamaged) as caught:
        read_lines(path)
    assert "line 3" in str(caught.value)
    assert "head -n 2" in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_journal_of_a_newer_version_or_another_file_is_refused(tmp_path: Path) -> None:
    for text, says in (
        ('{"format":"deploykit-rollout-journal","version":2}\n', "newer deploykit"),
        ('{"format":"other","version":1}\n', "no journal"),
        ("{}\n", "no journal"),
    ):
        path = tmp_path / "journal.jsonl"
        path.write_text(text)
        with pytest.raises(RolloutError, match=says):
            read_lines(path)


def test_modes_are_private(tmp_path: Path) -> None:
    path = made(tmp_path / "rollouts" / "r" / "journal.jsonl")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_an_id_is_used_once(tmp_path: Path) -> None:
    made(tmp_path / "r" / "journal.jsonl")
    with pytest.raises(RolloutError, match="there already"):
        JournalFile.create(tmp_path / "r" / "journal.jsonl", HEAD)


def test_one_process_writes_and_others_read(tmp_path: Path) -> None:
    path = made(tmp_path / "r" / "journal.jsonl")
    assert not is_written(path)
    code = (
        "import sys, pathlib; from deploykit.fleet.journalfile import JournalFile; "
        "kept = JournalFile.open(pathlib.Path(sys.argv[1])); print('open', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        assert is_written(path)
        assert len(read_lines(path).records) == len(RECORDS)
        with pytest.raises(RolloutBusy, match="another process"):
            JournalFile.open(path)
        other.kill()
    assert not is_written(path)
    JournalFile.open(path)[0].close()


def test_after_an_error_nothing_more_is_written(tmp_path: Path) -> None:
    """A full disk leaves a part of a line: what came after it would be lost with it."""
    import resource

    path = made(tmp_path / "r" / "journal.jsonl")
    size = path.stat().st_size
    journal, _ = JournalFile.open(path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    import signal

    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 5, hard))
        with pytest.raises(RolloutError, match="rollout resume r"):
            journal.append([{"event": "too long"}])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, old)
    with pytest.raises(RolloutError):
        journal.append([{"event": "after"}])
    assert list(read_lines(path).records) == RECORDS


def test_on_a_full_disk_the_way_out_is_room_and_not_another_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = made(tmp_path / "shop-1" / "journal.jsonl")
    journal, _ = JournalFile.open(path)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RolloutError, match=r"make room, then `deploykit rollout resume shop-1`"):
        journal.append([{"event": "x"}])
    with pytest.raises(RolloutError, match="free the disk; nothing was begun"):
        JournalFile.create(tmp_path / "shop-2" / "journal.jsonl", HEAD)


def test_a_journal_that_cannot_be_written_says_where_and_which_setting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RolloutError, match="set `rollouts`"):
        JournalFile.create(tmp_path / "file" / "r" / "journal.jsonl", HEAD)


def test_many_who_look_are_no_writers(tmp_path: Path) -> None:
    path = made(tmp_path / "r" / "journal.jsonl")
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        assert not is_written(path)
