"""Revoke keys, and certificates by serial or key id: in a text list of keys, or in OpenSSH's binary list (KRL).

A text list holds keys alone. ssh-keygen makes and extends binary ones; its result is read before it takes their place.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from deploykit.errors import KeyFileError
from deploykit.trust.guardedfile import check_owner_writes, opened, read_bounded
from deploykit.trust.keyformat import public_line
from deploykit.trust.krl import is_krl, parse_krl
from deploykit.trust.signersfile import revoke, rewrite

_WHAT: Final = "list of revoked keys"
_MOST: Final = 16 << 20
_LIMIT: Final = 60.0


def revoke_keys(file: Path, keys: Sequence[tuple[bytes, str]]) -> int:
    """Revoke keys, each with a comment; return how many were not revoked before. A text list is made where none is.

    Raises:
        KeyFileError: the list cannot be read or written; it is unchanged, or holds the keys before the one named.
    """
    if not _is_binary(file):
        return sum(revoke(file, key, comment) for key, comment in keys)
    revoked = parse_krl(_read(file))
    new = [key for key, _ in keys if not revoked.has_key(key)]
    if new:
        _extend(file, [public_line(key) for key in new], None)
    return len(new)


def revoke_certificates(file: Path, authority: bytes, lines: Sequence[str]) -> None:
    """Revoke certificates of one authority. A binary list is made where none is.

    Args:
        file: the list.
        authority: the blob of the key that signed them.
        lines: of `krl.serial_line` and `krl.key_id_line`.

    Raises:
        KeyFileError: the list is a text, or cannot be read or written. It is unchanged.
    """
    if file.exists() and not _is_binary(file):
        raise KeyFileError(
            f"{file} is a text, which can hold keys alone",
            f"make it binary: `ssh-keygen -k -f NEW {file}`, and put NEW in its place",
        )
    _extend(file, lines, authority)


def _extend(file: Path, lines: Sequence[str], authority: bytes | None) -> None:
    def extended(content: bytes | None) -> bytes:
        with tempfile.TemporaryDirectory(prefix="deploykit-") as name:
            place = Path(name)
            words = ["-k", "-f", str(place / "krl")]
            if content is not None:
                (place / "krl").write_bytes(content)
                words.append("-u")
            if authority is not None:
                (place / "ca.pub").write_text(f"{public_line(authority)}\n")
                words += ["-s", str(place / "ca.pub")]
            is_spec = authority is not None
            (place / "more").write_text("".join(f"{line}\n" for line in lines))
            _ssh_keygen([*words, str(place / "more")], file, spec=is_spec)
            made = (place / "krl").read_bytes()
        parse_krl(made)
        return made

    rewrite(file, _WHAT, extended, _read)


def _ssh_keygen(words: Sequence[str], file: Path, *, spec: bool) -> None:
    what = "serials or key ids" if spec else "keys"
    env = {"PATH": os.environ.get("PATH", os.defpath), "HOME": "/nonexistent", "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            ["ssh-keygen", *words],
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_LIMIT,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise KeyFileError(f"ssh-keygen: {type(error).__name__}", "install OpenSSH's client") from None
    if done.returncode:
        lines = done.stderr.decode("utf-8", "replace").split("\n")
        reason = "".join(c if c.isprintable() else "?" for c in lines[0])[:200]
        raise KeyFileError(f"ssh-keygen cannot add the {what} to {file}: {reason}")


def _is_binary(file: Path) -> bool:
    return file.exists() and is_krl(_read(file))


def _read(file: Path) -> bytes:
    with opened(file, _WHAT) as descriptor:
        check_owner_writes(file, os.fstat(descriptor))
        return read_bounded(file, descriptor, _MOST)


__all__ = ["revoke_certificates", "revoke_keys"]
