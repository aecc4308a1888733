"""Where a release's tree comes from: anything that has an object store and knows what a ref stands for.

`deploykit.mirror.Mirror` is one; a plain git repository is another (`deploykit.git.repository.Repository`). Those of
several repositories are `deploykit.mirror.submodules.SubmoduleSource` and `deploykit.release.partsource.PartSource`.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Protocol

from deploykit.errors import DeploykitError
from deploykit.mirror.submodules import ComposedTree, SubmoduleSource
from deploykit.names import ObjectId, RefName
from deploykit.release.model import Release, ReleasePart
from deploykit.release.partsource import PartedTree, PartSource
from deploykit.trees.graft import Mount

if TYPE_CHECKING:
    from deploykit.trees import ObjectStore


class ResolvedTree(Protocol):
    """What a name stands for."""

    @property
    def ref(self) -> str: ...

    @property
    def commit(self) -> ObjectId: ...

    @property
    def tree(self) -> ObjectId: ...


class TreeSource(Protocol):
    """An object store, and what a ref or commit in it stands for."""

    @property
    def store(self) -> ObjectStore:
        """The dulwich object store the tree is read from."""

    def resolve(self, name: RefName | str, /) -> ResolvedTree:
        """Look up a full ref name, a short one, or a commit id.

        Raises:
            DeploykitError: there is no such thing here.
        """


def mounts_of(found: ResolvedTree) -> tuple[Mount, ...]:
    """Return the other repositories in a tree."""
    return found.mounts if isinstance(found, ComposedTree) else ()


def parts_of(found: ResolvedTree) -> tuple[ReleasePart, ...]:
    """Return what a tree of several repositories is made of; nothing for any other tree."""
    return found.parts if isinstance(found, PartedTree) else ()


def recall(source: TreeSource, release: Release) -> None:
    """Have a source make the tree of an earlier release again, where it is one of its own making.

    Nothing happens where it cannot: the tree is then not in the store, and its reader says so.
    """
    with contextlib.suppress(DeploykitError):
        if isinstance(source, PartSource) and release.parts:
            source.compose(release.parts)
        elif isinstance(source, SubmoduleSource):
            source.resolve(release.commit)


def as_it_was(source: TreeSource, release: Release) -> TreeSource:
    """Return a source for making an earlier release again: its own repositories, in its own subdirectories."""
    return source.at(release.parts) if isinstance(source, PartSource) and release.parts else source
