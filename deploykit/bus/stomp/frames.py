"""STOMP frames: bytes <-> values, pure. Bytes in, frames out, memory bounded.

Why not stomp.py's own parser: it buffers an endless frame whole, unescapes on 1.0 what 1.0 does not escape, and takes
34 microseconds for a message with nine headers. This one keeps these rules:

* a header block over `max_headers` bytes, or bytes that are no STOMP at all, end the connection (`ProtocolError`);
* a body over `max_body` whose length was announced is thrown away as it comes in, and the frame is delivered with
  `oversized` set, so that it can be put aside instead of coming back for ever; one that was not announced ends the
  connection;
* the first of repeated headers counts (STOMP 1.2); an unknown escape stays as it is, because a stranger's header
  must not cost the connection;
* RECEIPT frames, which come by the thousand, are recognised without taking them apart.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import attrs

#: Before we know whom we talk to ...
MAX_HEADERS: Final = 64 * 1024
#: ... and from then on: as much as RabbitMQ takes for a whole frame, and more. A message that a broker took and that
#: ended our connection would come again for ever.
MAX_MESSAGE_HEADERS: Final = 8 * 1024 * 1024

_RECEIPT = re.compile(rb"RECEIPT\r?\nreceipt-id:([^\r\n\x00]+)\r?\n\r?\n\x00[\r\n]*")
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_EOLS = re.compile(rb"[\r\n]*")
_COMMAND = re.compile(rb"[A-Z]{3,16}\Z")
_LENGTH = re.compile(r"[0-9]{1,18}\Z")
_NEEDS_ESCAPE = re.compile(r"[\\:\n\r\x00]")
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_UNESCAPE: Final = {"n": "\n", "c": ":", "\\": "\\", "r": "\r"}


class ProtocolError(Exception):
    """The bytes are not STOMP, or over our bounds. The connection cannot go on."""


class HeaderRefused(ValueError):
    """A header cannot go over this connection without changing its meaning."""


@attrs.frozen(slots=True)
class Received:
    """One frame from the broker. `oversized` is the announced size of a body that was thrown away."""

    command: str
    headers: Mapping[str, str]
    body: bytes = attrs.field(repr=False, default=b"")
    oversized: int = 0


@attrs.frozen(slots=True)
class Escaping:
    """How headers are escaped on a connection.

    `out`, `into`: whether at all, in each direction. `breaks`: the line breaks that can be written: none on 1.0, where
    a broker that takes an escaped one (ActiveMQ) gives it out as a broken header; no carriage return on 1.1.
    """

    out: bool
    into: bool
    breaks: str


def escaping(version: str, *, always_in: bool = False, always_out: bool = False) -> Escaping:
    """Return the rule of a version, and of brokers that do not keep to it on 1.0.

    Args:
        version: "1.0", "1.1" or "1.2".
        always_in: the broker unescapes what it gets on any version, so we have to escape.
        always_out: the broker escapes what it sends on any version, so we have to unescape.
    """
    newer = version != "1.0"
    breaks = {"1.0": "", "1.1": "\n"}.get(version, "\r\n")
    return Escaping(out=newer or always_in, into=newer or always_out, breaks=breaks)


def encode_frame(command: str, headers: Mapping[str, str], body: bytes, rule: Escaping) -> bytes:
    """Return the bytes of one frame.

    Raises:
        HeaderRefused: a header holds NUL, or a line break or a colon in its name that this version cannot carry.
    """
    if _unsafe(headers):
        headers = _escaped(headers, rule)
    lines = [f"{key}:{value}\n" for key, value in headers.items()]
    return f"{command}\n{''.join(lines)}\n".encode() + body + b"\x00"


def _unsafe(headers: Mapping[str, str]) -> bool:
    search = _NEEDS_ESCAPE.search
    return search("".join(headers.values())) is not None or search("".join(headers)) is not None


def _escaped(headers: Mapping[str, str], rule: Escaping) -> dict[str, str]:
    return {escape(key, rule, name=True): escape(value, rule) for key, value in headers.items()}


def escape(text: str, rule: Escaping, *, name: bool = False) -> str:
    """Return a header's value (or name) escaped for the wire.

    Raises:
        HeaderRefused: this version has no way to write it.
    """
    if "\x00" in text:
        raise HeaderRefused("a header holds a NUL byte")
    for character, what in (("\n", "a line break"), ("\r", "a carriage return")):
        if character in text and character not in rule.breaks:
            raise HeaderRefused(f"this version of STOMP cannot carry a header with {what}")
    if not rule.out:
        if name and ":" in text:
            raise HeaderRefused("STOMP 1.0 cannot carry a header with a colon in its name")
        return text
    text = text.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    # On 1.0 nothing needs a colon in a value to be escaped, and not every broker would undo it.
    return text.replace(":", "\\c") if name or rule.breaks else text


def _unescape(text: str) -> str:
    return _ESCAPED.sub(lambda match: _UNESCAPE.get(match[1], match[0]), text)


def parse_head(head: bytes, *, unescape: bool) -> tuple[str, dict[str, str]]:
    """Return command and headers. CONNECTED is never escaped (STOMP 1.2, "Value Encoding").

    A line without a colon is left out: ActiveMQ gives a line break that somebody escaped to subscribers on STOMP 1.0 as
    it is, and a stranger's header must not cost the connection.
    """
    text = head.decode("utf-8", "replace")
    lines = [line.removesuffix("\r") for line in text.split("\n")] if "\r" in text else text.split("\n")
    command = lines[0]
    pairs = [line.split(":", 1) for line in lines[:0:-1]]
    try:
        headers: dict[str, str] = dict(pairs)
    except ValueError:
        headers = {key: rest[0] for key, *rest in pairs if rest}
    if unescape and "\\" in text and command != "CONNECTED":
        headers = {_unescape(key): _unescape(value) for key, value in headers.items()}
    return command, headers


class FrameReader:
    """Incremental reader of a broker's bytes. It keeps at most one frame, within bounds.

    Args:
        max_body: bytes; a longer announced body is thrown away, see the module.
    """

    __slots__ = ("_buffer", "_discard", "_discarded", "_need", "_scan", "max_body", "max_headers", "unescape")

    def __init__(self, max_body: int) -> None:
        self.max_body = max_body
        self.max_headers = MAX_HEADERS
        #: Set from the version and dialect after CONNECTED.
        self.unescape = True
        self._buffer = bytearray()
        self._need = 0  # so many bytes must be there before looking makes sense
        self._scan = 0  # no NUL before here; below 0: no end of the headers before there
        self._discard = 0  # bytes of an oversized body (and its NUL) still to come
        self._discarded: Received | None = None

    @property
    def buffered(self) -> int:
        """Bytes kept of a frame that is not complete."""
        return len(self._buffer)

    def feed(self, data: bytes) -> tuple[list[bytes], list[Received]]:
        """Take bytes; return receipt ids and other frames, each in order.

        Receipts are apart because nothing depends on their order relative to messages, and they are many. Those that
        follow an ERROR stay behind it among the frames: there they may mean less.

        Raises:
            ProtocolError: this connection cannot go on.
        """
        receipts: list[bytes] = []
        frames: list[Received] = []
        if self._discard:
            data = self._throw_away(data, frames)
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._need:
                return receipts, frames
            data = bytes(self._buffer)
            self._buffer.clear()
        position = self._parse(data, receipts, frames)
        if position < len(data):
            self._buffer += memoryview(data)[position:]
        return receipts, frames

    def _throw_away(self, data: bytes, frames: list[Received]) -> bytes:
        taken = min(self._discard, len(data))
        self._discard -= taken
        if not self._discard:
            if data[taken - 1] != 0:
                raise ProtocolError("a frame is longer than its content-length")
            if self._discarded is not None:
                frames.append(self._discarded)
            self._discarded = None
        return data[taken:]

    def _parse(self, data: bytes, receipts: list[bytes], frames: list[Received]) -> int:
        """Take out whole frames; return where the rest begins, with `_need` and `_scan` set for it."""
        position, end, error = 0, len(data), False
        scan, self._scan, self._need = self._scan, 0, 0
        while position < end:
            if data[position] == 82 and not error:  # "R"
                match = _RECEIPT.match(data, position)
                if match is not None:
                    receipts.append(match[1])
                    position, scan = match.end(), 0
                    continue
            elif data[position] in (10, 13):
                position = _EOLS.match(data, position).end()  # type: ignore[union-attr]  # matches always
                continue
            step = self._one(data, position, scan, frames)
            scan = 0
            if not step:
                return position
            error = error or (bool(frames) and frames[-1].command == "ERROR")
            position = step
        return position

    def _one(self, data: bytes, start: int, scan: int, frames: list[Received]) -> int:
        """Take one frame; return where it ends, or 0 when it is not complete."""
        head_end = _HEAD_END.search(data, start + max(0, -scan - 3), start + self.max_headers + 4)
        if head_end is None:
            self._check_beginning(data, start)
            self._scan = start - len(data)
            return 0
        head, body = data[start : head_end.start()], head_end.end()
        if b"\x00" in head:
            raise ProtocolError("a NUL byte inside a header block")
        command, headers = parse_head(head, unescape=self.unescape)
        announced = headers.get("content-length")
        if announced is None:
            stop = data.find(0, max(body, start + scan))
            if stop < 0:
                if len(data) - body > self.max_body:
                    raise ProtocolError(f"a frame without content-length passed {self.max_body} bytes")
                self._scan = len(data) - start
                return 0
        else:
            if not _LENGTH.match(announced):
                raise ProtocolError("content-length is not a number")
            length = int(announced)
            stop = body + length
            if length > self.max_body:
                return self._oversized(Received(command, headers, b"", length), data, stop, frames)
            if stop >= len(data):
                self._need = stop + 1 - start
                return 0
            if data[stop] != 0:
                raise ProtocolError("a frame is longer than its content-length")
        frames.append(Received(command, headers, data[body:stop]))
        return stop + 1

    def _check_beginning(self, data: bytes, start: int) -> None:
        if len(data) - start > self.max_headers:
            raise ProtocolError(f"a header block passed {self.max_headers} bytes")
        line, newline, _ = data[start : start + 32].partition(b"\n")
        line = line.removesuffix(b"\r")
        if b"\x00" in data[start:] or (newline and not _COMMAND.match(line)) or (not newline and len(line) > 20):
            raise ProtocolError("what came in is not STOMP; is this the broker's STOMP port, and TLS or plain as set?")

    def _oversized(self, frame: Received, data: bytes, stop: int, frames: list[Received]) -> int:
        if stop < len(data):
            if data[stop] != 0:
                raise ProtocolError("a frame is longer than its content-length")
            frames.append(frame)
            return stop + 1
        self._discard, self._discarded = stop + 1 - len(data), frame
        return len(data)
