"""One record of the audit: who asked for what, and what was decided. Pure: a line of bytes and back.

A line is one JSON object in ASCII, with the fields of `AuditRecord` in this order, `hash` last, and a newline:

    {"v":1,"seq":7,"time":"…","actor":"…",…,"prev":"HEX","hash":"HEX"}

Rules:

* `hash` is the SHA-256 of the line's bytes before `,"hash":`.
* `prev` is the `hash` of the record before; 64 zeros in the first one.
* Everything outside of printable ASCII is escaped, so no text can forge a line or reach a terminal as a control code.
* Texts are cut to fixed lengths, so a line is never longer than `MAX_LINE`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, Literal

import attrs

from deploykit.errors import AuditError

Decision = Literal["allowed", "denied"]

#: The format's version, in every line.
VERSION: Final = 1
#: Bytes of the longest line, newline included.
MAX_LINE: Final = 1 << 18
#: Most characters of each text, most details, and most characters of a detail's name and value.
LIMITS: Final[Mapping[str, int]] = {
    "actor": 500,
    "action": 60,
    "target": 500,
    "reason": 2000,
    "request": 200,
    "correlation_id": 200,
}
_DETAILS: Final = 24
_DETAIL_NAME: Final = 60
_DETAIL: Final = 500

_NO_HASH: Final = "0" * 64
_HEX: Final = re.compile(r"[0-9a-f]{64}")
_HASH_FIELD: Final = b',"hash":"'
_TAIL: Final = len(_HASH_FIELD) + 64 + len(b'"}\n')
_FIELDS: Final = (
    "v", "seq", "time", "actor", "action", "target", "decision", "reason", "request", "correlation_id", "details",
    "prev", "hash",
)  # fmt: skip


class BadRecord(ValueError):
    """A line is not a record, or not as it was written. The text says what is wrong with it."""


@attrs.frozen(kw_only=True, slots=True)
class AuditHead:
    """The name of a record, and by the chain of all records before it.

    Args:
        sequence: its number; 0 before the first record.
        hash: SHA-256, lower case hexadecimal.
    """

    sequence: int
    hash: str

    def __str__(self) -> str:
        return f"{self.sequence}:{self.hash}"

    @classmethod
    def parse(cls, text: str) -> AuditHead:
        """Return the head that `str` made into `text`.

        Raises:
            BadRecord: it is none.
        """
        number, _, digest = text.strip().partition(":")
        if not re.fullmatch(r"[0-9]{1,20}", number) or not _HEX.fullmatch(digest):
            raise BadRecord("expected NUMBER:HASH, the hash with 64 hexadecimal digits")
        return cls(sequence=int(number), hash=digest)


#: What the first record follows.
START: Final = AuditHead(sequence=0, hash=_NO_HASH)


@attrs.frozen(kw_only=True, slots=True)
class AuditRecord:
    """A decision.

    Args:
        sequence: its number, from 1.
        time: when it was recorded, aware, UTC.
        actor: who asked: a signer, a user, or `unverified`.
        action: what was asked for, such as `deploy`.
        target: what it was asked for: a site, a job, a node.
        decision: `allowed` or `denied`.
        reason: why, for people.
        request: the id of the request.
        correlation_id: what it belongs to.
        details: more, by name.
        previous: the hash of the record before.
        hash: its own.
    """

    sequence: int
    time: datetime
    actor: str
    action: str
    target: str
    decision: Decision
    reason: str
    request: str
    correlation_id: str
    details: Mapping[str, str]
    previous: str
    hash: str

    @property
    def head(self) -> AuditHead:
        """The name of this record."""
        return AuditHead(sequence=self.sequence, hash=self.hash)


@attrs.frozen(kw_only=True, slots=True)
class AuditEntry:
    """What is to be recorded; the fields are those of `AuditRecord`."""

    actor: str
    action: str
    target: str
    decision: Decision
    reason: str = ""
    request: str = ""
    correlation_id: str = ""
    details: Mapping[str, str] = attrs.field(factory=dict)


def encode_record(before: AuditHead, now: datetime, entry: AuditEntry) -> tuple[bytes, AuditHead]:
    """Return the line that follows the record `before`, and its head. Texts that are too long are cut.

    Args:
        before: the head of the record before; `START` for the first.
        now: aware.
        entry: what it says.
    """
    details = {_cut(name, _DETAIL_NAME): _cut(text, _DETAIL) for name, text in list(entry.details.items())[:_DETAILS]}
    fields = {
        "v": VERSION,
        "seq": before.sequence + 1,
        "time": now.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "actor": _cut(entry.actor, LIMITS["actor"]),
        "action": _cut(entry.action, LIMITS["action"]),
        "target": _cut(entry.target, LIMITS["target"]),
        "decision": entry.decision,
        "reason": _cut(entry.reason, LIMITS["reason"]),
        "request": _cut(entry.request, LIMITS["request"]),
        "correlation_id": _cut(entry.correlation_id, LIMITS["correlation_id"]),
        "details": details,
        "prev": before.hash,
    }
    covered = json.dumps(fields, ensure_ascii=True, separators=(",", ":")).encode("ascii")[:-1]
    covered = covered.replace(b"\x7f", b"\\u007f")
    digest = _digest(covered)
    line = covered + _HASH_FIELD + digest.encode() + b'"}\n'
    return line, AuditHead(sequence=before.sequence + 1, hash=digest)


def parse_record(line: bytes) -> AuditRecord:
    """Return the record of a line, newline included, if it is exactly as it was written.

    Raises:
        BadRecord: it was changed, or never was a record.
        AuditError: a newer deploykit wrote it.
    """
    if not line.endswith(b"\n"):
        raise BadRecord("it is incomplete")
    if len(line) > MAX_LINE:
        raise BadRecord(f"it is longer than {MAX_LINE} bytes")
    covered, rest = line[:-_TAIL], line[-_TAIL:]
    digest = _digest(covered)
    if rest != _HASH_FIELD + digest.encode() + b'"}\n':
        raise BadRecord("it does not match its own hash: it was changed, or never was a record")
    try:
        fields = json.loads(line)
        if fields["v"] != VERSION:
            raise AuditError(
                f"an audit record has format version {fields['v']!a}, this deploykit knows {VERSION}",
                "use the deploykit that wrote it, or a newer one",
            )
        return _record(fields)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise BadRecord("its hash is right, but it is not a record") from None


def _record(fields: dict[str, object]) -> AuditRecord:
    texts = {name: fields[name] for name in (*LIMITS, "decision", "prev", "hash", "time")}
    sequence, details = fields["seq"], fields["details"]
    if (
        tuple(fields) != _FIELDS
        or type(sequence) is not int
        or sequence < 1
        or not isinstance(details, dict)
        or not all(isinstance(text, str) for text in (*texts.values(), *details.values()))
        or texts["decision"] not in ("allowed", "denied")
        or not _HEX.fullmatch(str(texts["prev"]))
    ):
        raise ValueError
    time = datetime.fromisoformat(str(texts["time"]))
    if time.tzinfo is None:
        raise ValueError
    return AuditRecord(
        sequence=sequence,
        time=time,
        actor=str(texts["actor"]),
        action=str(texts["action"]),
        target=str(texts["target"]),
        decision="denied" if texts["decision"] == "denied" else "allowed",
        reason=str(texts["reason"]),
        request=str(texts["request"]),
        correlation_id=str(texts["correlation_id"]),
        details=details,
        previous=str(texts["prev"]),
        hash=str(texts["hash"]),
    )


def _digest(covered: bytes) -> str:
    return hashlib.sha256(covered).hexdigest()


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
