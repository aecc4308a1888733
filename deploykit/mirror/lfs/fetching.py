"""Have the objects of Git LFS that a mirror's refs need, after a fetch.

Rules:

* Refs move first: what cannot be had is reported, and tried again by the next fetch, whether a ref moved or not.
* A ref is looked at again only after it moved, or while something of it is missing. Its tree is then compared with one
  that has all it needs.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from deploykit.errors import DeploykitError, MirrorCorrupt, RefNotFound, TreeDamaged, TreeError
from deploykit.git.commits import commit_of
from deploykit.git.lfspointer import LfsPointer
from deploykit.git.store import ObjectStore
from deploykit.mirror import layout
from deploykit.mirror.lfs.client import LfsClient
from deploykit.mirror.lfs.endpoint import endpoint_of
from deploykit.mirror.lfs.store import LfsStore
from deploykit.mirror.lfs.wanted import LfsScan, NeededObjects, all_objects, first_of
from deploykit.mirror.model import LfsFetched, LfsGap, MissingLfsObject, Progress, ProgressFn, RefChange
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
        self._began = time.monotonic()
        self._next_progress = self._began
        self._client: LfsClient | None = None
        self._total = 0

    def run(self, refs: Mapping[RefName, ObjectId], changes: Iterable[RefChange]) -> LfsFetched:
        """Fetch what the refs need and the store lacks, and return what came of it.

        Args:
            refs: that the mirror holds now.
            changes: of this fetch; the old objects are still there.

        Raises:
            MirrorCorrupt: a tree is damaged.
        """
        known = self._store.read_complete()
        complete = known & set(refs.values())
        looked_at = {ref: oid for ref, oid in sorted(refs.items()) if oid not in known}
        gaps: list[LfsGap] = []
        missing: dict[LfsPointer, str] = {}
        paths: dict[LfsPointer, bytes] = {}
        if looked_at:
            before = {change.ref: change.old for change in changes if change.old in known}
            needs, unread = self._scan(looked_at, before)
            paths = all_objects(needs.values())
            missing = self._download(self._store.lacking(paths))
            for ref, oid in looked_at.items():
                lacking = first_of(needs[oid], missing) if oid in needs else None
                if lacking is not None:
                    gaps.append(LfsGap(ref, _in_words(*lacking, paths, missing)))
                elif oid in unread:
                    gaps.append(LfsGap(ref, unread[oid]))
                else:
                    complete |= {oid}
        if complete != known:
            self._store.write_complete(complete)
        return LfsFetched(
            objects=self._client.objects if self._client else 0,
            received=self._client.received if self._client else 0,
            missing=tuple(
                MissingLfsObject(path=shown(paths[pointer]), oid=pointer.oid, size=pointer.size, reason=reason)
                for pointer, reason in missing.items()
            ),
            gaps=tuple(gaps),
        )

    # -- which -------------------------------------------------------------------------------------------------------

    def _scan(
        self, refs: Mapping[RefName, ObjectId], before: Mapping[RefName, ObjectId]
    ) -> tuple[dict[ObjectId, NeededObjects], dict[ObjectId, str]]:
        """Return what each tip needs beyond what is there, and why for each that cannot be read."""
        needs: dict[ObjectId, NeededObjects] = {}
        unread: dict[ObjectId, str] = {}
        with ObjectStore(self._path, layout.read_format(self._path)) as objects, LfsScan(objects.store) as scan:
            for ref, oid in refs.items():
                if oid in needs or oid in unread:
                    continue
                try:
                    base = _tree_of(objects, before[ref]) if ref in before else b""
                    tree = _tree_of(objects, oid)
                    needs[oid] = scan.needed(tree, base) if tree else NeededObjects()
                except TreeDamaged as error:
                    raise MirrorCorrupt(error.problem, "run `deploykit mirror check`") from error
                except TreeError as error:
                    unread[oid] = f"Git LFS: {error.problem}"
        return needs, unread

    # -- from where --------------------------------------------------------------------------------------------------

    def _download(self, lacking: Sequence[LfsPointer]) -> dict[LfsPointer, str]:
        """Fetch objects; return why for each that cannot be had."""
        if not lacking:
            return {}
        missing, wanted = self._within_budget(lacking)
        self._total = sum(pointer.size for pointer in wanted)
        settings = self._settings
        limit = Deadline(
            settings.lfs_deadline, stall=settings.stall_timeout, what=f"fetching LFS objects of {self._path.name}"
        )
        try:
            endpoint = endpoint_of(self._url, settings)
            self._client = LfsClient(endpoint, settings, self._store, limit, room=self._room, tick=self._tick)
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
        layout.check_room(
            self._path, min_bytes=self._settings.min_free_bytes + size, min_inodes=self._settings.min_free_inodes
        )

    def _tick(self, received: int) -> None:
        now = time.monotonic()
        if self._progress is not None and now >= self._next_progress:
            self._next_progress = now + _PROGRESS_EVERY
            objects = self._client.objects if self._client else 0
            self._progress(Progress(phase="lfs", received=received, objects=objects, seconds=now - self._began))


def _tree_of(objects: ObjectStore, oid: ObjectId) -> bytes:
    """Return the tree (hex) of what a ref holds; empty where that is no commit."""
    try:
        return bytes(commit_of(objects.store, oid.encode()).tree)
    except RefNotFound:
        return b""


def _in_words(
    first: LfsPointer, count: int, paths: Mapping[LfsPointer, bytes], missing: Mapping[LfsPointer, str]
) -> str:
    what = "an object is missing" if count == 1 else f"{count} objects are missing"
    return f"Git LFS: {what}: {shown(paths[first])}: {missing[first]}"


__all__ = ["LfsFetch"]
