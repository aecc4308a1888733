"""Lists of texts in one column: as JSON, for a text may hold any separator."""

from __future__ import annotations

import json
from collections.abc import Iterable


def join_cell(values: Iterable[str]) -> str:
    """Return texts as one.

    >>> join_cell(["a, b", "c"])
    '["a, b", "c"]'
    """
    return json.dumps(list(values))


def split_cell(text: str) -> tuple[str, ...]:
    """Return the texts in one; none where it holds something else.

    >>> split_cell('["a, b", "c"]')
    ('a, b', 'c')
    """
    try:
        found = json.loads(text or "[]")
    except ValueError:
        return ()
    return tuple(str(each) for each in found) if isinstance(found, list) else ()


__all__ = ["join_cell", "split_cell"]
