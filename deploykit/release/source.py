"""Where a release's tree comes from: anything that has an object store and knows what a ref stands for.

`deploykit.mirror.Mirror` is one; a plain git repository is another (`deploykit.git.repository.Repository`).
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Protocol

from deploykit.errors import DeploykitError
from deploykit.mirror.submodules import ComposedTree, SubmoduleSource
from deploykit.names import ObjectId, RefName
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


def recall(source: TreeSource, commit: str) -> None:
    """Have a source make the tree of an earlier release again, where it is one of its own making.

    Nothing happens where it cannot: the tree is then not in the store, and its reader says so.
    """
    if isinstance(source, SubmoduleSource):
        with contextlib.suppress(DeploykitError):
            source.resolve(commit)
