"""Which commits only one of two histories has, and where the two parted. Pure: commits are read through `History`.

Rules:

* A commit that is marked again passes its new mark on, so a wrong order costs time, not correctness.
* The walk ends when all that is left is common to both and older than whatever only one side has. A committer's clock
  that is years ahead can hide that a commit is common: the walk goes on for some hundred commits against that.
* It reads at most as many commits as allowed; then `complete` is false, and a listed commit may be common to both.
"""

from __future__ import annotations

import heapq
from typing import Final

import attrs

from deploykit.git.commits import History

_NEW: Final = 1
_OLD: Final = 2
_BOTH: Final = 3
#: Reached from a merge base: common, and no merge base itself.
_STALE: Final = 7
#: Common commits that are looked at after the walk seems to be over.
_SLOP: Final = 500
#: Merge bases that are compared with each other. More than two are the work of very crossed merges.
_MOST_BASES: Final = 16


@attrs.frozen(kw_only=True, slots=True)
class HistorySplit:
    """Two histories, taken apart. Ids are binary, the newest first.

    Args:
        only_new, only_old: commits that only this side has.
        bases: the newest commits that both have; none where the two have nothing in common.
        complete: everything was looked at that could matter.
    """

    only_new: tuple[bytes, ...]
    only_old: tuple[bytes, ...]
    bases: tuple[bytes, ...]
    complete: bool


class _Walk:
    def __init__(self, history: History) -> None:
        self._history = history
        self.marks: dict[bytes, int] = {}
        self.order: dict[bytes, int] = {}  # commit -> its time, in the order in which they were first visited
        self._queue: list[tuple[int, int, bytes]] = []
        self._waiting: set[bytes] = set()
        self._pushed = 0
        self.open = 0  # waiting commits that may still change what is returned

    def reach(self, oid: bytes, mark: int) -> None:
        before = self.marks.get(oid, 0)
        after = before | mark
        if after == before:
            return
        self.marks[oid] = after
        if oid in self._waiting:
            if after == _STALE:  # it was none before, or nothing would have changed
                self.open -= 1
            return
        self._waiting.add(oid)
        self._pushed += 1
        heapq.heappush(self._queue, (-self._history.when(oid), self._pushed, oid))
        self.open += after != _STALE

    def visit(self) -> None:
        """Take the newest commit that waits, and mark its parents."""
        when, _, oid = heapq.heappop(self._queue)
        self._waiting.discard(oid)
        mark = self.marks[oid]
        self.open -= mark != _STALE
        self.order.setdefault(oid, -when)
        self._history.tick()
        for parent in self._history.parents(oid):
            self.reach(parent, _STALE if mark & _BOTH == _BOTH else mark)

    @property
    def newest_left(self) -> int | None:
        """The time of the newest commit that waits."""
        return -self._queue[0][0] if self._queue else None

    def only(self, mark: int) -> list[bytes]:
        return [oid for oid in self.order if self.marks[oid] == mark]


def split_history(history: History, new: bytes, old: bytes, *, most: int) -> HistorySplit:
    """Return what each of two commits has in its history and the other has not.

    Args:
        history: reads the commits; its `tick` may raise `TimeoutError` to stop the walk.
        new, old: binary ids of commits.
        most: commits to visit.
    """
    if new == old:
        return HistorySplit(only_new=(), only_old=(), bases=(new,), complete=True)
    walk = _Walk(history)
    walk.reach(new, _NEW)
    walk.reach(old, _OLD)
    complete = _run(walk, most)
    bases = [oid for oid in walk.order if walk.marks[oid] == _BOTH]
    return HistorySplit(
        only_new=tuple(walk.only(_NEW)),
        only_old=tuple(walk.only(_OLD)),
        bases=_newest(history, bases[:_MOST_BASES]),
        complete=complete,
    )


def _run(walk: _Walk, most: int) -> bool:
    """Visit commits until nothing changes any more; return whether that was reached."""
    oldest: int | None = None
    slop = _SLOP
    try:
        while (left := walk.newest_left) is not None:
            if walk.open == 0:  # from here on marks turn to stale only
                if oldest is None:
                    oldest = min((walk.order[oid] for mark in (_NEW, _OLD) for oid in walk.only(mark)), default=left)
                slop -= left <= oldest
                if slop <= 0:
                    return True
            if len(walk.order) >= most:
                return False
            walk.visit()
    except TimeoutError:
        return False
    return True


def _newest(history: History, bases: list[bytes]) -> tuple[bytes, ...]:
    """Leave out each merge base that another one contains: wrong dates can bring both up."""
    try:
        return tuple(b for b in bases if not any(other != b and history.contains(other, b) for other in bases))
    except TimeoutError:
        return tuple(bases)


__all__ = ["HistorySplit", "split_history"]
