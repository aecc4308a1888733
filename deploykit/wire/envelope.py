"""The envelope of a message: CloudEvents 1.0 attributes, checked and written; and events of types we do not know.

Rule: unknown attributes are kept, but only those that CloudEvents allows: names of lower-case letters and digits,
values that are texts without control characters, booleans or 32-bit integers.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache
from json.encoder import encode_basestring as quote
from typing import TYPE_CHECKING, Final

from deploykit.errors import DeploykitError, MessageError
from deploykit.messages.base import Message
from deploykit.wire import field_types
from deploykit.wire.strictjson import dump, within_limits
from deploykit.wire.times import format_time, parse_time

if TYPE_CHECKING:
    from deploykit.messages.unknown import Unknown

JSON: Final = "application/json"

#: Members of the event that have a meaning here; all others are extensions.
OWN: Final = frozenset(
    {"specversion", "id", "source", "type", "time", "datacontenttype", "correlationid", "data", "data_base64"}
)
_NEVER_EMPTY: Final = frozenset({"subject", "dataschema"})
_NAME = re.compile(r"[a-z0-9]{1,64}\Z").match
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]").search
_JSON_MEDIA = re.compile(r"\s*[a-z]+/(?:json|[a-z0-9.-]+\+json)\s*(?:;|\Z)", re.IGNORECASE).match


def attributes_text(message: Message, wire_type: str) -> str:
    """Return the attributes of a message as JSON, without the braces around the event, with a comma at the end.

    Raises:
        DeploykitError, TypeError: an attribute is not acceptable; `problems_of` names it.
    """
    own_id, thread, more = quote(field_types.identifier(message.id)), "", ""
    if message.correlation_id:
        same = message.correlation_id == message.id
        thread = f'"correlationid":{own_id if same else quote(field_types.identifier(message.correlation_id))},'
    if message.extensions:
        if extension_problems(message.extensions):
            raise MessageError("extensions")
        more = dump(dict(message.extensions))[1:-1] + ","
    return (
        f'"specversion":"1.0","id":{own_id},"source":"{_source_text(message.source)}","type":{_type_text(wire_type)},'
        f'"time":"{format_time(message.time)}",{thread}{more}'
    )


# A program sends the same source each time.
_source_text = lru_cache(maxsize=64)(field_types.reference)


@lru_cache(maxsize=64)
def _type_text(wire_type: str) -> str:
    return quote(field_types.identifier(wire_type))


def extension_problems(extensions: object) -> list[str]:
    """Return a line for each extension that CloudEvents does not allow."""
    if not isinstance(extensions, Mapping):
        return ["extensions: expected a map"]
    return [
        f"{ascii(name)[1:-1][:64]}: expected a CloudEvents attribute (a-z and 0-9; a text, boolean or 32-bit integer)"
        for name, value in extensions.items()
        if not isinstance(name, str) or name in OWN or not _NAME(name) or not _extension_value(name, value)
    ]


def _extension_value(name: str, value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= 8192 and not _CONTROL(value) and not (value == "" and name in _NEVER_EMPTY)
    if name in _NEVER_EMPTY:  # CloudEvents itself defines these two, as texts
        return False
    return isinstance(value, bool) or (isinstance(value, int) and -(2**31) <= value < 2**31)


def problems_of(message: Message) -> list[str]:
    """Return what is wrong with a message's envelope."""
    found = []
    for name, check in (
        ("id", field_types.identifier),
        ("source", field_types.reference),
        ("time", format_time),
    ):
        found += _check(name, check, getattr(message, name))
    if message.correlation_id:
        found += _check("correlation_id", field_types.identifier, message.correlation_id)
    return found + extension_problems(message.extensions)


_EXPECTED: Final = {
    "id": "1 to 255 printable characters",
    "source": "a URI reference of 1 to 255 characters",
    "time": "a time with an offset",
    "correlation_id": "1 to 255 printable characters, or none",
    "type": "1 to 255 printable characters",
    "data": "bytes, or JSON within the limits on depth and length",
    "content_type": "a media type, or none",
}


def _check(name: str, check: Callable[..., object], value: object, shown: str = "") -> list[str]:
    try:
        check(value)
    except (DeploykitError, TypeError, ValueError):
        return [f"{shown or name}: expected {_EXPECTED[name]}"]
    return []


# -- types we do not know ----------------------------------------------------------------------------------------------


def unknown_text(message: Unknown) -> str:
    """Return what follows the attributes of an event of a type we do not know, as JSON.

    Raises:
        MessageError: it cannot be written; `unknown_problems` returns why.
    """
    kind = f'"datacontenttype":{quote(_media(message.content_type))},' if message.content_type else ""
    return kind + _unknown_data_text(message.data)


def _unknown_data_text(data: object) -> str:
    if isinstance(data, bytes):
        return f'"data_base64":"{base64.b64encode(data).decode()}"'
    if not within_limits(data):
        raise MessageError("data")
    return f'"data":{dump(data)}'


def _media(value: object) -> str:
    if not isinstance(value, str) or not value or len(value) > 8192 or _CONTROL(value):
        raise MessageError("content_type")
    return value


def unknown_problems(message: Unknown) -> list[str]:
    """Return what is wrong with an event of a type we do not know, beyond its envelope."""
    found = _check("type", field_types.identifier, message.type) + _check("data", _unknown_data_text, message.data)
    return found + (_check("content_type", _media, message.content_type) if message.content_type else [])


def unknown(event: Mapping[str, object], received: datetime) -> Unknown:
    """Return an event of a type we do not know; without a `time`, which CloudEvents allows, that of its receipt.

    Raises:
        MessageError: it is not a CloudEvent within the limits; `problems` has everything that is wrong.
    """
    found: list[str] = []

    def take(name: str, check: Callable[[object], object], attribute: str = "") -> object:
        value = event.get(attribute or name)
        found.extend(_check(name, check, value, attribute))
        return None if found else check(value)

    data = event.get("data")
    if event.get("data_base64") is not None:
        found += ["data: given twice"] if data is not None else []
        data = _bytes(event["data_base64"], found)
    fields = {
        "type": take("type", field_types.identifier),
        "id": take("id", field_types.identifier),
        "source": take("source", field_types.reference),
        "time": take("time", parse_time) if event.get("time") is not None else received,
        "correlation_id": take("correlation_id", field_types.identifier, "correlationid")
        if event.get("correlationid") is not None
        else "",
        "content_type": take("content_type", _media, "datacontenttype")
        if event.get("datacontenttype") is not None
        else "",
    }
    extensions = extensions_of(event)
    found += extension_problems(extensions)
    if not found and not isinstance(data, bytes):
        found += _check("data", _unknown_data_text, data)
    if found:
        raise MessageError(f"not a CloudEvent we accept: {found[0]}", and_more(found), problems=tuple(found))
    from deploykit.messages.unknown import Unknown

    return Unknown(data=data, extensions=extensions, **fields)  # type: ignore[arg-type]  # checked one by one above


def _bytes(value: object, found: list[str]) -> bytes:
    try:
        return base64.b64decode(value, validate=True)  # type: ignore[arg-type]  # a TypeError is caught, too
    except (TypeError, ValueError, binascii.Error):
        found.append("data_base64: expected base64")
        return b""


def extensions_of(event: Mapping[str, object]) -> dict[str, object]:
    """Return the members we do not know; null means absent (CloudEvents JSON format, 2.2)."""
    return {k: v for k, v in event.items() if k not in OWN and v is not None}


def is_json_media(value: object) -> bool:
    """Return whether a `datacontenttype` is JSON, or absent."""
    return value is None or (isinstance(value, str) and _JSON_MEDIA(value) is not None)


def and_more(found: list[str]) -> str:
    """Return how many problems there are beyond the first, in words; "" if there is no other."""
    rest = len(found) - 1
    return f"and {rest} more mistake{'s' if rest > 1 else ''}" if rest else ""
