"""The newest refs of a mirror: what can be deployed from it now. Read only.

Rules:

* A commit's time never changes, so each is read once for as long as a ref names it.
* The time is the committer's, as they wrote it: it orders a list for people and decides nothing.
* What cannot be read in time is left out, and `complete` is false: nobody waits for a mirror of 100,000 refs.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

import attrs

from deploykit.git.commits import History
from deploykit.git.objectformat import COMMIT
from deploykit.git.store import ObjectStore
from deploykit.mirror import layout
from deploykit.mirror.refstore import RefStore
from deploykit.names import ObjectId, RefName


@attrs.frozen(kw_only=True, slots=True)
class RecentRef:
    """A ref of a commit. `seconds` is the committer's time since 1970, 0 where there is none."""

    ref: RefName
    commit: ObjectId
    seconds: int

    @property
    def time(self) -> datetime | None:
        """The committer's time; None where it is none that a calendar has."""
        try:
            return datetime.fromtimestamp(self.seconds, UTC) if self.seconds else None
        except (OverflowError, ValueError, OSError):
            return None


@attrs.frozen(kw_only=True, slots=True)
class RecentRefs:
    """The newest refs of a mirror.

    Args:
        refs: newest first; of one time, by name.
        count: how many refs the mirror has.
        complete: every ref was looked at.
    """

    refs: tuple[RecentRef, ...] = ()
    count: int = 0
    complete: bool = True


class NewestRefs:
    """Reads the newest refs of one mirror, and remembers the times of its commits. One thread at a time.

    Args:
        path: of the mirror; it need not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[ObjectId, tuple[ObjectId, int] | None] = {}

    def read(self, limit: int, *, seconds: float) -> RecentRefs:
        """Return the newest refs.

        Args:
            limit: how many.
            seconds: how long commits may be read.

        Raises:
            MirrorError: the mirror cannot be read.
        """
        if not layout.is_repository(self._path):
            return RecentRefs()
        end = time.monotonic() + seconds
        held = RefStore(self._path).read()
        self._known = {oid: self._known[oid] for oid in held.values() if oid in self._known}
        missing = {oid for oid in held.values() if oid not in self._known}
        if missing:
            kind = layout.read_format(self._path)
            with ObjectStore(self._path, kind) as objects:
                history = History(objects.find, kind.size)
                for oid in missing:
                    if time.monotonic() >= end:
                        break
                    self._known[oid] = _commit_and_time(history, oid)
        found = [
            RecentRef(ref=ref, commit=known[0], seconds=known[1])
            for ref, oid in held.items()
            if (known := self._known.get(oid)) is not None
        ]
        found.sort(key=lambda each: (-each.seconds, each.ref))
        complete = all(oid in self._known for oid in missing)
        return RecentRefs(refs=tuple(found[:limit]), count=len(held), complete=complete)


def _commit_and_time(history: History, oid: ObjectId) -> tuple[ObjectId, int] | None:
    """Return the commit that an object stands for, and its time; None where it is no commit."""
    commit = history.peel(bytes.fromhex(oid))
    found = history.find(commit)
    if found is None or found[0] != COMMIT:
        return None
    return ObjectId(commit.hex()), history.when(commit)
