"""Single steps of an adoption. Each is done or is not, and can be tried again."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from deploykit.release.adoption import leads_out
from deploykit.release.site import Site
from deploykit.system.durable import sync_directory
from deploykit.system.exchange import exchange
from deploykit.trees import read_link
from deploykit.trees.files import open_directory
from deploykit.trees.livefiles import walk


def links_leading_out(fd: int) -> Iterator[tuple[str, str]]:
    """Yield path and text of each symlink below an open directory that leads out of it by a relative path."""
    for path, seen, at, name in walk(fd):
        if stat.S_ISLNK(seen.st_mode):
            text = os.readlink(name, dir_fd=at)
            if leads_out(path, text):
                yield path, text


def whole_path(root: Path, path: str, text: str) -> str:
    """Return where a relative symlink of a directory leads, as an absolute path; no symlink is on the way to `root`.

    >>> whole_path(Path("/www/shop"), "lib/a", "../../kept/../b"), whole_path(Path("/www/shop"), "a", "..")
    ('/www/kept/../b', '/www')
    """
    parts = [part for part in text.split("/") if part not in ("", ".")]
    up = next((n for n, part in enumerate(parts) if part != ".."), len(parts))
    start = os.path.normpath((root / path).parent / "/".join(parts[:up]))
    return "/".join([start.rstrip("/"), *parts[up:]]) or "/"  # what follows may be symlinks: their `..` is elsewhere


@contextlib.contextmanager
def parent_of(root: Path, path: str) -> Iterator[tuple[int, str]]:
    """Yield the open directory that an entry below `root` is in, and its name there; no symlink is followed."""
    directory, _, name = path.rpartition("/")
    fd = open_directory(root)
    try:
        for part in directory.split("/") if directory else ():
            below = open_directory(part, fd)
            os.close(fd)
            fd = below
        yield fd, name
    finally:
        os.close(fd)


def is_symlink(name: str, fd: int) -> bool:
    """Return whether an entry of an open directory is a symlink.

    Raises:
        FileNotFoundError: it is not there.
    """
    return stat.S_ISLNK(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode)


def say(root: Path, path: str, old: str, new: str, workshop: Path) -> None:
    """Make a symlink below a directory that says `old` say `new`, at once; its owner stays.

    One that says something else by now, or is gone, is left alone: somebody uses the directory.

    Args:
        workshop: a directory on the same file system in which the new one is made: nothing is left beside the old one.
    """
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), parent_of(root, path) as (fd, name):
        seen = os.stat(name, dir_fd=fd, follow_symlinks=False)
        if not stat.S_ISLNK(seen.st_mode) or os.readlink(name, dir_fd=fd) != old:
            return
        made = workshop / "link"
        made.unlink(missing_ok=True)
        made.symlink_to(new)
        if os.geteuid() == 0:
            os.chown(made, seen.st_uid, seen.st_gid, follow_symlinks=False)
        os.rename(made, name, dst_dir_fd=fd)
        os.fsync(fd)


def share(site: Site, release: Path, path: str) -> None:
    """Exchange a shared path of a release with a symlink that was prepared in `shared/`."""
    there = site.shared_dir / path
    with parent_of(release, path) as (fd, name):  # its owner may swap what is on the way for a symlink
        if is_symlink(name, fd):
            return
        there.parent.mkdir(parents=True, exist_ok=True)
        point(there, "../" * (path.count("/") + 2) + "shared/" + path)
        exchange(name, there, at=fd)
        os.fsync(fd)
        sync_directory(there.parent)


def take_back_shared(site: Site, release: Path, path: str) -> None:
    """Put a shared path back into a release, and remove what was prepared in `shared/`."""
    there = site.shared_dir / path
    with contextlib.suppress(FileNotFoundError), parent_of(release, path) as (fd, name):
        if is_symlink(name, fd) and os.path.lexists(there) and not there.is_symlink():
            exchange(name, there, at=fd)
            os.fsync(fd)
    if there.is_symlink():
        there.unlink()
        sync_directory(there.parent)


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
