"""What a field may hold, read from the type hints of the message classes: one description, three users.

`encoder` makes writers from it, `quickreader` readers, `schema` a JSON Schema; so the three cannot disagree.
A leaf's `check` returns every valid value (parsed, where the wire has another form) and raises for all others.
"""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Annotated, Any, Final, Literal, TypeAlias, TypeVar, Union, cast, get_args, get_origin

import attrs

from deploykit.errors import MessageError
from deploykit.messages.base import Base64, Count, Identifier, Message, PasswordHash, Reference, Seconds, UserName
from deploykit.names import (
    MAX_NAME,
    MAX_REF,
    NODE_PATTERN,
    OBJECT_ID_PATTERN,
    REPO_PATTERN,
    NodeName,
    ObjectId,
    RefName,
    RepoName,
    SiteName,
    all_object_ids,
    parse_node_name,
    parse_object_id,
    parse_ref_name,
    parse_repo_name,
    parse_site_name,
)
from deploykit.wire.strictjson import MAX_ITEMS, within_limits
from deploykit.wire.times import parse_time

T = TypeVar("T")

#: The largest integer that every JSON reader keeps exact.
MAX_COUNT: Final = 2**53 - 1


@attrs.frozen(kw_only=True, slots=True)
class Leaf:
    """A single value: `expected` completes "expected …"; `check` takes what JSON gives."""

    expected: str
    check: Callable[[Any], Any]
    schema: Mapping[str, object]
    #: Returns whether many values are all valid as they are, or raises TypeError; None where no such check exists.
    all_valid: Callable[[Sequence[Any]], bool] | None = None
    #: A valid value is a text that JSON has no need to escape.
    bare: bool = False


@attrs.frozen(kw_only=True, slots=True)
class ListOf:
    """A list of one type; a tuple in Python.

    Args:
        most: how long it may be; None for `MAX_ITEMS`.
    """

    item: FieldType
    most: int | None = None


@attrs.frozen(kw_only=True, slots=True)
class Maybe:
    """A value of one type, or null."""

    item: FieldType


@attrs.frozen(kw_only=True, slots=True)
class RecordType:
    """A nested class with fields of its own."""

    cls: type


FieldType: TypeAlias = Leaf | ListOf | Maybe | RecordType


@attrs.frozen(kw_only=True, slots=True)
class Field:
    """One field of a record.

    Args:
        name: on the wire and in Python.
        required: it must be present.
        unless: the field beside which it must not be present, and without which it must; empty for none.
    """

    name: str
    type: FieldType
    required: bool
    unless: str = ""


#: Fields that stand outside of a record's own part of the wire: in the envelope, or wherever unknown fields stand.
ENVELOPE: Final = ("id", "source", "time", "correlation_id")
CARRIED: Final = ("extra", "extensions")


def per_class(make: Callable[[type], T]) -> Callable[[type], T]:
    """Cache a function of a class; `functools.cache` with types that a checker can follow."""
    return cast("Callable[[type], T]", cache(make))


@per_class
def fields(cls: type) -> tuple[Field, ...]:
    """Return the fields of a message or nested class that stand in its `data`, in the order of their definition."""
    attrs.resolve_types(cls)
    elsewhere = ENVELOPE + CARRIED if issubclass(cls, Message) else CARRIED
    return tuple(_field(a) for a in attrs.fields(cls) if a.name not in elsewhere and not _never(a))


def _field(attribute: attrs.Attribute[object]) -> Field:
    kind, unless = field_type(cast("object", attribute.type)), attribute.metadata.get("unless", "")
    if unless and isinstance(kind, Maybe):  # None in Python, absent on the wire
        kind = kind.item
    return Field(name=attribute.name, type=kind, required=attribute.default is attrs.NOTHING, unless=unless)


def envelope_type(name: str) -> FieldType:
    """Return the type of an attribute of the envelope."""
    attrs.resolve_types(Message)
    return field_type(getattr(attrs.fields(Message), name).type)


@per_class
def never_written(cls: type) -> frozenset[str]:
    """Return the names of the fields that never stand on the native wire."""
    return frozenset(a.name for a in attrs.fields(cls) if _never(a))


@per_class
def absent_by_default(cls: type) -> Mapping[str, object]:
    """Return the fields that stand on the wire only where they differ from their default, and these defaults."""
    return {a.name: a.default for a in attrs.fields(cls) if a.metadata.get("absent")}


def _never(attribute: attrs.Attribute[object]) -> bool:
    return attribute.metadata.get("wire") is False


@cache
def field_type(hint: object) -> FieldType:
    """Return the type that a type hint describes.

    Raises:
        TypeError: a message class has a field that has no form on the wire; a bug in deploykit.
    """
    leaf = _LEAVES.get(hint)
    if leaf is not None:
        return leaf
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated and len(args) == 2 and isinstance(args[1], int):
        inner = field_type(args[0])
        if isinstance(inner, ListOf):
            return attrs.evolve(inner, most=args[1])
    if origin is tuple and len(args) == 2 and args[1] is Ellipsis:
        return ListOf(item=field_type(args[0]))
    if origin in (Union, types.UnionType) and len(args) == 2 and type(None) in args:
        return Maybe(item=field_type(next(a for a in args if a is not type(None))))
    if origin is Literal:
        return _choice(args)
    if isinstance(hint, type) and attrs.has(hint):
        return RecordType(cls=hint)
    raise TypeError(f"no form on the wire for {hint!r}")


# -- leaves ----------------------------------------------------------------------------------------------------------

_REFERENCE = re.compile(r"(?:[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=-]++|%[0-9A-Fa-f]{2})++\Z").match


#: Characters of the base64 of 65,536 bytes.
_MAX_BASE64: Final = 87_384
_BASE64_PATTERN: Final = "[A-Za-z0-9+/]+={0,2}"
_USER_PATTERN: Final = "[A-Za-z0-9._@+][A-Za-z0-9._@+-]{0,63}"
_HASH_PATTERN: Final = r"\$(?:2[aby]|5|6|y)\$[A-Za-z0-9./=$,]{20,250}"
_USER = re.compile(rf"{_USER_PATTERN}\Z")
_HASH = re.compile(rf"{_HASH_PATTERN}\Z")
_BASE64 = re.compile(rf"{_BASE64_PATTERN}\Z")


def text(value: object) -> str:
    """Return any text."""
    if not isinstance(value, str):
        raise MessageError("not a text")
    return value


def identifier(value: object) -> str:
    """Return 1 to 255 printable characters."""
    if not isinstance(value, str) or not 0 < len(value) <= 255 or not value.isprintable():
        raise MessageError("not an identifier")
    return value


def reference(value: object) -> str:
    """Return a URI reference."""
    if not isinstance(value, str) or len(value) > 255 or not _REFERENCE(value):
        raise MessageError("not a URI reference")
    return value


def user_name(value: object) -> str:
    """Return a user name that is safe in every password file."""
    return _matching(_USER, value)


def base64_text(value: object) -> str:
    """Return base64 of the standard alphabet, padded, on one line."""
    text = _matching(_BASE64, value)
    if len(text) > _MAX_BASE64 or len(text) % 4:
        raise MessageError("not acceptable base64")
    return text


def _matching(pattern: re.Pattern[str], value: object) -> str:
    if not isinstance(value, str) or not pattern.match(value):
        raise MessageError("not acceptable")
    return value


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise MessageError("not a boolean")
    return value


def _integer(value: object, least: int = -MAX_COUNT) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= MAX_COUNT:
        raise MessageError("not an integer in range")
    return value


def _count(value: object) -> int:
    if value.__class__ is int and 0 <= value <= MAX_COUNT:  # most of the integers there are
        return value
    return _integer(value, 0)


def _seconds(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= MAX_COUNT:
        raise MessageError("not a duration")
    return float(value)


def _facts(value: object) -> Mapping[str, object]:
    if not isinstance(value, Mapping) or not within_limits(dict(value)):
        raise MessageError("not a bounded map")
    return value


def _choice(choices: tuple[object, ...]) -> Leaf:
    allowed = frozenset(choices)

    def check(value: object) -> object:
        if not isinstance(value, str) or value not in allowed:
            raise MessageError("not one of the choices")
        return value

    return Leaf(
        expected="one of " + ", ".join(map(str, choices)),
        check=check,
        schema={"enum": list(choices)},
        all_valid=allowed.issuperset,
    )


_LEAVES: Final[dict[object, Leaf]] = {
    # Joining refuses anything but texts, at the speed of C.
    str: Leaf(
        expected="a text", check=text, schema={"type": "string"}, all_valid=lambda many: "".join(many) is not None
    ),
    bool: Leaf(expected="true or false", check=_flag, schema={"type": "boolean"}),
    int: Leaf(
        expected="an integer",
        check=_integer,
        schema={"type": "integer", "minimum": -MAX_COUNT, "maximum": MAX_COUNT},
    ),
    Count: Leaf(
        expected="an integer, zero or more",
        check=_count,
        schema={"type": "integer", "minimum": 0, "maximum": MAX_COUNT},
    ),
    Seconds: Leaf(
        expected="a number of seconds, zero or more",
        check=_seconds,
        schema={"type": "number", "minimum": 0, "maximum": MAX_COUNT},
    ),
    datetime: Leaf(
        expected="a time with an offset (RFC 3339)",
        check=parse_time,
        schema={"type": "string", "format": "date-time"},
    ),
    Identifier: Leaf(
        expected="1 to 255 printable characters",
        check=identifier,
        schema={"type": "string", "minLength": 1, "maxLength": 255},
    ),
    Reference: Leaf(
        expected="a URI reference of 1 to 255 characters",
        check=reference,
        schema={"type": "string", "format": "uri-reference", "minLength": 1, "maxLength": 255},
    ),
    UserName: Leaf(
        expected="a user name: 1 to 64 of A-Z a-z 0-9 . _ @ + -, not a dash first",
        check=user_name,
        schema={"type": "string", "pattern": f"^{_USER_PATTERN}$"},
    ),
    PasswordHash: Leaf(
        expected="a password hash: bcrypt ($2b$), SHA-512 ($6$), SHA-256 ($5$) or yescrypt ($y$)",
        check=lambda v: _matching(_HASH, v),
        schema={"type": "string", "pattern": f"^{_HASH_PATTERN}$"},
    ),
    Base64: Leaf(
        expected="base64 of 1 to 65,536 bytes, padded, on one line",
        check=base64_text,
        schema={"type": "string", "pattern": f"^{_BASE64_PATTERN}$", "minLength": 4, "maxLength": _MAX_BASE64},
    ),
    ObjectId: Leaf(
        expected="40 or 64 lower-case hex digits",
        check=parse_object_id,
        schema={"type": "string", "pattern": f"^{OBJECT_ID_PATTERN}$"},
        all_valid=all_object_ids,
        bare=True,
    ),
    RefName: Leaf(
        expected="a full ref name, refs/heads/NAME or refs/tags/NAME",
        check=parse_ref_name,
        schema={"type": "string", "pattern": "^refs/", "maxLength": MAX_REF},
    ),
    RepoName: Leaf(
        expected="a repository name",
        check=parse_repo_name,
        schema={"type": "string", "pattern": f"^{REPO_PATTERN}$", "maxLength": MAX_NAME},
        bare=True,
    ),
    NodeName: Leaf(
        expected="a node name",
        check=parse_node_name,
        schema={"type": "string", "pattern": f"^{NODE_PATTERN}$", "maxLength": MAX_NAME},
        bare=True,
    ),
    SiteName: Leaf(
        expected="a site name",
        check=parse_site_name,
        schema={"type": "string", "pattern": f"^{NODE_PATTERN}$", "maxLength": MAX_NAME},
        bare=True,
    ),
    Mapping[str, object]: Leaf(
        expected=f"a map of at most {MAX_ITEMS} entries",
        check=_facts,
        schema={"type": "object", "maxProperties": MAX_ITEMS},
    ),
}
