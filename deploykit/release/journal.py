"""The journal of the one operation that runs on a site: what is about to happen is written down before it does.

A file of JSON lines, made when an operation starts and removed when its result is in `state.json`. The first line
says what is to be done, each further one that a step starts or has ended. Lines are made durable before the act they
announce. A last line that was cut off by a crash is as if it had never been written, for its act had not begun.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final

import attrs

from deploykit.errors import ReleaseError
from deploykit.release.model import Operation, ReleasePart, ReleaseVersion, StepRecord
from deploykit.release.orphans import ScriptProcess
from deploykit.release.state import read_parts
from deploykit.system.durable import replace_file, write_all

FORMAT: Final = 1


@attrs.frozen(kw_only=True, slots=True)
class JournalEntry:
    """What the journal holds of an operation.

    Args:
        operation: what was asked for.
        seq: the number of the release it makes or activates.
        tree, parts: its tree, and what that was made from where it is of several repositories.
        previous: the release that was live when it started, or empty.
        link: the target of `current` then, as written; it may have been changed by hand.
        builds: the release is made by this operation; else it was there before.
        recycled: the release whose directory is being turned into the new one, or empty.
        started: the step begun last; empty before the first.
        steps: the steps that ended.
        undoing: why the new release is being taken back; empty while it is not.
        process: of the script begun last, if that step runs one.
    """

    operation: Operation
    seq: int
    tree: str
    parts: tuple[ReleasePart, ...] = ()
    previous: str = ""
    link: str = ""
    builds: bool = False
    recycled: str = ""
    started: str = ""
    steps: tuple[StepRecord, ...] = ()
    undoing: str = ""
    process: ScriptProcess | None = None

    @property
    def version(self) -> ReleaseVersion:
        """What the release is made from."""
        return ReleaseVersion(ref=self.operation.ref, commit=self.operation.commit, parts=self.parts)

    @property
    def cut_off(self) -> str:
        """The step that began and did not end, or empty."""
        return "" if any(s.name == self.started for s in self.steps) else self.started

    def ended(self, step: str) -> StepRecord | None:
        """Return how a step ended, or None when it did not."""
        return next((s for s in self.steps if s.name == step), None)


class Journal:
    """Writes the journal of one operation.

    Args:
        path: the file; its directory exists.
        durable: each line is on disk before the call returns.
    """

    def __init__(self, path: Path, *, durable: bool = True) -> None:
        self._path = path
        self._durable = durable
        self._fd = -1

    def begin(self, entry: JournalEntry) -> None:
        """Write the journal's first lines: from here on the next start notices a crash."""
        head = attrs.asdict(entry, filter=lambda a, _: a.name not in ("started", "steps", "undoing", "process"))
        replace_file(self._path, _line({"format": FORMAT, **head}), mode=0o640, durable=self._durable)
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
        for step in entry.steps:
            self.ended(step)

    def resume(self) -> None:
        """Open the journal of a crashed operation to append to it; a last line that was cut off is dropped."""
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
        with self._path.open("rb") as file:
            whole = file.read().rpartition(b"\n")[0]
        os.ftruncate(self._fd, len(whole) + 1)

    def starts(self, step: str, *, durable: bool = True, process: ScriptProcess | None = None) -> None:
        """Note that `step` begins; `durable` where it acts on what cannot be done again.

        Args:
            process: the mark and boot of the script that is about to start.
        """
        more = {"mark": process.mark, "boot": process.boot} if process is not None else {}
        self._append({"starts": step, **more}, durable=durable)

    def runs(self, pid: int, started: int) -> None:
        """Note which process the script is. Not waited for: no process outlives what would lose this line."""
        self._append({"runs": pid, "started": started}, durable=False)

    def ended(self, step: StepRecord) -> None:
        """Note how a step ended. Not waited for: losing this line means that the step counts as cut off."""
        self._append({"ended": attrs.asdict(step)}, durable=False)

    def undo(self, why: str) -> None:
        """Note that the new release is about to be taken back."""
        self._append({"undo": why}, durable=True)

    def finish(self) -> None:
        """Remove the journal: the result is on record. Where a power cut brings it back, the record counts."""
        self.close()
        self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file and leave it there."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _append(self, record: dict[str, Any], *, durable: bool) -> None:
        end = os.lseek(self._fd, 0, os.SEEK_END)
        try:
            write_all(self._fd, _line(record))
        except OSError:
            os.ftruncate(self._fd, end)  # half a line would spoil the next one
            raise
        if durable and self._durable:
            os.fdatasync(self._fd)


def read_journal(path: Path) -> JournalEntry | None:
    """Read what a journal holds, or None where no operation was under way.

    Raises:
        ReleaseError: it was written by another version, or its first line is damaged.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    lines = raw.split(b"\n")[:-1]  # what follows the last newline was cut off
    if not lines:
        return None
    head = _parse(lines[0], path)
    if head.pop("format", None) != FORMAT:
        raise ReleaseError(f"{path} has an unknown format", "start the deploykit version that wrote it once")
    try:
        head["operation"] = Operation(**head["operation"])
        head["parts"] = read_parts(head)
        entry = JournalEntry(**head)
        for line in lines[1:]:
            entry = _apply(entry, _parse(line, path))
    except (KeyError, TypeError) as error:
        raise ReleaseError(f"{path} is damaged: {error}", _WAY_OUT) from error
    return entry


def _apply(entry: JournalEntry, record: dict[str, Any]) -> JournalEntry:
    if "starts" in record:
        kept = tuple(s for s in entry.steps if s.name != record["starts"])
        process = ScriptProcess(mark=record["mark"], boot=record["boot"]) if "mark" in record else None
        return attrs.evolve(entry, started=record["starts"], steps=kept, process=process)
    if "runs" in record and entry.process is not None:
        known = attrs.evolve(entry.process, pid=record["runs"], started=record["started"])
        return attrs.evolve(entry, process=known)
    if "ended" in record:
        return attrs.evolve(entry, steps=(*entry.steps, StepRecord(**record["ended"])))
    if "undo" in record:
        return attrs.evolve(entry, undoing=record["undo"])
    return entry


def _line(record: dict[str, Any]) -> bytes:
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"


def _parse(line: bytes, path: Path) -> dict[str, Any]:
    try:
        data = json.loads(line)
    except ValueError as error:
        raise ReleaseError(f"{path} is damaged: {error}", _WAY_OUT) from error
    if not isinstance(data, dict):
        raise ReleaseError(f"{path} is damaged", _WAY_OUT)
    return data


_WAY_OUT: Final = "look at current, then remove the file: it only says how to finish what was cut off"
