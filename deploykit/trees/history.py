"""Commits: what one holds, and which of two is older."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final, cast

from dulwich.errors import NotCommitError
from dulwich.objects import Commit, RawObjectID, Tag

from deploykit.errors import RefNotFound, TreeDamaged
from deploykit.mirror.packformat import Found
from deploykit.mirror.policy import History

if TYPE_CHECKING:
    from dulwich.object_store import BaseObjectStore
    from dulwich.objects import ObjectID

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
    """Tell whether `newer` contains `older` in its history (a commit contains itself), whatever their clocks said.

    A commit that is not in the store contains nothing, and is in no other.

    Raises:
        TreeDamaged: a commit on the way cannot be read.
    """

    @lru_cache(maxsize=4096)  # each is asked for twice
    def find(oid: bytes) -> Found | None:
        try:
            return store.get_raw(RawObjectID(oid))
        except KeyError:
            return None
        except OSError:
            raise
        except Exception as error:
            raise TreeDamaged(f"object {oid.hex()} is damaged: {error}", "run `deploykit mirror check`") from error

    history = History(find, store.object_format.oid_length)
    old, new = (history.peel(bytes.fromhex(oid)) for oid in (older, newer))
    return find(old) is not None and find(new) is not None and history.contains(new, old)
