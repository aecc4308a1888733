"""Commits: what a tag stands for, when a commit was made, and which of two contains the other.

Rules:

* `History` reads objects through one narrow function, so that a mirror's store and any other serve.
* Dates order a walk and never decide it: committers' clocks are often wrong, and whoever writes a commit chooses its
  date.
"""

from __future__ import annotations

import heapq
import re
from binascii import unhexlify
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Final, cast

import attrs
from dulwich.errors import NotCommitError
from dulwich.objects import Commit, ShaFile

from deploykit.errors import PackError, RefNotFound, TreeDamaged, TreeError
from deploykit.git.objectformat import COMMIT, TAG, Found
from deploykit.git.objectlinks import commit_links, tag_link
from deploykit.git.objectreader import ObjectReader

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
            raise _damaged(raw.hex(), error) from error
        return found.type_num, found.as_raw_string()

    try:
        target = History(find, len(oid) // 2).peel(unhexlify(oid))
    except (PackError, ValueError) as error:
        raise _damaged(ascii(oid.decode("ascii", "replace"))[1:-1], error) from error
    commit = read.get(target)
    if commit is None:
        raise RefNotFound(f"there is no commit {target.hex()}", "fetch first, or check the id")
    if not isinstance(commit, Commit):
        raise RefNotFound(f"{target.hex()} is not a commit", "give a tag, a branch or a commit")
    return commit


def _damaged(oid: str, error: Exception) -> TreeDamaged:
    return TreeDamaged(f"object {oid} is damaged: {error}", "run `deploykit mirror check`")


def is_ancestor(store: BaseObjectStore, older: str, newer: str) -> bool:
    """Return whether `newer` contains `older` in its history (a commit contains itself), whatever their dates.

    Commits that are not in the store contain nothing.

    Raises:
        TreeError: a commit on the way is damaged, so the answer is unknown.
    """
    with ObjectReader(store, max_bytes=_MAX_COMMIT) as reader:

        @lru_cache(maxsize=4096)  # a walk asks for each commit twice
        def find(oid: bytes) -> Found | None:
            name = cast("ObjectID", oid.hex().encode())
            try:
                return COMMIT, reader.read(name, COMMIT)
            except TreeError:
                if name in store:
                    raise
                return None

        return History(find, reader.oid_length).contains(bytes.fromhex(newer), bytes.fromhex(older))
