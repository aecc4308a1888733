"""One repository's full local copy: bare, heads and tags mapped one to one, HEAD following the origin's.

Rules:

* Ids come from the origin's own ref list, never from a message.
* A pack stays in quarantine until its links are checked; refs move after that, all in one durable step.
* Refs move by compare-and-set under a lock: a fetch that is cut off leaves the old state, and the next one converges.
* Nothing stays open between two calls.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Self

import attrs
from dulwich.object_store import DiskObjectStore

from deploykit.errors import InvalidName, RefNotFound
from deploykit.git.commits import History
from deploykit.git.objectformat import COMMIT, KIND_NAMES, TREE
from deploykit.git.objectlinks import commit_links
from deploykit.git.store import ObjectStore, StorePerThread
from deploykit.git.transport.address import parse_origin_url
from deploykit.mirror import checking, layout, upkeep
from deploykit.mirror.checking import CheckReport
from deploykit.mirror.fetching import Fetch
from deploykit.mirror.lfs.checking import check_objects
from deploykit.mirror.lfs.endpoint import endpoint_of
from deploykit.mirror.lfs.fetching import LfsFetch
from deploykit.mirror.lfs.store import LfsStore
from deploykit.mirror.model import FetchResult, ProgressFn, RefChange, Resolved
from deploykit.mirror.refplan import ref_matcher
from deploykit.mirror.refstore import RefStore
from deploykit.mirror.upkeep import UpkeepResult
from deploykit.names import ObjectId, RefName, parse_object_id
from deploykit.settings.mirror import MirrorSettings
from deploykit.system.deadline import Deadline


class Mirror:
    """A bare mirror on disk. Make it with `Mirror.open`; safe to share between threads."""

    def __init__(self, path: Path, url: str, settings: MirrorSettings) -> None:
        self.path = path
        self.url = url
        self.settings = settings
        self._refs = RefStore(path)
        self._stores = StorePerThread(path)

    @classmethod
    def open(cls, path: Path | str, url: str, settings: MirrorSettings | None = None) -> Self:
        """Open the mirror at `path`; make it, empty and without asking the origin, when it is not there.

        Raises:
            UsageError: an address is not allowed, or something else is at `path`.
            MirrorError: the directory cannot be made.
        """
        settings = settings or MirrorSettings()
        parse_origin_url(url, allow_http=settings.allow_http)
        if settings.lfs:
            endpoint_of(url, settings)
        where = Path(path).absolute()
        try:
            if not layout.is_repository(where):
                layout.create(where, url)
        except OSError as exc:
            raise layout.disk_error(exc, where) from exc
        return cls(where, url, settings)

    def close(self) -> None:
        """Close the files that reading from `store` opened, in all threads: none may be reading any more."""
        self._stores.close()

    def release(self) -> None:
        """Close the files that this thread opened by reading from `store`; the next read opens them again."""
        self._stores.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- reading -----------------------------------------------------------------------------------------------------

    @property
    def store(self) -> DiskObjectStore:
        """The objects, for `trees`: one store for each thread, open until `release` or `close`."""
        return self._stores.get(layout.read_format(self.path)).store

    @property
    def refs(self) -> dict[RefName, ObjectId]:
        """All refs held."""
        return self._refs.read()

    @property
    def head(self) -> RefName | None:
        """The default branch, as the origin last named it."""
        return self._refs.head

    def resolve(self, name: str) -> Resolved:
        """Find a full ref, a tag, a branch or a full commit id, in this order, and peel it to its commit and tree.

        Raises:
            RefNotFound: there is none, or it is not a commit.
        """
        refs = self.refs
        ref = next((r for r in (name, f"refs/tags/{name}", f"refs/heads/{name}") if r in refs), None)
        if ref is not None:
            oid = refs[RefName(ref)]
        else:
            try:
                oid = parse_object_id(name)
            except InvalidName:
                raise RefNotFound(f"no ref, tag or branch {name!a} in {self.path}", "fetch first") from None
        hash_kind = layout.read_format(self.path)
        if len(oid) != hash_kind.hex_size:
            raise RefNotFound(f"no object {oid} in {self.path}", "ids have another length here")
        with ObjectStore(self.path, hash_kind) as objects:
            commit = History(objects.find, hash_kind.size).peel(bytes.fromhex(oid))
            found = objects.find(commit)
        if found is None:
            raise RefNotFound(f"no object {commit.hex()} in {self.path}", "fetch first")
        if found[0] != COMMIT:
            raise RefNotFound(f"{name!a} is not a commit but a {KIND_NAMES[found[0]].decode()}")
        tree = next(link for kind, link in commit_links(found[1], hash_kind.hex_size, commit) if kind == TREE)
        return Resolved(RefName(ref or ""), oid, ObjectId(commit.hex()), ObjectId(tree.hex()))

    @property
    def lfs(self) -> LfsStore | None:
        """The objects of Git LFS; None where the settings do not ask for them."""
        return LfsStore(self.path / "lfs") if self.settings.lfs else None

    # -- fetching ----------------------------------------------------------------------------------------------------

    def fetch(
        self,
        expected: RefChange | None = None,
        deadline: float | None = None,
        progress: ProgressFn | None = None,
        *,
        allow_mass_deletion: bool = False,
        lfs_commits: Iterable[ObjectId] = (),
    ) -> FetchResult:
        """Bring the mirror to what the origin shows.

        Args:
            expected: what a message claims about one ref: only that ref is asked for and moved, and to what the origin
                says, not to what the message says.
            deadline: seconds for all of it, waiting for the lock included; the settings' when absent.
            progress: called now and then, in this thread.
            allow_mass_deletion: follow the origin even if most refs are gone there.
            lfs_commits: commits whose objects of Git LFS are fetched, too, although no ref holds them.

        Raises:
            OriginError: the origin cannot be reached, refuses, or sends what is not sound.
            LockBusy: another process held it for longer than the deadline.
            MirrorError: the disk is full, or the mirror cannot be used.
        """
        started = time.monotonic()
        limit = Deadline(
            self.settings.deadline if deadline is None else deadline,
            stall=self.settings.stall_timeout,
            what=f"fetching {self.path.name}",
        )
        if expected is not None and not ref_matcher(self.settings.refs).match(expected.ref):
            return FetchResult(seconds=time.monotonic() - started)
        try:
            if not layout.is_repository(self.path):
                layout.create(self.path, self.url)  # it was removed: make it anew
            with layout.locked(self.path, limit.left()):
                fetch = Fetch(self.path, self.url, self.settings, self._refs, limit, progress)
                result = fetch.run(expected, started, allow_mass_deletion=allow_mass_deletion)
                if not self.settings.lfs:
                    return result
                lfs = LfsFetch(self.path, self.url, self.settings, progress)
                objects = lfs.run(self.refs, result.changes, head=self.head, commits=lfs_commits)
                return attrs.evolve(result, lfs=objects, seconds=time.monotonic() - started)
        except OSError as exc:
            raise layout.disk_error(exc, self.path) from exc

    # -- soundness ---------------------------------------------------------------------------------------------------

    def check(self, *, wait: float = 600.0) -> CheckReport:
        """Read every byte, return what is wrong or missing. Changes nothing; fetches wait until it is done.

        Args:
            wait: seconds to wait for a fetch that is under way.

        Raises:
            LockBusy: a fetch takes longer than that.
            MirrorError: the disk cannot be read.
        """
        with layout.locked(self.path, wait):
            return check_objects(checking.check(self.path), self.path, asked_for=self.settings.lfs)

    def upkeep(self, *, full: bool = False, wait: float = 600.0) -> UpkeepResult:
        """Join small packs, take in loose refs, remove leftovers. `full`: drop what no ref reaches, too.

        Raises:
            LockBusy: a fetch goes on for longer than `wait` seconds.
            MirrorError: git failed; the mirror is whole all the same.
        """
        return upkeep.upkeep(self.path, self.settings, full=full, wait=wait)

    def reclone(self, deadline: float | None = None, progress: ProgressFn | None = None) -> Path | None:
        """Clone anew and take the old mirror's place; the old one stays beside it as `NAME.damaged`.

        Objects of Git LFS that are sound are not fetched again.

        Returns:
            Where the old one is now.

        Raises:
            MirrorError: the clone failed; the old mirror stays where it was.
        """

        def clone(path: Path) -> None:
            with Mirror.open(path, self.url, self.settings) as fresh:
                if fresh.lfs is not None:
                    try:
                        fresh.lfs.take_over(LfsStore(self.path / "lfs"))
                    except OSError as error:
                        raise layout.disk_error(error, path) from error
                fresh.fetch(deadline=deadline, progress=progress)

        self.release()
        return checking.replace(self.path, clone, wait=deadline or self.settings.deadline)
