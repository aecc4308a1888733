"""Change an `allowed_signers` file or a list of revoked keys: add lines, remove some, keep all others as they stand.

Rules:

* Two processes at once both succeed: the directory is locked while a file is rewritten.
* A reader sees the old file or the new one, and a power cut leaves one of them.
* A file that cannot be parsed is not changed. Comments, and lines that only others use, stay.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import attrs

from deploykit.errors import KeyFileError
from deploykit.system.lock import lock_descriptor
from deploykit.trust.allowed_signers import MAX_TEXT, AllowedSigner, AllowedSigners
from deploykit.trust.guardedfile import open_directory, read_trusted, replace_in, way_out
from deploykit.trust.keyformat import public_line
from deploykit.trust.sshsig import NAMESPACE

_NOT_IN_PATTERN: Final = frozenset(' \t"\\#')
_NOT_IN_PRINCIPAL: Final = frozenset("*?!,") | _NOT_IN_PATTERN
_SIGNERS: Final = "allowed_signers file"
_REVOKED: Final = "list of revoked keys"
#: Seconds to wait for another process that changes a file in the same directory: each takes milliseconds.
_LOCK_WAIT: Final = 20.0


def check_principal(principal: str, *, pattern: bool = False) -> None:
    """Refuse a name that cannot stand in an `allowed_signers` file, or is a pattern where none may be.

    Raises:
        KeyFileError: it is empty, a pattern, or holds a blank, a quote or a control character.
    """
    refused = _NOT_IN_PATTERN if pattern else _NOT_IN_PRINCIPAL
    if not principal or not principal.isprintable() or refused & set(principal):
        raise KeyFileError(f"not a principal: {principal!a}", "one name such as ops@example.com or a node's name")


def trusted_line(
    principal: str,
    key: bytes,
    comment: str = "",
    *,
    authority: bool = False,
    valid_after: datetime | None = None,
    valid_before: datetime | None = None,
) -> str:
    """Return the `allowed_signers` line that lets a key sign messages as `principal`.

    Args:
        principal: a name; of an authority also patterns of names, with commas between them.
        key: the public key's blob.
        comment: for people who read the file.
        authority: the key signs certificates.
        valid_after, valid_before: aware; the line counts between them, both ends included.

    Raises:
        KeyFileError: see `check_principal`.
    """
    check_principal(principal, pattern=authority)
    options = ["cert-authority"] if authority else []
    options.append(f'namespaces="{NAMESPACE}"')
    for name, instant in (("valid-after", valid_after), ("valid-before", valid_before)):
        options += [f'{name}="{instant.astimezone(UTC):%Y%m%d%H%M%S}Z"'] if instant is not None else []
    shown = " ".join("".join(c if c.isprintable() else " " for c in comment).split())[:200]
    return f"{principal} {','.join(options)} {public_line(key, shown)}"


def trust(
    file: Path,
    principal: str,
    key: bytes,
    comment: str = "",
    *,
    authority: bool = False,
    valid_after: datetime | None = None,
    valid_before: datetime | None = None,
) -> bool:
    """Append a key to an `allowed_signers` file, unless such a line is there already. Arguments: `trusted_line`.

    Returns:
        Whether a line was added.

    Raises:
        KeyFileError: the file cannot be parsed, is writable by others, or cannot be written. It is unchanged.
    """
    line = trusted_line(
        principal, key, comment, authority=authority, valid_after=valid_after, valid_before=valid_before
    )
    (wanted,) = map(_essence, _parsed(file, line).signers)

    def added(text: str) -> str | None:
        known = _parsed(file, text)
        lines = known.authorities_for(key) if authority else known.lines_for(key)
        if any(
            _essence(attrs.evolve(one, principals=wanted.principals)) == wanted
            and set(wanted.principals) <= set(one.principals)
            for one in lines
        ):
            return None
        return _appended(text, line)

    return _change(file, _SIGNERS, added)


def untrust(file: Path, unwanted: Callable[[AllowedSigner], bool]) -> tuple[AllowedSigner, ...]:
    """Remove lines from an `allowed_signers` file; return them.

    Args:
        file: the file.
        unwanted: is called with each line that counts.

    Raises:
        KeyFileError: see `trust`.
    """
    removed: list[AllowedSigner] = []

    def without(text: str) -> str | None:
        removed[:] = [line for line in _parsed(file, text).signers if unwanted(line)]
        numbers = {line.line for line in removed}
        kept = [raw for number, raw in enumerate(text.split("\n"), 1) if number not in numbers]
        return "\n".join(kept) if removed else None

    _change(file, _SIGNERS, without)
    return tuple(removed)


def revoke(file: Path, key: bytes, comment: str = "") -> bool:
    """Append a key to a list of revoked keys, a text, which is made where there is none.

    Returns:
        Whether a line was added.

    Raises:
        KeyFileError: see `trust`.
    """
    shown = " ".join("".join(c if c.isprintable() else " " for c in comment).split())[:200]

    def added(text: str) -> str | None:
        if AllowedSigners.parse("", revoked=text).is_revoked(key):
            return None
        return _appended(text, public_line(key, shown))

    return _change(file, _REVOKED, added)


def rewrite(
    file: Path, what: str, change: Callable[[bytes | None], bytes | None], read: Callable[[Path], bytes]
) -> bool:
    """Replace a file by what `change` makes of it, while no other process changes it.

    Args:
        file: the file; a symbolic link stays one.
        what: it is, for errors.
        change: takes the content, None where there is no file; returns the new content, None to leave it.
        read: returns the content of a file, its mode checked.

    Returns:
        Whether it was replaced.

    Raises:
        KeyFileError: it cannot be written. It is unchanged.
        LockBusy: another process holds the lock of its directory, for longer than a change takes. It is unchanged.
    """
    target = Path(os.path.realpath(file))
    try:
        with open_directory(target.parent) as directory:
            # Bounded: everybody who can read the directory can lock it, and a revocation must not hang in silence.
            lock_descriptor(directory, target.parent, wait=_LOCK_WAIT, remedy="`lslocks` names who holds it")
            content, mode, owner = None, 0o644, None
            if target.exists():
                content = read(target)
                found = target.stat()
                mode, owner = stat.S_IMODE(found.st_mode), (found.st_uid, found.st_gid)
            new = change(content)
            if new is None:
                return False
            replace_in(directory, target.name, new, mode, owner)
    except OSError as error:
        raise KeyFileError(f"cannot write {what} {file}: {error.strerror}", way_out(file, error)) from error
    return True


def _change(file: Path, what: str, change: Callable[[str], str | None]) -> bool:
    def changed(content: bytes | None) -> bytes | None:
        text = change("" if content is None else content.decode())
        return None if text is None else text.encode()

    return rewrite(file, what, changed, lambda path: read_trusted(path, what, MAX_TEXT).encode())


def _appended(text: str, line: str) -> str:
    separator = "" if not text or text.endswith("\n") else "\n"
    return f"{text}{separator}{line}\n"


def _essence(line: AllowedSigner) -> AllowedSigner:
    return attrs.evolve(line, line=0, comment="")


def _parsed(path: Path, text: str) -> AllowedSigners:
    try:
        return AllowedSigners.parse(text)
    except KeyFileError as error:
        raise KeyFileError(f"{path}: {error.problem}", error.remedy, problems=error.problems) from error


__all__ = ["check_principal", "revoke", "rewrite", "trust", "trusted_line", "untrust"]
