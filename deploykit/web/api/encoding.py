"""View classes as JSON, and the tag of an answer. Pure.

Rules:

* Every field is written, also where it is empty: what is absent from an answer does not exist in this version.
* Times are RFC 3339 in UTC with `Z`. A page of a list has `next`: the URL of the page after it, or null.
* The text is ASCII: a string from outside cannot break out of JSON, whatever reads it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import attrs

from deploykit.web.projection.views import Paged

#: Makes the URL of the page after this one from a cursor.
NextUrl = Callable[[str], str]


_FIELDS: dict[type, tuple[str, ...]] = {}


def fields_of(cls: type) -> tuple[str, ...]:
    """Return what is written of a view class: its fields, then its public properties; empty of any other class."""
    names = _FIELDS.get(cls)
    if names is None:
        fields = [field.name for field in attrs.fields(cls)] if attrs.has(cls) else []
        more = [name for name, kind in vars(cls).items() if isinstance(kind, property) and name[0] != "_"]
        names = _FIELDS[cls] = (*fields, *more) if fields else ()
    return names


def plain(value: object, next_url: NextUrl) -> object:  # noqa: PLR0911 - one return for each kind of value
    """Return a value as dicts, lists, texts, numbers and None.

    >>> plain({"at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "x": (1, None)}, str)
    {'at': '2026-01-02T03:04:05Z', 'x': [1, None]}
    """
    match value:
        case float():
            return value if math.isfinite(value) else None
        case str() | bool() | int() | None:
            return value
        case datetime():
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case Paged():
            items = [plain(item, next_url) for item in value.items]
            return {"items": items, "next": next_url(value.next) if value.next else None, "total": value.total}
        case Mapping():
            return {str(key): plain(each, next_url) for key, each in value.items()}
        case list() | tuple():
            return [plain(each, next_url) for each in value]
    names = fields_of(type(value))
    return {name: plain(getattr(value, name), next_url) for name in names} if names else str(value)


def encode(value: object, next_url: NextUrl) -> bytes:
    """Return a value as the body of an answer."""
    return json.dumps(plain(value, next_url), separators=(",", ":")).encode() + b"\n"


def tag_of(body: bytes) -> str:
    """Return the `ETag` of a body."""
    return f'"{hashlib.sha256(body).hexdigest()[:32]}"'


def same_tag(if_none_match: str, tag: str) -> bool:
    """Return whether a reader has the body already, by its `If-None-Match`.

    >>> same_tag('W/"a", "b"', '"b"'), same_tag("*", '"b"'), same_tag('"a"', '"b"')
    (True, True, False)
    """
    given = [each.strip().removeprefix("W/") for each in if_none_match[:4000].split(",")]
    return "*" in given or tag in given


def accepts(header: str, media_type: str) -> bool:
    """Return whether an `Accept` header takes a media type; an empty one takes all.

    >>> accepts("text/html, */*;q=0.1", "application/json"), accepts("text/html", "application/json")
    (True, False)
    >>> accepts("application/json;q=0", "application/json"), accepts("application/*", "application/json")
    (False, True)
    """
    if not header.strip():
        return True
    kind = media_type.partition("/")[0]
    ranks = {media_type: 3, f"{kind}/*": 2, "*/*": 1}
    best, taken = 0, False
    for part in header[:4000].lower().split(","):
        name, *options = (each.strip() for each in part.split(";"))
        rank = ranks.get(name, 0)
        if rank > best:
            best, taken = rank, not any(_is_zero(option) for option in options)
    return taken


def _is_zero(option: str) -> bool:
    name, _, value = option.partition("=")
    return name.strip() == "q" and value.strip().rstrip("0") in ("", "0.", "0")


__all__ = ["NextUrl", "accepts", "encode", "fields_of", "plain", "same_tag", "tag_of"]
