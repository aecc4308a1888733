"""Bytes <-> messages: CloudEvents 1.0, structured JSON, one event per frame. Pure.

Rules:

* The body is the message; headers are copies for people and brokers. Only `content-type` is read on the way in.
* For any bytes, `decode` returns a message or raises `MessageError`, in bounded time and memory.
* What `encode` writes, `decode` accepts; what `decode` returns, `encode` accepts, short of the limit on size.
* The first `decode` of a native body loads all message classes, `encode` never does: a push loads only what it uses.

`docs/wire-format.md` is the contract, for writers of other clients.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Final

from deploykit.errors import DeploykitError, MessageError
from deploykit.messages.base import Message, utc_now
from deploykit.wire import encoder, envelope, frame
from deploykit.wire.frame import Frame, header_text, quoted, sendable
from deploykit.wire.strictjson import MAX_BODY, parse

if TYPE_CHECKING:
    from deploykit.messages.unknown import Unknown

CONTENT_TYPE: Final = "application/cloudevents+json"
#: Copies of the event's attributes, for brokers' consoles, selectors and people. Never trusted.
ID_HEADER: Final = frame.ID_HEADER
TYPE_HEADER: Final = "deploykit-type"

_DATA = f'"datacontenttype":"{envelope.JSON}","data":'


def encode(message: Message, *, legacy: bool = False) -> Frame:
    """Return a message as the headers and body of one SEND.

    Args:
        message: any message of `deploykit.messages`.
        legacy: write the original's text format instead, for daemons that were not replaced yet.

    Raises:
        MessageError: a field holds what no reader would accept (`problems` has all of them), the body is over the
            limit, or the original has no form for such a message.
    """
    if legacy:
        from deploykit.wire.legacy import encode_legacy

        return encode_legacy(message)
    try:
        wire_type = message.TYPE or _unknown(message).type
        body = _event_text(message, wire_type).encode()
        subject = header_text(message.summary) or wire_type
    except (DeploykitError, TypeError, ValueError, AttributeError):
        raise _refusal(message) from None
    if len(body) > MAX_BODY:
        raise MessageError(f"message of {len(body)} bytes is over the limit of {MAX_BODY}", "cut its texts or lists")
    own_id, thread = quoted(message.id), message.correlation_id
    headers = {
        "content-type": CONTENT_TYPE,
        "subject": subject,
        ID_HEADER: own_id,
        TYPE_HEADER: _quoted_type(wire_type),
    }
    if thread:
        headers["correlation-id"] = own_id if thread == message.id else quoted(thread)
    return sendable(Frame(headers, body))


def body_size(message: Message) -> int:
    """Return the bytes of a message's body, also where it is over the limit: for a sender with a limit of its own.

    Raises:
        MessageError: a field holds what no reader would accept.
    """
    try:
        return len(_event_text(message, message.TYPE).encode())
    except (DeploykitError, TypeError, ValueError, AttributeError):
        raise _refusal(message) from None


def encode_fitted(message: Message) -> Frame:
    """Return a message as `encode` does, cut where it would be over the limit on size; see `deploykit.wire.fitting`.

    For reports of a program, which may be of any length. Messages of a person and commands are not cut: use `encode`,
    which refuses.

    Raises:
        MessageError: a field holds what no reader would accept, or the parts that cannot be cut are over the limit.
    """
    try:
        return encode(message)
    except MessageError as refusal:
        from deploykit.wire.fitting import fitted  # a push does not need it

        try:
            cut = fitted(message, lambda shorter: len(_event_text(shorter, shorter.TYPE).encode()))
        except (DeploykitError, TypeError, ValueError, AttributeError):
            raise refusal from None
    return encode(cut)


_quoted_type = lru_cache(maxsize=64)(quoted)


def _event_text(message: Message, wire_type: str) -> str:
    if not message.TYPE:
        if wire_type in _by_type():
            raise MessageError("type")
        rest = envelope.unknown_text(_unknown(message))
        return f"{{{envelope.attributes_text(message, wire_type)}{rest}}}"
    data = encoder.record_writer(message.__class__)(message)
    return f"{{{envelope.attributes_text(message, wire_type)}{_DATA}{data}}}"


def _unknown(message: Message) -> Unknown:
    from deploykit.messages.unknown import Unknown

    if not isinstance(message, Unknown):
        raise TypeError(type(message).__name__)
    return message


@cache
def _by_type() -> Mapping[str, type[Message]]:
    """Return every message class by wire type; loaded when the first body is read, as a push uses two of them."""
    from deploykit.messages import BY_TYPE

    return BY_TYPE


def _refusal(message: object) -> MessageError:
    """Return the error for a message that could not be encoded, with all its problems."""
    from deploykit.messages.unknown import Unknown

    name = type(message).__name__
    if isinstance(message, Unknown):
        found = envelope.problems_of(message) + envelope.unknown_problems(message)
        if not found and message.type in _by_type():
            found.append(f"type: {message.type} has a class of its own")
    elif isinstance(message, Message) and message.TYPE:
        found = envelope.problems_of(message) + encoder.problems_of(message)
    else:
        return MessageError(f"a {name} is not a message that can be sent", "see deploykit.messages")
    found = found or ["a text holds half of a surrogate pair"]
    return MessageError(f"{name} cannot be sent: {found[0]}", envelope.and_more(found), problems=tuple(found))


def decode(
    headers: Mapping[str, str], body: bytes, destination: str = "", *, received: datetime | None = None
) -> Message | None:
    """Return the message of one MESSAGE frame, native or in the original's text format.

    Args:
        headers: as they came; only `content-type` matters for a native body.
        body: the exact bytes.
        destination: where it came from; helps to recognize legacy messages, and names their source.
        received: the time of a message that holds none; default now.

    Returns:
        The message; `Unknown` for a CloudEvent of another type; None for a keepalive.

    Raises:
        MessageError: the bytes are no message we accept. Reject them; `problems` has everything that is wrong.
    """
    kind = headers.get("content-type", "")
    if kind == CONTENT_TYPE or _media_type(kind) == CONTENT_TYPE:
        return _decode_native(body, received)
    if _media_type(kind) in ("", "text/plain"):
        from deploykit.wire.legacy import decode_legacy

        return decode_legacy(headers, body, destination, received or utc_now())
    raise MessageError(f"content type {ascii(kind)[:80]} is not one we read", f"expected {CONTENT_TYPE}")


def _media_type(header: str) -> str:
    """Return the media type of a content type; another text if its charset is not UTF-8 or ASCII."""
    media, _, parameters = header.partition(";")
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset" and value.strip().strip('"').lower() not in ("utf-8", "utf8", "us-ascii"):
            return "a charset we do not read"
    return media.strip().lower()


def _decode_native(body: bytes, received: datetime | None) -> Message:
    event = parse(body)
    if not isinstance(event, dict):
        raise MessageError("body is not a JSON object", "expected one CloudEvent; batches are not read")
    if event.get("specversion") != "1.0":
        raise MessageError("specversion: expected 1.0", "the body is not a CloudEvent of a version we read")
    wire_type = event.get("type")
    cls = _by_type().get(wire_type) if isinstance(wire_type, str) else None
    if cls is None:
        return envelope.unknown(event, received or utc_now())
    return _read_event()(cls, event)


@cache
def _read_event() -> Callable[[type[Message], dict[str, Any]], Message]:
    """Return the decoder of native bodies; the first call loads it."""
    from deploykit.wire.decoder import read_event

    return read_event
