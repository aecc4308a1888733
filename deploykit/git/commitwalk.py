"""Commits: what one holds, and which of two is older."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final, cast

from dulwich.errors import NotCommitError
from dulwich.objects import Commit, Tag

from deploykit.errors import RefNotFound, TreeDamaged, TreeError
from deploykit.git.commits import History
from deploykit.git.objectreader import COMMIT, ObjectReader

if TYPE_CHECKING:
    from dulwich.object_store import BaseObjectStore
    from dulwich.objects import ObjectID

_MAX_TAGS: Final = 10
_MAX_COMMIT: Final = 64 * 1024 * 1024


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
    """Tell whether `newer` contains `older` in its history (a commit contains itself), whatever their clocks said.

    Commits that are not in the store contain nothing.

    Raises:
        TreeError: a commit on the way is damaged, and what it contains cannot be told.
    """
    with ObjectReader(store, max_bytes=_MAX_COMMIT) as reader:

        @lru_cache(maxsize=4096)  # each is asked for twice
        def find(oid: bytes) -> tuple[int, bytes] | None:
            name = cast("ObjectID", oid.hex().encode())
            try:
                return COMMIT, reader.read(name, COMMIT)
            except TreeError:
                if name in store:
                    raise
                return None

        return History(find, reader.oid_length).contains(bytes.fromhex(newer), bytes.fromhex(older))
