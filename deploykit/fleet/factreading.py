"""The files of facts and classes that a node's settings name: read within bounds. What they may hold: `factsfile`.

Rules:

* Whatever stands there, the answer is facts or `FactsError`: only regular files are read, and only up to a cap.
* Nothing here waits, as opening a pipe would.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from deploykit.errors import FactsError, UsageError
from deploykit.fleet.factsfile import MAX_FILE, parse_classes, parse_facts


def read_facts(path: Path) -> Mapping[str, object]:
    """Return the facts of a JSON or YAML file.

    Raises:
        FactsError: it cannot be read, is too large, or holds no map; the text names the file.
    """
    raw = read_bounded(path)
    try:
        return parse_facts(raw, str(path))
    except UsageError as error:
        raise FactsError(error.problem, error.remedy) from None


def read_classes(path: Path) -> tuple[str, ...]:
    """Return the classes of a file with one on each line.

    Raises:
        FactsError: it cannot be read, is too large, or a line is no class; the text names the file.
    """
    raw = read_bounded(path)
    try:
        return parse_classes(raw, str(path))
    except UsageError as error:
        raise FactsError(error.problem, error.remedy) from None


def read_bounded(path: Path) -> bytes:
    """Return the content of a regular file that is not too large.

    Raises:
        FactsError: there is no such file, or it cannot be read.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        with open(fd, "rb", buffering=0) as file:  # noqa: PTH123 - a descriptor has no path
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                raise FactsError(f"{path} is not a regular file", "name a file of facts")
            raw = b"" if found.st_size > MAX_FILE else _read_up_to(file.fileno(), MAX_FILE + 1)
    except OSError as error:
        raise FactsError(f"{path}: {error.strerror}", "create it, or correct its mode or the setting") from None
    except ValueError:
        raise FactsError(f"{str(path)!a} is no path", "correct the setting") from None
    if found.st_size > MAX_FILE or len(raw) > MAX_FILE:
        raise FactsError(f"{path} is longer than {MAX_FILE} bytes", "name a smaller file")
    return raw


def _read_up_to(fd: int, size: int) -> bytes:
    parts, left = [], size
    while left and (part := os.read(fd, left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
