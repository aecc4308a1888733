"""Where a release's tree comes from: anything that has an object store and knows what a ref stands for.

`deploykit.mirror.Mirror` is one; a plain git repository is another (`deploykit.git.repository.Repository`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from deploykit.names import ObjectId, RefName

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
