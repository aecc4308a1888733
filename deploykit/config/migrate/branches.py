"""Branches that an r10k source does not deploy -> patterns of those that it does. Pure.

Checkouts choose refs by patterns of what is taken, so "none that begins with test" has to be said the other way round:
`[!t]*`, `t`, `t[!e]*`, `te`, … A branch is taken by one of them if, and only if, it begins with none of the prefixes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

#: Beyond so many patterns nobody reads them.
MOST_PATTERNS: Final = 100
_PLAIN = re.compile(r"[A-Za-z0-9_./@+-]+").fullmatch


def refs_without(prefixes: Iterable[str]) -> list[str] | None:
    """Return patterns of all branches that begin with none of the prefixes; None where that cannot be said.

    >>> refs_without(["qa"])
    ['refs/heads/[!q]*', 'refs/heads/q', 'refs/heads/q[!a]*']
    >>> refs_without(["qa", "q"])
    ['refs/heads/[!q]*']
    """
    wanted = set(prefixes)
    if "" in wanted or not all(map(_PLAIN, wanted)):
        return None
    short = {p for p in wanted if not any(p != other and p.startswith(other) for other in wanted)}
    found = [f"refs/heads/{pattern}" for pattern in _patterns(short)]
    return found if len(found) <= MOST_PATTERNS else None


def _patterns(prefixes: set[str]) -> Iterator[str]:
    """Yield the patterns for each way in which a name can leave all of the prefixes."""
    beginnings = sorted({p[:at] for p in prefixes for at in range(len(p))})
    for beginning in beginnings:
        if beginning:
            yield beginning
        following = sorted({p[len(beginning)] for p in prefixes if p.startswith(beginning)} - {"-"})
        dash = "-" if beginning + "-" in {p[: len(beginning) + 1] for p in prefixes} else ""
        yield f"{beginning}[!{''.join(following)}{dash}]*"


__all__ = ["MOST_PATTERNS", "refs_without"]
