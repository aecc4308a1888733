"""Several repositories as the one source of a site: each one's tree in its subdirectory, the objects from all of them.

The tree is of our own making and costs one tree object for each directory on the way: files are read where they are.
An earlier release's tree is made again from its record, whatever the settings say by now.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

import attrs

from deploykit.composition import composition_id
from deploykit.errors import DeploykitError, PreflightRefused
from deploykit.git.composedstore import ComposedStore
from deploykit.mirror.submodules import ComposedTree, RefSource, ResolvedObject, ResolvingSource, SubmoduleSource
from deploykit.names import ObjectId, RepoName
from deploykit.release.model import ReleasePart
from deploykit.trees.graft import Mount, graft


@attrs.frozen(kw_only=True, slots=True)
class PartedTree(ComposedTree):
    """The tree of several repositories. `ref` is empty, `commit` and `object_id` are their id (`composition_id`)."""

    parts: tuple[ReleasePart, ...]


class PartSource:
    """Several repositories, each with its subdirectory. For one thread.

    Args:
        places: repository -> subdirectory, as `NodeSiteSettings.parts`.
        open: returns a repository to read from, the same one each time; it may have submodules. Its owner closes it.
    """

    def __init__(self, places: Mapping[RepoName, str], open: Callable[[RepoName], ResolvingSource]) -> None:
        self.places = places
        self._open = open
        self._store: ComposedStore | None = None

    @property
    def store(self) -> ComposedStore:
        """The objects of the repositories that were read so far, with the trees that were made."""
        if self._store is None:
            self._store = ComposedStore(self._open(min(self.places)).store)
        return self._store

    @property
    def names(self) -> str:
        """The repositories, for people."""
        return ", ".join(sorted(self.places))

    def part(self, repo: RepoName) -> ResolvingSource:
        """Return one of the repositories.

        Raises:
            DeploykitError: it cannot be opened.
        """
        return self._open(repo)

    def resolve(self, name: str, /) -> ComposedTree:
        """Refuse a name: it would have to be one of all repositories.

        Raises:
            PreflightRefused: always.
        """
        raise PreflightRefused(
            f"{name!a} is a name in one repository, and the site is made of {self.names}",
            "say what of each of them is to be deployed",
        )

    def at(self, parts: Collection[ReleasePart]) -> PartSource:
        """Return a source of these repositories alone, in these subdirectories."""
        return PartSource({part.repo: part.path for part in parts}, self._open)

    def compose(self, parts: Collection[ReleasePart]) -> PartedTree:
        """Return the tree that has each part in its subdirectory.

        Raises:
            PreflightRefused: a commit is not there, ids of two kinds meet, or a part's submodules are missing.
            TreeError: a subdirectory cannot be one.
        """
        mounts: list[Mount] = []
        grafts: dict[bytes, bytes] = {}
        for part in parts:
            try:
                found, place = self._tree_of(part), part.path.encode()
            except DeploykitError as error:
                raise PreflightRefused(f"{part.repo}: {error.problem}", error.remedy) from error
            grafts[place] = found.tree.encode()
            mounts.append(Mount(path=place, repo=part.repo, commit=part.commit))
            inside = found.mounts if isinstance(found, ComposedTree) else ()
            mounts += [attrs.evolve(mount, path=place + b"/" + mount.path) for mount in inside]
        commit = composition_id({part.repo: part for part in parts})
        return PartedTree(
            ref="",
            object_id=commit,
            commit=commit,
            tree=ObjectId(graft(self.store, b"", grafts).decode()),
            mounts=tuple(mounts),
            parts=tuple(sorted(parts, key=lambda part: part.repo)),
        )

    def repositories(self, mounts: Iterable[Mount], /) -> Mapping[bytes, RefSource]:
        """Return the repository at each place of a tree that was composed here; there is none at its root."""
        known, found = tuple(mounts), dict[bytes, RefSource]()
        for repo, path in self.places.items():
            place, source = path.encode(), self._open(repo)
            found[place] = source
            if isinstance(source, SubmoduleSource):
                start = place + b"/"
                inside = [attrs.evolve(m, path=m.path[len(start) :]) for m in known if m.path.startswith(start)]
                below = source.repositories(inside)
                found |= {start + at if at else place: repository for at, repository in below.items()}
        return found

    def _tree_of(self, part: ReleasePart) -> ResolvedObject:
        source = self._open(part.repo)
        found = source.resolve(part.commit)
        self.store.add(source.store, part.repo)
        return found
