"""Words as a person types them (`commit_count=3`, `audience=web-1,web-2`, `expires=+10m`) to a message. Pure.

The words become the event that another client would send, and the same decoder reads it, with the same errors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from deploykit.errors import MessageError, UsageError
from deploykit.messages import Message, new_id
from deploykit.wire import field_types
from deploykit.wire.decoder import read_event
from deploykit.wire.field_types import FieldType, Leaf, ListOf, Maybe
from deploykit.wire.strictjson import parse
from deploykit.wire.times import format_time, parse_time

_AHEAD = re.compile(r"\+([0-9]{1,9})([smhd]?)\Z")
_SECONDS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def message_from_words(
    cls: type[Message],
    words: Sequence[str],
    *,
    now: datetime,
    data: Mapping[str, Any] | None = None,
    source: str = "operator",
    correlation_id: str = "",
    id: str = "",
) -> Message:
    """Return the message of a class that the words describe.

    Args:
        cls: the message's class.
        words: `field=value` each; they win over `data`. A text stands as it is. A list is JSON, or texts with commas
            between. A time is RFC 3339, or `+10m` from now (s, m, h, d). Anything else is JSON.
        now: the message's time, and what `+10m` counts from.
        data: fields as JSON has them.

    Raises:
        UsageError: a word is not `field=value`, or there is no such field; the text names the fields.
        MessageError: a value is not acceptable, or a field is missing.
    """
    known = {field.name: field for field in field_types.fields(cls)}
    values: dict[str, Any] = dict(data or {})
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or name not in known:
            raise UsageError(
                f"{ascii(word)[:60]} is not a field of {cls.__name__}", f"write field=value; fields: {', '.join(known)}"
            )
        values[name] = _value(known[name].type, name, value, now)
    event = {"id": id or new_id(), "source": source, "time": format_time(now), "data": values}
    return read_event(cls, event | ({"correlationid": correlation_id} if correlation_id else {}))


def _value(kind: FieldType, name: str, text: str, now: datetime) -> object:
    if isinstance(kind, Maybe):
        return None if text == "null" else _value(kind.item, name, text, now)
    if isinstance(kind, Leaf) and kind.check is parse_time and (ahead := _AHEAD.match(text)):
        try:
            return format_time(now + timedelta(seconds=int(ahead[1]) * _SECONDS[ahead[2]]))
        except OverflowError:
            raise UsageError(f"{name}: {text} is after the year 9999", "use a shorter time") from None
    if not text.isascii() and text != text.encode("utf-8", "replace").decode():
        raise UsageError(f"{name}: the value is not UTF-8", "messages hold UTF-8 only")
    if _is_text(kind):
        return text
    if isinstance(kind, ListOf) and _is_text(kind.item) and not text.startswith("["):
        return [part.strip() for part in text.split(",") if part.strip()]
    try:
        return parse(text.encode("utf-8", "surrogateescape"))
    except MessageError as e:
        raise UsageError(f"{name}: {e.problem.replace('body', 'the value')}", "this field takes JSON") from None


def _is_text(kind: FieldType) -> bool:
    return isinstance(kind, Leaf) and (kind.schema.get("type") == "string" or "enum" in kind.schema)
