"""The audit log's writer: `AuditLog.record` returns when the record is on the disk.

Rules:

* One write and one fsync for each record. The head file is written after it and not synced: after a power cut it may
  be older than the log, never newer.
* Any number of processes and threads append to one log. Each record is written under the lock, behind the last one.
* What a crash left of a line was never confirmed. It is set aside (`.torn`), recorded, and the chain goes on.
* Confirmed records that are gone (the head file knows them) are recorded as damage; the chain goes on behind them.
* A write that fails is taken back. `AuditError` then means: nothing was recorded, try again.
* A full file is renamed after its first record, and a new one begins with a record that says from where on records
  are kept. Only then the files beyond `keep` are removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import attrs

from deploykit.audit.chain import DAMAGED, OLDEST, ROTATED, SELF, TORN
from deploykit.audit.ends import first_record, last_record, oldest_in
from deploykit.audit.files import beside, cannot, first_sequence, head_line, old_files, read_head
from deploykit.audit.record import (
    START,
    AuditEntry,
    AuditHead,
    Decision,
    encode_record,
)
from deploykit.errors import AuditError, LockBusy
from deploykit.system.durable import replace_file, sync_directory, write_all
from deploykit.system.lock import FileLock

_log = logging.getLogger(__name__)

_MODE: Final = 0o640
_WRITE: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
#: Seconds between two log lines that name the head.
_HEAD_EVERY: Final = 3600.0
#: Seconds to wait for the lock without a word: each writer holds it for the time of one fsync.
_QUIET: Final = 1.0
#: The head that each log's last such line named: of several daemons in one process, and over their reloads.
_LOGGED_HEADS: Final[dict[Path, AuditHead]] = {}


@attrs.frozen(kw_only=True, slots=True)
class _End:
    """Where the log ends.

    Args:
        file: device and inode of the current file; None where there is none.
        size: its bytes, up to its last record.
        head: the last record, of this file or the one before.
        torn: what follows the last record and is none.
        events: what must be recorded about it first.
    """

    file: tuple[int, int] | None
    size: int
    head: AuditHead
    torn: bytes = b""
    events: tuple[AuditEntry, ...] = ()


class AuditLog:
    """A durable, hash-chained, bounded log of decisions. Use it from any thread, and from several processes.

    Args:
        path: the file; made, with its directory, when missing. Mode 0640.
        max_bytes: a file that would become longer is rotated.
        keep: how many older files are kept.
        wait: seconds to wait for another process that is writing.
        now: the wall clock, aware UTC.
        on_record: called with the decision of each record that was written.

    Raises:
        AuditError: it cannot be written, others can write to it, or a newer deploykit wrote it.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        max_bytes: int = 16 << 20,
        keep: int = 8,
        wait: float = 10.0,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        on_record: Callable[[Decision], object] | None = None,
    ) -> None:
        self.path = Path(path)
        self._on_record = on_record
        self._max_bytes = max_bytes
        self._keep = keep
        self._wait = wait
        self._now = now
        self._mutex = threading.Lock()
        self._head_due = float("-inf")
        self._known: _End | None = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._locked():
                end = self._find_end()
                if end.file is not None:
                    os.close(self._open())
                self._known = end if not end.torn and not end.events else None
        except OSError as error:
            raise cannot("open", self.path, error) from error

    def __repr__(self) -> str:
        return f"AuditLog({str(self.path)!r})"

    @property
    def head(self) -> AuditHead | None:
        """The last record's number and hash, to be noted elsewhere; None before the first."""
        known = self._known
        head = known.head if known is not None else read_head(self.path)
        return head if head is not None and head.sequence else None

    def record(
        self,
        *,
        actor: str,
        action: str,
        target: str,
        decision: Decision,
        reason: str = "",
        request: str = "",
        correlation_id: str = "",
        details: Mapping[str, str] | None = None,
    ) -> None:
        """Record a decision, durably. Long texts are cut.

        Args:
            actor: who asked: a signer, a user, or `unverified`.
            action: what was asked for, such as `deploy`.
            target: what it was asked for: a site, a job, a node.
            decision: `allowed` or `denied`.
            reason: why, for people.
            request: the id of the request.
            correlation_id: what it belongs to.
            details: more, by name; no secrets.

        Raises:
            AuditError: nothing was recorded. An allowed action waits, a denied one stays denied.
        """
        self.append(
            AuditEntry(
                actor=actor,
                action=action,
                target=target,
                decision=decision,
                reason=reason,
                request=request,
                correlation_id=correlation_id,
                details=details or {},
            )
        )

    def append(self, entry: AuditEntry) -> None:
        """Record an entry, as `record` does.

        Raises:
            AuditError: nothing was recorded.
        """
        try:
            with self._locked():
                self._record(entry)
        except OSError as error:
            raise cannot("write", self.path, error) from error
        if self._on_record is not None:
            self._on_record(entry.decision)

    def log_head(self, now: float) -> None:
        """Log the head once an hour, if it is another one: where logs go to another machine, heads do.

        Args:
            now: monotonic seconds.
        """
        if now < self._head_due:
            return
        self._head_due = now + _HEAD_EVERY
        heads = [self._known.head] if self._known is not None else []
        # Other daemons write to the same log. What this one wrote is not given up for a lower head in the file.
        with contextlib.suppress(AuditError):  # the next record says it
            heads += filter(None, [read_head(self.path)])
        head = max(heads, key=lambda each: each.sequence, default=START)
        if head.sequence and head != _LOGGED_HEADS.get(self.path):
            _LOGGED_HEADS[self.path] = head
            _log.info("audit head %s", head)

    # -- under the lock ------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        lock = beside(self.path, "lock")
        with self._mutex, contextlib.ExitStack() as held:
            try:
                busy = f"another process holds {lock}"
                held.enter_context(FileLock(lock, wait=self._wait, busy=busy, named=False, quiet=_QUIET))
            except LockBusy as error:
                problem = f"cannot write the audit log {self.path}: {error.problem}"
                raise AuditError(problem, "it should take a moment; look at that process") from error
            yield

    def _record(self, entry: AuditEntry) -> None:
        end = self._find_end()
        self._known = None  # until it is written
        entries = (*end.events, entry)
        lines, head = self._lines(end.head, entries)
        if end.size and end.size + len(lines) > self._max_bytes and not end.torn and self._rename():
            end = attrs.evolve(end, file=None, size=0, torn=b"", events=())
            lines, head = self._lines(end.head, (self._rotated(), *entries))
        fd = self._open()
        try:
            self._append(fd, end, lines)
            found = os.fstat(fd)
        finally:
            os.close(fd)
        self._write_head(head)
        self._known = _End(file=(found.st_dev, found.st_ino), size=end.size + len(lines), head=head)
        if not end.size:
            self._remove_old()

    def _lines(self, before: AuditHead, entries: tuple[AuditEntry, ...]) -> tuple[bytes, AuditHead]:
        """Return the lines of `entries`, and the head of the last one."""
        now, lines = self._now(), []
        for entry in entries:
            line, before = encode_record(before, now, entry)
            lines.append(line)
        return b"".join(lines), before

    def _open(self) -> int:
        """Return a descriptor to append to the current file.

        Raises:
            AuditError: others can write to it, or it is no file.
        """
        fd = os.open(self.path, _WRITE, _MODE)
        mode = os.fstat(fd).st_mode
        if not stat.S_ISREG(mode) or mode & 0o022:
            os.close(fd)
            what = "can be written by other users" if stat.S_ISREG(mode) else "is not a regular file"
            raise AuditError(f"the audit log {self.path} {what}", "chmod 640, or correct `[audit] path`")
        return fd

    def _append(self, fd: int, end: _End, lines: bytes) -> None:
        """Write lines behind the last record, durably, or take them back."""
        if end.torn:
            replace_file(beside(self.path, "torn"), end.torn, mode=_MODE)
            os.ftruncate(fd, end.size)
        try:
            write_all(fd, lines)
            os.fsync(fd)
            if not end.size:
                sync_directory(self.path.parent)
        except OSError:
            with contextlib.suppress(OSError):  # what stays is an incomplete line, or a record that nobody waited for
                os.ftruncate(fd, end.size)
            raise

    def _write_head(self, head: AuditHead) -> None:
        """Write the head file. Without it the record counts all the same, so a failure is logged alone."""
        path = beside(self.path, "head")
        try:
            fd = os.open(path, (_WRITE & ~os.O_APPEND), _MODE)
            try:
                os.pwrite(fd, head_line(head), 0)
            finally:
                os.close(fd)
        except OSError as error:
            _log.warning("cannot write %s: %s", path, error.strerror or error)

    # -- where the log ends --------------------------------------------------------------------------------------------

    def _find_end(self) -> _End:
        """Return where the log ends; from memory, unless somebody else wrote to it."""
        try:
            found = self.path.stat(follow_symlinks=False)
        except FileNotFoundError:
            return self._read_end(None)
        file, known = (found.st_dev, found.st_ino), self._known
        if known is not None and (known.file, known.size) == (file, found.st_size):
            return known
        return self._read_end(file)

    def _read_end(self, file: tuple[int, int] | None) -> _End:
        size, torn, last = last_record(self.path) if file is not None else (0, b"", None)
        events: list[AuditEntry] = []
        if last is None and (older := old_files(self.path)):
            _, _, last = last_record(older[-1])
            events.append(self._rotated())
        head = last.head if last is not None else START
        known = read_head(self.path)
        if known is not None and known != head and known.sequence >= head.sequence:
            events.append(_damage(known, head, torn))
            _log.error("audit log %s: %s", self.path, events[-1].reason)
            head = known if last is None else head
        elif torn:
            events.append(_tear(head, torn))
            _log.warning("audit log %s: %s", self.path, events[-1].reason)
        return _End(file=file, size=size, head=head, torn=torn, events=tuple(events))

    # -- rotation ------------------------------------------------------------------------------------------------------

    def _rename(self) -> bool:
        """Give the current file the name of an older one; return whether that could be done."""
        first = first_record(self.path)
        if first is None:
            _log.error("audit log %s begins with no record and is not rotated: see `deploykit audit verify`", self.path)
            return False
        older = self.path.with_name(f"{self.path.name}.{first.sequence:012d}")
        if older.exists():
            _log.error("audit log %s is not rotated: %s is in the way", self.path, older)
            return False
        self.path.rename(older)
        return True

    def _rotated(self) -> AuditEntry:
        """Return the first record of a new file: from which record on those are kept that the older files hold."""
        older = old_files(self.path)
        oldest = oldest_in(older[-1])
        if len(older) > self._keep:
            oldest = max(oldest, first_sequence(older[-self._keep]))
        return AuditEntry(
            actor=SELF,
            action=ROTATED,
            target=self.path.name,
            decision="allowed",
            reason=f"{older[-1].name} was full; records from {oldest} on are kept",
            details={"previous": older[-1].name, OLDEST: str(oldest)},
        )

    def _remove_old(self) -> None:
        for path in old_files(self.path)[: -self._keep]:
            try:
                path.unlink()
            except OSError as error:
                _log.warning("cannot remove the old audit log %s: %s", path, error.strerror or error)


def _tear(head: AuditHead, torn: bytes) -> AuditEntry:
    why = f"an incomplete line of {len(torn)} bytes behind record {head.sequence}, cut off by a crash, was set aside"
    return AuditEntry(
        actor=SELF, action=TORN, target="audit", decision="allowed", reason=why, details=_torn_details(torn)
    )


def _damage(known: AuditHead, head: AuditHead, torn: bytes) -> AuditEntry:
    why = f"record {known.sequence} had been written, and the log ended with record {head.sequence}"
    if known.sequence == head.sequence:
        why = f"record {known.sequence} is not the one that had been written"
    details = {"written": str(known), "found": str(head), **(_torn_details(torn) if torn else {})}
    return AuditEntry(actor=SELF, action=DAMAGED, target="audit", decision="denied", reason=why, details=details)


def _torn_details(torn: bytes) -> dict[str, str]:
    return {"bytes": str(len(torn)), "sha256": hashlib.sha256(torn).hexdigest()}
