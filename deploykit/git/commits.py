"""Commits: when they were made, what they stand on, and which of two contains the other.

Rules: asks the objects through one narrow reader; dates order a walk and never decide it, for committers' clocks are
wrong as often as not, and whoever writes a commit chooses its date.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable
from typing import Final

import attrs

from deploykit.git.objectformat import COMMIT, TAG
from deploykit.git.packformat import Found, commit_links, tag_link

_WHEN: Final = re.compile(rb"^committer .*? (-?\d{1,18}) [+-]\d{4}$", re.MULTILINE)
_MAX_PEELS: Final = 64


@attrs.frozen(slots=True)
class History:
    """Commits, read through `find` (binary id -> kind and bytes, or None); `tick` may raise to stop a long walk."""

    find: Callable[[bytes], Found | None]
    id_size: int
    tick: Callable[[], None] = lambda: None

    def peel(self, oid: bytes) -> bytes:
        """Follow annotated tags to what they stand for."""
        for _ in range(_MAX_PEELS):
            found = self.find(oid)
            if found is None or found[0] != TAG:
                break
            oid = tag_link(found[1], 2 * self.id_size, oid)[1]
        return oid

    def when(self, oid: bytes) -> int:
        """The committer's time of a commit; 0 when it is none, or says none."""
        found = self.find(oid)
        told = _WHEN.search(found[1].partition(b"\n\n")[0]) if found and found[0] == COMMIT else None
        return int(told[1]) if told else 0

    def parents(self, oid: bytes) -> list[bytes]:
        """The parents of a commit; none for anything else."""
        found = self.find(oid)
        if found is None or found[0] != COMMIT:
            return []
        return [link for kind, link in commit_links(found[1], 2 * self.id_size, oid) if kind == COMMIT]

    def contains(self, new: bytes, old: bytes) -> bool:
        """Tell whether `old` is `new` or an ancestor of it.

        Walks from both ends, newest first, until all that is left is common to both: soon, in ordinary histories.
        """
        if new == old:
            return True
        from_new, both = 1, 3
        marks: dict[bytes, int] = {}
        waiting: dict[bytes, int] = {}
        queue: list[tuple[int, bytes]] = []
        open_ends = 0  # entries of the queue that are not known to be common to both

        def reach(oid: bytes, mark: int) -> int:
            before = marks.get(oid, 0)
            after = marks[oid] = before | mark
            if after == before:
                return 0
            heapq.heappush(queue, (-self.when(oid), oid))
            waiting[oid] = waiting.get(oid, 0) + 1
            return 1 - waiting[oid] if after == both else 1

        open_ends = reach(new, from_new) + reach(old, 2)
        while queue and open_ends > 0:
            _, oid = heapq.heappop(queue)
            waiting[oid] -= 1
            if marks[oid] != both:
                open_ends -= 1
            self.tick()
            for parent in self.parents(oid):
                open_ends += reach(parent, marks[oid])
                if parent == old and marks[parent] & from_new:
                    return True
        return False
