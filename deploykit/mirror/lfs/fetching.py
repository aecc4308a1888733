"""Have the objects of Git LFS that a mirror's refs need, after a fetch.

Rules:

* Refs move first: what cannot be had is reported, and tried again by the next fetch, whether a ref moved or not.
* A ref is looked at again only after it moved, or while something of it is missing. Its tree is then compared with one
  that has all it needs.
* Finding out what is needed, and having it, both end by one deadline.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from deploykit.errors import DeploykitError, MirrorError
from deploykit.git.lfspointer import LfsPointer
from deploykit.mirror import layout
from deploykit.mirror.lfs.client import LfsClient
from deploykit.mirror.lfs.endpoint import endpoint_of
from deploykit.mirror.lfs.store import LfsStore
from deploykit.mirror.lfs.tips import needs_of
from deploykit.mirror.model import LfsFetched, MissingLfsObject, Progress, ProgressFn, RefChange
from deploykit.names import ObjectId, RefName
from deploykit.settings.mirror import MirrorSettings
from deploykit.system.deadline import Deadline
from deploykit.trees.names import shown

_PROGRESS_EVERY: Final = 0.1


class LfsFetch:
    """One fetch of objects. The caller holds the lock of the mirror at `path`."""

    def __init__(self, path: Path, url: str, settings: MirrorSettings, progress: ProgressFn | None) -> None:
        self._path = path
        self._url = url
        self._settings = settings
        self._progress = progress
        self._store = LfsStore(path / "lfs")
        self._limit = Deadline(
            settings.lfs_deadline, stall=settings.stall_timeout, what=f"fetching LFS objects of {path.name}"
        )
        self._began = time.monotonic()
        self._next_progress = self._began
        self._client: LfsClient | None = None
        self._total = 0

    def run(
        self,
        refs: Mapping[RefName, ObjectId],
        changes: Iterable[RefChange] = (),
        *,
        head: RefName | None = None,
        commits: Iterable[ObjectId] = (),
    ) -> LfsFetched:
        """Fetch what the refs need and the store lacks, and return what came of it.

        Args:
            refs: that the mirror holds now.
            changes: of this fetch; the old objects are still there.
            head: the default branch: what is new is most like it.
            commits: whose objects are fetched, too.

        Raises:
            MirrorCorrupt: a tree is damaged.
        """
        known = self._store.read_complete()
        ids = [oid for oid in (*(refs[ref] for ref in sorted(refs)), *commits) if oid not in known]
        found = needs_of(self._path, ids, bases=_bases(known, refs, ids, changes, head), tick=self._limit.left)
        missing = self._download(self._store.lacking(found.paths))
        gaps = found.gaps(refs, missing)
        complete = set(refs.values()) - {refs[gap.ref] for gap in gaps}
        if complete != known:
            self._store.write_complete(complete)
        return LfsFetched(
            objects=self._client.objects if self._client else 0,
            received=self._client.received if self._client else 0,
            missing=tuple(
                MissingLfsObject(path=shown(found.paths[pointer]), oid=pointer.oid, size=pointer.size, reason=reason)
                for pointer, reason in missing.items()
            ),
            gaps=gaps,
        )

    def _download(self, lacking: Sequence[LfsPointer]) -> dict[LfsPointer, str]:
        """Fetch objects; return why for each that cannot be had."""
        if not lacking:
            return {}
        missing, wanted = self._within_budget(lacking)
        self._total = len(wanted)
        try:
            self._store.sweep()
            self._client = LfsClient(
                endpoint_of(self._url, self._settings),
                self._settings,
                self._store,
                self._limit,
                room=self._room,
                tick=self._tick,
            )
            missing |= self._client.download(wanted)
        except DeploykitError as error:
            missing |= dict.fromkeys(self._store.lacking(wanted), str(error))
        except OSError as error:
            missing |= dict.fromkeys(self._store.lacking(wanted), str(layout.disk_error(error, self._path)))
        return missing

    def _within_budget(self, lacking: Sequence[LfsPointer]) -> tuple[dict[LfsPointer, str], list[LfsPointer]]:
        """Return why for each object that is too much, and the others."""
        settings = self._settings
        left = settings.lfs_max_bytes - sum(size for _, _, size in self._store.held())
        over: dict[LfsPointer, str] = {}
        wanted: list[LfsPointer] = []
        for pointer in lacking:
            if pointer.size > settings.lfs_max_object_bytes:
                most = settings.lfs_max_object_bytes
                over[pointer] = f"it has {pointer.size} bytes, and lfs_max_object_bytes allows {most}"
            elif pointer.size > left:
                over[pointer] = (
                    f"all objects of the mirror would have more than lfs_max_bytes ({settings.lfs_max_bytes})"
                )
            else:
                left -= pointer.size
                wanted.append(pointer)
        return over, wanted

    def _room(self, size: int) -> None:
        settings = self._settings
        try:
            layout.check_room(self._path, min_bytes=settings.min_free_bytes + size, min_inodes=settings.min_free_inodes)
        except MirrorError as error:  # how much is free differs from fetch to fetch; the problem is the same
            raise MirrorError("the disk has no room for it", error.remedy) from error

    def _tick(self, received: int) -> None:
        now = time.monotonic()
        if self._progress is not None and now >= self._next_progress:
            self._next_progress = now + _PROGRESS_EVERY
            done = self._client.objects if self._client else 0
            self._progress(
                Progress(phase="lfs", received=received, objects=done, total=self._total, seconds=now - self._began)
            )


def _bases(
    known: frozenset[str],
    refs: Mapping[RefName, ObjectId],
    ids: Iterable[ObjectId],
    changes: Iterable[RefChange],
    head: RefName | None,
) -> dict[ObjectId, ObjectId]:
    """Return, for each id, another one to compare it with: one of which everything is there."""
    heads = [refs[head]] if head is not None and head in refs else []
    usual = next((oid for oid in (*heads, *sorted(refs.values())) if oid in known), None)
    bases = dict.fromkeys(ids, usual) if usual is not None else {}
    return {**bases, **{change.new: change.old for change in changes if change.old in known}}


__all__ = ["LfsFetch"]
