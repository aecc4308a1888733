"""Which file names of a git tree may be written.

git's own rules for all platforms at once: a tree that would attack a Mac or a Windows node is refused on Linux as well,
because trees travel (git's t1014 lists confusing names). A name that is not UTF-8 is an ordinary name.
"""

from __future__ import annotations

import re
from typing import Final

from dulwich.index import (
    HFS_IGNORABLE_CHARS,
    validate_path_element_default,
    validate_path_element_hfs,
    validate_path_element_ntfs,
)

_MAX_NAME: Final = 255

#: Names that are no spelling of `.git`, `.` or `..` on any file system: they skip the slow check.
PLAIN: Final = re.compile(rb"[A-FH-Za-fh-z0-9_][A-Za-z0-9_.~+=@,%#-]{0,254}\Z")


def name_problem(name: bytes) -> str | None:
    """Return why `name` must not be written; None when it may.

    >>> name_problem(b"README"), name_problem(b".GIT"), name_problem(b"a/b")
    (None, 'git keeps its own data under that name', 'a name must not be empty, nor hold a slash or NUL')
    """
    if len(name) > _MAX_NAME:
        return f"a name may have {_MAX_NAME} bytes, this has {len(name)}"
    if PLAIN.match(name):
        return None
    if not name or b"/" in name or b"\0" in name:
        return "a name must not be empty, nor hold a slash or NUL"
    if name in (b".", b".."):
        return "a name must not be a way to another directory"
    # Dots and blanks alone are odd, but on no file system another spelling of anything.
    if name.strip(b". ") and not all(allows(name) for allows in _VALIDATORS):
        return "git keeps its own data under that name"
    return None


def _hfs_allows(name: bytes) -> bool:
    try:
        text = name.decode()
    except UnicodeDecodeError:
        return True  # HFS+ cannot hold it, so it cannot be a disguise there
    if all(ord(character) in HFS_IGNORABLE_CHARS for character in text):
        return True  # nothing is left of it there, so it is no spelling of another name
    return validate_path_element_hfs(name)


_VALIDATORS: Final = (validate_path_element_default, validate_path_element_ntfs, _hfs_allows)


def shown(path: bytes) -> str:
    """Return a path for an error line: escaped, bounded."""
    text = ascii(path.decode("utf-8", "backslashreplace"))[1:-1]
    return text if len(text) <= 200 else text[:197] + "..."
