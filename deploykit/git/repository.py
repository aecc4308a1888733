"""A plain git repository on disk as the source of trees, where no mirror is at hand."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import attrs
from dulwich.errors import NotGitRepository
from dulwich.refs import Ref
from dulwich.repo import Repo

from deploykit.errors import DeploykitError, InvalidName, MirrorCorrupt, RefNotFound, UsageError
from deploykit.git.commits import commit_of
from deploykit.names import ObjectId, RefName, parse_object_id

if TYPE_CHECKING:
    from dulwich.object_store import BaseObjectStore


@attrs.frozen(kw_only=True, slots=True)
class ResolvedName:
    """What a name stands for. `ref` is empty where the name was a commit id."""

    ref: str
    object_id: ObjectId
    commit: ObjectId
    tree: ObjectId


class Repository:
    """A repository, bare or not, that is only read."""

    def __init__(self, path: Path) -> None:
        try:
            self._repo = Repo(str(path))
        except NotGitRepository as error:
            raise UsageError(f"{path} is not a git repository", "give a mirror, or any clone") from error
        except OSError:
            raise
        except Exception as error:  # dulwich fails in many ways on a config that is damaged, or of a future git
            raise UsageError(f"{path} cannot be read as a git repository: {error}", "see `git fsck` there") from error

    def __enter__(self) -> Repository:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close its files."""
        self._repo.close()

    @property
    def store(self) -> BaseObjectStore:
        """The dulwich object store."""
        return self._repo.object_store

    @property
    def lfs_directory(self) -> Path:
        """The directory in which git-lfs keeps objects, as long as no setting of its own says otherwise."""
        return Path(self._repo.commondir()) / "lfs"

    @property
    def refs(self) -> dict[RefName, ObjectId]:
        """Branches, tags and other refs, each with the object that it names.

        Raises:
            MirrorCorrupt: they cannot be read.
        """
        found: dict[RefName, ObjectId] = {}
        try:
            names = [name for name in self._repo.refs.allkeys() if name.startswith(b"refs/")]
        except OSError:
            raise
        except Exception as error:  # as below
            raise MirrorCorrupt(f"the refs of {self._repo.path} cannot be read: {error}", "see `git fsck`") from error
        for name in names:
            text = name.decode("utf-8", "surrogateescape")
            oid = self._ref(text) if text.isprintable() else None
            if oid is not None:
                found[RefName(text)] = ObjectId(oid.decode())
        return found

    @property
    def head(self) -> RefName | None:
        """The branch that HEAD names; None where it names none."""
        try:
            text = self._repo.refs.read_ref(Ref(b"HEAD")) or b""
        except OSError:
            raise
        except Exception as error:  # as below
            raise MirrorCorrupt(f"HEAD of {self._repo.path} cannot be read: {error}", "see `git fsck`") from error
        name = text.removeprefix(b"ref: ").strip()
        return RefName(name.decode("utf-8", "replace")) if text.startswith(b"ref: refs/heads/") else None

    def checked_out(self) -> str:
        """Return what a clone has checked out: its branch, or the one tag of its commit, or the commit's id.

        Empty where there is nothing.

        Raises:
            MirrorCorrupt: HEAD, or a tag, cannot be read.
        """
        branch, commit = self.head, self._ref("HEAD")
        if branch is not None or commit is None:
            return branch if branch is not None and self._ref(branch) is not None else ""
        tags = [ref for ref in self.refs if ref.startswith("refs/tags/") and self._is_of(ref, commit.decode())]
        return tags[0] if len(tags) == 1 else commit.decode()

    def _is_of(self, ref: str, commit: str) -> bool:
        try:
            return self.resolve(ref).commit == commit
        except DeploykitError:  # a tag of something else
            return False

    @property
    def origin(self) -> str:
        """The address of the remote `origin`; empty where there is none."""
        try:
            found = self._repo.get_config().get((b"remote", b"origin"), b"url")
        except KeyError:
            return ""
        return found.decode("utf-8", "backslashreplace")

    def resolve(self, name: str) -> ResolvedName:
        """Resolve a full ref name, the name of a tag or branch (tags first), or a commit id.

        Raises:
            RefNotFound: there is none here.
        """
        if any("\ud800" <= c <= "\udfff" for c in name):
            raise RefNotFound(f"the name {name!a} is not UTF-8", "give the commit's id")
        for ref in (name, f"refs/tags/{name}", f"refs/heads/{name}"):
            if ref.startswith("refs/"):
                oid = self._ref(ref)
                if oid is not None:
                    return self._found(ref, oid)
        try:
            commit = parse_object_id(name)
        except InvalidName as error:
            raise RefNotFound(f"there is no ref {name!a}", "fetch first, or check the name") from error
        if len(commit) != self._repo.object_store.object_format.hex_length:
            raise RefNotFound(f"there is no commit {commit}", "ids have another length here")
        return self._found("", commit.encode())

    def _ref(self, ref: str) -> bytes | None:
        """Return the id a ref holds. Not the peeled id of dulwich: of a tag that moved, it may be the old commit."""
        try:
            return self._repo.refs[Ref(ref.encode())]
        except KeyError:
            return None
        except OSError:
            raise
        except Exception as error:  # dulwich fails in many ways on a damaged file
            raise MirrorCorrupt(f"the refs of {self._repo.path} cannot be read: {error}", "see `git fsck`") from error

    def _found(self, ref: str, oid: bytes) -> ResolvedName:
        commit = commit_of(self._repo.object_store, oid)
        return ResolvedName(
            ref=ref,
            object_id=ObjectId(oid.decode()),
            commit=ObjectId(commit.id.decode()),
            tree=ObjectId(commit.tree.decode()),
        )
