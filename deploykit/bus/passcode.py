"""The passcode of a bus: from its settings, or from the file they name. No error shows it.

A file is read again at each connect, so that a passcode that was changed there counts without a restart.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

import attrs

from deploykit.errors import SettingsError
from deploykit.settings.bus import BusSettings

#: The owner may write and its group may read. Others get nothing.
SECRET_MODE: Final = 0o640
_MOST_BYTES: Final = 4096


class PasscodeHolder(Protocol):
    """Settings that hold a passcode, or name its file."""

    @property
    def passcode(self) -> str:
        """The passcode itself."""
        ...

    @property
    def passcode_file(self) -> Path | None:
        """A file that holds it instead."""
        ...


def read_passcode(settings: PasscodeHolder) -> str:
    """Return the passcode: the settings' own, or the line in `passcode_file`.

    Raises:
        SettingsError: the file cannot be read, is not text in UTF-8, or may be read by others.
    """
    path = settings.passcode_file
    if path is None:
        return settings.passcode
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            raw = file.read(_MOST_BYTES)
        passcode = raw.decode().rstrip("\r\n")
    except OSError as error:
        raise SettingsError(f"passcode_file: cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"passcode_file: cannot read {path}: not UTF-8") from None
    if mode & ~SECRET_MODE:
        raise SettingsError(f"passcode_file: {path} has mode {mode:04o} (chmod 0600 or 0640 it)")
    if any(c in passcode for c in "\r\n\0"):
        raise SettingsError(f"passcode_file: {path} holds more than one line, or NUL")
    return passcode


def with_passcode(settings: BusSettings) -> BusSettings:
    """Return the settings with the passcode in them as it is now, for one connection.

    Raises:
        SettingsError: as `read_passcode`.
    """
    if settings.passcode_file is None:
        return settings
    return attrs.evolve(settings, passcode=read_passcode(settings), passcode_file=None)


def secrets_of(*settings: PasscodeHolder) -> Callable[[], tuple[str, ...]]:
    """Return what returns, at any time, which passcodes no log line may show: all that were in force since this call.

    A passcode file is read again when it has changed; one that cannot be read adds nothing.
    """
    each = [_secrets_of(one) for one in settings]
    return lambda: tuple(dict.fromkeys(secret for one in each for secret in one()))


def _secrets_of(settings: PasscodeHolder) -> Callable[[], tuple[str, ...]]:
    known = dict.fromkeys(filter(None, [settings.passcode]))
    path = settings.passcode_file
    if path is None:
        return lambda: tuple(known)
    seen: tuple[int, ...] = ()

    def secrets() -> tuple[str, ...]:
        nonlocal seen
        with contextlib.suppress(OSError, SettingsError):  # the next connection says so; what was known stays hidden
            found = path.stat()
            now = (found.st_ino, found.st_size, found.st_mtime_ns, found.st_mode)
            if now != seen:
                known[read_passcode(settings)] = None
                seen = now
        return tuple(known)

    return secrets
