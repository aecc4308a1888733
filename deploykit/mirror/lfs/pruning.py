"""Remove objects of Git LFS that no ref needs any more.

Rules:

* An object goes when it was found unneeded twice, `KEPT_FOR` apart: whoever writes an older commit, or a ref that
  comes back, has that long.
* Where one tree cannot be read, nothing goes: it may need any of them.
* `unneeded` is only memory. Without it objects stay longer.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import Final

import attrs

from deploykit.mirror.lfs.store import LfsStore
from deploykit.mirror.lfs.tips import needs_of
from deploykit.mirror.refstore import RefStore
from deploykit.system.durable import replace_file

_log = logging.getLogger(__name__)
#: Seconds from the first time that an object was found unneeded.
KEPT_FOR: Final = 14 * 86400
#: Seconds between two looks.
_EVERY: Final = 86400


@attrs.frozen(slots=True)
class LfsPrunePlan:
    """Which objects go, and when each of the other unneeded ones was first found to be (seconds since 1970)."""

    gone: frozenset[str]
    unneeded: Mapping[str, int]


def plan_pruning(held: Iterable[str], needed: Container[str], unneeded: Mapping[str, int], now: int) -> LfsPrunePlan:
    """Decide which of the objects go.

    Args:
        held: ids of those in the store.
        needed: of those that a ref needs.
        unneeded: of the last plan.
        now: seconds since 1970. A time of the last plan that lies after it counts as now.

    >>> plan_pruning(["a", "b"], {"a"}, {"a": 0, "b": 7}, KEPT_FOR + 7).gone
    frozenset({'b'})
    """
    since = {oid: min(unneeded.get(oid, now), now) for oid in held if oid not in needed}
    gone = frozenset(oid for oid, first in since.items() if now - first >= KEPT_FOR)
    return LfsPrunePlan(gone, {oid: first for oid, first in since.items() if oid not in gone})


def is_due(path: Path, now: float) -> bool:
    """Return whether it is time to look for unneeded objects in the mirror at `path`.

    Raises:
        OSError: the disk fails.
    """
    store = LfsStore(path / "lfs")
    with contextlib.suppress(FileNotFoundError):
        if 0 <= now - _memory(store).stat().st_mtime < _EVERY:
            return False
    return any(True for _ in store.held())


def prune(path: Path, now: float) -> int:
    """Remove what no ref of the mirror at `path` needs, and return how many objects. The caller holds its lock.

    Raises:
        MirrorCorrupt: a tree is damaged.
        OSError: the disk fails.
    """
    store = LfsStore(path / "lfs")
    held = {oid: file for oid, file, _ in store.held()}
    if not held:
        return 0
    refs = RefStore(path).read()
    found, unneeded = needs_of(path, refs.values()), _read(store)
    if found.unread:
        _log.warning("%s: no LFS object is removed: %s", path.name, next(iter(found.unread.values())))
        plan = LfsPrunePlan(frozenset(), unneeded)
    else:
        plan = plan_pruning(held, {pointer.oid for pointer in found.paths}, unneeded, int(now))
    if plan.gone:
        store.write_complete(store.read_complete() & set(refs.values()))  # of others, something may go
    for oid in plan.gone:
        held[oid].unlink(missing_ok=True)
    replace_file(_memory(store), "".join(f"{oid} {first}\n" for oid, first in sorted(plan.unneeded.items())).encode())
    return len(plan.gone)


def _memory(store: LfsStore) -> Path:
    return store.root / "unneeded"


def _read(store: LfsStore) -> dict[str, int]:
    found: dict[str, int] = {}
    with contextlib.suppress(FileNotFoundError):
        for line in _memory(store).read_text("ascii", "replace").splitlines():
            oid, _, first = line.partition(" ")
            if first.isascii() and first.isdecimal():
                found[oid] = int(first[:15])
    return found


__all__ = ["KEPT_FOR", "LfsPrunePlan", "is_due", "plan_pruning", "prune"]
