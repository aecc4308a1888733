"""A message as plain JSON values without its secrets, for `--json`, a console or a log."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import attrs

from deploykit.messages.base import Message
from deploykit.wire.field_types import never_written
from deploykit.wire.times import format_time

#: Fields that are never shown, although some of them stand on the wire.
_SECRET: Final = frozenset({"password_hash", "password"})


def redact(message: Message) -> dict[str, object]:
    """Return a message as JSON values: `type`, `summary`, its fields; times as on the wire, secrets as `***`.

    >>> from deploykit.messages import Notice
    >>> redact(Notice(text="hello"))["type"]
    'deploykit.notice.v1'
    """
    wire_type = message.TYPE or getattr(message, "type", "")  # an `Unknown` has its own; a push need not load it
    shown = {"type": wire_type, "summary": message.summary, **_fields(message)}
    return {k: v for k, v in shown.items() if k not in ("extra", "extensions") or v}


def _fields(record: Any) -> dict[str, object]:
    hidden = _SECRET | never_written(type(record))
    return {
        a.name: "***" if a.name in hidden and getattr(record, a.name) else _value(getattr(record, a.name))
        for a in attrs.fields(type(record))
        if a.name not in hidden or getattr(record, a.name)
    }


def _value(value: object) -> object:
    if isinstance(value, datetime):
        return format_time(value)
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if isinstance(value, Mapping):
        return {str(k): _value(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [_value(v) for v in value]
    if attrs.has(type(value)):
        shown = _fields(value)
        return {k: v for k, v in shown.items() if k != "extra" or v}
    return value
