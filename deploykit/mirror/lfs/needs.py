"""Which objects of Git LFS a tree needs, and where they are: in the mirrors of the repositories that it is made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

from deploykit.errors import LfsMissing, TreeError
from deploykit.git.repository import Repository
from deploykit.mirror.lfs.store import LfsStore
from deploykit.trees.lfs import LfsFile
from deploykit.trees.lfsfiles import list_lfs_files
from deploykit.trees.names import shown
from deploykit.trees.writer import WriteOptions

if TYPE_CHECKING:
    from deploykit.names import ObjectId
    from deploykit.trees import Manifest, ObjectStore, TreeRules
    from deploykit.trees.graft import Mount

_LISTED: Final = 5


class _Stored(Protocol):
    @property
    def store(self) -> ObjectStore: ...


@runtime_checkable
class _WithObjects(Protocol):
    """A `Mirror`."""

    @property
    def lfs(self) -> LfsStore | None: ...


@runtime_checkable
class _Composed(Protocol):
    """A source whose trees are made of several repositories."""

    def repositories(self, mounts: Iterable[Mount], /) -> Mapping[bytes, _Stored]:
        """Return the repository at each place of a tree; the root's path is empty."""


def lfs_places(source: _Stored, mounts: Iterable[Mount] = ()) -> dict[bytes, LfsStore]:
    """Return the objects of each repository in a tree that has some, by its root in the tree.

    A mirror has them where its settings ask for them, a plain repository where git-lfs has put some into it.

    Args:
        source: what the tree was resolved by.
        mounts: the other repositories in the tree.
    """
    repositories = source.repositories(mounts) if isinstance(source, _Composed) else {b"": source}
    found = {place: _objects_of(each) for place, each in repositories.items()}
    return {place: objects for place, objects in found.items() if objects is not None}


def _objects_of(repository: _Stored) -> LfsStore | None:
    if isinstance(repository, _WithObjects):
        return repository.lfs
    if isinstance(repository, Repository) and (repository.lfs_directory / "objects").is_dir():
        return LfsStore(repository.lfs_directory)
    return None


def check_lfs(
    store: ObjectStore, tree: ObjectId, rules: TreeRules, options: WriteOptions, patched: Manifest | None = None
) -> None:
    """Refuse a tree that needs objects that are not there, and have the next fetch look for all of them again.

    Args:
        options: with which the tree is to be written.
        patched: of the directory that is turned into it, if one is: objects that it has already are not needed.

    Raises:
        LfsMissing: naming them.
        TreeError: the objects are larger than the rules allow, or the tree cannot be read.
    """
    missing: list[LfsFile] = []
    total = 0
    for file in list_lfs_files(store, tree, rules, options, patched):
        total += file.pointer.size
        if file.pointer.size > rules.max_file_bytes or total > rules.max_bytes:
            raise TreeError(
                f"{shown(file.path)} has {file.pointer.size} bytes in Git LFS, more than are allowed",
                "raise max_file_bytes or max_bytes if the repository is to be trusted",
            )
        if options.lfs[file.root].path(file.pointer) is None:
            missing.append(file)
    if missing:
        roots = {file.root for file in missing}
        for root in roots:
            options.lfs[root].forget()
        repos = {b"": ""} | {mount.path: mount.repo for mount in options.mounts}
        raise _all_missing(missing, sorted({repos[root] for root in roots}))


def _all_missing(missing: Sequence[LfsFile], repos: Sequence[str]) -> LfsMissing:
    lines = [f"{shown(file.path)} ({file.pointer.oid}, {file.pointer.size} bytes)" for file in missing[:_LISTED]]
    more = f"; and {len(missing) - _LISTED} more" if len(missing) > _LISTED else ""
    mirrors = " and ".join(f"the mirror of {repo}" if repo else "the mirror" for repo in repos)
    return LfsMissing(
        f"objects of Git LFS are missing: {'; '.join(lines)}{more}",
        f"fetch {mirrors} again, or push them to the origin first (git lfs push)",
        repos=tuple(repos),
    )


__all__ = ["check_lfs", "lfs_places"]
