"""Submodules from mirrors: the tree of a commit, with those of its submodules in their places.

Rules:

* An address in `.gitmodules` is a key. It is looked up among the repositories of the settings and never connected to.
* A submodule's commit counts where a ref of its mirror reaches it: what was once pushed somewhere and is no part of any
  branch or tag is not deployed.
* What is missing is named, all of it at once. Nothing is fetched here.
* Whoever may push chooses `.gitmodules` and the trees around it: what is read on the way to submodules is counted.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final, Protocol

import attrs

from deploykit.errors import DeploykitError, MirrorCorrupt, SubmoduleMissing, TreeDamaged, TreeError
from deploykit.git.commits import Reachable, commit_of
from deploykit.git.composedstore import ComposedStore
from deploykit.git.objectformat import BLOB
from deploykit.git.objectreader import ObjectReader
from deploykit.git.transport.address import redacted_url
from deploykit.names import ObjectId, RefName, RepoName
from deploykit.trees.entries import DIRECTORY, GITLINK, parsed_tree
from deploykit.trees.gitmodules import Submodule, absolute_url, read_gitmodules, url_key
from deploykit.trees.graft import Mount, graft
from deploykit.trees.names import shown

if TYPE_CHECKING:
    from deploykit.trees import ObjectStore

_MODULES: Final = b".gitmodules"
_MAX_BYTES: Final = 64 << 20
_LISTED: Final = 5
#: Submodules of one tree, those of submodules included.
_MOST: Final = 1000
#: Bytes of all `.gitmodules` of one tree, and entries of the directories on the way to its submodules.
_MODULES_BYTES: Final = 1 << 20
_MOST_ROWS: Final = 4 << 20


class RefSource(Protocol):
    """A repository that is only read: a `Mirror`, or a plain `Repository`."""

    @property
    def store(self) -> ObjectStore: ...
    @property
    def refs(self) -> Mapping[RefName, ObjectId]: ...
    @property
    def head(self) -> RefName | None: ...


class ResolvedObject(Protocol):
    """The object, commit and tree that a name stands for."""

    @property
    def ref(self) -> str: ...
    @property
    def object_id(self) -> ObjectId: ...
    @property
    def commit(self) -> ObjectId: ...
    @property
    def tree(self) -> ObjectId: ...


class ResolvingSource(RefSource, Protocol):
    """One that also knows what a name stands for."""

    def resolve(self, name: str, /) -> ResolvedObject: ...


@attrs.frozen(kw_only=True, slots=True)
class MissingSubmodule:
    """A submodule that cannot be written now.

    Args:
        path: in the whole tree, for people.
        url: as it was looked up, without a login.
        repo: the repository that stands for it; None where the settings name none.
        commit: that is needed (hex).
        why: one line.
        too_deep: it lies in more submodules than are allowed; a fetch does not help.
        damaged: its mirror cannot be read; only a new clone helps.
    """

    path: str
    url: str
    repo: RepoName | None
    commit: str
    why: str
    too_deep: bool = False
    damaged: bool = False


@attrs.frozen(kw_only=True, slots=True)
class ComposedTree:
    """What a name stands for, submodules included. `tree` is of our own making where there are any."""

    ref: str
    object_id: ObjectId
    commit: ObjectId
    tree: ObjectId
    mounts: tuple[Mount, ...] = ()


@attrs.frozen(kw_only=True, slots=True)
class SubmoduleRules:
    """Which repository stands for which address.

    Args:
        repositories: address -> repository; compared as `url_key` says.
        open: returns a repository to read from, the same one each time while a source is in use.
        depth: submodules inside submodules.
    """

    repositories: Mapping[str, RepoName]
    open: Callable[[RepoName], RefSource]
    depth: int = 4
    _by_key: Mapping[str, RepoName] = attrs.field(init=False)

    @_by_key.default
    def _keys(self) -> Mapping[str, RepoName]:
        return {url_key(url): repo for url, repo in self.repositories.items()}

    def named(self, url: str) -> RepoName | None:
        """Return the repository that stands for an address, if any."""
        return self._by_key.get(url_key(url))


class SubmoduleSource:
    """A source whose trees hold those of their submodules. For one thread; `base` is closed by its owner.

    Args:
        base: the repository with the submodules.
        url: its own address, for relative ones in it.
        rules: where submodules come from.
    """

    def __init__(self, base: ResolvingSource, url: str, rules: SubmoduleRules) -> None:
        self._base = base
        self._url = url
        self._rules = rules
        self._store: ComposedStore | None = None
        self._known: dict[str, _Composed] = {}
        self._reachable: dict[RepoName, Reachable] = {}
        #: What was missing so far, of any name.
        self.lacked: set[MissingSubmodule] = set()

    @property
    def store(self) -> ComposedStore:
        """The objects of all of them, with the trees that were made."""
        if self._store is None:
            self._store = ComposedStore(self._base.store)
        return self._store

    @property
    def refs(self) -> Mapping[RefName, ObjectId]:
        """The refs of the repository itself."""
        return self._base.refs

    @property
    def head(self) -> RefName | None:
        """The default branch of the repository itself."""
        return self._base.head

    def repositories(self, mounts: Iterable[Mount], /) -> Mapping[bytes, RefSource]:
        """Return the repository at each place of a tree that was resolved here; the root's path is empty."""
        return {b"": self._base} | {mount.path: self._rules.open(RepoName(mount.repo)) for mount in mounts}

    def release(self) -> None:
        """Forget what was read and made."""
        self._store = None
        self._known.clear()
        for walk in self._reachable.values():
            walk.close()
        self._reachable.clear()

    def missing(self, name: str) -> tuple[MissingSubmodule, ...]:
        """Return the submodules of a ref or commit that cannot be written now.

        Raises:
            DeploykitError: there is no such ref or commit, or its tree cannot be read.
        """
        return self._compose(self._base.resolve(name)).missing

    def resolve(self, name: str, /) -> ComposedTree:
        """Return what a full ref name, a short one, or a commit id stands for, with the tree to write.

        Raises:
            SubmoduleMissing: submodules cannot be written now; the text names them.
            DeploykitError: there is no such thing here, or its tree cannot be read.
        """
        found = self._base.resolve(name)
        composed = self._compose(found)
        if composed.missing:
            raise _all_missing(composed.missing)
        return ComposedTree(
            ref=found.ref,
            object_id=found.object_id,
            commit=found.commit,
            tree=ObjectId(composed.tree.decode()),
            mounts=composed.mounts,
        )

    def _compose(self, found: ResolvedObject) -> _Composed:
        known = self._known.get(found.tree)
        if known is None:
            known = _Composer(self.store, self._rules, self._reachable).compose(found.tree.encode(), self._url)
            self._known[found.tree] = known
            self.lacked.update(known.missing)
        return known


@attrs.frozen(kw_only=True, slots=True)
class _Composed:
    tree: bytes
    mounts: tuple[Mount, ...]
    missing: tuple[MissingSubmodule, ...]


class _Composer:
    def __init__(self, store: ComposedStore, rules: SubmoduleRules, reachable: dict[RepoName, Reachable]) -> None:
        self._store = store
        self._rules = rules
        self._reachable = reachable
        self._mounts: list[Mount] = []
        self._missing: list[MissingSubmodule] = []
        self._damaged: set[RepoName] = set()
        self._bytes = 0
        self._rows = 0

    def compose(self, tree: bytes, url: str) -> _Composed:
        whole = self._with_submodules(self._store.stores[0], tree, url, b"", 0)
        return _Composed(tree=whole, mounts=tuple(self._mounts), missing=tuple(self._missing))

    def _with_submodules(self, store: ObjectStore, tree: bytes, url: str, prefix: bytes, depth: int) -> bytes:
        """Return the id of a tree with those of its submodules in it; what is missing stays a gitlink."""
        grafts: dict[bytes, bytes] = {}
        for module, commit in self._submodules(store, tree):
            where, path = absolute_url(url, module.url), prefix + module.path
            if len(self._mounts) + len(self._missing) >= _MOST:
                raise TreeError(f"there are more than {_MOST} submodules in one tree", "leave some of them out")
            repo = self._rules.named(where)
            found = self._tree_of(repo, commit.decode(), depth)
            if repo is None or isinstance(found, str):
                self._missing.append(
                    MissingSubmodule(
                        path=shown(path),
                        url=redacted_url(where),
                        repo=repo,
                        commit=commit.decode(),
                        why=str(found),
                        too_deep=depth >= self._rules.depth,
                        damaged=repo in self._damaged,
                    )
                )
                continue
            self._mounts.append(Mount(path=path, repo=repo, commit=commit.decode()))
            grafts[module.path] = self._with_submodules(*found, where, path + b"/", depth + 1)
        return graft(self._store, tree, grafts) if grafts else tree

    def _tree_of(self, repo: RepoName | None, commit: str, depth: int) -> tuple[ObjectStore, bytes] | str:
        """Return a commit's tree, with a store that has it; or why there is none to write."""
        if repo is None:
            return "no repository in the settings stands for that address"
        if depth >= self._rules.depth:
            return f"it lies {depth + 1} submodules deep; {self._rules.depth} are allowed"
        try:
            source = self._rules.open(repo)
            store = source.store
            self._store.add(store, repo)
            if repo not in self._reachable:
                self._reachable[repo] = Reachable(store, source.refs.values())
            if commit not in self._reachable[repo]:
                return f"no branch or tag in the mirror of {repo} has commit {commit[:12]}"
            return store, commit_of(store, commit.encode()).tree
        except DeploykitError as error:
            if isinstance(error, TreeDamaged | MirrorCorrupt):
                self._damaged.add(repo)
            return f"the mirror of {repo} cannot give it: {error.problem}"

    def _submodules(self, store: ObjectStore, tree: bytes) -> list[tuple[Submodule, bytes]]:
        """Return the entries of a tree's `.gitmodules` for which there is a submodule, with the commit it is at."""
        with ObjectReader(store, max_bytes=_MAX_BYTES) as reader:
            kind, oid = self._entries(reader, tree, [_MODULES]).get(_MODULES, (0, b""))
            if kind != stat.S_IFREG:
                return []
            content = reader.read(oid, BLOB)
            self._bytes += len(content)
            if self._bytes > _MODULES_BYTES:
                raise TreeError(f"all .gitmodules have more than {_MODULES_BYTES} bytes", "leave some submodules out")
            modules = read_gitmodules(content)
            there = self._entries(reader, tree, modules)
        return [
            (modules[path], oid) for path, (kind, oid) in sorted(there.items()) if path in modules and kind == GITLINK
        ]

    def _entries(self, reader: ObjectReader, tree: bytes, paths: Iterable[bytes]) -> dict[bytes, tuple[int, bytes]]:
        """Return kind and id (hex) of what is at some paths of a tree, and on the way to them."""
        wanted: dict[bytes, set[bytes]] = {b"": set()}
        for path in paths:
            above = path
            while above:
                above, _, name = above.rpartition(b"/")
                wanted.setdefault(above, set()).add(name)
        found = {b"": (DIRECTORY, tree)}
        for directory in sorted(wanted):  # parents first
            kind, oid = found.get(directory, (0, b""))
            if kind != DIRECTORY:
                continue
            rows = parsed_tree(reader, oid, directory)
            self._rows += len(rows)
            if self._rows > _MOST_ROWS:
                raise TreeError(f"there are more than {_MOST_ROWS} entries beside the submodules", "leave some out")
            prefix = directory + b"/" if directory else b""
            found |= {prefix + name: (stat.S_IFMT(mode), sha) for name, mode, sha in rows if name in wanted[directory]}
        return found


def _all_missing(missing: tuple[MissingSubmodule, ...]) -> SubmoduleMissing:
    lines = [f"{each.path} ({each.url}): {each.why}" for each in missing[:_LISTED]]
    more = f"; and {len(missing) - _LISTED} more" if len(missing) > _LISTED else ""
    remedy = "fetch that mirror, and push the commit to a branch of its origin"
    if any(each.repo is None for each in missing):
        remedy = "name their repositories in [submodules], or give --submodule"
    elif any(each.too_deep for each in missing):
        remedy = "raise submodule_depth if the repositories are to be trusted"
    elif any(each.damaged for each in missing):
        remedy = "run `deploykit mirror check --repair` for the damaged mirror"
    return SubmoduleMissing(f"submodules are missing: {'; '.join(lines)}{more}", remedy)


__all__ = ["ComposedTree", "MissingSubmodule", "RefSource", "ResolvingSource", "SubmoduleRules", "SubmoduleSource"]
