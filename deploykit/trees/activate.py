"""Make a name point at another directory, in one atomic step.

A symlink is replaced by a rename: a reader gets the old target or the new one. A file or directory in its place is
never removed, but refused.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from deploykit.errors import PreflightRefused
from deploykit.system.durable import sync_directory


def check_link(link: Path) -> None:
    """Refuse a link name that is a directory or file.

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
    """Make `link` point at `target` (as written, usually relative), atomically.

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
    """Remove `link`, only if it is a symlink; a missing one is fine."""
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
