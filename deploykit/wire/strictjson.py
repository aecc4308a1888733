"""JSON as messages use it: UTF-8, bounded, and with one meaning only.

Refused:

* a body over the cap, or nesting over the cap (before the parser runs: a stranger must not drive its recursion),
* NaN and infinities in any spelling, and integers that are infinite to a reader with doubles,
* a key given twice, halves of surrogate pairs, UTF-16, a BOM.
"""

from __future__ import annotations

import json
import math
import re
from typing import Final, NoReturn

from deploykit.errors import MessageError

#: Longest body, in bytes. Well below what every broker takes.
MAX_BODY: Final = 1024 * 1024
#: Deepest nesting of lists and objects. Our own messages need 5.
MAX_DEPTH: Final = 64
#: Longest list and largest object.
MAX_ITEMS: Final = 1000
#: Digits of the longest integer: a double still holds it, and reading it is quick whatever Python's own limit is.
MAX_DIGITS: Final = 300

_HUGE: Final = 10**MAX_DIGITS
_FEW: Final = 200
_NOT_OPENERS: Final = bytes(b for b in range(256) if b not in b"[{")
_NOT_STRUCTURE: Final = bytes(b for b in range(256) if b not in b'[]{}"')
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]").search


class _Refused(ValueError):
    """Carries the reason out of the parser's hooks."""


def _pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise _Refused("a key is given twice in one object")
    return out


def _constant(_name: str) -> NoReturn:
    raise _Refused("NaN and Infinity are not JSON")


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise _Refused("a number is too large")
    return value


def _int(text: str) -> int:
    if len(text) > MAX_DIGITS and len(text.lstrip("-")) > MAX_DIGITS:
        raise _Refused("a number is too large")
    return int(text)


_decode = json.JSONDecoder(
    object_pairs_hook=_pairs, parse_constant=_constant, parse_float=_float, parse_int=_int
).decode
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def parse(body: bytes, *, limit: int | None = None) -> object:
    """Return one JSON value.

    Args:
        body: the text.
        limit: bytes of the longest one, where other senders than ours write longer ones.

    Raises:
        MessageError: the bytes are not JSON by the rules above. The error never shows them.
    """
    most = MAX_BODY if limit is None else limit
    if len(body) > most:
        raise MessageError(f"body of {len(body)} bytes is over the limit of {most}")
    # (Measured: stripping all other bytes takes less time than counting two. The regular expression for surrogates
    # takes less than a search for `\\u` first, where many lines end in `\\n`.)
    # Each level opens with one of two bytes, so few of them cannot nest deep: the parser's recursion is then harmless.
    # `within_limits` checks the depth of values that have no class.
    if len(body.translate(None, _NOT_OPENERS)) > _FEW and _too_deep(body):
        raise MessageError(f"body is nested deeper than {MAX_DEPTH} levels")
    try:
        value: object = _decode(body.decode())
        if _SURROGATE(body):
            _encode(value).encode()
    except _Refused as e:
        raise MessageError(f"body is not acceptable JSON: {e}") from None
    except json.JSONDecodeError as e:
        raise MessageError(f"body is not JSON: {e.msg} at character {e.pos}") from None
    except UnicodeDecodeError as e:
        raise MessageError(f"body is not UTF-8 at byte {e.start}") from None
    except UnicodeEncodeError:
        raise MessageError("body is not acceptable JSON: half of a surrogate pair") from None
    except (ValueError, RecursionError):  # a foreign parser's own limit
        raise MessageError("body is not acceptable JSON: a value is too large") from None
    return value


def _too_deep(body: bytes) -> bool:
    """Return whether brackets outside texts nest too deep, up to the first byte that is not JSON."""
    bare = body.replace(rb"\\", b"").replace(rb"\"", b"").translate(None, _NOT_STRUCTURE)
    depth = 0
    for bracket in b"".join(bare.split(b'"')[::2]):
        if bracket in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                return True
        else:
            depth -= 1
    return False


def dump(value: object) -> str:
    """Return one JSON value as compact text.

    Raises:
        MessageError: it holds what JSON cannot express (NaN, bytes, a loop).
    """
    try:
        return _encode(value)
    except (TypeError, ValueError, RecursionError):
        raise MessageError(
            "a value cannot be written as JSON", "texts, numbers, booleans, lists and maps only"
        ) from None


def within_limits(value: object, depth: int = MAX_DEPTH - 4) -> bool:
    """Return whether a value of unknown meaning keeps the caps on lists, maps, numbers and depth, and has text keys."""
    if isinstance(value, dict):
        if depth == 0 or len(value) > MAX_ITEMS:
            return False
        return all(isinstance(k, str) and within_limits(v, depth - 1) for k, v in value.items())
    if isinstance(value, list | tuple):
        return depth > 0 and len(value) <= MAX_ITEMS and all(within_limits(v, depth - 1) for v in value)
    if isinstance(value, int):
        return -_HUGE < value < _HUGE
    return value is None or isinstance(value, str) or (isinstance(value, float) and math.isfinite(value))
