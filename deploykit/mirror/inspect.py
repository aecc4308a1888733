"""Look at mirrors without their settings: for people and scripts. Read only."""

from __future__ import annotations

from pathlib import Path

import attrs

from deploykit.errors import UsageError
from deploykit.mirror import layout
from deploykit.mirror.checking import CheckReport, check
from deploykit.mirror.lfs.checking import check_objects
from deploykit.mirror.refstore import RefStore
from deploykit.names import ObjectId, RefName


@attrs.frozen(kw_only=True, slots=True)
class MirrorInfo:
    """A mirror at a glance. `bytes` counts its packs; `format` is `sha1` or `sha256`."""

    path: Path
    refs: int
    packs: int
    bytes: int
    head: RefName | None
    format: str


def find_mirrors(directory: Path) -> list[Path]:
    """Return the mirrors right below a directory, by name."""
    if not directory.is_dir():
        return []
    return sorted(path for path in directory.iterdir() if layout.is_repository(path) and path.suffix != ".damaged")


def describe(path: Path) -> MirrorInfo:
    """Return what is at `path`.

    Raises:
        UsageError: there is no bare repository.
        MirrorCorrupt: it cannot be read.
    """
    _require_mirror(path)
    packs = list((path / "objects" / "pack").glob("*.pack"))
    refs = RefStore(path)
    return MirrorInfo(
        path=path,
        refs=len(refs.read()),
        packs=len(packs),
        bytes=sum(pack.stat().st_size for pack in packs),
        head=refs.head,
        format=layout.read_format(path).name,
    )


def refs_of(path: Path) -> dict[RefName, ObjectId]:
    """Return all refs of the mirror at `path`, by name.

    Raises:
        UsageError: there is no bare repository.
    """
    _require_mirror(path)
    return dict(sorted(RefStore(path).read().items()))


def check_path(path: Path, *, lfs: bool = False, wait: float = 600.0) -> CheckReport:
    """Check the mirror at `path`, without knowing its origin.

    Args:
        lfs: its refs need their objects of Git LFS, even where it holds none at all.
        wait: seconds to wait for a fetch that is under way.

    Raises:
        UsageError: there is no bare repository.
        LockBusy: a fetch goes on for longer than `wait` seconds.
    """
    _require_mirror(path)
    with layout.locked(path, wait):
        return check_objects(check(path), path, asked_for=lfs)


def _require_mirror(path: Path) -> None:
    if not layout.is_repository(path):
        raise UsageError(f"{path} is not a mirror", "give the directory that `mirror sync` made")
