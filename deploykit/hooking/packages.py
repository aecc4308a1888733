"""Debian binary packages: whether a file is complete, what its control file holds. Pure but for reading the file.

A `.deb` is an `ar` archive (deb(5)): a magic line, then members, each with a header of 60 bytes that holds its size.
So a file that is still being copied is recognized without waiting.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from typing import Final, NamedTuple

_MAGIC: Final = b"!<arch>\n"
_HEADER: Final = 60
#: Names of files and distributions that go to other programs and into messages: deb-version(7) and a bit more.
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~:%-]*\.deb\Z").match
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]*\Z").match
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+~:-]*\Z").match
_DISTRIBUTION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*\Z").match


class Control(NamedTuple):
    """The three fields of the control file that we use."""

    name: str
    version: str
    architecture: str


def is_package_name(name: str) -> bool:
    """Return whether a file's name is that of a package."""
    return len(name) <= 255 and _FILE(name) is not None


def is_distribution_name(name: str) -> bool:
    """Return whether a directory's name is that of a distribution."""
    return len(name) <= 255 and _DISTRIBUTION(name) is not None


def inspect(path: str) -> str:
    """Return the SHA-256 of a whole package; "" if the file is incomplete.

    Raises:
        OSError: it cannot be read, or is a link or no plain file.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(0, "not a plain file")
        if not _whole(fd, found.st_size):
            return ""
        return hashlib.file_digest(file, "sha256").hexdigest()


def _whole(fd: int, size: int) -> bool:
    if os.pread(fd, len(_MAGIC), 0) != _MAGIC:
        return False
    at = end = len(_MAGIC)
    members = 0
    while at < size:
        head = os.pread(fd, _HEADER, at)
        length = head[48:58].strip()
        if len(head) != _HEADER or head[58:] != b"`\n" or not length.isdigit():
            return False
        end = at + _HEADER + int(length)
        at = end + end % 2  # members begin at even places; the last one need not be padded
        members += 1
    return members >= 3 and size in (end, at)


def parse_control(text: str) -> Control | None:
    """Parse `Package`, `Version` and `Architecture` as `dpkg-deb -f` prints them.

    Returns None if one is missing, too long, or not allowed by Debian's policy (5.6): they go to other programs and
    into messages.
    """
    fields = dict(line.partition(": ")[::2] for line in text.split("\n"))
    found = Control(*(fields.get(name, "").strip() for name in ("Package", "Version", "Architecture")))
    if max(map(len, found)) > 255:  # cut, it would be the name of something else
        return None
    return found if _NAME(found.name) and _VERSION(found.version) and _NAME(found.architecture) else None


def event_id(distribution: str, digest: str) -> str:
    """Return the id of the event that a package is in a distribution: always the same for the same two."""
    made = hashlib.sha256(f"{distribution}\n{digest}".encode()).hexdigest()
    return f"{made[:8]}-{made[8:12]}-{made[12:16]}-{made[16:20]}-{made[20:32]}"
