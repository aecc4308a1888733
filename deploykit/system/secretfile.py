"""A secret that stands in a file of its own, in one line. No error shows it."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from deploykit.errors import SettingsError

#: The owner may write and its group may read. Others get nothing.
SECRET_MODE: Final = 0o640
_MOST_BYTES: Final = 64 << 10


def read_secret_text(path: Path, setting: str) -> str:
    """Return the content of a file that only its owner and its group may read.

    Args:
        path: the file.
        setting: the setting that names it, for errors.

    Raises:
        SettingsError: it cannot be read, is too long, is not text in UTF-8, or may be read by others.
    """
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            raw = file.read(_MOST_BYTES + 1)
        text = raw.decode()
    except OSError as error:
        raise SettingsError(f"{setting}: cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{setting}: cannot read {path}: not UTF-8") from None
    if mode & ~SECRET_MODE:
        raise SettingsError(f"{setting}: {path} has mode {mode:04o}", "chmod 0600 or 0640 it")
    if len(raw) > _MOST_BYTES:
        raise SettingsError(f"{setting}: {path} is longer than {_MOST_BYTES} bytes")
    return text


def read_secret(path: Path, setting: str) -> str:
    """Return the one line of a file that only its owner and its group may read, without its line end.

    Raises:
        SettingsError: as `read_secret_text`; or it is empty, or holds more than one line.
    """
    secret = read_secret_text(path, setting).rstrip("\r\n")
    if not secret:
        raise SettingsError(f"{setting}: {path} is empty")
    if not secret.isprintable():
        raise SettingsError(f"{setting}: {path} holds more than one line, or a control character")
    return secret
