"""One line of a recorded log: a message as it passed, or a note of the recorder. Pure.

Rules:

* Each line is one JSON object. Each file begins with `{"deploykit-record": 1, "began": …}`: the format's version.
* A message keeps its exact body, so that its signature can be verified later. Text stays text; other bytes are base64.
* Of the headers, those are kept that a reader of messages needs.
* What may hold a password is recorded without its body.
* Lines that are none of these are an error each, whatever they hold: a reader counts them and goes on.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

import attrs

from deploykit.errors import MessageError
from deploykit.messages.base import NOTHING
from deploykit.trust.signature import HEADER
from deploykit.wire import Frame
from deploykit.wire.codec import ID_HEADER, TYPE_HEADER
from deploykit.wire.strictjson import MAX_BODY

VERSION: Final = 1
#: Bytes of the longest line that is read: of the longest body, each byte may be an escape of six.
MAX_LINE: Final = 6 * MAX_BODY + 65536
#: The headers that are kept.
KEPT_HEADERS: Final = (
    "content-type",
    "subject",
    "correlation-id",
    "message-id",
    "timestamp",
    "redelivered",
    ID_HEADER,
    TYPE_HEADER,
    HEADER,
)
_MARK: Final = "deploykit-record"


@attrs.frozen(kw_only=True, slots=True)
class RecordedMessage:
    """One message as it passed.

    Args:
        received: when, by the recorder's clock; aware.
        left_out: why there is no body; empty where there is one.
    """

    received: datetime
    destination: str
    headers: Mapping[str, str] = NOTHING  # type: ignore[assignment]
    body: bytes = attrs.field(default=b"", repr=False)
    left_out: str = ""

    @property
    def frame(self) -> Frame:
        """The frame that was received."""
        return Frame(self.headers, self.body)


@attrs.frozen(kw_only=True, slots=True)
class RecordingBegan:
    """The first line of a file: a recorder began to write it."""

    at: datetime


@attrs.frozen(kw_only=True, slots=True)
class RecordingGap:
    """Messages that passed and could not be recorded: the disk was full, say."""

    since: datetime
    until: datetime
    lost: int


RecordLine = RecordedMessage | RecordingBegan | RecordingGap


def format_line(line: RecordLine) -> bytes:
    """Return a line of the log, its newline included."""
    match line:
        case RecordingBegan():
            entry: dict[str, object] = {_MARK: VERSION, "began": line.at.isoformat()}
        case RecordingGap():
            entry = {"gap": line.lost, "since": line.since.isoformat(), "until": line.until.isoformat()}
        case RecordedMessage():
            kept = {name: line.headers[name] for name in KEPT_HEADERS if name in line.headers}
            entry = {"received": line.received.isoformat(), "destination": line.destination, "headers": kept}
            entry |= {"left_out": line.left_out} if line.left_out else _body(line.body)
    return json.dumps(entry, ensure_ascii=True, separators=(",", ":")).encode() + b"\n"


def _body(body: bytes) -> dict[str, object]:
    try:
        return {"body": body.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(body).decode()}


def parse_line(line: bytes) -> RecordLine:
    """Return what a line holds.

    Raises:
        MessageError: it is no line of a recorded log, or of a newer format.
    """
    try:
        entry = json.loads(line)
        if not isinstance(entry, dict):
            raise MessageError("not a JSON object")
        if _MARK in entry:
            if entry[_MARK] != VERSION:
                raise MessageError("a newer format of recorded logs", "read it with the version that wrote it")
            return RecordingBegan(at=_time(entry.get("began")))
        if "gap" in entry:
            return _gap(entry)
        return _message(entry)
    except (ValueError, OverflowError, RecursionError, binascii.Error) as error:  # JSON, text, base64, times
        raise MessageError(f"not a line of a recorded log: {type(error).__name__}") from None


def _gap(entry: Mapping[str, object]) -> RecordingGap:
    lost = entry["gap"]
    if not isinstance(lost, int) or not 0 <= lost < 2**53:
        raise MessageError("gap: expected a number of messages")
    return RecordingGap(since=_time(entry.get("since")), until=_time(entry.get("until")), lost=lost)


def _message(entry: Mapping[str, object]) -> RecordedMessage:
    destination, headers = entry.get("destination"), entry.get("headers", {})
    if not isinstance(destination, str) or not isinstance(headers, dict):
        raise MessageError("destination and headers: expected a text and an object")
    if not all(isinstance(value, str) for value in headers.values()):
        raise MessageError("headers: expected texts")
    left_out, text, coded = entry.get("left_out", ""), entry.get("body"), entry.get("base64")
    if isinstance(text, str):
        body = text.encode()
    elif isinstance(coded, str):
        body = base64.b64decode(coded, validate=True)
    elif left_out:
        body = b""
    else:
        raise MessageError("body: expected a text")
    return RecordedMessage(
        received=_time(entry.get("received")),
        destination=destination,
        headers=headers,
        body=body,
        left_out=str(left_out)[:200],
    )


def _time(value: object) -> datetime:
    if not isinstance(value, str):
        raise MessageError("expected a time")
    time = datetime.fromisoformat(value)
    if time.tzinfo is None:
        raise MessageError("expected a time with its zone")
    return time.astimezone(UTC)
