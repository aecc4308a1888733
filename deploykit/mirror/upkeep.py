"""Keep a mirror small and quick: few packs, packed refs, nothing left over from what was cut off.

Rules:

* The git program inherits the mirror's lock: no fetch starts while git still works, even if this process is killed.
* Only what no ref reaches is ever dropped: by git, and of Git LFS by `lfs.pruning`.
* Without the git program packs pile up: slow, but right.
"""

from __future__ import annotations

import logging
import shutil
import subprocess
import time
from pathlib import Path
from typing import Final

import attrs

from deploykit.errors import MirrorError
from deploykit.git.transport.pktline import printable
from deploykit.git.transport.remote import child_environment
from deploykit.mirror import layout
from deploykit.mirror.lfs import pruning
from deploykit.mirror.lfs.store import LfsStore
from deploykit.mirror.refstore import RefStore
from deploykit.settings.mirror import MirrorSettings

_log = logging.getLogger(__name__)
#: Left over in `objects/pack` by a git that was killed.
_LEFTOVERS: Final = ("objects/pack/tmp_*", "objects/pack/.tmp-*", "packed-refs.lock", "packed-refs.new", "*.lock.new")


@attrs.frozen(kw_only=True, slots=True)
class UpkeepResult:
    """What upkeep did: packs before and after, objects of Git LFS removed, and how long it took."""

    packs_before: int
    packs_after: int
    seconds: float
    lfs_removed: int = 0


def packs_of(path: Path) -> int:
    """Return how many packs a mirror has."""
    return sum(1 for _ in (path / "objects" / "pack").glob("*.idx"))


def is_due(path: Path, settings: MirrorSettings) -> bool:
    """Return whether so many packs have piled up that they are worth joining, or objects of Git LFS may be unneeded."""
    if settings.repack_after and packs_of(path) > settings.repack_after:
        return True
    return settings.lfs and pruning.is_due(path, time.time())


def upkeep(path: Path, settings: MirrorSettings, *, full: bool = False, wait: float = 600.0) -> UpkeepResult:
    """Join packs, pack refs, remove leftovers and unneeded objects of Git LFS of the mirror at `path`.

    Args:
        full: one pack of all that refs reach, and nothing else; otherwise only small packs are joined.
        wait: seconds to wait for a fetch that is under way, and then for git.

    Raises:
        LockBusy: a fetch takes longer.
        MirrorError: git failed, or a tree is damaged; what refs need is still there.
    """
    started = time.monotonic()
    with layout.locked(path, wait) as lock:
        _sweep(path)
        RefStore(path).pack()
        removed = pruning.prune(path, time.time()) if settings.lfs else 0
        before = packs_of(path)
        if full or (settings.repack_after and before > 1):
            _repack(path, lock, full=full, wait=wait)
        after = packs_of(path)
    return UpkeepResult(packs_before=before, packs_after=after, seconds=time.monotonic() - started, lfs_removed=removed)


def _sweep(path: Path) -> None:
    """Remove what a killed process left. The lock is held, so no process works on any of it."""
    for pattern in _LEFTOVERS:
        for left in path.glob(pattern):
            left.unlink(missing_ok=True)
    packs = path / "objects" / "pack"
    for pack in packs.glob("*.pack"):
        if not pack.with_suffix(".idx").exists():
            pack.unlink(missing_ok=True)
    for left in (path / "quarantine").iterdir():
        left.unlink(missing_ok=True)
    LfsStore(path / "lfs").sweep()


def _repack(path: Path, lock: int, *, full: bool, wait: float) -> None:
    if shutil.which("git") is None:
        _log.warning("%s: packs pile up, and there is no git program to join them (apt-get install git)", path.name)
        return
    options = ["-a"] if full else ["--geometric=2"]
    argv = ["git", "-C", str(path), "repack", "-q", "-d", *options]
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=wait,
            env=child_environment({"GIT_DIR": str(path)}),
            pass_fds=(lock,),
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise MirrorError(f"repacking {path} took longer than {wait:g} s", "allow more time") from None
    except OSError as exc:
        raise MirrorError(f"cannot start git: {exc.strerror}") from exc
    if done.returncode:
        problem = printable(b" / ".join(done.stderr.splitlines()[-3:]))
        raise MirrorError(f"git could not repack {path}: {problem}", "run `deploykit mirror check`")
