"""Values as columns hold them: times as microseconds, texts that every database takes, JSON. Pure."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from json.encoder import encode_basestring_ascii
from typing import Any, Final, TypeAlias

#: One row by column names. Its values are of as many types as there are columns.
Row: TypeAlias = dict[str, Any]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
#: PostgreSQL takes no NUL, and no driver half of a surrogate pair.
_REFUSED: Final = re.compile("[\x00\ud800-\udfff]")
#: Keeps `order_of` positive for every time there is.
_ORDER_BASE: Final = 10**17
#: Characters of an ordinary text that are kept.
TEXT: Final = 4000


def micros(time: datetime) -> int:
    """Return microseconds since 1970 of an aware time."""
    return (time - _EPOCH) // _MICROSECOND


def micros_or_none(time: datetime | None) -> int | None:
    """Return microseconds since 1970; None for None."""
    return None if time is None else micros(time)


def moment(value: int | None) -> datetime | None:
    """Return the aware time of microseconds since 1970; None for None."""
    return None if value is None else _EPOCH + timedelta(microseconds=value)


def moment_of(value: int) -> datetime:
    """Return the aware time of microseconds since 1970."""
    return _EPOCH + timedelta(microseconds=value)


def clean(text: str | None, limit: int = TEXT) -> str:
    """Return a text that every database takes, cut; empty for None.

    >>> clean("a\\x00b")
    'a\\ufffdb'
    """
    if not text:
        return ""
    cut = text[:limit]
    return cut if cut.isprintable() else _REFUSED.sub("\ufffd", cut)


def digest(*parts: object) -> str:
    """Return a short key that is the same for the same parts, and for no others."""
    quoted = ", ".join([encode_basestring_ascii(str(part)) for part in parts])
    return hashlib.blake2b(f"[{quoted}]".encode(), digest_size=16).hexdigest()


@lru_cache(maxsize=8192)
def ref_key(ref: str) -> str:
    """Return the key of a ref: all nodes list the same ones again and again."""
    return digest(ref)


def order_of(time: datetime, id: str) -> str:
    """Return a text that sorts as (time, id): of two messages of one sender the later one is greater."""
    return f"{micros(time) + _ORDER_BASE:018d}:{id}"


def time_of(order: str) -> datetime:
    """Return the time of what `order_of` made."""
    return moment_of(int(order.partition(":")[0]) - _ORDER_BASE)


def packed(value: object) -> str:
    """Return a value as JSON; what JSON does not know becomes text."""
    return json.dumps(value, default=str)


def unpacked_dict(text: str | None) -> dict[str, Any]:
    """Return the JSON object of a column; an empty one where it holds none."""
    found = json.loads(text) if text else {}
    return found if isinstance(found, dict) else {}


def unpacked_list(text: str | None) -> list[Any]:
    """Return the JSON list of a column; an empty one where it holds none."""
    found = json.loads(text) if text else []
    return found if isinstance(found, list) else []


def latest(times: Iterable[int | None]) -> int | None:
    """Return the latest of some times; None where there is none."""
    return max((time for time in times if time is not None), default=None)
