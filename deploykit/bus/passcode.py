"""The passcode of a bus: from its settings, or from the file they name. No error shows it.

A file is read again at each connect, so that a passcode that was changed there counts without a restart.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from typing import Final

import attrs

from deploykit.errors import SettingsError
from deploykit.settings.bus import BusSettings

#: The owner may write and its group may read. Others get nothing.
SECRET_MODE: Final = 0o640
_MOST_BYTES: Final = 4096


def read_passcode(settings: BusSettings) -> str:
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


def secrets_of(settings: BusSettings) -> Callable[[], tuple[str, ...]]:
    """Return what tells, at any time, which passcodes no log line may show: all that were in force since this call.

    A passcode file is read again when it has changed; one that cannot be read adds nothing.
    """
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
