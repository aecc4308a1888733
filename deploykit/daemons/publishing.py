"""One message from a person's hand onto the bus."""

from __future__ import annotations

import socket
from pathlib import Path

from deploykit.bus import Bus
from deploykit.errors import MessageError
from deploykit.keys import load_signing_key
from deploykit.messages import Message, Notice
from deploykit.outbox import Outbox
from deploykit.settings import Settings
from deploykit.wire import Frame, decode, encode, topic_of
from deploykit.wire.signature import sign


def frame_of_text(settings: Settings, text: str) -> tuple[Message, Frame]:
    """Make a notice of a line of text."""
    message = Notice(source=f"operator/{settings.node or socket.gethostname()}", text=text)
    return message, encode(message)


def frame_of_bytes(body: bytes) -> tuple[Message, Frame]:
    """Check a whole message and keep its bytes as they are: a signature over them stays good.

    Raises:
        MessageError: it is none.
    """
    message = decode({"content-type": "application/cloudevents+json"}, body)
    if message is None:
        raise MessageError("that is a keepalive, not a message")
    return message, Frame(encode(message).headers, body)


def send(
    settings: Settings, message: Message, frame: Frame, *, destination: str | None, now: bool, key: Path | None
) -> str:
    """Queue the frame, or send it at once, and return where it goes.

    Raises:
        OutboxError, BusError: it was not queued, or the broker did not confirm it.
    """
    target = destination or topic_of(message, settings.topics)
    if key is not None:
        frame = sign(frame, load_signing_key(key))
    if now:
        with Bus(settings.broker) as bus:
            bus.publish(target, frame, timeout=settings.broker.connect_timeout)
    else:
        Outbox(settings.outbox.path).put(target, frame)
    return target
