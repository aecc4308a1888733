"""Commits: what one holds, and which of two is older."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Final, cast

from dulwich.errors import NotCommitError
from dulwich.objects import Commit, Tag

from deploykit.errors import RefNotFound, TreeDamaged

if TYPE_CHECKING:
    from dulwich.object_store import BaseObjectStore
    from dulwich.objects import ObjectID

#: Committers' clocks disagree; a commit this much "older" than what is sought may still descend from it.
_CLOCK_SLACK: Final = 7 * 24 * 3600
_MAX_TAGS: Final = 10


def commit_of(store: BaseObjectStore, oid: bytes) -> Commit:
    """Return the commit `oid` (hex) is, or points at through tags.

    Raises:
        RefNotFound: missing, or not a commit.
        TreeDamaged: its bytes are not what they were.
    """
    for _ in range(_MAX_TAGS):
        try:
            found = store[cast("ObjectID", oid)]
        except (KeyError, NotCommitError) as error:
            raise RefNotFound(f"there is no commit {oid.decode()}", "fetch first, or check the id") from error
        except OSError:
            raise
        except Exception as error:  # whatever dulwich runs into in a damaged object
            raise TreeDamaged(f"object {oid.decode()} is damaged: {error}", "run `deploykit mirror check`") from error
        if isinstance(found, Commit):
            return found
        if not isinstance(found, Tag):
            break
        oid = found.object[1]
    raise RefNotFound(f"{oid.decode()} is not a commit", "give a tag, a branch or a commit")


def is_ancestor(store: BaseObjectStore, older: str, newer: str) -> bool:
    """Tell whether `newer` contains `older` in its history (a commit contains itself).

    Walks back from `newer` by date and stops where everything left is clearly older than `older`; unknown commits
    contain nothing.
    """
    if older == newer:
        return True
    try:
        goal = commit_of(store, older.encode())
        start = commit_of(store, newer.encode())
    except RefNotFound:
        return False
    floor = goal.commit_time - _CLOCK_SLACK
    todo = [(-start.commit_time, start.id)]
    seen = {start.id}
    while todo:
        when, oid = heapq.heappop(todo)
        if oid == goal.id:
            return True
        if -when < floor:
            continue
        try:
            parents = commit_of(store, oid).parents
        except RefNotFound:
            continue
        for parent in parents:
            if parent not in seen:
                seen.add(parent)
                try:
                    time = commit_of(store, parent).commit_time
                except RefNotFound:
                    continue
                heapq.heappush(todo, (-time, parent))
    return False
