"""What goes over a STOMP connection: headers and a body. Bytes only, no meaning.

Rules:

* A frame that `sendable` returns is safe on every STOMP version. STOMP 1.0 has no escaping, and brokers disagree on
  when they undo it. So a header that would need it (CR, LF, NUL, colon, backslash) is refused on the way out.
* What comes in is taken as it is: headers of a received frame are hints, the body counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

import attrs

from deploykit.errors import MessageError

#: Headers that the bus or the STOMP connection sets itself. The bus refuses any frame that brings one, and drops them
#: from a received frame that it sends on.
CONNECTION_HEADERS: Final = frozenset(
    {
        "destination",
        "receipt",
        "transaction",
        "content-length",
        "login",
        "passcode",
        "host",
        "heart-beat",
        "accept-version",
        "client-id",
        "id",
        "ack",
        "subscription",
        "message-id",
        "receipt-id",
    }
)
#: Headers that our own frames never set: those above, and those that a broker sets or checks. A broker would refuse the
#: frame (RabbitMQ: `user-id`), replace the value, or deliver it otherwise. The bus itself lets the latter pass: it also
#: sends frames that others made.
RESERVED_HEADERS: Final = CONNECTION_HEADERS | {
    "redelivered",
    "selector",
    "server",
    "session",
    "timestamp",
    "user-id",
    "version",
}

#: A copy of the message's id. Never trusted: it is for brokers' consoles and people, and by it copies of one frame are
#: known. The original's programs set none.
ID_HEADER: Final = "deploykit-id"
#: Bytes of all header lines together. ActiveMQ closes a connection at a header line of 10 KiB.
MAX_HEADERS: Final = 8 * 1024
#: Newer versions of RabbitMQ close a connection without an ERROR at 100 headers; a bus adds a few.
MAX_HEADER_COUNT: Final = 90

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z").match
_SURROGATE = re.compile(r"[\ud800-\udfff]").search
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9._~!$&'()*+,;=@/-]")


@attrs.frozen(slots=True)
class Frame:
    """Headers and body of one SEND or MESSAGE. The body is not shown in `repr`: it may hold what must not be logged."""

    headers: Mapping[str, str]
    body: bytes = attrs.field(repr=False)


def sendable(frame: Frame) -> Frame:
    """Return the frame if it may be sent as it is.

    Raises:
        MessageError: a header's name or value could break out of its line, is reserved, or is too long.
    """
    headers = frame.headers
    if not _all_sendable_names(tuple(headers)) or not _safe(headers.values()) or headers_size(headers) > MAX_HEADERS:
        raise _refusal(headers)
    return frame


def headers_size(headers: Mapping[str, str]) -> int:
    """Return the bytes of all header lines, each with its colon and line end.

    >>> headers_size({"subject": "h\N{LATIN SMALL LETTER E WITH ACUTE}"})
    12
    """
    together = "".join(headers) + "".join(headers.values())
    return 2 * len(headers) + (len(together) if together.isascii() else len(together.encode("utf-8", "surrogatepass")))


def _safe(values: Iterable[str]) -> bool:
    try:
        together = "\x01".join(values)  # refuses anything but texts
    except TypeError:
        return False
    return not _unsafe(together)


def _unsafe(text: str) -> bool:
    """Return whether a value could end its header line, be read as an escape, or not be encoded at all."""
    # Five searches for one character each cost less than one for any of five.
    if "\n" in text or ":" in text or "\\" in text or "\r" in text or "\x00" in text:
        return True
    return not text.isascii() and _SURROGATE(text) is not None


def _refusal(headers: Mapping[str, object]) -> MessageError:
    for name, value in headers.items():
        if not _is_sendable_name(name):
            if str(name).lower() in RESERVED_HEADERS:
                return MessageError(f"header {name} is reserved", "STOMP, the broker or the bus client sets it")
            return MessageError(f"header {ascii(name)[:80]} cannot be sent", "names are letters, digits, . _ and -")
        if not isinstance(value, str):
            return MessageError(f"header {name} cannot be sent", "its value is not text")
        if _unsafe(value):
            return MessageError(f"header {name} cannot be sent", "it holds CR, LF, NUL, a colon or a backslash")
    return MessageError(f"headers are longer than {MAX_HEADERS} bytes together", "put long texts into the body")


@lru_cache(maxsize=64)
def _all_sendable_names(names: tuple[str, ...]) -> bool:
    """Return whether all header names may be sent; cached, as senders use a few sets of names again and again."""
    return all(map(_is_sendable_name, names))


def _is_sendable_name(name: object) -> bool:
    return isinstance(name, str) and _NAME(name) is not None and name.lower() not in RESERVED_HEADERS


def header_text(text: str) -> str:
    """Return a human line as a header value: colons and backslashes replaced, still readable.

    >>> header_text("[app] main moved: Fix: 10:30 is not a time")
    '[app] main moved - Fix - 10.30 is not a time'
    """
    if ":" in text:
        text = text.replace(" : ", " - ").replace(": ", " - ").replace(":", ".")
    return text.replace("\\", "/")


def quoted(text: str) -> str:
    """Return an id as a header value, injectively: anything but plain ASCII becomes `%XX`.

    >>> quoted("urn:uuid:42"), quoted("a%b")
    ('urn%3Auuid%3A42', 'a%25b')
    """
    if not _NOT_PLAIN.search(text):
        return text
    return _NOT_PLAIN.sub(lambda hit: "".join(f"%{b:02X}" for b in hit[0].encode("utf-8", "surrogatepass")), text)
