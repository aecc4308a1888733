"""What the outbox needs of others. It knows no bus: any object with these two methods will do."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Protocol

from deploykit.wire.frame import Frame


class Publisher(Protocol):
    """What the relay needs of a bus."""

    def publish_nowait(self, destination: str, frame: Frame) -> Future[None]:
        """Send without waiting; return a future that ends when the broker has confirmed the message.

        Raises:
            WindowFull: there is no room; the message was not sent.
        """
        ...

    def wait_connected(self, timeout: float) -> bool:
        """Wait for a connection, at most `timeout` seconds; return whether there is one."""
        ...
