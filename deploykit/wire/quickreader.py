"""Valid JSON values to messages, quickly: functions made once for each class, from its fields' types.

They stop at the first problem, with an error that nobody sees: `explaining` then reads the same value again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final, TypeAlias, TypeVar

from deploykit.errors import MessageError
from deploykit.names import parse_node_name, parse_ref_name, parse_repo_name, parse_site_name
from deploykit.wire import batch, field_types
from deploykit.wire.envelope import extension_problems
from deploykit.wire.field_types import CARRIED, FieldType, Leaf, ListOf, Maybe
from deploykit.wire.forms import form_problems, forms
from deploykit.wire.strictjson import MAX_ITEMS, within_limits

T = TypeVar("T")
#: Returns the value in Python of a JSON value; raises where it is not valid, or has a field too few.
ValueReader: TypeAlias = Callable[[Any], Any]

_EXTRA: Final = CARRIED[0]
#: Names come again and again. A text that is no name raises, which is not remembered.
_CACHED: Final = (parse_ref_name, parse_repo_name, parse_node_name, parse_site_name)
_NAMES: Final = 4096


def fields_reader(cls: type[T]) -> Callable[[dict[str, Any], dict[str, Any]], T]:
    """Return a function that makes an instance of `cls`.

    It takes the JSON object that holds the fields, and the arguments that come from elsewhere and are checked already.
    Unknown names in the object are ignored.

    Raises (the function): DeploykitError, KeyError, TypeError, ValueError, where a field is missing or not valid.
    """
    fields = field_types.fields(cls)
    required = tuple((f.name, value_reader(f.type)) for f in fields if f.required)
    others = tuple((f.name, value_reader(f.type)) for f in fields if not f.required)
    choices = bool(forms(cls))

    def read(data: dict[str, Any], arguments: dict[str, Any]) -> T:
        if choices and form_problems(cls, data):
            raise MessageError("neither of its forms, or both")
        for name, reader in required:
            arguments[name] = reader(data[name])
        for name, reader in others:
            if name in data:
                arguments[name] = reader(data[name])
        return cls(**arguments)

    return read


def value_reader(kind: FieldType) -> ValueReader:
    """Return the reader of one type."""
    if isinstance(kind, Leaf):
        return lru_cache(maxsize=_NAMES)(kind.check) if kind.check in _CACHED else kind.check
    if isinstance(kind, Maybe):
        item = value_reader(kind.item)
        return lambda value: None if value is None else item(value)
    if isinstance(kind, ListOf):
        return _list_reader(kind)
    return _record_reader(kind.cls)


def _list_reader(kind: ListOf) -> ValueReader:
    item, read_batch = value_reader(kind.item), batch.batch_reader(kind.item)

    def read(values: Any) -> Any:
        check_list(values, kind.most or MAX_ITEMS)
        made = read_batch(values) if read_batch and values else None
        return tuple([item(value) for value in values]) if made is None else made

    return read


def _record_reader(cls: type) -> ValueReader:
    names = frozenset(f.name for f in field_types.fields(cls))
    read_fields: Callable[[dict[str, Any], dict[str, Any]], Any] = fields_reader(cls)

    def read(value: Any) -> Any:
        check_object(value)
        if names.issuperset(value):
            return read_fields(value, {})
        return read_fields(value, {_EXTRA: unknown_fields(value, names)})

    return read


def check_list(values: Any, most: int) -> None:
    """Refuse what is no list, or a longer one."""
    if values.__class__ is not list or len(values) > most:
        raise MessageError(f"expected a list of at most {most}")


def check_object(value: object) -> None:
    """Refuse what is no JSON object."""
    if value.__class__ is not dict:
        raise MessageError("expected an object")


def unknown_fields(data: Mapping[str, object], known: frozenset[str]) -> Mapping[str, object]:
    """Return the members of an object that have no meaning here, within the limits."""
    return check_extra({name: value for name, value in data.items() if name not in known})


def check_extra(value: Mapping[str, object]) -> Mapping[str, object]:
    """Refuse unknown fields that are too deep or too many."""
    if not within_limits(value):
        raise MessageError("unknown fields are over the limits on depth or length")
    return value


def check_extensions(value: Mapping[str, object]) -> Mapping[str, object]:
    """Refuse unknown attributes of the event that CloudEvents does not allow."""
    found = extension_problems(value)
    if found:
        raise MessageError(found[0])
    return value


def thread(value: object) -> str:
    """Return a correlation id; empty where there is none."""
    try:
        return "" if value is None else field_types.identifier(value)
    except MessageError:
        raise MessageError("expected 1 to 255 printable characters, or none") from None


__all__ = [
    "check_extensions",
    "check_extra",
    "check_list",
    "check_object",
    "fields_reader",
    "thread",
    "unknown_fields",
    "value_reader",
]
