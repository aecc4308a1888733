"""Git's packet lines: four hex digits of length, then the bytes.

Rules: pure, over any source of bytes; a packet is bounded by its format (65,520 bytes), a session by `limit`; text from
the other side is made printable before it gets into an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from deploykit.errors import OriginError

FLUSH: Final = b"0000"
DELIM: Final = b"0001"
_MAX_PACKET: Final = 65520


def packet(payload: bytes) -> bytes:
    """Return one payload as a packet.

    >>> packet(b"done\\n")
    b'0009done\\n'
    """
    return b"%04x%b" % (len(payload) + 4, payload)


def request(command: bytes, capabilities: Iterable[bytes], arguments: Iterable[bytes]) -> bytes:
    """Return a protocol version 2 command: its name, our capabilities, and its arguments."""
    head = packet(b"command=%b\n" % command) + b"".join(packet(c + b"\n") for c in capabilities)
    return head + DELIM + b"".join(packet(a + b"\n") for a in arguments) + FLUSH


def printable(text: bytes, limit: int = 300) -> str:
    """Return text of the other side as it is safe in a log: one line, no control characters, bounded."""
    shown = " ".join(
        "".join(c if c.isprintable() else " " for c in text[: 4 * limit].decode("utf-8", "replace")).split()
    )
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


class PacketReader:
    """Packets out of a source of bytes.

    Args:
        receive: returns at least one byte, or `b""` at the end. It keeps the deadline.
        limit: bytes to accept before the pack; more raise `OriginError`.
    """

    def __init__(self, receive: Callable[[], bytes], *, limit: int) -> None:
        self._receive = receive
        self._left = limit
        self._data = b""
        self._pos = 0
        self._pushed: list[bytes | None] = []

    def _fill(self, count: int) -> None:
        """Receive until `count` bytes are buffered."""
        if len(self._data) - self._pos >= count:
            return
        parts = [self._data[self._pos :]]
        have = len(parts[0])
        while have < count:
            piece = self._receive()
            if not piece:
                raise OriginError("the origin closed the connection in the middle of an answer", "fetch again")
            parts.append(piece)
            have += len(piece)
        self._data = b"".join(parts)
        self._pos = 0

    @property
    def buffered(self) -> int:
        """How many bytes can be read without waiting."""
        return len(self._data) - self._pos

    def at_end(self) -> bool:
        """Return whether the other side has closed, with nothing left to read."""
        if self.buffered or self._pushed:
            return False
        self._data, self._pos = self._receive(), 0
        return not self._data

    def unread(self, payload: bytes | None) -> None:
        """Put a packet back, to be read again."""
        self._pushed.append(payload)

    def read(self) -> bytes | None:
        """Return the next payload; None for a flush, a delimiter or a response end.

        Raises:
            OriginError: not a packet, the end, too much, or the origin's own error packet.
        """
        if self._pushed:
            return self._pushed.pop()
        self._fill(4)
        start = self._pos + 4
        head = self._data[self._pos : start]
        try:
            size = int(head, 16)
        except ValueError:
            size = -1
        if size < 0 or size > _MAX_PACKET or size == 3 or not head.isalnum():
            raise OriginError(f"the origin does not speak git: {printable(self._data[self._pos : start + 60], 60)!r}")
        if size < 3:
            self._pos = start
            return None
        self._fill(size)
        start = self._pos + 4
        self._pos += size
        self._left -= size
        if self._left < 0:
            raise OriginError("the origin's answer is longer than this mirror accepts", "raise max_listing_bytes")
        payload = self._data[start : self._pos]
        if payload.startswith(b"ERR "):
            raise OriginError(f"the origin refuses: {printable(payload[4:])}")
        return payload

    def lines(self) -> Iterator[bytes]:
        """Yield payloads up to the next flush or delimiter, without their line ends."""
        while (payload := self.read()) is not None:
            yield payload[:-1] if payload.endswith(b"\n") else payload

    def pack(self, sink: Callable[[bytes], None], progress: Callable[[bytes], None] = lambda _: None) -> None:
        """Pass a side-band pack to `sink`, in pieces as large as have come.

        Raises:
            OriginError: the origin reports a failure, or breaks off.
        """
        parts: list[bytes] = []
        held = 0
        while True:
            if parts and (held > _GATHER or len(self._data) - self._pos < 4):
                sink(b"".join(parts) if len(parts) > 1 else parts[0])
                parts, held = [], 0
            self._left = _MAX_PACKET
            payload = self.read()
            if payload is None:
                break
            band = payload[:1]
            if band == b"\1":
                parts.append(payload[1:])
                held += len(payload)
            elif band == b"\2":
                progress(payload[1:])
            elif band == b"\3":
                raise OriginError(f"the origin failed: {printable(payload[1:])}")
            elif payload:
                raise OriginError("the origin sent a pack on an unknown side band")
        if parts:
            sink(b"".join(parts))

    def raw(self, sink: Callable[[bytes], None]) -> None:
        """Pass all bytes to `sink`: a pack from a server without side bands."""
        if self.buffered:
            sink(self._data[self._pos :])
            self._data, self._pos = b"", 0
        while piece := self._receive():
            sink(piece)


_GATHER: Final = 512 << 10
