"""The meaning of the headers of the embedded broker's frames. Pure: headers in, values out, or `RefusedError`.

Headers of the embedded dialect beyond the STOMP specification:

* SUBSCRIBE to a topic with `durable:true` and `x-queue-name` (else `id`) is a durable subscription of that name, as on
  RabbitMQ; `auto-delete:true` with it is refused. `activemq.subscriptionName`, with `client-id` on CONNECT, means the
  same. UNSUBSCRIBE with either header deletes the durable subscription, with the messages it holds.
* SUBSCRIBE with `prefetch-count`: most unacknowledged messages of this subscription; without it, or with 0, no bound.
* SEND with `persistent:true`: kept in the data directory. With `expires` (milliseconds since the epoch) or `expiration`
  (milliseconds from now): dropped after that; 0 is never.
* NACK with `requeue:true`: back to its place; without it dead-lettered, with `reason`. NACK works on 1.0 as well.
* MESSAGE has `redelivered:true` and `delivery-count` from the second delivery on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from deploykit.broker.frames import StompFrame
from deploykit.broker.routing import QUEUE, TOPIC, RefusedError
from deploykit.broker.state import Session, StoredMessage

#: Set by the broker on MESSAGE, or meant for it alone: never passed on from SEND.
_OURS: Final = frozenset(
    {
        "destination",
        "receipt",
        "transaction",
        "content-length",
        "message-id",
        "subscription",
        "ack",
        "redelivered",
        "delivery-count",
    }
)
_ACK_MODES: Final = frozenset({"auto", "client", "client-individual"})
#: The shortest heart-beat agreed on, in milliseconds.
MIN_BEAT: Final = 50


def ack_mode(headers: Mapping[str, str]) -> str:
    """Return the ack mode of a SUBSCRIBE."""
    mode = headers.get("ack", "auto")
    if mode not in _ACK_MODES:
        raise RefusedError("unknown ack mode", "ack is auto, client or client-individual")
    return mode


def heart_beats(headers: Mapping[str, str]) -> tuple[int, int]:
    """Return (ours, theirs) in milliseconds: what the client asked for, but at least MIN_BEAT."""
    theirs, comma, ours = headers.get("heart-beat", "0,0").partition(",")
    if not (comma and _is_number(theirs, 9) and _is_number(ours, 9)):
        raise RefusedError("bad heart-beat", "heart-beat is two numbers of milliseconds with a comma between")
    return _beat(int(ours)), _beat(int(theirs))


def _beat(milliseconds: int) -> int:
    return max(MIN_BEAT, milliseconds) if milliseconds else 0


def _is_number(text: str, digits: int) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= digits


def error_frame(refused: RefusedError, frame: StompFrame | None) -> StompFrame:
    """Return the ERROR that answers `frame`."""
    headers = {"message": refused.message, "content-type": "text/plain", **refused.headers}
    if frame is not None and "receipt" in frame.headers:
        headers["receipt-id"] = frame.headers["receipt"]
    return StompFrame(command="ERROR", headers=headers, body=(refused.detail or refused.message).encode())


def destination_of(headers: Mapping[str, str]) -> str:
    """Return the destination of a SEND or SUBSCRIBE."""
    text = headers.get("destination", "")
    name = text.removeprefix(QUEUE) if text.startswith(QUEUE) else text.removeprefix(TOPIC)
    if name in ("", text) or len(text) > 512 or not text.isprintable():
        raise RefusedError("bad destination", "a destination is /queue/NAME or /topic/NAME, of at most 512 characters")
    return text


def durable_name(session: Session, headers: Mapping[str, str], destination: str) -> str:
    """Return the durable subscription's name, or "" for one that is not durable."""
    activemq = headers.get("activemq.subscriptionName")
    if activemq is not None:
        if not session.client_id:
            raise RefusedError("no client-id", "activemq.subscriptionName needs a client-id header on CONNECT")
        name = f"{session.client_id}/{activemq}"
    elif headers.get("durable") == "true":
        name = headers.get("x-queue-name") or headers.get("id", "")
        if not name:
            raise RefusedError("no name", "a durable subscription needs x-queue-name or id")
        if destination.startswith(TOPIC) and headers.get("auto-delete") == "true":
            raise RefusedError("contradiction", "durable:true with auto-delete:true would lose messages")
    else:
        return ""
    if destination.startswith(QUEUE):
        return ""  # a queue outlives its consumers anyway
    if len(name) > 512:
        raise RefusedError("bad name", "the name of a durable subscription has at most 512 characters")
    return name


def prefetch_of(headers: Mapping[str, str]) -> int | None:
    """Return how many unacknowledged messages a subscription may have; None is no bound."""
    text = headers.get("prefetch-count")
    if text is None:
        return None
    if not _is_number(text, 9):
        raise RefusedError("bad prefetch-count", "prefetch-count is a number; 0 is no bound")
    return int(text) or None


def message_of(frame: StompFrame, now: float) -> StoredMessage:
    """Return the message that a SEND carries; `now` is in seconds since the epoch."""
    headers = frame.headers
    return StoredMessage(
        destination=destination_of(headers),
        headers={name: value for name, value in headers.items() if name not in _OURS},
        body=frame.body,
        persistent=headers.get("persistent") == "true",
        expires=_expires(headers, now),
    )


def _expires(headers: Mapping[str, str], now: float) -> float | None:
    for name, base in (("expires", 0.0), ("expiration", now)):
        text = headers.get(name)
        if text is None or text == "0":
            continue
        if not _is_number(text, 15):
            raise RefusedError(f"bad {name}", f"{name} is a number of milliseconds")
        return base + int(text) / 1000
    return None
