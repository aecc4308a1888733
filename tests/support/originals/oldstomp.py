"""The original's STOMP client on a plain socket: 1.0, or 1.1 where its settings asked for that."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True)
class OldFrame:
    """A frame as it came."""

    command: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def text(self) -> str:
        """The body."""
        return self.body.decode("utf-8", "replace")


class OldStomp:
    """A connection that is logged in.

    Args:
        address: `stomp://LOGIN:PASSCODE@HOST:PORT`.
        newer: speak 1.1, as the programs with a `stompconnector` did; else 1.0.
    """

    def __init__(self, address: str, *, newer: bool = False) -> None:
        found = urlsplit(address)
        self.newer = newer
        self._socket = socket.create_connection((found.hostname, found.port), timeout=30)
        self._read = b""
        headers = {"login": unquote(found.username or ""), "passcode": unquote(found.password or "")}
        if newer:
            headers |= {"accept-version": "1.1", "host": "/", "heart-beat": "0,0"}
        try:
            self._write("CONNECT", headers)
            answer = self.receive()
            if answer.command != "CONNECTED":
                raise ConnectionError(answer.command)
            self._socket.settimeout(None)
        except BaseException:
            self._socket.close()
            raise

    def send(self, destination: str, body: str, subject: str | None = None) -> None:
        """Send an event: these headers in this order, no receipt, not persistent; a keepalive has no subject. [seen]"""
        data = body.encode()
        headers = {} if subject is None else {"subject": subject}
        headers |= {"destination": destination, "content-length": str(len(data))}
        self._write("SEND", headers | {"content-type": "text/plain; charset=UTF-8"}, data)

    def subscribe(self, destination: str, number: int = 0) -> None:
        """Subscribe, acknowledging nothing, and not durable; the receipt is the test's, to know when it begins."""
        headers = {"destination": destination, "ack": "auto", "receipt": f"r{number}", "id": str(number)}
        self._write("SUBSCRIBE", headers)

    def receive(self) -> OldFrame:
        """Return the next frame.

        Raises:
            ConnectionError: the connection has ended.
        """
        while True:
            self._read = self._read.lstrip(b"\n")
            frame = self._take()
            if frame is not None:
                return frame
            more = self._socket.recv(65536)
            if not more:
                raise ConnectionError("closed")
            self._read += more

    def _take(self) -> OldFrame | None:
        head, blank, rest = self._read.partition(b"\n\n")
        if not blank:
            return None
        command, *lines = head.decode().split("\n")
        headers: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers.setdefault(name, self._decoded(value))
        length = int(headers["content-length"]) if "content-length" in headers else rest.find(b"\0")
        if length < 0 or len(rest) <= length:
            return None
        self._read = rest[length + 1 :]
        return OldFrame(command, headers, rest[:length])

    def _decoded(self, value: str) -> str:
        """Return a header's value; before 1.1 nothing is decoded, so that `\\c` of RabbitMQ stays. [seen]"""
        return value.replace("\\c", ":").replace("\\n", "\n").replace("\\\\", "\\") if self.newer else value

    def _write(self, command: str, headers: dict[str, str], body: bytes = b"") -> None:
        lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
        self._socket.sendall(f"{command}\n{lines}\n".encode() + body + b"\0")

    def close(self) -> None:
        """Say goodbye without waiting for an answer, and close at once. [seen]"""
        try:
            self._write("DISCONNECT", {})
        finally:
            self._socket.close()

    def cut(self) -> None:
        """End it from another thread."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            return


__all__ = ["OldFrame", "OldStomp"]
