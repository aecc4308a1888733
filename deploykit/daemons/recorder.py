"""What of the messages on the bus is recorded: each once, and none that may hold a password with its body."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import datetime
from typing import Final

from deploykit.bus import Delivery
from deploykit.fleet.recordformat import RecordedMessage
from deploykit.fleet.recordwriter import RecordWriter
from deploykit.messages import AccessGrantRequested, AccessRevokeRequested, Message, utc_now
from deploykit.messages.topics import TopicMap

#: Deliveries that are remembered, so that one that comes for another attempt is not recorded again.
_REMEMBERED: Final = 1000


class MessageRecorder:
    """Records deliveries. Used under a lock of its owner.

    Args:
        writer: the log.
        now: the wall clock, aware UTC.
    """

    def __init__(self, writer: RecordWriter, *, now: Callable[[], datetime] = utc_now) -> None:
        self._writer = writer
        self._now = now
        self._waiting: dict[bytes, None] = {}

    def record(self, delivery: Delivery, message: Message | None, topics: TopicMap) -> None:
        """Append a delivery to the log. Another attempt of the same delivery in this process is not appended again.

        Args:
            delivery: as it came.
            message: what it holds; None for what is no message.
            topics: which destination holds passwords.
        """
        digest = hashlib.sha256(f"{delivery.epoch}\0{delivery.message_id}\0{delivery.destination}\0".encode())
        digest.update(delivery.body)
        key = digest.digest()
        if delivery.attempt > 1 and key in self._waiting:
            return
        self._waiting[key] = None
        if len(self._waiting) > _REMEMBERED:
            del self._waiting[next(iter(self._waiting))]
        secret = isinstance(message, AccessGrantRequested | AccessRevokeRequested) or (
            message is None and delivery.destination == topics.access
        )
        self._writer.write(
            RecordedMessage(
                received=self._now(),
                destination=delivery.destination,
                headers=delivery.headers,
                body=b"" if secret else delivery.body,
                left_out="it may hold a password" if secret else "",
            )
        )
