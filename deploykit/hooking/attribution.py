"""Which commits a push brought to each of its refs. Pure: what git lists in, answers out.

Meant by it: for a ref that moved, what is reachable from where it is and not from where it was (`git rev-list
OLD..NEW`); for one that was created, what no ref of the repository held before the push. Both exact, for any number of
refs at once: each listed commit carries a bit for every ref that reaches it, and bits are added up by whole numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from deploykit.messages.source import COMMITS_TOLD


class NewCommits(NamedTuple):
    """What one ref was brought.

    `told` are the newest, at most as many as asked for; `total` is the number of all. `borders` are the commits just
    outside: parents of those it was brought, or its own tip if that was there before.
    """

    total: int
    told: tuple[str, ...]
    borders: frozenset[str]


def attribute(
    listing: Iterable[tuple[str, Sequence[str]]], tips: Sequence[str], most: int = COMMITS_TOLD
) -> list[NewCommits]:
    """Give each tip its commits.

    Args:
        listing: commits as (id, parents), no parent before all of its children (`git rev-list --date-order`).
        tips: a commit for each ref; they may repeat.
        most: how many commits to tell of each, at least one.
    """
    reached: dict[str, int] = {}  # commit -> bits of the tips that reach it; what remains at the end is outside
    for place, tip in enumerate(tips):
        reached[tip] = reached.get(tip, 0) | 1 << place
    planes: list[int] = []  # a counter for each tip, bit by bit: planes[k] holds bit k of all of them
    told: list[list[str]] = [[] for _ in tips]
    wanting = (1 << len(tips)) - 1
    for oid, parents in listing:
        mask = reached.pop(oid, 0)
        if not mask:
            continue
        for parent in parents:
            reached[parent] = reached.get(parent, 0) | mask
        carry, k = mask, 0
        while carry:
            if k == len(planes):
                planes.append(0)
            planes[k], carry = planes[k] ^ carry, planes[k] & carry
            k += 1
        hit = mask & wanting
        while hit:
            low = hit & -hit
            place = low.bit_length() - 1
            told[place].append(oid)
            if len(told[place]) == most:
                wanting ^= low
            hit ^= low
    borders: list[list[str]] = [[] for _ in tips]
    for oid, left in reached.items():
        mask = left
        while mask:
            low = mask & -mask
            borders[low.bit_length() - 1].append(oid)
            mask ^= low
    return [
        NewCommits(sum((plane >> i & 1) << k for k, plane in enumerate(planes)), tuple(told[i]), frozenset(borders[i]))
        for i in range(len(tips))
    ]


def parse_listing(raw: bytes) -> list[tuple[str, list[str]]]:
    """Read what `git rev-list --parents` prints."""
    lines = raw.decode("ascii", "replace").splitlines()
    return [(words[0], words[1:]) for words in map(str.split, lines) if words]
