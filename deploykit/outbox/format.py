r"""The format of a record file. Pure: bytes in, values out.

A person can read it with `less`. Version 1::

    deploykit-outbox 1 crc32=8d1f02aa size=000000000214 records=2\n
    {"destination": "/topic/deploykit.source", "headers": {"subject": "..."}, "body": 57}\n
    <57 bytes>\n
    {"destination": ...}\n
    ...

`size` counts the bytes after the first line, `crc32` is over them. A dead letter is a file with one record whose JSON
line also has `reason` and `buried` (time, UTC). Unknown members are ignored, so that a later version may add some;
a file of another version number is not read.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from typing import NewType

import attrs

from deploykit.errors import OutboxError
from deploykit.wire.frame import MAX_HEADERS, Frame, headers_size

#: `<file>.<number>`: which file of the spool, and which of its records, counted from 1.
RecordId = NewType("RecordId", str)

#: Above this RabbitMQ closes the connection without an ERROR (4 MiB for the whole frame).
MAX_BODY = 4_000_000
MAX_ENVELOPE = 128 * 1024
#: A dead letter adds its reason, and UTF-8 that another program wrote is longer when it is escaped.
MAX_DEAD_ENVELOPE = 8 * MAX_ENVELOPE
#: One `put_many`. 2,000 refs with 50 commits each stay below it.
MAX_FILE = 512 * 1024 * 1024

_MAGIC = b"deploykit-outbox 1 "
_FIRST_LINE = 128  # longer than any first line
#: The fewest bytes a record takes, with its line ends: a larger number of records in the first line is wrong.
_LEAST = len(b'{"destination":"/","headers":{},"body":0}\n\n')


@attrs.frozen(slots=True)
class Outgoing:
    """A frame and where it goes."""

    destination: str
    frame: Frame


class Malformed(Exception):
    """The bytes are not a record file; the text names the reason. Never leaves the package."""


def pack(items: Sequence[Outgoing], extra: Mapping[str, object] | None = None) -> bytes:
    """Return `items` as the bytes of one record file.

    Raises:
        OutboxError: no broker would take a record: too big, no destination, or control characters in a header.
    """
    parts: list[bytes] = []
    for item in items:
        envelope = _envelope(item, extra or {})
        parts += (envelope, b"\n", item.frame.body, b"\n")
    payload = b"".join(parts)
    if len(payload) > MAX_FILE:
        raise OutboxError(
            f"{len(items)} records of {len(payload)} bytes are too many for one step",
            f"at most {MAX_FILE} bytes; put them in several steps",
        )
    return _first_line(zlib.crc32(payload), len(payload), len(items)) + payload


def _first_line(crc32: int, size: int, records: int) -> bytes:
    return _MAGIC + f"crc32={crc32:08x} size={size:012d} records={records}\n".encode("ascii")


def _envelope(item: Outgoing, extra: Mapping[str, object]) -> bytes:
    where = item.destination
    if not where:
        raise OutboxError("a record has no destination", "name a topic or queue")
    headers = item.frame.headers
    if not {str}.issuperset(map(type, headers.values())):
        raise OutboxError(f"a record for {where!a} has a header that is not text", "make it a str")
    line = json.dumps({"destination": where, "headers": dict(headers), "body": len(item.frame.body), **extra})
    if "\\" in line:  # something was escaped; mostly not, and then there is nothing to check
        for name, text in (("destination", where), *headers.items()):
            if not _sendable(text) or not _sendable(name):
                raise OutboxError(
                    f"a record for {where!a} holds a line end, NUL or half a surrogate pair in header {name!a}",
                    "such a frame cannot be sent; clean it where it is made",
                )
    if len(item.frame.body) > MAX_BODY:
        raise OutboxError(
            f"a record for {where} is too big: {len(item.frame.body)} bytes", f"the limit is {MAX_BODY} bytes"
        )
    if extra:
        return line.encode("ascii")  # a dead letter keeps all that was put
    if headers_size(headers) > MAX_HEADERS or len(line) > MAX_ENVELOPE:
        raise OutboxError(f"the headers of a record for {where} are too big", f"the limit is {MAX_HEADERS} bytes")
    return line.encode("ascii")


def _sendable(text: str) -> bool:
    if "\n" in text or "\r" in text or "\0" in text:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@attrs.frozen(slots=True)
class Head:
    """The first line of a record file."""

    crc32: int
    size: int
    records: int
    length: int  # of the line itself


def parse_head(start: bytes) -> Head:
    """Parse the first line, from the first bytes of a file.

    Raises:
        Malformed: not a record file, or one of another version.
    """
    line, newline, _ = start[:_FIRST_LINE].partition(b"\n")
    if not line.startswith(_MAGIC) or not newline:
        raise Malformed("not a record file of version 1")
    fields = dict(part.partition(b"=")[::2] for part in line[len(_MAGIC) :].split(b" "))
    try:
        head = Head(int(fields[b"crc32"], 16), int(fields[b"size"]), int(fields[b"records"]), len(line) + 1)
    except (KeyError, ValueError):
        raise Malformed("the first line is damaged") from None
    if head.records < 1 or line + newline != _first_line(head.crc32, head.size, head.records):
        raise Malformed("the first line is damaged")
    if head.records * _LEAST > head.size:
        raise Malformed(f"{head.records} records do not fit into {head.size} bytes")
    return head


@attrs.frozen(slots=True)
class Envelope:
    """The JSON line of one record."""

    destination: str
    headers: Mapping[str, str]
    body: int
    reason: str
    dead_since: str


def parse_envelope(line: bytes) -> Envelope:
    """Parse the JSON line of one record.

    Raises:
        Malformed: it cannot be read, or it breaks a limit.
    """
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        raise Malformed("a record's JSON line cannot be read") from None
    if not isinstance(data, dict):
        raise Malformed("a record's JSON line is not an object")
    destination, headers, body = data.get("destination"), data.get("headers"), data.get("body")
    if not isinstance(destination, str) or not destination or not _sendable(destination):
        raise Malformed("a record has no acceptable destination")
    if not isinstance(headers, dict) or not all(isinstance(v, str) and _sendable(k + v) for k, v in headers.items()):
        raise Malformed("a record's headers are not acceptable")
    if type(body) is not int or not 0 <= body <= MAX_BODY:
        raise Malformed("a record's size is not acceptable")
    reason, dead_since = (str(data.get(name, "")) for name in ("reason", "buried"))
    return Envelope(destination, headers, body, reason, dead_since)
