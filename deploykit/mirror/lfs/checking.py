"""Check the objects of Git LFS in a mirror: each is what its name says, and no ref lacks one. Changes nothing."""

from __future__ import annotations

import time
from pathlib import Path

import attrs

from deploykit.errors import MirrorCorrupt
from deploykit.mirror.checking import MOST_PROBLEMS, CheckReport
from deploykit.mirror.lfs.store import LfsStore, is_sound
from deploykit.mirror.lfs.tips import needs_of
from deploykit.mirror.refstore import RefStore


def check_objects(report: CheckReport, path: Path, *, asked_for: bool = False) -> CheckReport:
    """Return what was found of a mirror's packs and refs, with what is wrong with its objects of Git LFS.

    The caller holds the mirror's lock.

    Args:
        report: of the mirror at `path`; of one that is damaged, only the objects themselves are read.
        asked_for: refs need their objects even where the mirror holds none at all.

    Raises:
        MirrorError: the disk cannot be read.
    """
    began = time.monotonic()
    store = LfsStore(path / "lfs")
    problems = list(report.problems)
    count = 0
    for oid, file, _ in sorted(store.held()):
        count += 1
        if not is_sound(file):
            problems.append(f"the Git LFS object {oid} is damaged")
    if report.sound and (asked_for or store.root.is_dir()):
        problems += missing_objects(path)
    return attrs.evolve(
        report,
        problems=tuple(problems[:MOST_PROBLEMS]),
        lfs_objects=count,
        seconds=report.seconds + time.monotonic() - began,
    )


def missing_objects(path: Path) -> list[str]:
    """Return a line for each ref of the mirror at `path` that lacks objects of Git LFS.

    Raises:
        MirrorError: the refs cannot be read.
    """
    try:
        refs = RefStore(path).read()
        found = needs_of(path, refs.values())
    except MirrorCorrupt as error:
        return [error.problem]
    missing = LfsStore(path / "lfs").lacking(found.paths)
    gaps = found.gaps(refs, dict.fromkeys(missing, "the mirror does not hold it"))
    return [f"{gap.ref}: {gap.reason}" for gap in gaps]


__all__ = ["check_objects", "missing_objects"]
