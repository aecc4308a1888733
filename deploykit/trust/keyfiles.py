"""Keys on disk: read them, make new ones, read whom to trust. The shell around `trust.signature`.

Rules:

* Files are read as `guardedfile` says: a secret that others can read is refused, and trust that others can write.
* Writing is durable, and no key is ever overwritten.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias

import attrs

from deploykit.errors import KeyFileError, WrongPassphrase
from deploykit.settings.trust import TrustSettings
from deploykit.trust.agentkey import SECURITY_KEY, AgentKey, Notify, is_public_line
from deploykit.trust.allowed_signers import MAX_TEXT, AllowedSigners
from deploykit.trust.guardedfile import (
    MAX_KEY,
    as_text,
    check_secret,
    open_directory,
    opened,
    read_bounded,
    read_trusted,
    way_out,
    write_new,
)
from deploykit.trust.keyformat import fingerprint, key_type, parse_public_line
from deploykit.trust.privatefile import read_head
from deploykit.trust.signature import BodySigner, SigningKey
from deploykit.trust.signaturerules import SignatureRules
from deploykit.trust.signersfile import check_principal, trust, trusted_line

_log = logging.getLogger(__name__)

#: One state of the trusted files: times, device, inode, size, mode and owner of each.
_Seen: TypeAlias = tuple[tuple[int, ...], ...]
#: Nanoseconds within which a file may change twice under one time stamp.
_TICK: Final = 2_000_000_000
#: How often a person may mistype a passphrase.
_TRIES: Final = 3
#: Returns the passphrase of a private key file; the second argument is whether the one before was wrong.
AskPassphrase: TypeAlias = Callable[[Path, bool], str]


# -- reading ---------------------------------------------------------------------------------------------------------


def load_signing_key(path: Path, *, passphrase: str | bytes | None = None) -> SigningKey:
    """Return the key of a private key file.

    Args:
        path: an OpenSSH Ed25519 private key.
        passphrase: of the key, if it has one.

    Raises:
        KeyFileError: unreadable, readable by others, or not such a key.
    """
    data = _private(path)
    if is_public_line(data):
        raise KeyFileError(f"{path} is a public key", "name its private half, mostly the same without .pub")
    return _opened_key(path, data, passphrase)


def load_signer(
    path: Path, *, passphrase: str | bytes | AskPassphrase | None = None, notify: Notify | None = None
) -> BodySigner:
    """Return what signs with the key at `path`: a private key file, or a public one whose key an ssh-agent holds.

    A private key file of a security key (`ssh-keygen -t ed25519-sk`) signs by ssh-keygen, which asks for its PIN.

    Args:
        path: the file.
        passphrase: of a private key file; or what asks for it, and is called only where the file has one.
        notify: is shown when a person must touch the key.

    Raises:
        KeyFileError: unreadable, readable by others, not such a key, or its passphrase is missing.
        WrongPassphrase: the passphrase does not fit.
        KeyUnavailable: no agent holds the key.
    """
    data = _private(path)
    if is_public_line(data):
        if isinstance(passphrase, str | bytes):
            raise KeyFileError(f"{path} is a public key: its ssh-agent needs no passphrase", "leave it out")
        return AgentKey.load(path, notify=notify)
    head = read_head(data)
    if head is not None and key_type(head.public_blob).startswith(SECURITY_KEY):
        return AgentKey(path=path, public_blob=head.public_blob, in_agent=False, notify=notify)
    if not callable(passphrase):
        return _opened_key(path, data, passphrase)
    if head is None or not head.encrypted:
        return _opened_key(path, data, None)
    for tried in range(_TRIES):
        try:
            return _opened_key(path, data, passphrase(path, tried > 0))
        except WrongPassphrase:
            if tried == _TRIES - 1:
                raise
    raise AssertionError("unreachable")


def _private(path: Path) -> bytes:
    """Return the bytes of a key file, which is secret unless it is a public key."""
    with opened(path, "private key") as file:
        data = read_bounded(path, file, MAX_KEY)
        if not is_public_line(data):
            check_secret(path, os.fstat(file), "private key")
    return data


def _opened_key(path: Path, data: bytes, passphrase: str | bytes | None) -> SigningKey:
    head = read_head(data)
    if head is not None and head.encrypted and not passphrase:
        raise KeyFileError(f"{path}: the private key is protected by a passphrase", unlock_hint(path))
    try:
        return SigningKey.from_openssh(data, passphrase)
    except KeyFileError as error:
        raise type(error)(f"{path}: {error.problem}", error.remedy) from error


def unlock_hint(path: Path) -> str:
    """Return how a key with a passphrase can sign where nobody can be asked for it."""
    return f"give its passphrase with --passphrase-file FILE, or `ssh-add {path}` and name {path}.pub"


def load_allowed_signers(path: Path, *, revoked: Path | None = None) -> AllowedSigners:
    """Return the allowed signers of an `allowed_signers` file and, where given, a list of revoked keys.

    Raises:
        KeyFileError: unreadable, writable by others, or with lines that cannot be parsed (all in `problems`).
    """
    text = read_trusted(path, "allowed_signers file", MAX_TEXT)
    gone = "" if revoked is None else read_trusted(revoked, "list of revoked keys", MAX_TEXT)
    try:
        return AllowedSigners.parse(text, revoked=gone)
    except KeyFileError as error:
        raise KeyFileError(f"{path}: {error.problem}", error.remedy, problems=error.problems) from error


def load_revoked_keys(path: Path) -> frozenset[bytes]:
    """Return the key blobs of a list of revoked keys.

    Raises:
        KeyFileError: see `load_allowed_signers`.
    """
    return AllowedSigners.parse("", revoked=read_trusted(path, "list of revoked keys", MAX_TEXT)).revoked


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
    with opened(path, "public key") as file:
        text = as_text(path, read_bounded(path, file, MAX_KEY))
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
    with opened(path, "key") as file:
        return b"PRIVATE KEY-----" in read_bounded(path, file, MAX_KEY).partition(b"\n")[0]


def load_passphrase(path: Path) -> str:
    """Return the first line of a passphrase file, which must be as secret as a key.

    Raises:
        KeyFileError: unreadable, readable by others, or empty.
    """
    with opened(path, "passphrase file") as file:
        check_secret(path, os.fstat(file), "passphrase file")
        text = as_text(path, read_bounded(path, file, MAX_KEY)).partition("\n")[0].rstrip("\r")
    if not text:
        raise KeyFileError(f"passphrase file {path} begins with an empty line")
    return text


# -- writing ---------------------------------------------------------------------------------------------------------


def generate_key(path: Path, *, passphrase: str | bytes | None = None, comment: str = "") -> SigningKey:
    """Make a key: the private half at `path`, mode 0600, the public one at `path` + `.pub`, as ssh-keygen does.

    Raises:
        KeyFileError: the file exists already, or cannot be written; nothing was changed.
    """
    key = SigningKey.generate()
    try:
        with open_directory(path.parent) as directory:
            # The public half first: after a crash in between, `rm` it and try again; no secret is lost.
            write_new(directory, f"{path.name}.pub", f"{key.public_openssh} {comment}".rstrip().encode() + b"\n", 0o644)
            try:
                write_new(directory, path.name, key.to_openssh(passphrase))
            except OSError:
                os.unlink(f"{path.name}.pub", dir_fd=directory)
                raise
    except FileExistsError as error:
        raise KeyFileError(f"{path} or {path}.pub exists", "give another name; a key is never overwritten") from error
    except OSError as error:
        raise KeyFileError(f"cannot write private key {path}: {error.strerror}", way_out(path, error)) from error
    return key


__all__ = [
    "AskPassphrase",
    "TrustReader",
    "check_principal",
    "fingerprint",
    "generate_key",
    "is_private_key",
    "load_allowed_signers",
    "load_passphrase",
    "load_public_key",
    "load_revoked_keys",
    "load_signer",
    "load_signing_key",
    "load_trusted",
    "trust",
    "trusted_line",
    "unlock_hint",
]
