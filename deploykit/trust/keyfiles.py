"""Key files on disk: read them with their modes checked, make new ones, add trust. The shell around `trust.signature`.

Rules:

* A private key that others can read is refused: its mode is 0600, or 0640 with a group this process is in.
* A file of trusted keys that others can write is refused.
* Modes are read from the open descriptor, so a swap between check and read gains nothing.
* Writing is durable: temporary name, fsync, link or rename, fsync of the directory. No key is ever overwritten.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TypeAlias

import attrs

from deploykit.errors import KeyFileError
from deploykit.settings.trust import TrustSettings
from deploykit.system.lock import lock_descriptor
from deploykit.trust.allowed_signers import MAX_TEXT, AllowedSigners
from deploykit.trust.keyformat import fingerprint, parse_public_line, public_line
from deploykit.trust.krl import Revocations
from deploykit.trust.signature import SigningKey
from deploykit.trust.signaturerules import SignatureRules
from deploykit.trust.sshsig import NAMESPACE

_log = logging.getLogger(__name__)

_MAX_KEY: Final = 1 << 16
#: One state of the trusted files: times, device, inode, size, mode and owner of each.
_Seen: TypeAlias = tuple[tuple[int, ...], ...]
#: Nanoseconds within which a file may change twice under one time stamp.
_TICK: Final = 2_000_000_000
_NOT_IN_PRINCIPAL: Final = frozenset(' \t"\\*?!,#')


# -- reading ---------------------------------------------------------------------------------------------------------


def load_signing_key(path: Path, *, passphrase: str | bytes | None = None) -> SigningKey:
    """Return the key of a private key file.

    Args:
        path: an OpenSSH Ed25519 private key.
        passphrase: of the key, if it has one.

    Raises:
        KeyFileError: unreadable, readable by others, or not such a key.
    """
    with _opened(path, "private key") as file:
        data = _read(path, file, _MAX_KEY)
        if data.startswith(b"ssh-"):
            raise KeyFileError(f"{path} is a public key", "name its private half, mostly the same without .pub")
        _check_secret(path, os.fstat(file), "private key")
    try:
        return SigningKey.from_openssh(data, passphrase)
    except KeyFileError as error:
        raise KeyFileError(f"{path}: {error.problem}", error.remedy) from error


def load_allowed_signers(path: Path, *, revoked: Path | None = None) -> AllowedSigners:
    """Return the allowed signers of an `allowed_signers` file and, where given, a list of revoked keys.

    Raises:
        KeyFileError: unreadable, writable by others, or with lines that cannot be parsed (all in `problems`).
    """
    text = _read_trusted(path, "allowed_signers file")
    gone = "" if revoked is None else _read_trusted(revoked, "list of revoked keys")
    try:
        return AllowedSigners.parse(text, revoked=gone)
    except KeyFileError as error:
        raise KeyFileError(f"{path}: {error.problem}", error.remedy, problems=error.problems) from error


def load_revoked_keys(path: Path) -> Revocations:
    """Return what a list of revoked keys revokes.

    Raises:
        KeyFileError: see `load_allowed_signers`.
    """
    return AllowedSigners.parse("", revoked=_read_trusted(path, "list of revoked keys")).revoked


def load_trusted(trust: TrustSettings) -> AllowedSigners:
    """Return the allowed signers that the settings name. Without a file no key is allowed.

    Raises:
        KeyFileError: see `load_allowed_signers`.
    """
    if trust.allowed_signers is None:
        return AllowedSigners()
    signers = load_allowed_signers(trust.allowed_signers, revoked=trust.revoked_keys)
    for note in signers.unused:
        _log.info("%s: %s", trust.allowed_signers, note)
    return attrs.evolve(signers, rules=SignatureRules.from_settings(trust))


class TrustReader:
    """Returns the allowed signers, read again whenever a file has changed: a removed key stops counting at once.

    Call it for each message: that costs two calls of stat(2). Use it from any thread.
    """

    def __init__(self, trust: TrustSettings) -> None:
        self._trust = trust
        self._read: tuple[_Seen, AllowedSigners] | None = None

    def __call__(self) -> AllowedSigners:
        """Return the allowed signers as they are now.

        Raises:
            KeyFileError: see `load_allowed_signers`. Believe no message then.
        """
        seen = self._state()
        if self._read is not None and seen is not None and self._read[0] == seen:
            return self._read[1]
        signers = load_trusted(self._trust)
        # A file that changed a moment ago may change again within the same tick of the file system's clock.
        if seen is not None and max((entry[1] for entry in seen), default=0) < time.time_ns() - _TICK:
            self._read = seen, signers
        return signers

    def _state(self) -> _Seen | None:
        """Return the present state of the files; None where stat(2) fails for one."""
        found = []
        for path in (self._trust.allowed_signers, self._trust.revoked_keys):
            if path is None:
                continue
            try:
                at = path.stat()
            except OSError:
                return None
            found.append((at.st_mtime_ns, at.st_ctime_ns, at.st_dev, at.st_ino, at.st_size, at.st_mode, at.st_uid))
        return tuple(found)


def load_public_key(path: Path) -> tuple[bytes, str]:
    """Return the key blob and the comment of a public key file (`.pub`).

    Raises:
        KeyFileError: unreadable, or not one Ed25519 public key line.
    """
    with _opened(path, "public key") as file:
        text = _text(path, _read(path, file, _MAX_KEY))
    lines = [line for line in text.split("\n") if line.strip() and not line.startswith("#")]
    if len(lines) != 1:
        raise KeyFileError(f"{path}: not one public key line")
    try:
        return parse_public_line(lines[0])
    except KeyFileError as error:
        raise KeyFileError(f"{path}: {error.problem}", error.remedy) from error


def is_private_key(path: Path) -> bool:
    """Return whether a file looks like a private key of any kind, by its first line.

    Raises:
        KeyFileError: unreadable.
    """
    with _opened(path, "key") as file:
        return b"PRIVATE KEY-----" in _read(path, file, _MAX_KEY).partition(b"\n")[0]


def load_passphrase(path: Path) -> str:
    """Return the first line of a passphrase file, which must be as secret as a key.

    Raises:
        KeyFileError: unreadable, readable by others, or empty.
    """
    with _opened(path, "passphrase file") as file:
        _check_secret(path, os.fstat(file), "passphrase file")
        text = _text(path, _read(path, file, _MAX_KEY)).partition("\n")[0].rstrip("\r")
    if not text:
        raise KeyFileError(f"passphrase file {path} begins with an empty line")
    return text


def _read_trusted(path: Path, what: str) -> str:
    with _opened(path, what) as file:
        _check_owner_writes(path, os.fstat(file))
        return _text(path, _read(path, file, MAX_TEXT))


@contextlib.contextmanager
def _opened(path: Path, what: str) -> Iterator[int]:
    try:
        # Non-blocking: a FIFO in the file's place must not hang the daemon.
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        raise KeyFileError(f"cannot read {what} {path}: {error.strerror}") from error
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise KeyFileError(f"{what} {path} is not a regular file")
        yield file
    finally:
        os.close(file)


def _read(path: Path, file: int, limit: int) -> bytes:
    data = b""
    while len(data) <= limit:
        try:
            block = os.read(file, limit + 1 - len(data))
        except OSError as error:
            raise KeyFileError(f"cannot read {path}: {error.strerror}") from error
        if not block:
            return data
        data += block
    raise KeyFileError(f"{path} is longer than {limit} bytes")


def _text(path: Path, data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        hint = "list revoked keys as public key lines" if data.startswith(b"SSHKRL") else ""
        raise KeyFileError(f"{path} is not text in UTF-8", hint) from None


def _check_secret(path: Path, found: os.stat_result, what: str) -> None:
    mode = stat.S_IMODE(found.st_mode)
    ours = found.st_gid in {os.getegid(), *os.getgroups()}
    if mode & 0o077 and not (mode & 0o077 == stat.S_IRGRP and ours):
        raise KeyFileError(
            f"{what} {path} has mode {mode:04o}: others could read or change it",
            f"chmod 600 {path}, or 640 with a group the daemon is in",
        )
    _check_owner(path, found)


def _check_owner_writes(path: Path, found: os.stat_result) -> None:
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o022:
        raise KeyFileError(f"{path} has mode {mode:04o}: others could add their own keys", f"chmod go-w {path}")
    _check_owner(path, found)


def _check_owner(path: Path, found: os.stat_result) -> None:
    if found.st_uid not in (0, os.geteuid()):
        raise KeyFileError(f"{path} belongs to user {found.st_uid}, neither root nor us", f"chown root {path}")


# -- writing ---------------------------------------------------------------------------------------------------------


def generate_key(path: Path, *, passphrase: str | bytes | None = None, comment: str = "") -> SigningKey:
    """Make a key: the private half at `path`, mode 0600, the public one at `path` + `.pub`, as ssh-keygen does.

    Raises:
        KeyFileError: the file exists already, or cannot be written; nothing was changed.
    """
    key = SigningKey.generate()
    try:
        with _directory(path.parent) as directory:
            # The public half first: after a crash in between, `rm` it and try again; no secret is lost.
            _write_new(
                directory, f"{path.name}.pub", f"{key.public_openssh} {comment}".rstrip().encode() + b"\n", 0o644
            )
            try:
                _write_new(directory, path.name, key.to_openssh(passphrase))
            except OSError:
                os.unlink(f"{path.name}.pub", dir_fd=directory)
                raise
    except FileExistsError as error:
        raise KeyFileError(f"{path} or {path}.pub exists", "give another name; a key is never overwritten") from error
    except OSError as error:
        raise KeyFileError(f"cannot write private key {path}: {error.strerror}", _way_out(path, error)) from error
    return key


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
        with _directory(target.parent) as directory:
            lock_descriptor(directory, target.parent, wait=None)
            text, mode, owner = "", 0o644, None
            if target.exists():
                text = _read_trusted(target, "allowed_signers file")
                found = target.stat()
                mode, owner = stat.S_IMODE(found.st_mode), (found.st_uid, found.st_gid)
            for known in _parsed(target, text).lines_for(key):
                usual = known.namespaces == (NAMESPACE,) and known.valid_after is None and known.valid_before is None
                if usual and principal in known.principals:
                    return False
            separator = "" if not text or text.endswith("\n") else "\n"
            _replace(directory, target.name, f"{text}{separator}{line}\n".encode(), mode, owner)
    except OSError as error:
        raise KeyFileError(f"cannot write {file}: {error.strerror}", _way_out(file, error)) from error
    return True


def _way_out(path: Path, error: OSError) -> str:
    return f"make the directory {path.parent} first" if isinstance(error, FileNotFoundError) else ""


def _parsed(path: Path, text: str) -> AllowedSigners:
    try:
        return AllowedSigners.parse(text)
    except KeyFileError as error:
        raise KeyFileError(f"{path}: {error.problem}", error.remedy, problems=error.problems) from error


@contextlib.contextmanager
def _directory(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _temporary(directory: int, name: str, data: bytes, mode: int, owner: tuple[int, int] | None) -> Iterator[str]:
    """Yield the name of a finished, synced temporary file; remove it in the end if it still has that name."""
    temporary = f".{name}.{secrets.token_hex(8)}"
    file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=directory)
    try:
        try:
            if owner is not None and owner != (os.geteuid(), os.fstat(file).st_gid):
                os.fchown(file, *owner)
            os.fchmod(file, mode)
            view = memoryview(data)
            while view:
                view = view[os.write(file, view) :]
            os.fsync(file)
        finally:
            os.close(file)
        yield temporary
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=directory)


def _write_new(directory: int, name: str, data: bytes, mode: int = 0o600) -> None:
    """Create a whole new file. A link fails where a rename would overwrite."""
    with _temporary(directory, name, data, mode, None) as temporary:
        os.link(temporary, name, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
    os.fsync(directory)


def _replace(directory: int, name: str, data: bytes, mode: int, owner: tuple[int, int] | None) -> None:
    with _temporary(directory, name, data, mode, owner) as temporary:
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    os.fsync(directory)


__all__ = [
    "TrustReader",
    "check_principal",
    "fingerprint",
    "generate_key",
    "is_private_key",
    "load_allowed_signers",
    "load_passphrase",
    "load_public_key",
    "load_revoked_keys",
    "load_signing_key",
    "load_trusted",
    "trust",
    "trusted_line",
]
