"""A message made of words, as a person types them: `commit_count=3`, `audience=web-1,web-2`, `expires=+10m`.

Pure: the words become the event another client would send, and are read by the same reader, with the same errors.
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
from deploykit.wire.field_types import Leaf, ListOf, Maybe, Shape, moment_text
from deploykit.wire.strictjson import parse

_AHEAD = re.compile(r"\+([0-9]{1,9})([smhd]?)\Z")
_SECONDS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def make(
    cls: type[Message],
    words: Sequence[str],
    *,
    now: datetime,
    data: Mapping[str, Any] | None = None,
    source: str = "operator",
    correlation_id: str = "",
    id: str = "",
) -> Message:
    """Make a message.

    Args:
        cls: of this class.
        words: `field=value` each. A text stands as it is; a list is JSON, or texts with commas between; a time is
            RFC 3339, or `+10m` from now (s, m, h, d); anything else is JSON. They win over `data`.
        now: the message's time, and what `+10m` counts from.
        data: the fields as JSON has them.

    Raises:
        UsageError: a word is no `field=value`, or there is no such field; the text names those there are.
        MessageError: a value is not acceptable, or a field is missing.
    """
    known = {field.name: field for field in field_types.fields(cls)}
    said: dict[str, Any] = dict(data or {})
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or name not in known:
            raise UsageError(
                f"{ascii(word)[:60]} is not a field of {cls.__name__}", f"write field=value; fields: {', '.join(known)}"
            )
        said[name] = _value(known[name].shape, name, value, now)
    event = {"id": id or new_id(), "source": source, "time": moment_text(now), "data": said}
    return read_event(cls, event | ({"correlationid": correlation_id} if correlation_id else {}))


def _value(shape: Shape, name: str, text: str, now: datetime) -> object:
    if isinstance(shape, Maybe):
        return None if text == "null" else _value(shape.item, name, text, now)
    if isinstance(shape, Leaf) and shape.check is field_types.moment and (ahead := _AHEAD.match(text)):
        try:
            return moment_text(now + timedelta(seconds=int(ahead[1]) * _SECONDS[ahead[2]]))
        except OverflowError:
            raise UsageError(f"{name}: {text} lies after the last year there is", "times end in 9999") from None
    if not text.isascii() and text != text.encode("utf-8", "replace").decode():
        raise UsageError(f"{name}: the value is not UTF-8", "messages are")
    if _is_text(shape):
        return text
    if isinstance(shape, ListOf) and _is_text(shape.item) and not text.startswith("["):
        return [part.strip() for part in text.split(",") if part.strip()]
    try:
        return parse(text.encode("utf-8", "surrogateescape"))
    except MessageError as e:
        raise UsageError(f"{name}: {e.problem.replace('body', 'the value')}", "this field takes JSON") from None


def _is_text(shape: Shape) -> bool:
    return isinstance(shape, Leaf) and (shape.schema.get("type") == "string" or "enum" in shape.schema)
