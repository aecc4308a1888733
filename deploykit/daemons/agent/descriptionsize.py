"""Descriptions cut to what a body of one may hold. Pure.

Rules:

* A description has at most `MAX_DESCRIPTION` bytes: 50,000 nodes may describe themselves at once.
* What was asked for as a list goes first: refs, then histories. Locks go next: nodes obey them all the same.
* Then other facts than the first go, classes, and sites.
* A list loses its end. What is left of it is as it was, and `cut` has the numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import attrs

from deploykit.messages import NodeDescribed
from deploykit.messages.node import SiteState
from deploykit.wire import body_size

#: Most bytes of a body.
MAX_DESCRIPTION: Final = 64 << 10
#: Longest lists of a message.
_MOST: Final = 1000


@attrs.frozen(slots=True)
class _Part:
    """A list in a description: what it is called, how long it is, and the description with less of it."""

    name: str
    length: Callable[[NodeDescribed], int]
    shortened: Callable[[NodeDescribed, int], NodeDescribed]


def _with_locks(sites: tuple[SiteState, ...], most: int) -> Iterator[SiteState]:
    for site in sites:
        most -= site.lock is not None
        yield site if most >= 0 else attrs.evolve(site, lock=None)


_PARTS: Final = (
    _Part("refs", lambda d: len(d.refs), lambda d, n: attrs.evolve(d, refs=d.refs[:n])),
    _Part(
        "operations of each site",
        lambda d: max((len(site.history) for site in d.sites), default=0),
        lambda d, n: attrs.evolve(d, sites=tuple(attrs.evolve(s, history=s.history[:n]) for s in d.sites)),
    ),
    _Part(
        "locks",
        lambda d: sum(site.lock is not None for site in d.sites),
        lambda d, n: attrs.evolve(d, sites=tuple(_with_locks(d.sites, n))),
    ),
    _Part(
        "facts",
        lambda d: len(d.facts),
        lambda d, n: attrs.evolve(d, facts=dict(list(d.facts.items())[:n])),
    ),
    _Part("classes", lambda d: len(d.classes), lambda d, n: attrs.evolve(d, classes=d.classes[:n])),
    _Part("access", lambda d: len(d.access), lambda d, n: attrs.evolve(d, access=d.access[:n])),
    _Part("protected sites", lambda d: len(d.protects), lambda d, n: attrs.evolve(d, protects=d.protects[:n])),
    _Part("sites", lambda d: len(d.sites), lambda d, n: attrs.evolve(d, sites=d.sites[:n])),
)


def fit_description(described: NodeDescribed, limit: int = MAX_DESCRIPTION) -> NodeDescribed:
    """Return a description, cut so far that its body fits.

    Args:
        described: of any size.
        limit: bytes.

    Raises:
        MessageError: it holds what no reader would accept.
    """
    for part in _PARTS:
        if (length := part.length(described)) > _MOST:
            described = _cut(described, part, _MOST, length)
    for part in _PARTS:
        if body_size(described) <= limit:
            break
        length = part.length(described)
        described = _cut(described, part, _most_that_fit(described, part, length, limit), length)
    return described


def _most_that_fit(described: NodeDescribed, part: _Part, length: int, limit: int) -> int:
    low, high = 0, length  # `high` does not fit; `low` need not either: then the next part is cut, too
    while high - low > 1:
        middle = (low + high) // 2
        if body_size(_cut(described, part, middle, length)) <= limit:
            low = middle
        else:
            high = middle
    return low


def _cut(described: NodeDescribed, part: _Part, kept: int, length: int) -> NodeDescribed:
    if not length:
        return described
    line = f"{part.name}: {kept} of {length}, there is no room for more"
    return attrs.evolve(part.shortened(described, kept), cut=(*described.cut, line))
