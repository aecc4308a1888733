"""A few lines of STOMP on a plain socket, independent of deploykit and of stomp.py.

For readiness probes, and for tests that need a second opinion about what a broker really did. It blocks, it has a
deadline on every read, it knows no heart-beats and no recovery: a connection is used for seconds.
"""

from __future__ import annotations

import re
import socket
import ssl
import time
from collections import deque
from collections.abc import Mapping
from types import TracebackType
from typing import NamedTuple, Self

_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", ":": "\\c"}
_UNESCAPES = {escaped: plain for plain, escaped in _ESCAPES.items()}


def _unescape(text: str) -> str:
    return re.sub(r"\\[\\nrc]", lambda found: _UNESCAPES[found.group()], text)


class RawFrame(NamedTuple):
    """One frame as it came."""

    command: str
    headers: dict[str, str]
    body: bytes


class RawStompError(Exception):
    """The broker sent ERROR, closed the connection, or said nothing in time."""


class RawStomp:
    """One connection. Use as a context manager."""

    def __init__(
        self, port: int, *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None, timeout: float = 30.0
    ) -> None:
        self.timeout = timeout
        self._buffer = b""
        self._early: deque[RawFrame] = deque()  # came while a receipt was waited for
        self._socket: socket.socket = socket.create_connection((host, port), timeout=timeout)
        if tls is not None:
            try:
                self._socket = tls.wrap_socket(self._socket, server_hostname=host)
            except BaseException:
                self._socket.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket, without a DISCONNECT."""
        self._socket.close()

    def send(self, command: str, headers: Mapping[str, str] | None = None, body: bytes = b"") -> None:
        """Send one frame; header values are escaped except on CONNECT."""
        lines = [command]
        for name, value in (headers or {}).items():
            lines.append(f"{name}:{value if command == 'CONNECT' else ''.join(_ESCAPES.get(c, c) for c in value)}")
        self._socket.settimeout(self.timeout)
        self._socket.sendall("\n".join([*lines, "", ""]).encode() + body + b"\0")

    def read(self, timeout: float | None = None) -> RawFrame:
        """Return the next frame, an ERROR too."""
        return self._early.popleft() if self._early else self._read_new(timeout)

    def _read_new(self, timeout: float | None) -> RawFrame:
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        while (frame := self._take()) is None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise RawStompError("no frame in time")
            self._socket.settimeout(left)
            try:
                chunk = self._socket.recv(65536)
            except TimeoutError as error:
                raise RawStompError("no frame in time") from error
            if not chunk:
                raise RawStompError("the broker closed the connection")
            self._buffer += chunk
        return frame

    def expect(self, command: str, timeout: float | None = None) -> RawFrame:
        """Return the next frame if it is `command`, else raise `RawStompError`."""
        return self._checked(self.read(timeout), command)

    def expect_receipt(self, receipt: str, timeout: float | None = None) -> RawFrame:
        """Return this RECEIPT; messages that come before it are kept for `read`."""
        while (frame := self._read_new(timeout)).command == "MESSAGE":
            self._early.append(frame)
        if self._checked(frame, "RECEIPT").headers["receipt-id"] != receipt:
            raise RawStompError(f"expected receipt {receipt}, got {frame.headers['receipt-id']}")
        return frame

    def _checked(self, frame: RawFrame, command: str) -> RawFrame:
        if frame.command != command:
            said = frame.headers.get("message", "") + " " + frame.body.decode(errors="replace")
            raise RawStompError(f"expected {command}, got {frame.command}: {said.strip()[:300]}")
        return frame

    def connect(self, login: str = "", passcode: str = "", **headers: str) -> RawFrame:
        """CONNECT and wait for CONNECTED; without a login none is sent (client certificate)."""
        sent = {"accept-version": "1.0,1.1,1.2", "host": "/", "heart-beat": "0,0"}
        if login:
            sent |= {"login": login, "passcode": passcode}
        self.send("CONNECT", sent | {name.replace("_", "-"): value for name, value in headers.items()})
        return self.expect("CONNECTED")

    def publish(self, destination: str, body: bytes, **headers: str) -> None:
        """SEND a persistent message and wait for the broker's receipt."""
        sent = {"destination": destination, "persistent": "true", "receipt": "sent", "content-length": str(len(body))}
        self.send("SEND", sent | {name.replace("_", "-"): value for name, value in headers.items()}, body)
        self.expect_receipt("sent")

    def subscribe(self, destination: str, **headers: str) -> None:
        """SUBSCRIBE with id 0 and acks by the client (headers may change that)."""
        sent = {"id": "0", "destination": destination, "ack": "client-individual"}
        self.send("SUBSCRIBE", sent | {name.replace("_", "-"): value for name, value in headers.items()})

    def ack(self, message: RawFrame) -> None:
        """ACK one message (STOMP 1.2) and wait until the broker has taken it."""
        self.send("ACK", {"id": message.headers["ack"], "receipt": "acked"})
        self.expect_receipt("acked")

    def _take(self) -> RawFrame | None:
        self._buffer = self._buffer.lstrip(b"\r\n")
        # RabbitMQ ends lines with LF, also on 1.2
        head, blank, rest = self._buffer.partition(b"\n\n")
        if not blank:
            return None
        command, *lines = head.decode().split("\n")
        headers: dict[str, str] = {}
        for line in lines:
            name, _, value = line.rstrip("\r").partition(":")
            headers.setdefault(_unescape(name), _unescape(value))  # of repeated headers the first counts
        if "content-length" in headers:
            size = int(headers["content-length"])
            if len(rest) <= size:
                return None
        elif (size := rest.find(b"\0")) < 0:
            return None
        self._buffer = rest[size + 1 :]
        return RawFrame(command, headers, rest[:size])
