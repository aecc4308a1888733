"""A service manager: the socket that a daemon of ours reports to, as systemd has it."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from types import TracebackType
from typing import Self


class FakeManager:
    """Listens at a socket in a directory, or at an abstract name, and keeps what comes, in order."""

    def __init__(self, directory: Path, *, abstract: str = "") -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{abstract}" if abstract else str(directory / "notify"))
        self.address = f"@{abstract}" if abstract else str(directory / "notify")
        self.heard: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._socket.close()

    def receive(self, timeout: float = 0.0) -> bool:
        """Take the next datagram; return whether there was one."""
        self._socket.settimeout(timeout)
        try:
            self.heard.append(self._socket.recv(65536).decode())
        except (TimeoutError, BlockingIOError):
            return False
        return True

    def wait(self, beginning: str, *, after: int = 0, timeout: float = 60.0) -> int:
        """Wait for a message that begins so, from the one of that number on; return the number behind it."""
        end = time.monotonic() + timeout
        while True:
            for number, text in enumerate(self.heard[after:], after):
                if text.startswith(beginning):
                    return number + 1
            assert self.receive(max(0.001, end - time.monotonic())), (beginning, self.heard)

    def wait_status(self, part: str, timeout: float = 60.0) -> None:
        """Wait until the last status has a text in it."""
        end = time.monotonic() + timeout
        while part not in next((text for text in reversed(self.heard) if "STATUS=" in text), ""):
            assert self.receive(max(0.001, end - time.monotonic())), (part, self.heard)

    def all(self) -> list[str]:
        """Everything that came so far."""
        while self.receive():
            pass
        return self.heard
