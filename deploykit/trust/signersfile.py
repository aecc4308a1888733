"""Change an `allowed_signers` file: add a key for a principal, and keep everything else as it stands.

Rules:

* Two processes at once both succeed: the directory is locked while a file is rewritten.
* A reader sees the old file or the new one, and a power cut leaves one of them.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from deploykit.errors import KeyFileError
from deploykit.system.lock import lock_descriptor
from deploykit.trust.allowed_signers import MAX_TEXT, AllowedSigners
from deploykit.trust.guardedfile import open_directory, read_trusted, replace_in, way_out
from deploykit.trust.sshsig import NAMESPACE, public_line

_NOT_IN_PRINCIPAL: Final = frozenset(' \t"\\*?!,#')


def check_principal(principal: str) -> None:
    """Refuse a name that is a pattern or cannot stand in an `allowed_signers` file.

    Raises:
        KeyFileError: it is empty, a pattern, or holds a blank, a quote or a control character.
    """
    if not principal or not principal.isprintable() or _NOT_IN_PRINCIPAL & set(principal):
        raise KeyFileError(f"not a principal: {principal!a}", "one name such as ops@example.com or a node's name")


def trusted_line(principal: str, key: bytes, comment: str = "") -> str:
    """Return the `allowed_signers` line that lets a key sign messages as `principal`.

    Raises:
        KeyFileError: see `check_principal`.
    """
    check_principal(principal)
    shown = " ".join("".join(c if c.isprintable() else " " for c in comment).split())[:200]
    return f'{principal} namespaces="{NAMESPACE}" {public_line(key, shown)}'


def trust(file: Path, principal: str, key: bytes, comment: str = "") -> bool:
    """Append a key to an `allowed_signers` file, unless it is there for that principal already.

    Two processes at once both get their line in: the directory is locked while the file is rewritten.

    Returns:
        Whether a line was added.

    Raises:
        KeyFileError: the file cannot be parsed, is writable by others, or cannot be written. It is unchanged.
    """
    line = trusted_line(principal, key, comment)
    target = Path(os.path.realpath(file))  # a symbolic link stays one
    try:
        with open_directory(target.parent) as directory:
            lock_descriptor(directory, target.parent, wait=None)
            text, mode, owner = "", 0o644, None
            if target.exists():
                text = read_trusted(target, "allowed_signers file", MAX_TEXT)
                found = target.stat()
                mode, owner = stat.S_IMODE(found.st_mode), (found.st_uid, found.st_gid)
            for known in _parsed(target, text).lines_for(key):
                usual = known.namespaces == (NAMESPACE,) and known.valid_after is None and known.valid_before is None
                if usual and principal in known.principals:
                    return False
            separator = "" if not text or text.endswith("\n") else "\n"
            replace_in(directory, target.name, f"{text}{separator}{line}\n".encode(), mode, owner)
    except OSError as error:
        raise KeyFileError(f"cannot write {file}: {error.strerror}", way_out(file, error)) from error
    return True


def _parsed(path: Path, text: str) -> AllowedSigners:
    try:
        return AllowedSigners.parse(text)
    except KeyFileError as error:
        raise KeyFileError(f"{path}: {error.problem}", error.remedy, problems=error.problems) from error


__all__ = ["check_principal", "trust", "trusted_line"]
