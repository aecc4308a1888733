"""Publish one message: a line of text for people, or a whole message as bytes."""

from __future__ import annotations

import socket

from deploykit.bus import Bus
from deploykit.daemons.relay import open_outbox
from deploykit.errors import DialectError, MessageError, UsageError
from deploykit.messages import Message, Notice, one_line
from deploykit.messages.destinations import check_destination
from deploykit.messages.topics import is_for_people, topic_of
from deploykit.settings.node import Settings
from deploykit.trust.signature import BodySigner, sign
from deploykit.wire import Frame, decode, encode
from deploykit.wire.people import frame_for


def frame_of_text(settings: Settings, text: str) -> tuple[Message, Frame]:
    """Return a notice of a line of text, and its frame.

    Raises:
        UsageError: the text is empty, or not UTF-8.
    """
    if not text.strip():
        raise UsageError("the text is empty", 'e.g. deploykit publish "freeze until Monday"')
    if any("\ud800" <= c <= "\udfff" for c in text):
        raise UsageError("the text is not UTF-8", "type it in a UTF-8 terminal")
    message = Notice(source=f"operator/{settings.node or socket.gethostname()}", text=text)
    return message, encode(message)


def frame_of_bytes(body: bytes) -> tuple[Message, Frame]:
    """Return a whole message and its frame. Its bytes stay as they are, so that a signature over them stays good.

    Raises:
        MessageError: the bytes are not a message.
    """
    message = decode({"content-type": "application/cloudevents+json"}, body)
    if message is None:
        raise MessageError("that is a keepalive, not a message")
    return message, Frame(encode(message).headers, body)


def send(
    settings: Settings, message: Message, frame: Frame, *, destination: str | None, now: bool, key: BodySigner | None
) -> str:
    """Queue the frame, or send it at once, and return where it goes.

    Raises:
        UsageError: `destination` is not a destination, or none for what is signed.
        OutboxError: the frame was not queued.
        BusError: the broker did not confirm it.
    """
    target = destination or topic_of(message, settings.topics)
    if not _is_destination(target):
        # A relay would find that much later, and the message would become a dead letter.
        raise UsageError(f"{one_line(target)} is not a destination", "e.g. /topic/NAME or /queue/NAME")
    if isinstance(message, Notice) and (is_for_people(target) or (settings.legacy and not destination)):
        if key is not None:
            problem = f"{one_line(target)} is read by programs that know no signature"
            raise UsageError(problem, "leave out --sign, or name another --destination")
        frame = frame_for(message, target, legacy=True)
    if key is not None:
        frame = sign(frame, key)
    if now:
        with Bus(settings.broker.at_once()) as bus:
            bus.publish(target, frame, timeout=settings.broker.connect_timeout)
    else:
        open_outbox(settings.outbox).put(target, frame)
    return target


def _is_destination(text: str) -> bool:
    try:
        check_destination(text)
    except DialectError:
        return False
    return text.startswith("/")
