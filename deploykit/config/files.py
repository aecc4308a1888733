"""The settings file and the files in `conf.d` beside it: which they are, and their content.

Rules:

* `conf.d/*.toml` are read in the order of their names. Hidden files and backups of editors are not.
* Root reads no file that others can change, and no `conf.d` where others can put one.
* Who is not root reads from `conf.d` only what belongs to root, to them, or to the owner of the main file: nobody
  names that directory, it is there or it is not.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs

from deploykit.errors import SettingsError
from deploykit.system.ownership import OthersCanChange, require_owned, user_name

DEFAULT_PATH: Final = Path("/etc/deploykit/deploykit.toml")
#: The directory beside the settings file.
DIRECTORY: Final = "conf.d"


@attrs.frozen(kw_only=True, slots=True)
class SettingsFile:
    """A file that was read.

    Args:
        mode: its permission bits.
    """

    path: Path
    raw: bytes = attrs.field(repr=False)
    mode: int


def main_path(path: Path | None, environ: Mapping[str, str]) -> Path:
    """Return the settings file: `path`, or else `$DEPLOYKIT_CONFIG`, or else the default."""
    return path or Path(environ.get("DEPLOYKIT_CONFIG") or DEFAULT_PATH)


def settings_files(path: Path | None = None, *, environ: Mapping[str, str] | None = None) -> tuple[Path, ...]:
    """Return the files that `load_settings` reads: the settings file, and those in `conf.d` beside it.

    Raises:
        SettingsError: `conf.d` cannot be read, or others can change it.
    """
    main = main_path(path, os.environ if environ is None else environ)
    with _directory_of(main) as (directory, names, _):
        return (main, *(directory / name for name in names))


def read_file(path: Path, remedy: str) -> SettingsFile:
    """Read one file.

    Raises:
        SettingsError: it cannot be read, or others can change it and we are root.
    """
    return _read(path, None, None, remedy)


def read_files(main: Path) -> tuple[list[SettingsFile], list[str]]:
    """Read the settings file and those in `conf.d` beside it.

    Returns:
        What could be read, the settings file first; and the problems of the others.

    Raises:
        SettingsError: the settings file itself cannot be read, or `conf.d` cannot.
    """
    found = [read_file(main, "give another file with --config, or create it")]
    problems: list[str] = []
    with _directory_of(main) as (directory, names, fd):
        trusted = _trusted(main)
        for name in names:
            try:
                found.append(_read(directory / name, fd, trusted, "let the daemons read it, or remove it"))
            except SettingsError as error:
                problems.append(str(error))
    return found, problems


@contextmanager
def _directory_of(main: Path) -> Iterator[tuple[Path, list[str], int]]:
    """Yield `conf.d`, the names in it that count, and a descriptor of it; no names where it is not there."""
    path = main.parent / DIRECTORY
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield path, [], -1
        return
    except OSError as error:
        raise SettingsError(f"cannot read settings {path}: {error.strerror}", "let the daemons read it") from error
    try:
        _check(path, fd, _trusted(main))
        # By the descriptor that was checked, not by the path.
        yield path, sorted(filter(_counts, os.listdir(fd))), fd  # noqa: PTH208
    finally:
        os.close(fd)


def _counts(name: str) -> bool:
    return name.endswith(".toml") and not name.startswith((".", "#"))


def _trusted(main: Path) -> frozenset[int]:
    """Return whose files count in `conf.d`."""
    if os.geteuid() == 0:
        return frozenset({0})
    try:
        return frozenset({0, os.geteuid(), main.stat().st_uid})
    except OSError:  # said when it is read
        return frozenset({0, os.geteuid()})


def _check(path: Path, fd: int, trusted: frozenset[int] | None) -> None:
    try:
        if os.geteuid() == 0:
            require_owned(str(path), fd, frozenset({0}))
        elif trusted is not None and (owner := os.fstat(fd).st_uid) not in trusted:
            raise SettingsError(f"settings {path} are not read: they belong to {user_name(owner)}", "remove them")
    except OthersCanChange as found:
        raise SettingsError(f"settings {path} are not read as root: {found.why}", found.remedy) from None


def _read(path: Path, directory: int | None, trusted: frozenset[int] | None, remedy: str) -> SettingsFile:
    try:
        fd = os.open(path if directory is None else path.name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
        with os.fdopen(fd, "rb") as file:
            _check(path, fd, trusted)
            return SettingsFile(path=path, raw=file.read(), mode=stat.S_IMODE(os.fstat(fd).st_mode))
    except OSError as error:
        raise SettingsError(f"cannot read settings {path}: {error.strerror}", remedy) from error
