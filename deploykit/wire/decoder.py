"""Parsed CloudEvents to messages. A valid one is read by functions made once for its class; see `quickreader`.

What those refuse is read again by `explaining`, which finds all problems. So valid messages do not pay for
explanations, and a process that gets no others never loads cattrs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar, cast

from deploykit.errors import DeploykitError, MessageError
from deploykit.messages import Message
from deploykit.wire import field_types
from deploykit.wire.envelope import OWN, extensions_of, is_json_media
from deploykit.wire.quickreader import check_extensions, fields_reader, thread, unknown_fields
from deploykit.wire.times import parse_time

M = TypeVar("M", bound=Message)
_Reader: TypeAlias = Callable[[dict[str, Any], dict[str, Any]], Any]


def read_event(cls: type[M], event: dict[str, Any]) -> M:
    """Return the message that a parsed CloudEvent of the type of `cls` holds.

    Raises:
        MessageError: it is no such message; `problems` has everything that is wrong, each with its path.
    """
    data = event.get("data")
    if data.__class__ is not dict or "data_base64" in event or not is_json_media(event.get("datacontenttype")):
        raise MessageError(f"{cls.TYPE}: data: expected a JSON object", "datacontenttype says JSON, or nothing")
    known, never, read = _reader(cls)
    if never and not never.isdisjoint(data):
        raise MessageError(
            f"{cls.TYPE}: {', '.join(sorted(never))}: never on this wire", "the sender must leave it out"
        )
    try:
        arguments: dict[str, Any] = {
            "id": field_types.identifier(event.get("id")),
            "source": field_types.reference(event.get("source")),
            "time": parse_time(event.get("time")),
            "correlation_id": thread(event.get("correlationid")),
        }
        if not known.issuperset(data):
            arguments["extra"] = unknown_fields(data, known)
        if not OWN.issuperset(event):
            arguments["extensions"] = check_extensions(extensions_of(event))
        return cast(M, read(data, arguments))
    except (DeploykitError, KeyError, TypeError, ValueError, AttributeError):
        from deploykit.wire.explaining import explained

        raise explained(cls, event, data) from None


@field_types.per_class
def _reader(cls: type) -> tuple[frozenset[str], frozenset[str], _Reader]:
    """Return the names of the fields of `data`, those that must not be there, and what reads the fields."""
    known = frozenset(f.name for f in field_types.fields(cls))
    return known, field_types.never_written(cls), fields_reader(cls)


__all__ = ["read_event"]
