"""What commits of a mirror need of Git LFS, and which refs lack some of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import attrs

from deploykit.errors import DeadlineExceeded, MirrorCorrupt, RefNotFound, TreeDamaged, TreeError
from deploykit.git.commits import commit_of
from deploykit.git.lfspointer import LfsPointer
from deploykit.git.store import ObjectStore
from deploykit.mirror import layout
from deploykit.mirror.lfs.wanted import LfsScan, NeededObjects, all_objects, first_of
from deploykit.mirror.model import LfsGap
from deploykit.names import ObjectId, RefName
from deploykit.trees.names import shown


@attrs.frozen(kw_only=True, slots=True)
class LfsNeeds:
    """What commits need, and tags of commits.

    Args:
        needs: for each id; nothing for what is no commit.
        unread: why, in one line, for each id whose tree was not read whole.
        paths: every object that is needed, with a path of it.
    """

    needs: Mapping[ObjectId, NeededObjects]
    unread: Mapping[ObjectId, str]
    paths: Mapping[LfsPointer, bytes]

    def gaps(self, refs: Mapping[RefName, ObjectId], missing: Mapping[LfsPointer, str]) -> tuple[LfsGap, ...]:
        """Return the refs that cannot be written whole.

        Args:
            refs: those of other ids count as whole.
            missing: why, for each object that is not there.
        """
        found: list[LfsGap] = []
        for ref, oid in sorted(refs.items()):
            lacking = first_of(self.needs[oid], missing) if oid in self.needs else None
            if lacking is not None:
                first, count = lacking
                what = "an object is missing" if count == 1 else f"{count} objects are missing"
                found.append(LfsGap(ref, f"Git LFS: {what}: {shown(self.paths[first])}: {missing[first]}"))
            elif oid in self.unread:
                found.append(LfsGap(ref, f"Git LFS: {self.unread[oid]}"))
        return tuple(found)


def needs_of(
    path: Path,
    ids: Iterable[ObjectId],
    *,
    bases: Mapping[ObjectId, ObjectId] | None = None,
    tick: Callable[[], object] = lambda: None,
) -> LfsNeeds:
    """Return what objects of the mirror at `path` need.

    Args:
        ids: what refs hold, or commits.
        bases: for some of them, another id whose objects are all there: what both need is left out.
        tick: is called now and then. Where it says that the time is over, the rest is not read.

    Raises:
        MirrorCorrupt: a tree is damaged.
    """
    needs: dict[ObjectId, NeededObjects] = {}
    unread: dict[ObjectId, str] = {}
    with ObjectStore(path, layout.read_format(path)) as objects, LfsScan(objects.store, tick) as scan:
        for oid in dict.fromkeys(ids):
            base = (bases or {}).get(oid)
            try:
                tree = _tree_of(objects, oid)
                needs[oid] = scan.needed(tree, _tree_of(objects, base) if base else b"") if tree else NeededObjects()
            except TreeDamaged as error:
                raise MirrorCorrupt(error.problem, "run `deploykit mirror check`") from error
            except (TreeError, DeadlineExceeded) as error:
                unread[oid] = error.problem
    return LfsNeeds(needs=needs, unread=unread, paths=all_objects(needs.values()))


def _tree_of(objects: ObjectStore, oid: ObjectId) -> bytes:
    """Return the tree (hex) of a commit, or of the one that a tag names; empty where there is none."""
    try:
        return bytes(commit_of(objects.store, oid.encode()).tree)
    except RefNotFound:
        return b""


__all__ = ["LfsNeeds", "needs_of"]
