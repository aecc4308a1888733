"""Make a name point at another directory, in one step that no reader can catch half done.

A symlink is replaced by a rename, which the kernel does at once: a reader gets the old target or the new one. What is
in the way and is not a symlink is never removed; the caller is told.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from deploykit.errors import PreflightRefused
from deploykit.system.durable import sync_directory


def check_link(link: Path) -> None:
    """Refuse a link name which is taken by something that is not a symlink.

    Raises:
        PreflightRefused: a real directory or file has that name.
    """
    try:
        mode = link.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISLNK(mode):
        kind = "directory" if stat.S_ISDIR(mode) else "file"
        raise PreflightRefused(
            f"{link} is a real {kind}, not a symlink",
            f"move it away (mv {link.name} {link.name}.old); nothing was touched",
        )


def swap_symlink(link: Path, target: str, *, durable: bool = True) -> None:
    """Let `link` point at `target` (as written, usually relative): before the call the old one, after it the new one.

    Raises:
        PreflightRefused: `link` is a real directory or file.
        OSError: the file system refused; the old target stays.
    """
    check_link(link)
    temporary = link.with_name(f".{link.name}.new")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.rename(link)
    if durable:
        sync_directory(link.parent)


def remove_symlink(link: Path, *, durable: bool = True) -> None:
    """Remove `link`, only if it is a symlink; what is not there is fine."""
    check_link(link)
    link.unlink(missing_ok=True)
    if durable:
        sync_directory(link.parent)


def read_link(link: Path) -> str | None:
    """Return what `link` points at, or None where there is no symlink."""
    try:
        return os.readlink(link)  # noqa: PTH115 - the text as written, not a Path
    except OSError:
        return None
