"""A STOMP client for tests that hides nothing: one socket, frames in and out, each wait with a deadline."""

from __future__ import annotations

import socket
import time
from types import TracebackType
from typing import Self

from deploykit.broker.frames import FrameLimits, FrameParser, StompFrame, encode_frame


class RawStomp:
    """A connection to a broker on loopback. `received` keeps what the last waits passed over."""

    def __init__(self, port: int, version: str = "1.2", timeout: float = 60.0) -> None:
        self.version = version
        self.timeout = timeout
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.bytes_read = 0
        self.passed: list[StompFrame] = []
        self._parser = FrameParser(FrameLimits(max_body=64 * 1024 * 1024), version)
        self._receipts = 0

    @classmethod
    def connected(cls, port: int, version: str = "1.2", **headers: str) -> Self:
        """Return a client that is logged in; `_` in header names stands for `-`."""
        client = cls(port, version)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        offer = {} if version == "1.0" else {"accept-version": version, "host": "/"}
        try:
            client.send("CONNECT", **{**offer, **named})
            answer = client.frame()
            assert answer.command == "CONNECTED", (answer, dict(answer.headers), answer.body)
            assert answer.headers["version"] == version
        except BaseException:
            client.close()
            raise
        return client

    def send(self, command: str, body: bytes = b"", /, **headers: str) -> None:
        """Send a frame; `_` in header names stands for `-`."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.raw(encode_frame(StompFrame(command=command, headers=named, body=body), self.version))

    def raw(self, data: bytes) -> None:
        """Send bytes."""
        self.socket.sendall(data)

    def ask(self, command: str, body: bytes = b"", /, **headers: str) -> None:
        """Send a frame with a receipt and wait for it; MESSAGE frames that come before are kept in `passed`."""
        self._receipts += 1
        name = f"r{self._receipts}"
        self.send(command, body, receipt=name, **headers)
        while True:
            frame = self._read(self.timeout)
            if frame.command == "RECEIPT" and frame.headers["receipt-id"] == name:
                return
            assert frame.command != "ERROR", (dict(frame.headers), frame.body)
            self.passed.append(frame)

    def frame(self, timeout: float | None = None) -> StompFrame:
        """Return the next frame, or fail."""
        return self.passed.pop(0) if self.passed else self._read(self.timeout if timeout is None else timeout)

    def message(self) -> StompFrame:
        """Return the next frame, which must be a MESSAGE."""
        frame = self.frame()
        assert frame.command == "MESSAGE", (frame.command, dict(frame.headers), frame.body)
        return frame

    def error(self) -> StompFrame:
        """Return the next frame, which must be an ERROR after which the broker closes."""
        frame = self.frame()
        assert frame.command == "ERROR", (frame.command, dict(frame.headers))
        assert self.ended()
        return frame

    def silent(self, seconds: float = 0.15) -> bool:
        """Tell whether no frame comes for a while."""
        try:
            self.passed.append(self.frame(seconds))
        except TimeoutError:
            return True
        return False

    def beats(self, timeout: float = 60.0) -> bool:
        """Tell whether a heart-beat comes within the timeout, and nothing but heart-beats until then."""
        before, deadline = self.bytes_read, time.monotonic() + timeout
        while self.bytes_read == before and time.monotonic() < deadline:
            if not self.silent(0.05):
                return False
        return self.bytes_read > before

    def ended(self) -> bool:
        """Tell whether the broker closes within the timeout; what it still sends is thrown away."""
        self.socket.settimeout(self.timeout)
        try:
            while self.socket.recv(65536):
                pass
        except TimeoutError:
            return False
        except OSError:
            pass
        return True

    def ack(self, message: StompFrame, command: str = "ACK", /, **headers: str) -> None:
        """Acknowledge (or NACK) a message as this version does it, with a receipt."""
        if self.version == "1.2":
            self.ask(command, id=message.headers["ack"], **headers)
        elif self.version == "1.1":
            names = {"message_id": message.headers["message-id"], "subscription": message.headers["subscription"]}
            self.ask(command, **names, **headers)
        else:
            self.ask(command, message_id=message.headers["message-id"], **headers)

    def _read(self, timeout: float) -> StompFrame:
        deadline = time.monotonic() + timeout
        while True:
            frame = self._parser.next_frame()
            if frame is not None:
                return frame
            self.socket.settimeout(max(0.001, deadline - time.monotonic()))
            data = self.socket.recv(65536)
            if not data:
                raise ConnectionError("the broker closed the connection")
            self.bytes_read += len(data)
            self._parser.feed(data)

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
