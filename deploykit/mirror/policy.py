"""Which of the planned changes to make, once the objects are here: history, age, what a branch may point to.

Rules: asks the objects through one narrow reader; a refused change leaves its ref where it was and says why; what
nothing forbids is allowed.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Iterable
from typing import Final

import attrs

from deploykit.mirror.oids import COMMIT, TAG
from deploykit.mirror.packformat import Found, commit_links, tag_link
from deploykit.mirror.values import RefChange, Refusal
from deploykit.names import ObjectId
from deploykit.settings import MirrorSettings

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


def judge(
    changes: Iterable[RefChange],
    settings: MirrorSettings,
    history: History,
    is_commit: Callable[[bytes], bool],
    unsigned: Callable[[str, ObjectId], str] = lambda _ref, _oid: "",
) -> tuple[tuple[RefChange, ...], tuple[Refusal, ...]]:
    """Split changes into those to make and those refused.

    Args:
        changes: what is planned.
        settings: the policies.
        history: the commits, to be looked into.
        is_commit: tells a commit from any other object.
        unsigned: why a ref may not move to an object for want of a signature; empty when it may.
    """
    allowed: list[RefChange] = []
    refused: list[Refusal] = []
    for change in changes:
        reason = _objection(change, settings, history, is_commit)
        if not reason and change.kind != "deleted":
            reason = unsigned(change.ref, change.new)
        if reason:
            refused.append(Refusal(change.ref, change.old, change.new, reason))
        else:
            allowed.append(change)
    return tuple(allowed), tuple(refused)


def _objection(
    change: RefChange, settings: MirrorSettings, history: History, is_commit: Callable[[bytes], bool]
) -> str:
    """Why not to make a change; empty when there is no reason."""
    if change.kind == "deleted":
        return ""
    is_branch = change.ref.startswith("refs/heads/")
    if is_branch and not is_commit(bytes.fromhex(change.new)):
        return f"a branch that is not a commit ({change.new})"
    strict = settings.non_fast_forward == "refuse"
    if change.kind != "moved" or not (strict or settings.never_older):
        return ""
    if strict and not is_branch:
        return "a tag moved, and non_fast_forward says refuse"
    return _rewritten(change, history, strict=strict)


def _rewritten(change: RefChange, history: History, *, strict: bool) -> str:
    old, new = (history.peel(bytes.fromhex(oid)) for oid in (change.old, change.new))
    if history.contains(new, old):
        return ""
    if strict:
        return "history was rewritten, and non_fast_forward says refuse"
    if history.when(new) < history.when(old) or history.contains(old, new):
        return "it would go back to an older commit, and never_older is set"
    return ""
