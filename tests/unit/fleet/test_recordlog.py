"""A recorded log: whole lines, rotated, torn by crashes, filled by a full disk, and read whatever it holds."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploykit.errors import LockBusy, MessageError, UsageError
from deploykit.fleet import recordreader
from deploykit.fleet.recordformat import (
    MAX_LINE,
    RecordedMessage,
    RecordingBegan,
    RecordingGap,
    RecordLine,
    format_line,
    parse_line,
)
from deploykit.fleet.recordreader import ReadCounts, RecordLog
from deploykit.fleet.recordwriter import RecordWriter
from deploykit.system.durable import write_all

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def message(number: int, size: int = 10) -> RecordedMessage:
    return RecordedMessage(
        received=NOW + timedelta(seconds=number),
        destination="/topic/deploykit.source",
        headers={"content-type": "application/cloudevents+json", "deploykit-signature": "c2ln"},
        body=b"%d " % number + b"x" * size,
    )


def numbers(path: Path, counts: ReadCounts | None = None) -> list[int]:
    with RecordLog([path]) as log:
        return [int(each.body.split()[0]) for each in log.messages(counts or ReadCounts())]


# -- a line --------------------------------------------------------------------------------------------------------

_TIMES = st.datetimes(timezones=st.just(UTC))
_LINES = st.one_of(
    st.builds(RecordingBegan, at=_TIMES),
    st.builds(RecordingGap, since=_TIMES, until=_TIMES, lost=st.integers(0, 1000)),
    st.builds(
        RecordedMessage,
        received=_TIMES,
        destination=st.text(st.characters(exclude_categories=["Cs"])),
        headers=st.dictionaries(st.sampled_from(["content-type", "subject"]), st.text()),
        body=st.binary(),
    ),
)


@given(_LINES)
def test_what_is_written_is_read_and_is_one_line(line: RecordLine) -> None:
    written = format_line(line)
    assert written.count(b"\n") == 1
    assert written.endswith(b"\n")
    assert parse_line(written) == line


@given(st.one_of(st.binary(), st.text().map(str.encode)))
def test_any_bytes_are_a_line_or_an_error(line: bytes) -> None:
    with contextlib.suppress(MessageError):
        parse_line(line)


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 100_000,
        b"9" * 10_000,
        b'{"deploykit-record":2,"began":"2026-01-01T00:00:00+00:00"}',
        b'{"received":"2026-01-01T00:00:00","destination":"a","body":"x"}',
        b'{"received":"2026-01-01T00:00:00+00:00","destination":"a","body":"\\ud800"}',
        b'{"received":"2026-01-01T00:00:00+00:00","destination":"a","base64":"%"}',
        b'{"received":"2026-01-01T00:00:00+00:00","destination":"a","headers":{"x":1},"body":""}',
        b'{"received":"0001-01-01T00:00:00+14:00","destination":"a","body":""}',
        b'{"gap":true}',
        b'{"gap":"many"}',
        b"null",
    ],
)
def test_what_is_no_line_of_a_log_is_an_error(line: bytes) -> None:
    with pytest.raises(MessageError):
        parse_line(line)


def test_headers_that_no_reader_needs_are_not_kept() -> None:
    written = format_line(RecordedMessage(received=NOW, destination="a", headers={"subscription": "x", "subject": "s"}))
    line = parse_line(written)
    assert isinstance(line, RecordedMessage)
    assert line.headers == {"subject": "s"}


# -- writing -------------------------------------------------------------------------------------------------------


def test_files_are_rotated_by_size_and_the_oldest_go(tmp_path: Path) -> None:
    log = tmp_path / "bus.jsonl"
    with RecordWriter(log, size=2000, keep=2) as writer:
        for number in range(60):
            assert writer.write(message(number))
    names = sorted(each.name for each in tmp_path.iterdir())
    assert names == ["bus.jsonl", "bus.jsonl.1", "bus.jsonl.2", "bus.jsonl.lock"]
    assert all(each.stat().st_size <= 2000 for each in tmp_path.iterdir())
    found = numbers(log)
    assert found == list(range(found[0], 60))
    with RecordWriter(log, size=10, keep=0) as writer:
        writer.write(message(61))
    assert sorted(each.name for each in tmp_path.iterdir()) == ["bus.jsonl", "bus.jsonl.lock"]
    assert numbers(log) == [61]


def test_nobody_else_reads_it_and_rotation_keeps_the_mode(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with RecordWriter(log, size=300) as writer:
        writer.write(message(1))
        assert stat.S_IMODE(log.stat().st_mode) == 0o600
        log.chmod(0o640)
    with RecordWriter(log, size=300) as writer:
        writer.write(message(2))
        writer.write(message(3))
    assert stat.S_IMODE(log.stat().st_mode) == 0o640
    log.chmod(0o644)
    with pytest.raises(UsageError, match="others may read"), RecordWriter(log):
        pass


def test_two_recorders_do_not_mix_their_lines(tmp_path: Path) -> None:
    with RecordWriter(tmp_path / "log"), pytest.raises(LockBusy, match="another recorder"):
        RecordWriter(tmp_path / "log").__enter__()


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(UsageError, match="not a file"), RecordWriter(tmp_path / "fifo"):
        pass
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"), RecordWriter(tmp_path / "link"):
        pass


def test_a_line_that_a_crash_tore_spoils_no_other(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with RecordWriter(log) as writer:
        writer.write(message(1))
        writer.write(message(2))
    whole = log.read_bytes()
    for length in range(len(whole) - 2, whole.rindex(b"\n", 0, -1) + 1, -7):
        log.write_bytes(whole[:length])
        counts = ReadCounts()
        assert numbers(log, counts) == [1]
        assert (counts.torn, counts.broken) == (1, 0)
        with RecordWriter(log) as writer:
            writer.write(message(3))
        counts = ReadCounts()
        assert numbers(log, counts) == [1, 3]
        assert (counts.torn, counts.broken) == (0, 1)


def test_a_file_that_was_moved_away_is_begun_again(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with RecordWriter(log) as writer:
        writer.write(message(1))
        log.rename(tmp_path / "moved")
        writer.write(message(2))
    assert (numbers(log), numbers(tmp_path / "moved")) == ([2], [1])


def test_a_full_disk_is_reported_once_and_the_log_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, problems, full = tmp_path / "log", list[str](), False

    def write(fd: int, content: bytes) -> None:
        if full:
            os.write(fd, content[: len(content) // 2])  # a full disk takes a part
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_all(fd, content)

    monkeypatch.setattr("deploykit.fleet.recordwriter.write_all", write)
    with RecordWriter(log, on_problem=problems.append) as writer:
        assert writer.write(message(1))
        full = True
        assert [writer.write(message(number)) for number in (2, 3, 4)] == [False] * 3
        assert len(problems) == 1
        assert "No space left on device" in problems[0]
        full = False
        assert writer.write(message(5))
    counts = ReadCounts()
    assert numbers(log, counts) == [1, 5]
    assert counts.gaps == [RecordingGap(since=message(2).received, until=message(4).received, lost=3)]
    assert (counts.broken, counts.torn) == (0, 0)
    assert problems[1:] == [f"recording to {log} again; 3 messages are missing from it"]


# -- reading -------------------------------------------------------------------------------------------------------


def test_hostile_lines_are_counted_and_memory_stays_flat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recordreader, "MAX_LINE", 5000)
    log = tmp_path / "log"
    log.write_bytes(
        b"\n".join([format_line(message(1)).strip(), b"junk", b"\0" * 100, b"x" * 50_000, b"", b"{}"])
        + b"\n"
        + format_line(message(2))
        + b'{"received'
    )
    counts = ReadCounts()
    assert numbers(log, counts) == [1, 2]
    assert (counts.messages, counts.broken, counts.too_long, counts.torn) == (2, 3, 1, 1)
    assert counts.first_broken.startswith(f"{log}:2: ")


@pytest.mark.parametrize("size", [MAX_LINE - 1, MAX_LINE, MAX_LINE + 1])
def test_the_cap_on_a_line_is_exact(tmp_path: Path, size: int) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"x" * (size - 1) + b"\n" + format_line(message(2)))
    counts = ReadCounts()
    assert numbers(log, counts) == [2]
    assert (counts.broken, counts.too_long) == ((1, 0) if size <= MAX_LINE else (0, 1))


def test_the_longest_message_fits_a_line() -> None:
    line = format_line(RecordedMessage(received=NOW, destination="/topic/a", body=b"\x01" * 1024 * 1024))
    assert len(line) <= MAX_LINE


def test_each_pass_sees_the_same_whatever_is_written_meanwhile(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with RecordWriter(log, size=1000, keep=5) as writer:
        for number in range(10):
            writer.write(message(number))
        with RecordLog([log]) as reading:
            first = [each.body for each in reading.messages(ReadCounts())]
            for number in range(10, 30):
                writer.write(message(number))
            assert [each.body for each in reading.messages(ReadCounts())] == first
            assert len(first) == 10


def test_a_log_that_rotates_while_it_is_opened_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"
    real, opened = os.open, list[str]()
    with RecordWriter(log, size=1000, keep=9) as writer:
        for number in range(10):
            writer.write(message(number))
        before = len(list(tmp_path.glob("log.[0-9]")))

        def slow(path: str, flags: int, *more: int) -> int:
            fd = real(path, flags, *more)
            if str(path) == str(log) and not opened:
                opened.append(str(path))
                number = 100
                while len(list(tmp_path.glob("log.[0-9]"))) == before:
                    writer.write(message(number))
                    number += 1
            return fd

        monkeypatch.setattr(os, "open", slow)
        found = numbers(log)
    assert opened
    assert set(range(10)) <= set(found)
    assert len(found) == len(set(found))


def test_several_logs_are_read_in_the_order_given(tmp_path: Path) -> None:
    paths = [tmp_path / "b", tmp_path / "a"]
    for number, path in enumerate(paths):
        with RecordWriter(path) as writer:
            writer.write(message(number))
    with RecordLog(paths) as log:
        assert [each.body[:1] for each in log.messages(ReadCounts())] == [b"0", b"1"]


def test_a_log_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), RecordLog([tmp_path / "missing"]):
        pass
    with pytest.raises((UsageError, IsADirectoryError)), RecordLog([tmp_path]):
        pass


def test_a_log_of_nothing_but_gaps_is_read_in_flat_memory(tmp_path: Path) -> None:
    log = tmp_path / "log"
    at = message(1).received
    log.write_bytes(format_line(RecordingGap(since=at, until=at, lost=1)) * 3000)
    counts = ReadCounts()
    assert numbers(log, counts) == []
    assert (len(counts.gaps), counts.more_gaps) == (1000, 2000)
