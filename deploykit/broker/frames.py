"""STOMP 1.0, 1.1 and 1.2 frames: bytes in, frames out, and back. No I/O, no clock.

Rules kept here:

* Every buffer is bounded: header count, header line, header block and body each have a limit (`FrameLimits`). A peer
  that never ends a frame gets a `FrameError` while at most one block and one body are held.
* Escaping follows the version: 1.0 has none, 1.1 knows ``\\n \\c \\\\``, 1.2 adds ``\\r``; all else is an error.
  CONNECT and CONNECTED are never escaped (1.2, "Value Encoding").
* The first of repeated headers wins (1.2, "Repeated Header Entries").
* A carriage return before a line feed is part of the line end on every version.
* The parser returns one frame at a time, because the first frame decides how the second is read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from attrs import evolve, field, frozen

from deploykit.errors import FrameError

#: Versions understood, oldest first.
VERSIONS: Final = ("1.0", "1.1", "1.2")

EOL: Final = b"\n"

_LINE_ENDS = re.compile(rb"[\r\n]+")
_HEAD_END = re.compile(rb"\n\r?\n")
_NOT_ESCAPED: Final = frozenset({"CONNECT", "STOMP", "CONNECTED"})
_ESCAPES: Final[Mapping[str, Mapping[str, str]]] = {
    "1.0": {"\r": " ", "\n": " "},
    "1.1": {"\\": "\\\\", "\n": "\\n", ":": "\\c", "\r": " "},
    "1.2": {"\\": "\\\\", "\n": "\\n", ":": "\\c", "\r": "\\r"},
}
_NEEDS_ESCAPE = re.compile(r"[\\\r\n:]")
_UNESCAPES: Final[Mapping[str, Mapping[str, str]]] = {
    "1.1": {"\\\\": "\\", "\\n": "\n", "\\c": ":"},
    "1.2": {"\\\\": "\\", "\\n": "\n", "\\c": ":", "\\r": "\r"},
}
_ESCAPE_PAIR = re.compile(r"\\(?:.|$)", re.DOTALL)


@frozen(kw_only=True)
class FrameLimits:
    """How large a frame may be. Sizes in bytes on the wire."""

    max_headers: int = 100
    max_header_line: int = 10 * 1024
    max_head: int = 64 * 1024
    max_body: int = 4 * 1024 * 1024

    def before_login(self) -> FrameLimits:
        """Return the limits before login: a small head and at most 4 KiB of body."""
        return evolve(self, max_head=min(self.max_head, 16 * 1024), max_body=min(self.max_body, 4 * 1024))


@frozen(kw_only=True)
class StompFrame:
    """One frame. `headers` are unescaped; no repr shows them or the body: a CONNECT holds a passcode."""

    command: str
    headers: Mapping[str, str] = field(factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)


def encode_frame(frame: StompFrame, version: str) -> bytes:
    """Return the bytes of `frame` on `version`; `content-length` is added when there is a body.

    Where a version cannot write a character in a header (a line break on 1.0, a carriage return on 1.1) a space takes
    its place, so that one header never becomes two.
    """
    plain = frame.command in _NOT_ESCAPED
    table = _ESCAPES["1.0" if plain else version]
    colon = plain or version == "1.0"
    lines = [frame.command]
    for name, value in frame.headers.items():
        key = name
        if _NEEDS_ESCAPE.search(name):
            key = _escape(name.replace(":", " ") if colon else name, table)
        lines.append(f"{key}:{_escape(value, table) if _NEEDS_ESCAPE.search(value) else value}")
    if frame.body and "content-length" not in frame.headers:
        lines.append(f"content-length:{len(frame.body)}")
    return "\n".join(lines).encode() + b"\n\n" + frame.body + b"\0"


def _escape(text: str, table: Mapping[str, str]) -> str:
    return _NEEDS_ESCAPE.sub(lambda match: table.get(match[0], match[0]), text)


class FrameParser:
    """Turns a stream of bytes into frames, holding no more than the limits allow.

    `feed` takes bytes, `next_frame` returns the next whole frame or None. `version` and `limits` may change between
    two frames (a login does that). After a `FrameError` the stream cannot be parsed any more: close the connection.
    """

    def __init__(self, limits: FrameLimits | None = None, version: str = "1.0") -> None:
        self.limits = limits or FrameLimits()
        self.version = version
        self._buffer = bytearray()
        self._start = 0
        self._scanned = 0
        self._head: tuple[str, dict[str, str], int | None] | None = None

    @property
    def buffered(self) -> int:
        """Bytes held that are not part of a returned frame."""
        return len(self._buffer) - self._start

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Add received bytes."""
        self._buffer += data

    def next_frame(self) -> StompFrame | None:
        """Return the next whole frame, or None when more bytes are needed.

        Raises:
            FrameError: the bytes are not STOMP, or pass a limit.
        """
        if self._head is None:
            self._skip_line_ends()
            self._head = self._read_head()
        frame = None if self._head is None else self._read_body(*self._head)
        if frame is None or self._start > 64 * 1024:
            self._compact()
        return frame

    def _compact(self) -> None:
        del self._buffer[: self._start]
        self._scanned -= self._start
        self._start = 0

    def _skip_line_ends(self) -> None:
        match = _LINE_ENDS.match(self._buffer, self._start)
        if match is not None:
            self._start = match.end()
            self._scanned = max(self._scanned, self._start)

    def _read_head(self) -> tuple[str, dict[str, str], int | None] | None:
        buffer, limits = self._buffer, self.limits
        match = _HEAD_END.search(buffer, self._scanned)
        end = match.start() if match else len(buffer)
        if buffer.find(b"\0", self._scanned, end) >= 0:
            raise FrameError("a frame ends inside its headers", "end the headers with an empty line")
        if end - self._start > limits.max_head:
            raise FrameError(f"the headers of a frame are longer than {limits.max_head} bytes")
        if match is None:
            self._scanned = max(self._start, len(buffer) - 2)  # the end mark may straddle two reads
            return None
        command, headers = self._parse_head(bytes(buffer[self._start : end]))
        length = _content_length(headers, limits.max_body)
        self._start = self._scanned = match.end()
        return command, headers, length

    def _parse_head(self, head: bytes) -> tuple[str, dict[str, str]]:
        try:
            first, *lines = head.decode().split("\n")
        except UnicodeDecodeError:
            raise FrameError("a header is not UTF-8") from None
        if len(lines) > self.limits.max_headers:
            raise FrameError(f"a frame has more than {self.limits.max_headers} headers")
        command = first.removesuffix("\r")
        unescapes = None if command in _NOT_ESCAPED else _UNESCAPES.get(self.version)
        headers: dict[str, str] = {}
        for raw in lines:
            line = raw.removesuffix("\r")
            if len(line) > self.limits.max_header_line:
                raise FrameError(f"a header line is longer than {self.limits.max_header_line} bytes")
            name, colon, value = line.partition(":")
            if not colon or not name:
                raise FrameError("a header line has no name or no colon")
            if unescapes is not None and "\\" in line:
                name, value = _unescape(name, unescapes), _unescape(value, unescapes)
            headers.setdefault(name, value)
        return command, headers

    def _read_body(self, command: str, headers: dict[str, str], length: int | None) -> StompFrame | None:
        buffer = self._buffer
        if length is None:
            end = buffer.find(b"\0", self._scanned)
            held = (end if end >= 0 else len(buffer)) - self._start
            if held > self.limits.max_body:
                raise FrameError(f"a body is longer than {self.limits.max_body} bytes")
            if end < 0:
                self._scanned = len(buffer)
                return None
        else:
            end = self._start + length
            if len(buffer) <= end:
                return None
            if buffer[end] != 0:
                raise FrameError("a frame does not end where its content-length says")
        body = bytes(buffer[self._start : end])
        self._start = self._scanned = end + 1
        self._head = None
        return StompFrame(command=command, headers=headers, body=body)


def _unescape(text: str, table: Mapping[str, str]) -> str:
    def one(match: re.Match[str]) -> str:
        try:
            return table[match[0]]
        except KeyError:
            raise FrameError("a header has an escape that this version does not have") from None

    return _ESCAPE_PAIR.sub(one, text)


def _content_length(headers: Mapping[str, str], limit: int) -> int | None:
    text = headers.get("content-length")
    if text is None:
        return None
    digits = text.strip()
    if not (digits.isascii() and digits.isdigit() and len(digits) < 20):
        raise FrameError("content-length is not a number")
    length = int(digits)
    if length > limit:
        raise FrameError(f"a body is longer than {limit} bytes")
    return length
