"""What `deploykit audit` shows: which records, and how each reads."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, TypedDict

import attrs

from deploykit.audit.files import read_records
from deploykit.audit.record import AuditHead, AuditRecord, BadRecord, Decision
from deploykit.errors import UsageError
from deploykit.operations.times import shown_time

_AGO: Final = re.compile(r"([0-9]{1,9})([smhdw])")
#: What a line for people shows of a fingerprint and of a commit: as much as tells two apart. `--json` has them whole.
_FINGERPRINT: Final = re.compile(r"(SHA256:[A-Za-z0-9+/]{12})[A-Za-z0-9+/]{31}")
_SHORT_FINGERPRINT: Final = r"\1…"
_COMMIT: Final = re.compile(r"\b([0-9a-f]{12})(?:[0-9a-f]{28}|[0-9a-f]{52})\b")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


class ShownRecord(TypedDict):
    """One record, as `deploykit audit show --json` prints it."""

    sequence: int
    time: str
    decision: Decision
    actor: str
    action: str
    target: str
    reason: str
    request: str
    correlation_id: str
    details: dict[str, str]
    hash: str


@attrs.frozen(kw_only=True, slots=True)
class Chosen:
    """The records that were asked for, and lines that are none.

    Args:
        records: oldest first.
        unreadable: each names file and line, and what is wrong.
    """

    records: tuple[AuditRecord, ...]
    unreadable: tuple[str, ...]


def choose(
    path: Path,
    *,
    since: datetime | None = None,
    decision: Decision | None = None,
    target: str | None = None,
    last: int | None = None,
) -> Chosen:
    """Return records of the log at `path`, rotated files included.

    Args:
        since: not those before.
        decision: only such.
        target: only of this site, job or node.
        last: at most so many, the newest.

    Raises:
        AuditError: it cannot be read.
    """
    unreadable: list[str] = []

    def wanted() -> Iterator[AuditRecord]:
        for record in read_records(path):
            if isinstance(record, str):
                unreadable.append(record)
            elif (
                (since is None or record.time >= since)
                and decision in (None, record.decision)
                and target in (None, record.target)
            ):
                yield record

    return Chosen(records=tuple(deque(wanted(), maxlen=last)), unreadable=tuple(unreadable))


def parse_since(text: str, now: datetime) -> datetime:
    """Return the instant that `2h`, `7d` or `2026-01-31T12:00` means.

    Raises:
        UsageError: it means none.
    """
    if ago := _AGO.fullmatch(text):
        try:
            return now - timedelta(seconds=int(ago[1]) * _UNITS[ago[2]])
        except OverflowError:
            return datetime.min.replace(tzinfo=UTC)
    try:
        found = datetime.fromisoformat(text)
        return found if found.tzinfo else found.astimezone()
    except (ValueError, OverflowError):
        remedy = "write 30m, 2h or 7d, or a time as 2026-01-31T12:00"
        raise UsageError(f"{text!a} is neither a time nor how long ago", remedy) from None


def parse_head(text: str) -> AuditHead:
    """Return the head that was noted.

    Raises:
        UsageError: it is none.
    """
    try:
        return AuditHead.parse(text)
    except BadRecord as bad:
        raise UsageError(f"{text!a} is no head: {bad}", "give what `deploykit audit show --head` printed") from None


def shown(record: AuditRecord) -> ShownRecord:
    """Return a record for JSON."""
    return {
        "sequence": record.sequence,
        "time": _time(record),
        "decision": record.decision,
        "actor": record.actor,
        "action": record.action,
        "target": record.target,
        "reason": record.reason,
        "request": record.request,
        "correlation_id": record.correlation_id,
        "details": dict(record.details),
        "hash": record.hash,
    }


def line_of(record: AuditRecord) -> str:
    """Return a record as one line for people: a key by the first digits of its fingerprint, a commit likewise.

    Its texts are as they were recorded: escape them before printing.
    """
    details = dict(record.details)
    event = _COMMIT.sub(r"\1", details.get("event", ""))
    what = " ".join(filter(None, (event, details.get("ref", ""), details.get("commit", "")[:12])))
    count = f"{details['count']} times" if "count" in details else ""
    parts = (
        shown_time(record.time),
        f"{record.decision:<7}",
        record.action,
        record.target,
        f"by {_FINGERPRINT.sub(_SHORT_FINGERPRINT, record.actor)}",
        what,
        count,
        details.get("outcome", ""),
    )
    return "  ".join(filter(None, parts)) + (f": {record.reason}" if record.reason else "")


def _time(record: AuditRecord) -> str:
    return record.time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
