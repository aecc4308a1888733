"""Keys on disk: read them, make new ones, read whom to trust. The shell around `trust.signature`.

Rules:

* Files are read as `guardedfile` says: a secret that others can read is refused, and trust that others can write.
* Writing is durable, and no key is ever overwritten.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias

import attrs

from deploykit.errors import KeyFileError, KeyUnavailable, WrongPassphrase
from deploykit.settings.trust import TrustSettings
from deploykit.trust.agentkey import SECURITY_KEY, AgentKey, Notify, is_public_line, parse_public
from deploykit.trust.allowed_signers import MAX_TEXT, AllowedSigners
from deploykit.trust.certificate import certified_key
from deploykit.trust.certificatefile import certificate_line, private_half
from deploykit.trust.guardedfile import (
    MAX_KEY,
    as_text,
    check_secret,
    open_directory,
    opened,
    read_bounded,
    read_trusted_bytes,
    way_out,
    write_new,
)
from deploykit.trust.keyformat import fingerprint, key_type, parse_public_line
from deploykit.trust.krl import Revocations
from deploykit.trust.privatefile import read_head
from deploykit.trust.signature import BodySigner, SigningKey
from deploykit.trust.signaturerules import SignatureRules
from deploykit.trust.signersfile import check_principal, trust, trusted_line

_log = logging.getLogger(__name__)

#: Most lines that do not count and are logged one by one: a file for git, too, may hold thousands.
_MOST_NOTES: Final = 10

#: How often a person may mistype a passphrase.
_TRIES: Final = 3
#: Returns the passphrase of a private key file; the second argument is whether the one before was wrong.
AskPassphrase: TypeAlias = Callable[[Path, bool], str]


# -- reading ---------------------------------------------------------------------------------------------------------


def load_signing_key(path: Path, *, passphrase: str | bytes | None = None) -> SigningKey:
    """Return the key of a private key file, or of a certificate's file next to it.

    Args:
        path: an OpenSSH Ed25519 private key; or `KEY-cert.pub`: then `KEY` signs with that certificate.
        passphrase: of the key, if it has one.

    Raises:
        KeyFileError: unreadable, readable by others, or not such a key.
    """
    data = _private(path)
    if is_public_line(data):
        certificate = certificate_line(path, as_text(path, data))
        if certificate and (private := private_half(path)) is not None:
            return _with_certificate(path, load_signing_key(private, passphrase=passphrase), certificate)
        raise KeyFileError(f"{path} is a public key", "name its private half, mostly the same without .pub")
    head = read_head(data)
    if head is not None and head.encrypted and not passphrase:
        raise KeyFileError(
            f"{path}: the private key is protected by a passphrase, and nobody can be asked for it here",
            f"use one without: `ssh-keygen -p -f {path}` removes it",
        )
    return _opened_key(path, data, passphrase)


def load_signer(
    path: Path, *, passphrase: str | bytes | AskPassphrase | None = None, notify: Notify | None = None
) -> BodySigner:
    """Return what signs with the key at `path`: a private key file, or a public one whose key an ssh-agent holds.

    A private key file of a security key (`ssh-keygen -t ed25519-sk`) signs by ssh-keygen, which asks for its PIN.
    A certificate's file signs with the certificate: by an agent that holds it, else by the private key next to it.

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
        certificate = certificate_line(path, as_text(path, data))
        if certificate and (private := private_half(path)) is not None:
            with contextlib.suppress(KeyUnavailable):  # then the private key beside it signs
                return AgentKey.load(path, notify=notify)
            return _certified(path, load_signer(private, passphrase=passphrase, notify=notify), certificate)
        if isinstance(passphrase, str | bytes):
            raise KeyFileError(f"{path} is a public key: its ssh-agent needs no passphrase", "leave it out")
        return AgentKey.load(path, notify=notify)
    head = read_head(data)
    if head is not None and key_type(head.public_blob).startswith(SECURITY_KEY):
        return AgentKey(path=path, public_blob=head.public_blob, in_agent=False, notify=notify)
    if not callable(passphrase) or head is None or not head.encrypted:
        return _opened_key(path, data, None if callable(passphrase) else passphrase)
    for tried in range(_TRIES):
        secret = passphrase(path, tried > 0)
        try:
            return _opened_key(path, data, secret)
        except WrongPassphrase:
            if tried == _TRIES - 1:
                raise
    raise AssertionError("unreachable")


def check_signer(path: Path) -> None:
    """Refuse a file that `load_signer` cannot use. No passphrase and no agent is needed for that.

    Raises:
        KeyFileError: unreadable, readable by others, or not such a key.
    """
    data = _private(path)
    head = read_head(data)
    if is_public_line(data):
        parse_public(path, as_text(path, data))
    elif head is None or not (head.encrypted or key_type(head.public_blob).startswith(SECURITY_KEY)):
        _opened_key(path, data, None)


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


def _certified(path: Path, key: BodySigner, certificate: bytes) -> BodySigner:
    """Return a key that signs with the certificate at `path`."""
    if isinstance(key, SigningKey):
        return _with_certificate(path, key, certificate)
    if key.public_blob != (wanted := certified_key(certificate)):
        raise KeyFileError(f"{path} is for key {fingerprint(wanted)}, not for {key.fingerprint} next to it")
    if isinstance(key, AgentKey):  # ssh-keygen finds the private key next to the certificate
        return attrs.evolve(key, path=path, certificate=certificate)
    raise KeyFileError(f"{path}: the key next to it cannot sign with a certificate")


def _with_certificate(path: Path, key: SigningKey, certificate: bytes) -> SigningKey:
    try:
        return key.with_certificate(certificate)
    except KeyFileError as error:
        raise KeyFileError(f"{path}: {error.problem}", error.remedy) from error


def unlock_hint(path: Path) -> str:
    """Return how a key with a passphrase can sign where nobody can be asked for it."""
    return f"give its passphrase with --passphrase-file FILE, or `ssh-add {path}` and name {path}.pub"


@attrs.frozen(slots=True)
class TrustFiles:
    """Where an `allowed_signers` file and a list of revoked keys are, and their bytes."""

    path: Path
    signers: bytes = attrs.field(repr=False)
    revoked_path: Path | None = None
    revoked: bytes = attrs.field(default=b"", repr=False)

    def named(self, error: KeyFileError) -> KeyFileError:
        """Return an error with the path of the file that it is about."""
        path = str(self.path)
        if self.revoked_path is not None and not _readable(b"", self.revoked):
            path = f"{self.revoked_path}" if _readable(self.signers, b"") else f"{path}, {self.revoked_path}"
        return KeyFileError(f"{path}: {error.problem}", error.remedy, problems=error.problems)


def read_trust_files(path: Path, revoked: Path | None = None) -> TrustFiles:
    """Return the bytes of the trusted files.

    Raises:
        KeyFileError: unreadable, too long, or writable by others.
    """
    return TrustFiles(
        path,
        read_trusted_bytes(path, "allowed_signers file", MAX_TEXT),
        revoked,
        b"" if revoked is None else read_trusted_bytes(revoked, "list of revoked keys", MAX_TEXT),
    )


def _readable(signers: bytes, revoked: bytes) -> bool:
    try:
        AllowedSigners.parse(signers.decode(), revoked=revoked)
    except (KeyFileError, UnicodeDecodeError):
        return False
    return True


def parse_trust_files(files: TrustFiles) -> AllowedSigners:
    """Return the allowed signers in the bytes of the trusted files.

    Raises:
        KeyFileError: not UTF-8, or with lines that cannot be parsed (all in `problems`).
    """
    text = as_text(files.path, files.signers)
    try:
        return AllowedSigners.parse(text, revoked=files.revoked)
    except KeyFileError as error:
        raise files.named(error) from error


def load_allowed_signers(path: Path, *, revoked: Path | None = None) -> AllowedSigners:
    """Return the allowed signers of an `allowed_signers` file and, where given, a list of revoked keys.

    Raises:
        KeyFileError: unreadable, writable by others, or with lines that cannot be parsed (all in `problems`).
    """
    return parse_trust_files(read_trust_files(path, revoked))


def load_revoked_keys(path: Path) -> Revocations:
    """Return what a list of revoked keys revokes.

    Raises:
        KeyFileError: see `load_allowed_signers`.
    """
    return AllowedSigners.parse("", revoked=read_trusted_bytes(path, "list of revoked keys", MAX_TEXT)).revoked


def load_trusted(trust: TrustSettings) -> AllowedSigners:
    """Return the allowed signers that the settings name. Without a file no key is allowed.

    Raises:
        KeyFileError: see `load_allowed_signers`.
    """
    if trust.allowed_signers is None:
        return AllowedSigners()
    return parse_trusted(trust, read_trust_files(trust.allowed_signers, trust.revoked_keys))


def parse_trusted(trust: TrustSettings, files: TrustFiles) -> AllowedSigners:
    """Return the allowed signers in the bytes of the files that the settings name, with the settings' rules.

    Raises:
        KeyFileError: see `parse_trust_files`.
    """
    path = files.path
    signers = parse_trust_files(files)
    for note in signers.unused[:_MOST_NOTES]:
        _log.info("%s: %s", path, note)
    if len(signers.unused) > _MOST_NOTES:
        _log.info("%s: %d more lines do not count", path, len(signers.unused) - _MOST_NOTES)
    return attrs.evolve(signers, rules=SignatureRules.from_settings(trust))


def load_public_key(path: Path) -> tuple[bytes, str]:
    """Return the key blob and the comment of a public key file (`.pub`).

    Raises:
        KeyFileError: unreadable, or not one Ed25519 public key line.
    """
    with opened(path, "public key") as file:
        text = as_text(path, read_bounded(path, file, MAX_KEY))
    lines = [line for line in text.split("\n") if line.strip() and not line.startswith("#")]
    if len(lines) != 1:
        raise KeyFileError(f"{path}: not one public key line", "name the .pub file")
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
    "TrustFiles",
    "check_principal",
    "check_signer",
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
    "parse_trust_files",
    "parse_trusted",
    "read_trust_files",
    "trust",
    "trusted_line",
    "unlock_hint",
]
