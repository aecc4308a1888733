"""A journal says what was under way, wherever it was torn."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploykit.errors import ReleaseError
from deploykit.release.journal import Journal, JournalEntry, read_journal
from deploykit.release.model import Operation, StepRecord

_ENTRY = JournalEntry(
    operation=Operation(
        number=3, phase="deploy", release="00003-v1-abc", ref="refs/tags/v1", commit="a" * 40, request="r"
    ),
    seq=3,
    tree="b" * 40,
    previous="00002-v0-abc",
    link="releases/00002-v0-abc",
    builds=True,
    steps=(StepRecord(name="preflight", outcome="done"),),
)


def _write(path: Path) -> None:
    journal = Journal(path)
    journal.begin(_ENTRY)
    journal.starts("export")
    journal.ended(StepRecord(name="export", outcome="done", seconds=0.5, output="ünï\n\x00"))
    journal.starts("pre-deploy")
    journal.ended(StepRecord(name="pre-deploy", outcome="failed", exit_code=3, output="x" * 100))
    journal.undo("because")
    journal.close()


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert read_journal(tmp_path / "journal") is None
    _write(tmp_path / "journal")
    found = read_journal(tmp_path / "journal")
    assert found is not None
    assert found.operation == _ENTRY.operation
    assert (found.started, found.cut_off, found.undoing) == ("pre-deploy", "", "because")
    assert [s.name for s in found.steps] == ["preflight", "export", "pre-deploy"]
    assert found.steps[2].exit_code == 3


def test_a_journal_torn_at_any_byte_tells_of_a_prefix_and_never_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    _write(path)
    raw = path.read_bytes()
    ends = [at for at, byte in enumerate(raw) if byte == 10]
    whole = []
    for end in ends:
        path.write_bytes(raw[: end + 1])
        whole.append(read_journal(path))
    for at in range(len(raw)):
        path.write_bytes(raw[:at])
        lines = raw[:at].count(b"\n")
        assert read_journal(path) == (whole[lines - 1] if lines else None)
        path.write_bytes(raw[:at] + b"\0" * 20)  # a file system that gave the length before the bytes
        assert read_journal(path) == (whole[lines - 1] if lines else None)


def test_a_torn_line_is_cut_before_the_next_one_is_written(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    _write(path)
    path.write_bytes(path.read_bytes() + b'{"starts":"post-')
    journal = Journal(path)
    journal.resume()
    journal.starts("activate")
    journal.close()
    found = read_journal(path)
    assert found is not None
    assert (found.started, found.cut_off) == ("activate", "activate")


def test_a_journal_of_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    _write(path)
    path.write_bytes(path.read_bytes().replace(b'{"format":1', b'{"format":9', 1))
    with pytest.raises(ReleaseError, match="unknown format"):
        read_journal(path)


def test_finish_removes_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    journal.begin(_ENTRY)
    journal.finish()
    assert list(tmp_path.iterdir()) == []
