"""Disks that are not as a program would like them: small, without upper and lower case, or without fine time stamps."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.support.needs import missing, needs


@contextlib.contextmanager
def caseless_disk(where: Path) -> Iterator[Path]:
    """Mount one at `where`, or say what is missing. It lists every name in lower case, whoever made it how."""
    mount, mkfs = needs("lowntfs-3g", package="ntfs-3g"), needs("mkfs.ntfs", package="ntfs-3g")
    if os.geteuid() != 0 or not Path("/dev/fuse").exists():
        missing("root and /dev/fuse (to mount a file system)")
    image = where.with_name(f"{where.name}.image")
    with image.open("wb") as file:
        file.truncate(64 * 1024 * 1024)
    subprocess.run([mkfs, "-q", "-F", "-f", image], check=True, capture_output=True, timeout=120)
    where.mkdir()
    done = subprocess.run([mount, "-o", "ignore_case,umask=022", image, where], capture_output=True, text=True)
    if done.returncode != 0:
        missing(f"a working lowntfs-3g ({done.stderr.strip()})")
    try:
        yield where
    finally:
        subprocess.run(["umount", str(where)], check=True, timeout=120)


@contextlib.contextmanager
def small_disk(where: Path, options: str) -> Iterator[Path]:
    """A tmpfs of its own."""
    if os.geteuid() != 0:
        missing("root (to mount a tmpfs)")
    needs("mount", package="mount")
    where.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(where)], capture_output=True, text=True)
    if done.returncode:
        missing(f"the right to mount a tmpfs ({done.stderr.strip()})")
    try:
        yield where
    finally:
        subprocess.run(["umount", str(where)], check=True)


@contextlib.contextmanager
def whole_second_disk(where: Path) -> Iterator[Path]:
    """An ext4 whose inodes have no room for fractions of a second."""
    mkfs = needs("mkfs.ext4", package="e2fsprogs")
    if os.geteuid() != 0:
        missing("root (to mount a file system)")
    image = where.with_name(f"{where.name}.image")
    with image.open("wb") as file:
        file.truncate(16 * 1024 * 1024)
    subprocess.run([mkfs, "-q", "-F", "-I", "128", image], check=True, capture_output=True, timeout=120)
    where.mkdir()
    done = subprocess.run(["mount", "-o", "loop", image, where], capture_output=True, text=True)
    if done.returncode != 0:
        missing(f"the right to mount a file ({done.stderr.strip()})")
    try:
        yield where
    finally:
        subprocess.run(["umount", str(where)], check=True, timeout=120)
