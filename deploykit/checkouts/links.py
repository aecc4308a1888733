"""The symlinks that readers follow, below a root and some levels deep, and the directories they are in.

Rules:

* Every step below the root is by a descriptor, and none follows a symlink: what somebody puts in the way is refused.
* A symlink is replaced by a rename. A real file or directory is never replaced or removed; it changes places with one
  where somebody asked for that.
* A directory on the way may be anybody's who is trusted. Only an empty one that was made here is removed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

from deploykit.checkouts.rules import parents_of
from deploykit.errors import PreflightRefused
from deploykit.system.durable import sync_directory
from deploykit.system.exchange import exchange
from deploykit.system.ownership import OthersCanChange, require_owned
from deploykit.trees.files import open_directory

_ROOT: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NOT_A_DIRECTORY: Final = (errno.ENOTDIR, errno.ELOOP)


@attrs.frozen(kw_only=True, slots=True)
class LiveLink:
    """A symlink: its text as written, and when it was made (seconds of `time.time`)."""

    text: str
    made: float


class Links:
    """Symlinks at paths below a root.

    Args:
        root: a directory, or a symlink to one.
        temporary: the name of a symlink before it is renamed; one that a killed process left is replaced.
        durable: a change has reached the disk when a call returns.
    """

    def __init__(self, root: Path, temporary: str, *, durable: bool) -> None:
        self._root = root
        self._temporary = temporary
        self._durable = durable

    def read(self, path: str) -> LiveLink | None:
        """Return the symlink at `path`; None where there is nothing.

        Raises:
            PreflightRefused: there is something else, or it cannot be in the directory it would be in.
            OSError: it cannot be looked at.
        """
        with self._above(path) as fd:
            return None if fd is None else self._look(path, fd)

    def seen(self, path: str) -> os.stat_result | None:
        """Return `lstat` of what is at `path`, whatever it is; None where there is nothing.

        Raises:
            PreflightRefused: it cannot be in the directory it would be in.
            OSError: it cannot be looked at.
        """
        with self._above(path) as fd:
            if fd is None:
                return None
            try:
                return os.stat(_name(path), dir_fd=fd, follow_symlinks=False)
            except FileNotFoundError:
                return None

    def exchange(self, path: str, there: int, name: str) -> None:
        """Have what is at `path` and an entry of an open directory change places, whatever they are, in one step.

        Raises:
            PreflightRefused: as for `seen`.
            OSError: one of them is not there, or the file system refused; both stay where they were.
        """
        with self._above(path) as fd:
            if fd is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self._root / path))
            exchange(_name(path), name, at=fd, there=there)
            self._sync(fd)
            self._sync(there)

    def put_back(self, path: str, there: int, name: str) -> None:
        """Move an entry of an open directory to `path`, where nothing is.

        Raises:
            PreflightRefused: as for `seen`.
            OSError: the file system refused.
        """
        with self._above(path) as fd:
            if fd is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self._root / path))
            os.rename(name, _name(path), src_dir_fd=there, dst_dir_fd=fd)
            self._sync(fd)
            self._sync(there)

    def swap(self, path: str, text: str) -> None:
        """Make `path` a symlink with this text, atomically. The directory it is in must be there.

        Raises:
            PreflightRefused: as for `read`.
            OSError: the file system refused; the old symlink stays.
        """
        with self._above(path) as fd:
            if fd is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self._root / path))
            self._look(path, fd)
            self._discard(self._temporary, fd)
            os.symlink(text, self._temporary, dir_fd=fd)
            os.rename(self._temporary, _name(path), src_dir_fd=fd, dst_dir_fd=fd)
            self._sync(fd)

    def remove(self, path: str) -> None:
        """Remove the symlink at `path`; nothing there is fine.

        Raises:
            PreflightRefused: as for `read`.
            OSError: the file system refused.
        """
        with self._above(path) as fd:
            if fd is None:
                return
            self._discard(self._temporary, fd)
            if self._look(path, fd) is not None:
                self._discard(_name(path), fd)
            self._sync(fd)

    def missing_parents(self, path: str) -> tuple[str, ...]:
        """Return the directories on the way to `path` that are not there, outermost first.

        Raises:
            PreflightRefused: something else is in the way.
        """
        parents = parents_of(path)
        for at, parent in enumerate(parents):
            with self._open(parent, path) as fd:
                if fd is None:
                    return parents[at:]
        return ()

    def make_parent(self, path: str) -> bool:
        """Make a directory; return False where somebody else just did."""
        with self._above(path) as fd:
            if fd is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self._root / path))
            try:
                os.mkdir(_name(path), dir_fd=fd)
            except FileExistsError:
                return False
            self._sync(fd)
            return True

    def remove_parent(self, path: str) -> bool:
        """Remove a directory that was made here, if it is empty; return whether there is nothing of ours left."""
        try:
            with self._above(path) as fd:
                if fd is None:
                    return True
                os.rmdir(_name(path), dir_fd=fd)
                self._sync(fd)
        except PreflightRefused:
            return True  # something else has its name: not ours
        except OSError as error:
            return error.errno in (errno.ENOENT, errno.ENOTDIR)
        return True

    def _look(self, path: str, fd: int) -> LiveLink | None:
        name = _name(path)
        try:
            seen = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            return None
        if not stat.S_ISLNK(seen.st_mode):
            if stat.S_ISDIR(seen.st_mode):
                raise in_the_way(self._root / path, "a real directory")
            raise no_checkout(self._root / path)
        return LiveLink(text=os.readlink(name, dir_fd=fd), made=seen.st_mtime)

    def _discard(self, name: str, fd: int) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=fd)

    def _sync(self, fd: int) -> None:
        if self._durable:
            sync_directory(fd)

    def _above(self, path: str) -> contextlib.AbstractContextManager[int | None]:
        return self._open(path.rpartition("/")[0], path)

    @contextlib.contextmanager
    def _open(self, directory: str, path: str) -> Iterator[int | None]:
        """Hold a directory on the way to `path` open; None where it is not there."""
        fd = self._walk(directory, path)
        try:
            yield fd
        finally:
            if fd is not None:
                os.close(fd)

    def _walk(self, directory: str, path: str) -> int | None:
        here = self._root
        try:
            fd = os.open(here, _ROOT)
        except FileNotFoundError:
            return None
        try:
            for part in directory.split("/") if directory else ():
                here = here / part
                step = open_directory(part, fd)
                os.close(fd)
                fd = step
                _check_trusted(here, fd)
        except FileNotFoundError:
            os.close(fd)
            return None
        except OSError as error:
            os.close(fd)
            if error.errno in _NOT_A_DIRECTORY:
                raise PreflightRefused(
                    f"{here} is in the way of {self._root / path}: a file or a symlink, not a directory",
                    "rename the ref, or move away what is there",
                ) from None
            raise
        except BaseException:
            os.close(fd)
            raise
        return fd


def in_the_way(place: Path, what: str) -> PreflightRefused:
    """Return the refusal of a directory that was not made here, or of a symlink to one, with the way to take it over.

    Nothing of it is touched until somebody asks for that.
    """
    return PreflightRefused(
        f"{place} is not a checkout: {what}",
        f"see what it holds that no repository has: deploykit checkout adopt {_quoted(place)} --dry-run; without "
        "--dry-run the checkout takes its place, and it is kept",
    )


def no_checkout(place: Path) -> PreflightRefused:
    """Return the refusal of a file in the place of a checkout: it cannot be taken over."""
    return PreflightRefused(
        f"{place} is not a checkout: a file",
        f"mv {_quoted(place)} {_quoted(place)}.before; the next update makes the checkout",
    )


def _quoted(place: Path) -> str:
    return shlex.quote(str(place))


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _check_trusted(place: Path, fd: int) -> None:
    """Refuse root a directory on the way in which others could swap our symlinks."""
    if os.geteuid() != 0:
        return
    try:
        require_owned(str(place), fd, frozenset({0}))
    except OthersCanChange as found:
        raise PreflightRefused(
            f"{place} is not safe for a checkout: others can change it: {found.why}", found.remedy
        ) from None
