"""Commits: what a tag stands for, when a commit was made, and which of two contains the other.

Rules:

* `History` reads objects through one narrow function, so that a mirror's store and any other serve.
* Dates order a walk and never decide it: committers' clocks are often wrong, and whoever writes a commit chooses its
  date.
"""

from __future__ import annotations

import heapq
import re
import traceback
from binascii import unhexlify
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Final, cast

import attrs
from dulwich.errors import NotCommitError
from dulwich.objects import Commit, ShaFile

from deploykit.errors import PackError, RefNotFound, TreeDamaged, TreeError
from deploykit.git.objectformat import COMMIT, TAG, Found
from deploykit.git.objectlinks import commit_links, tag_link
from deploykit.git.objectreader import ObjectReader, directory_of

if TYPE_CHECKING:
    from dulwich.object_store import BaseObjectStore
    from dulwich.objects import ObjectID

_WHEN: Final = re.compile(rb"^committer .*? (-?\d{1,18}) [+-]\d{4}$", re.MULTILINE)
_MAX_PEELS: Final = 64
_MAX_COMMIT: Final = 64 * 1024 * 1024


@attrs.frozen(slots=True)
class History:
    """Commits and tags, read by their binary ids.

    Args:
        find: returns an object's kind and bytes, or None.
        id_size: bytes of an id.
        tick: called for each commit of a walk; may raise to stop it.
    """

    find: Callable[[bytes], Found | None]
    id_size: int
    tick: Callable[[], None] = lambda: None

    def peel(self, oid: bytes) -> bytes:
        """Return what an annotated tag stands for in the end; any other id as it is.

        Raises:
            PackError: a tag on the way is malformed.
        """
        for _ in range(_MAX_PEELS):
            found = self.find(oid)
            if found is None or found[0] != TAG:
                break
            oid = tag_link(found[1], 2 * self.id_size, oid)[1]
        return oid

    def when(self, oid: bytes) -> int:
        """Return the committer's time of a commit; 0 where there is none."""
        found = self.find(oid)
        line = _WHEN.search(found[1].partition(b"\n\n")[0]) if found and found[0] == COMMIT else None
        return int(line[1]) if line else 0

    def parents(self, oid: bytes) -> list[bytes]:
        """Return the parents of a commit; none for anything else."""
        found = self.find(oid)
        if found is None or found[0] != COMMIT:
            return []
        return [link for kind, link in commit_links(found[1], 2 * self.id_size, oid) if kind == COMMIT]

    def contains(self, new: bytes, old: bytes) -> bool:
        """Return whether `old` is `new` or an ancestor of it.

        Walks from both ends, newest first, until all that is left is common to both: soon, in ordinary histories.
        """
        if new == old:
            return True
        from_new, both = 1, 3
        marks: dict[bytes, int] = {}
        waiting: dict[bytes, int] = {}
        queue: list[tuple[int, bytes]] = []
        open_ends = 0  # entries of the queue that are not known to be common to both

        def reach(oid: bytes, mark: int) -> int:
            before = marks.get(oid, 0)
            after = marks[oid] = before | mark
            if after == before:
                return 0
            heapq.heappush(queue, (-self.when(oid), oid))
            waiting[oid] = waiting.get(oid, 0) + 1
            return 1 - waiting[oid] if after == both else 1

        open_ends = reach(new, from_new) + reach(old, 2)
        while queue and open_ends > 0:
            _, oid = heapq.heappop(queue)
            waiting[oid] -= 1
            if marks[oid] != both:
                open_ends -= 1
            self.tick()
            for parent in self.parents(oid):
                open_ends += reach(parent, marks[oid])
                if parent == old and marks[parent] & from_new:
                    return True
        return False

    def walk(self, tips: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the commits `tips` and their history, each once; of those that are known at a time the newest first."""
        seen = set(tips)
        queue = [(-self.when(tip), tip) for tip in seen]
        heapq.heapify(queue)
        while queue:
            self.tick()
            oid = heapq.heappop(queue)[1]
            yield oid
            for parent in self.parents(oid):
                if parent not in seen:
                    seen.add(parent)
                    heapq.heappush(queue, (-self.when(parent), parent))


def commit_of(store: BaseObjectStore, oid: bytes) -> Commit:
    """Return the commit that `oid` (hex) is, or points at through tags.

    Raises:
        RefNotFound: missing, or not a commit.
        TreeDamaged: an object on the way does not hash to its id, or is malformed.
    """
    read: dict[bytes, ShaFile] = {}

    def find(raw: bytes) -> Found | None:
        try:
            found = read[raw] = store[cast("ObjectID", raw.hex().encode())]
        except (KeyError, NotCommitError):
            return None
        except OSError:
            raise
        except Exception as error:  # dulwich fails in many ways on a damaged object
            raise _damaged(raw.hex(), error, store) from error
        return found.type_num, found.as_raw_string()

    try:
        target = History(find, len(oid) // 2).peel(unhexlify(oid))
    except (PackError, ValueError) as error:
        raise _damaged(ascii(oid.decode("ascii", "replace"))[1:-1], error, store) from error
    commit = read.get(target)
    if commit is None:
        raise RefNotFound(f"there is no commit {target.hex()}", "fetch first, or check the id")
    if not isinstance(commit, Commit):
        raise RefNotFound(f"{target.hex()} is not a commit", "give a tag, a branch or a commit")
    return commit


def _damaged(oid: str, error: Exception, store: BaseObjectStore) -> TreeDamaged:
    # The frames hold on to the mapped file, and dulwich then leaves the pack open when the store is closed.
    traceback.clear_frames(error.__traceback__)
    return TreeDamaged(
        f"object {oid} is damaged: {error}", "run `deploykit mirror check`", repository=directory_of(store)
    )


def _holds(store: BaseObjectStore, oid: str) -> bool:
    """Return whether an object (hex) is in a store, by the indexes of its packs.

    Raises:
        TreeDamaged: they cannot be read.
    """
    try:
        return cast("ObjectID", oid.encode()) in store
    except OSError:
        raise
    except Exception as error:  # as above
        raise _damaged(oid, error, store) from error


def is_ancestor(store: BaseObjectStore, older: str, newer: str) -> bool:
    """Return whether `newer` contains `older` in its history (a commit contains itself), whatever their dates.

    Commits that are not in the store contain nothing.

    Raises:
        TreeError: a commit on the way is damaged, so the answer is unknown.
    """
    with _history(store) as history:
        return history.contains(bytes.fromhex(newer), bytes.fromhex(older))


class Reachable:
    """The commits that some tips have in their history. For one thread.

    What a branch has had lately is found soon. A commit that none has costs their whole history, once: all questions
    are answered from one walk, which goes as far as one of them needed.

    Args:
        store: of one repository, which does not change meanwhile.
        tips: what its refs name; what is neither a commit nor a tag of one counts for nothing.
    """

    def __init__(self, store: BaseObjectStore, tips: Iterable[str]) -> None:
        self._store = store
        self._tips = frozenset(tips)
        self._seen: set[bytes] = set()
        self._walk = self._commits()
        self._damage: TreeError | None = None

    def close(self) -> None:
        """Close the files that the walk has open."""
        self._walk.close()

    def __contains__(self, commit: str) -> bool:
        """Return whether a commit (hex) is in the store, and one of the tips or in their history.

        Raises:
            TreeError: a commit on the way is damaged, so the answer is unknown.
        """
        if len(commit) != self._store.object_format.hex_length or not _holds(self._store, commit):
            return False  # the usual case before a fetch, and no reason for a walk
        if commit in self._tips:
            return True
        raw = bytes.fromhex(commit)
        while raw not in self._seen:
            if self._damage is not None:
                raise self._damage
            try:
                oid = next(self._walk, None)
            except TreeError as error:
                self._damage = error
                raise
            if oid is None:
                return False
            self._seen.add(oid)
        return True

    def _commits(self) -> Generator[bytes]:
        tips = set()
        for tip in self._tips:
            with suppress(RefNotFound):
                tips.add(unhexlify(commit_of(self._store, tip.encode()).id))
        with _history(self._store) as history:
            yield from history.walk(tips)


@contextmanager
def _history(store: BaseObjectStore) -> Iterator[History]:
    """Read commits of a store, each at most once or twice."""
    with ObjectReader(store, max_bytes=_MAX_COMMIT) as reader:

        @lru_cache(maxsize=4096)  # a walk asks for each commit twice
        def find(oid: bytes) -> Found | None:
            name = oid.hex()
            try:
                return COMMIT, reader.read(name.encode(), COMMIT)
            except TreeError:
                if _holds(store, name):
                    raise
                return None

        yield History(find, reader.oid_length)
