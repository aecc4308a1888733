"""Disks that are not as a program would like them: small, without upper and lower case, or without fine time stamps."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.support.needs import missing, needs


@contextlib.contextmanager
def _mounted(where: Path, argv: Sequence[str | Path], what: str) -> Iterator[Path]:
    """Make `where`, and mount something there by `argv`; say that `what` is missing where that does not work."""
    where.mkdir()
    done = subprocess.run([*argv, where], capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        missing(f"{what} ({done.stderr.strip()})")
    try:
        yield where
    finally:
        subprocess.run(["umount", where], check=True, timeout=120)


def _image(where: Path, megabytes: int, mkfs: Sequence[str | Path]) -> Path:
    """Make a file system in a file beside `where`."""
    image = where.with_name(f"{where.name}.image")
    with image.open("wb") as file:
        file.truncate(megabytes * 1024 * 1024)
    subprocess.run([*mkfs, image], check=True, capture_output=True, timeout=120)
    return image


@contextlib.contextmanager
def caseless_disk(where: Path) -> Iterator[Path]:
    """Mount one at `where`, or say what is missing. It lists every name in lower case, whoever made it how."""
    mount, mkfs = needs("lowntfs-3g", package="ntfs-3g"), needs("mkfs.ntfs", package="ntfs-3g")
    if os.geteuid() != 0 or not Path("/dev/fuse").exists():
        missing("root and /dev/fuse (to mount a file system)")
    image = _image(where, 64, [mkfs, "-q", "-F", "-f"])
    with _mounted(where, [mount, "-o", "ignore_case,umask=022", image], "a working lowntfs-3g"):
        yield where


@contextlib.contextmanager
def small_disk(where: Path, options: str) -> Iterator[Path]:
    """A tmpfs of its own."""
    mount = needs("mount", package="mount")
    if os.geteuid() != 0:
        missing("root (to mount a tmpfs)")
    with _mounted(where, [mount, "-t", "tmpfs", "-o", options, "tmpfs"], "the right to mount a tmpfs"):
        yield where


@contextlib.contextmanager
def whole_second_disk(where: Path) -> Iterator[Path]:
    """An ext4 whose inodes have no room for fractions of a second."""
    mount, mkfs = needs("mount", package="mount"), needs("mkfs.ext4", package="e2fsprogs")
    if os.geteuid() != 0:
        missing("root (to mount a file system)")
    image = _image(where, 16, [mkfs, "-q", "-F", "-I", "128"])
    with _mounted(where, [mount, "-o", "loop", image], "the right to mount a file"):
        yield where


@contextlib.contextmanager
def full(disk: Path, what: str) -> Iterator[Callable[[], None]]:
    """Use up what a small `disk` has of "bytes" or "inodes", and give it back after.

    What comes out uses up what was freed meanwhile.
    """
    ballast = disk / "ballast"
    ballast.mkdir()
    numbers = itertools.count()

    def fill() -> None:
        with contextlib.suppress(OSError):
            if what == "inodes":
                while True:
                    (ballast / str(next(numbers))).touch()
            with (ballast / "bytes").open("ab", buffering=0) as file:
                while file.write(b"x" * 4096):
                    pass

    fill()
    try:
        yield fill
    finally:
        shutil.rmtree(ballast)
