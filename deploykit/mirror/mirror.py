"""One repository's full local copy: bare, heads and tags mapped one to one, HEAD following the origin's.

Rules: ids come from the origin's own ref list, never from a message; a pack is quarantined and its links checked before any
ref moves; deletions first; refs move by compare-and-set under a flock, so an interrupted fetch is safe to repeat.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dulwich.errors import NotGitRepository
from dulwich.object_store import DiskObjectStore, peel_sha
from dulwich.objects import Commit, Tag, Tree
from dulwich.repo import Repo

from deploykit.errors import LockBusy, MirrorCorrupt, RefNotFound
from deploykit.mirror import negotiation, remote
from deploykit.mirror.refplan import RefPlan, common_prefixes, plan_refs, read_advertised, ref_matcher
from deploykit.mirror.values import FetchResult, Progress, ProgressFn, RefChange, Resolved
from deploykit.names import ObjectId, RefName, is_zero, parse_object_id
from deploykit.settings import MirrorSettings


class Mirror:
    """A bare mirror on disk. Open it with `Mirror.open`; one object per thread.

    Raises (all methods): MirrorError and its family; the mirror then holds what it held before.
    """

    def __init__(self, path: Path, url: str, settings: MirrorSettings, repo: Repo) -> None:
        self.path = path
        self.url = url
        self.settings = settings
        self._repo = repo

    @classmethod
    def open(cls, path: Path | str, url: str, settings: MirrorSettings | None = None) -> Mirror:
        """Open the mirror at `path`, creating it (empty, no connection made) when it is not there."""
        remote.check_url(url)
        where = Path(path)
        try:
            repo = Repo(str(where))
        except NotGitRepository:
            repo = _create(where)
        return cls(where, url, settings or MirrorSettings(), repo)

    def close(self) -> None:
        """Close the files held open."""
        self._repo.close()

    def __enter__(self) -> Mirror:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def store(self) -> DiskObjectStore:
        """The objects, for `trees`."""
        store = self._repo.object_store
        if not isinstance(store, DiskObjectStore):
            raise MirrorCorrupt(f"{self.path} is not an ordinary repository")
        return store

    @property
    def refs(self) -> dict[RefName, ObjectId]:
        """All heads and tags held."""
        found = self._repo.refs.as_dict()
        return {
            RefName(k.decode("utf-8", "surrogateescape")): ObjectId(v.decode())
            for k, v in found.items()
            if k.startswith(b"refs/")
        }

    @property
    def head(self) -> RefName | None:
        """The default branch, as the origin told it."""
        target = self._repo.refs.read_ref(b"HEAD")  # type: ignore[arg-type]
        return RefName(target[5:].decode()) if target and target.startswith(b"ref: ") else None

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
            except ValueError:
                raise RefNotFound(f"no ref, tag or branch {ascii(name)} in {self.path}", "fetch first") from None
        try:
            commit = peel_sha(self.store, oid.encode())[1]  # type: ignore[arg-type]
        except KeyError:
            raise RefNotFound(f"no object {oid} in {self.path}", "fetch first") from None
        if not isinstance(commit, Commit):
            raise RefNotFound(f"{ascii(name)} is not a commit but a {commit.type_name.decode()}")
        return Resolved(RefName(ref or ""), oid, ObjectId(commit.id.decode()), ObjectId(commit.tree.decode()))

    def fetch(
        self, expected: RefChange | None = None, deadline: float | None = None, progress: ProgressFn | None = None
    ) -> FetchResult:
        """Bring the mirror to what the origin shows.

        Args:
            expected: what a message claims about one ref: only that ref is asked for and moved.
            deadline: seconds for all of it; the settings' when absent.
            progress: called now and then, in this thread.
        """
        started = time.monotonic()
        with self._locked():
            return self._fetch(expected, started, progress)

    def _fetch(self, expected: RefChange | None, started: float, progress: ProgressFn | None) -> FetchResult:
        patterns = self.settings.refs
        wanted = ref_matcher(patterns)
        held = {ref: oid for ref, oid in self.refs.items() if wanted.match(ref)}
        only = expected.ref if expected else None
        plan = RefPlan()
        bad: tuple[object, ...] = ()
        received = 0

        f, commit, abort = self.store.add_pack()

        def choose(raw: dict[bytes, bytes]) -> tuple[list[bytes], Sequence[bytes]]:
            nonlocal plan, bad
            pairs = ((k.decode("utf-8", "surrogateescape"), v.decode("ascii", "replace")) for k, v in raw.items())
            origin, bad = read_advertised(pairs, (only,) if only else patterns)
            plan = plan_refs(held, origin, only=only)
            needed = negotiation.wants(plan, lambda oid: oid.encode() in self.store)
            offered = negotiation.haves(plan, held, first=(expected.old,) if expected else ())
            return [o.encode() for o in needed], [o.encode() for o in offered]

        def write(data: bytes) -> int:
            nonlocal received
            received += len(data)
            if progress:
                progress(Progress(phase="receiving", received=received, seconds=time.monotonic() - started))
            return f.write(data)

        prefixes = [b"HEAD", *(p.encode() for p in ((only,) if only else common_prefixes(patterns)))]
        try:
            _refs, symrefs = remote.converse(self.url, choose, write, prefixes=prefixes)
            if received:
                commit()
            else:
                abort()
        except BaseException:
            if not f.closed:
                abort()
            raise
        self._check_connected([c.new for c in plan.updates], set(held.values()))
        self._move(plan.changes)
        head = symrefs.get(b"HEAD")
        if head is not None and only is None:
            self._repo.refs.set_symbolic_ref(b"HEAD", head)  # type: ignore[arg-type]
        confirmed = None
        if expected is not None:
            now = self.refs.get(expected.ref)
            confirmed = now == expected.new or (now is None and is_zero(expected.new))
        return FetchResult(
            changes=plan.changes,
            refused=bad,  # type: ignore[arg-type]
            seconds=time.monotonic() - started,
            received=received,
            head=self.head,
            confirmed=confirmed,
            gap=expected is not None and not is_zero(expected.old) and held.get(expected.ref) != expected.old,
        )

    def _check_connected(self, tips: Sequence[ObjectId], held: set[ObjectId]) -> None:
        todo = [t.encode() for t in tips]
        seen = {h.encode() for h in held}
        while todo:
            oid = todo.pop()
            if oid in seen:
                continue
            seen.add(oid)
            try:
                obj = self.store[oid]  # type: ignore[index]
            except KeyError:
                raise MirrorCorrupt(f"the origin of {self.path} did not send object {oid.decode()}") from None
            if isinstance(obj, Commit):
                todo += [obj.tree, *obj.parents]
            elif isinstance(obj, Tag):
                todo.append(obj.object[1])
            elif isinstance(obj, Tree):
                todo += [e.sha for e in obj.iteritems() if e.mode != 0o160000]

    def _move(self, changes: Sequence[RefChange]) -> None:
        refs = self._repo.refs
        for c in changes:
            name, old = c.ref.encode("utf-8", "surrogateescape"), c.old.encode()
            if c.kind == "deleted":
                done = refs.remove_if_equals(name, old)  # type: ignore[arg-type]
            else:
                done = refs.set_if_equals(name, old, c.new.encode())  # type: ignore[arg-type]
            if not done:
                raise LockBusy(f"{c.ref} in {self.path} was changed by somebody else meanwhile", "fetch again")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        fd = os.open(self.path / "deploykit.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)


def _create(where: Path) -> Repo:
    where.mkdir(parents=True, exist_ok=True)
    repo = Repo.init_bare(str(where))
    config = repo.get_config()
    config.set(b"core", b"fsyncObjectFiles", True)
    config.set(b"gc", b"auto", b"0")
    config.write_to_path()
    repo.close()
    return Repo(str(where))
