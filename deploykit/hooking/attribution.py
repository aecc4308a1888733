"""Which commits a push brought to each of its refs. Pure: git's listings in, new commits out.

Rules:

* New for a ref that moved: what is reachable from its new commit and not from its old one (`git rev-list OLD..NEW`).
* New for a ref that was created: what no ref of the repository held before the push.
* Both are exact, for any number of refs at once. Each listed commit carries a bit for every ref that reaches it, and
  the bits are counted with whole-number arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from deploykit.messages.source import MAX_COMMITS


class NewCommits(NamedTuple):
    """The commits that a push brought to one ref.

    Args:
        total: the number of all.
        newest: the newest of them, at most as many as asked for.
        borders: the commits just outside: parents of the new ones, or the ref's own tip if nothing is new.
    """

    total: int
    newest: tuple[str, ...]
    borders: frozenset[str]


def attribute(
    listing: Iterable[tuple[str, Sequence[str]]], tips: Sequence[str], most: int = MAX_COMMITS
) -> list[NewCommits]:
    """Return the new commits of each tip.

    Args:
        listing: commits as (id, parents), no parent before all of its children (`git rev-list --date-order`).
        tips: a commit for each ref; they may repeat.
        most: how many of the newest commits to return for each tip, at least one.
    """
    reached: dict[str, int] = {}  # commit -> bits of the tips that reach it; what remains at the end is outside
    for index, tip in enumerate(tips):
        reached[tip] = reached.get(tip, 0) | 1 << index
    planes: list[int] = []  # a counter for each tip, bit by bit: planes[k] holds bit k of all of them
    newest: list[list[str]] = [[] for _ in tips]
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
            index = low.bit_length() - 1
            newest[index].append(oid)
            if len(newest[index]) == most:
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
        NewCommits(
            sum((plane >> i & 1) << k for k, plane in enumerate(planes)), tuple(newest[i]), frozenset(borders[i])
        )
        for i in range(len(tips))
    ]


def parse_listing(raw: bytes) -> list[tuple[str, list[str]]]:
    """Parse what `git rev-list --parents` prints: commits as (id, parents)."""
    lines = raw.decode("ascii", "replace").splitlines()
    return [(words[0], words[1:]) for words in map(str.split, lines) if words]
