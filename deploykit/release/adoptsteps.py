"""Single steps of an adoption. Each is done or is not, and can be tried again."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from deploykit.release.adoption import leads_out
from deploykit.release.livefiles import walk
from deploykit.system.durable import sync_directory
from deploykit.trees import read_link
from deploykit.trees.files import open_directory


def links_leading_out(fd: int) -> Iterator[tuple[str, str]]:
    """Yield path and text of each symlink below an open directory that leads out of it by a relative path."""
    for path, seen, at, name in walk(fd):
        if stat.S_ISLNK(seen.st_mode):
            text = os.readlink(name, dir_fd=at)
            if leads_out(path, text):
                yield path, text


def whole_path(root: Path, path: str, text: str) -> str:
    """Return where a relative symlink of a directory leads, as an absolute path."""
    return os.path.normpath((root / path).parent / text)


def say(root: Path, path: str, text: str, workshop: Path) -> None:
    """Replace a symlink below a directory by one with another text, at once; its owner stays.

    Args:
        workshop: a directory on the same file system in which the new one is made: nothing is left beside the old one.
    """
    directory, _, name = path.rpartition("/")
    fd = open_directory(root)
    try:
        for part in directory.split("/") if directory else ():
            below = open_directory(part, fd)
            os.close(fd)
            fd = below
        if os.readlink(name, dir_fd=fd) == text:
            return
        seen = os.stat(name, dir_fd=fd, follow_symlinks=False)
        made = workshop / "link"
        made.unlink(missing_ok=True)
        made.symlink_to(text)
        if os.geteuid() == 0:
            os.chown(made, seen.st_uid, seen.st_gid, follow_symlinks=False)
        os.rename(made, name, dst_dir_fd=fd)
    finally:
        os.close(fd)


def point(link: Path, text: str) -> None:
    """Make a symlink say `text`, at once, whether or not there is one."""
    if read_link(link) == text:
        return
    temporary = link.with_name(f".{link.name}.new")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(text)
    temporary.rename(link)
    sync_directory(link.parent)


def is_moved(release: Path) -> bool:
    """Return whether a release's directory is there, and not the symlink that was prepared in its place."""
    return release.is_dir() and not release.is_symlink()
