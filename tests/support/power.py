"""A disk whose power can be cut."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.needs import in_ci, needs


class Disk:
    """An ext4 file system in a file, whose power can be cut.

    It is plugged in again from a copy of the file: a process in a mount namespace of its own, which came to be while
    this was mounted, keeps the dead file system alive, and the kernel would give that one out again.
    """

    def __init__(self, base: Path) -> None:
        self.xfs_io = needs("xfs_io", package="xfsprogs")
        mkfs = needs("mkfs.ext4", package="e2fsprogs")
        if os.geteuid() != 0:
            (pytest.fail if in_ci() else pytest.skip)("needs root, to mount a file system")
        self.base, self.where, self.saved = base, base / "disk", base / "saved"
        self.image = base / "image"
        self.copies = 0
        self.where.mkdir()
        with self.image.open("wb") as file:
            file.truncate(48 * 1024 * 1024)
        subprocess.run([mkfs, "-q", "-F", self.image], check=True)
        self.mount(first=True)

    def mount(self, *, first: bool = False) -> None:
        """Plug it in."""
        words = ["mount", "-o", "loop,commit=3600", str(self.image), str(self.where)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode != 0 and first:
            (pytest.fail if in_ci() else pytest.skip)(f"cannot mount a file: {done.stderr.strip()}")
        assert done.returncode == 0, done.stderr

    def unmount(self) -> None:
        """Unplug it properly."""
        if self.where.is_mount():
            subprocess.run(["umount", self.where], check=True)

    def save(self) -> None:
        """Keep its content for `restore`."""
        self.unmount()
        subprocess.run(["cp", "--sparse=always", self.image, self.saved], check=True)
        self.mount()

    def restore(self) -> None:
        """Put back what was saved."""
        self.unmount()
        self._copy(self.saved)
        self.mount()

    def _copy(self, source: Path) -> None:
        self.copies += 1
        old, self.image = self.image, self.base / f"image-{self.copies}"
        subprocess.run(["cp", "--sparse=always", source, self.image], check=True)
        old.unlink()

    def cut(self) -> None:
        """Pull the plug, and plug in again: what was not on the disk is gone."""
        subprocess.run([self.xfs_io, "-x", "-c", "shutdown", self.where], check=True, capture_output=True)
        self.unmount()
        self._copy(self.image)
        self.mount()
