"""Messages cut to what one body may hold: a report of any length arrives, and shows how much of it is missing. Pure.

Rules:

* The measured size of the encoded form decides: a control character takes six bytes, an emoji four.
* All texts of a message share the room: a text shorter than the share stays whole, a longer one is cut to it.
* A cut text keeps more of its end than of its beginning, and a mark between them gives the number of lost characters.
* A list is shortened only where its shortest texts do not fit. Commits lose the last, steps the first.
* Only free texts, and lists of texts or records, are cut: no value that a machine acts on changes. A list with a bound
  of its own is such a value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import attrs

from deploykit.messages.base import Message
from deploykit.wire import field_types
from deploykit.wire.field_types import FieldType, Leaf, ListOf, Maybe, RecordType
from deploykit.wire.strictjson import MAX_BODY, MAX_ITEMS

M = TypeVar("M", bound=Message)

#: Characters of a text that are never cut: names, digests and other short texts among the free ones stay whole.
LEAST: Final = 256


def fitted(message: M, size: Callable[[M], int], limit: int = MAX_BODY) -> M:
    """Return `message`, cut so far that it fits; always the same result for the same message.

    Args:
        size: returns the bytes of a message's encoded form.
        limit: the bytes that it may have.

    The parts that cannot be cut may still be too large: then the result has no lists, and short texts only.

    Raises:
        DeploykitError, TypeError, ValueError: whatever `size` raises for a message that cannot be written at all.
    """
    keep = _most(MAX_ITEMS, 0, lambda many: size(_cut(message, LEAST, many)) <= limit)
    share = _most(MAX_BODY, LEAST, lambda room: size(_cut(message, room, keep)) <= limit)
    cut: M = _cut(message, share, keep)
    return cut


def shortened(text: str, room: int) -> str:
    """Return `text` if it has at most `room` characters; else its beginning and, three times as long, its end.

    >>> shortened("y" * 50 + "the end", 50)
    'yyyy [... 41 characters left out ...] yyyyythe end'
    """
    if len(text) <= room:
        return text
    gap = "\n" if "\n" in text else " "
    # The mark is sized as if all were left out: so its own length does not change the number in it.
    kept = max(0, room - len(_mark(len(text), gap)))
    head = kept // 4
    tail = kept - head
    return f"{text[:head]}{_mark(len(text) - kept, gap)}{text[len(text) - tail :]}"


def _mark(lost: int, gap: str) -> str:
    return f"{gap}[... {lost} characters left out ...]{gap}"


def _most(most: int, least: int, fits: Callable[[int], bool]) -> int:
    """Return the largest number from `least` to `most` that fits; `least` where none does."""
    if most <= least or fits(most):
        return max(most, least)
    low, high = least, most  # `high` does not fit
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _cut(record: Any, room: int, keep: int) -> Any:
    changed: dict[str, object] = {}
    for attribute, field in _own_fields(record.__class__):
        value = getattr(record, field.name)
        cut = _cut_value(field.type, value, room, keep, last=attribute.metadata.get("keeps") == "last")
        if cut is not value:
            changed[field.name] = cut
    return attrs.evolve(record, **changed) if changed else record


def _own_fields(cls: type) -> list[tuple[attrs.Attribute[object], field_types.Field]]:
    by_name = attrs.fields_dict(cls)
    return [(by_name[field.name], field) for field in field_types.fields(cls)]


def _cut_value(kind: FieldType, value: Any, room: int, keep: int, *, last: bool = False) -> Any:
    match kind:
        case Leaf() if _is_free(kind) and isinstance(value, str):
            return _sendable(shortened(value, room))
        case Maybe(item=item) if value is not None:
            return _cut_value(item, value, room, keep)
        case RecordType(cls=cls) if isinstance(value, cls):
            return _cut(value, room, keep)
        case ListOf(item=item, most=None) if isinstance(value, tuple | list) and (
            isinstance(item, RecordType) or _is_free(item)
        ):
            kept = value if len(value) <= keep else value[len(value) - keep :] if last else value[:keep]
            return tuple(_cut_value(item, each, room, keep) for each in kept)
    return value


def _is_free(kind: FieldType) -> bool:
    return isinstance(kind, Leaf) and kind.check is field_types.text


def _sendable(text: str) -> str:
    """Return a text with halves of surrogate pairs (from file names that are not UTF-8) replaced: JSON has none."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text
