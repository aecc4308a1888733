"""Sign a frame, and verify who signed one: SSHSIG over the exact body bytes, up to four in one header.

Rules:

* The signature covers the body alone. What a decision rests on (type, audience, expiry, id) must stand in the body:
  headers can be changed on the way.
* Verification answers who signed; `policy` answers what they may do.
* Pure: bytes and `now` come as arguments.
* This module loads `cryptography`, so nothing on a push's path imports it.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Final, Protocol

import attrs
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from deploykit.errors import (
    KeyFileError,
    SignatureError,
    SignatureNotEnough,
    UsageError,
    WrongPassphrase,
)
from deploykit.trust.allowed_signers import AllowedSigners, matches
from deploykit.trust.certificate import certified_key
from deploykit.trust.keyformat import ED25519, fingerprint, key_blob, public_line
from deploykit.trust.signingprincipals import signing_principals
from deploykit.trust.sshsig import (
    decode_blob,
    decode_header,
    encode_blob,
    encode_header,
    signed_bytes,
)
from deploykit.trust.verification import check_fits
from deploykit.wire.frame import Frame

#: The STOMP header that holds the signature.
HEADER: Final = "deploykit-signature"
#: Most signatures in one header.
MAX_SIGNATURES: Final = 4

_MAX_KEY_FILE: Final = 1 << 16


class SigningKey:
    """An Ed25519 private key. Only `to_openssh` returns the secret; `repr` and the other properties do not."""

    __slots__ = ("_blob", "_certificate", "_key")

    def __init__(self, key: Ed25519PrivateKey, *, certificate: bytes = b"") -> None:
        self._key = key
        self._blob = key_blob(key.public_key().public_bytes_raw())
        self._certificate = certificate

    def with_certificate(self, blob: bytes) -> SigningKey:
        """Return the same key, which signs with a certificate from now on, as `ssh-keygen -Y sign -f KEY-cert.pub`.

        Its `public_blob` and `fingerprint` stay those of the key.

        Raises:
            KeyFileError: not a certificate, or that of another key.
        """
        key = certified_key(blob)
        if key == blob:
            raise KeyFileError("not a certificate", "make one with `ssh-keygen -s CA_KEY`")
        if key != self._blob:
            raise KeyFileError(f"the certificate is for key {fingerprint(key)}, not for {self.fingerprint}")
        return SigningKey(self._key, certificate=blob)

    @classmethod
    def generate(cls) -> SigningKey:
        """Return a new random key."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_openssh(cls, data: bytes, passphrase: str | bytes | None = None) -> SigningKey:
        """Return the key in an OpenSSH private key file's bytes.

        Args:
            data: what `ssh-keygen -t ed25519` or `deploykit keys generate` wrote.
            passphrase: needed when the key has one; decrypting needs the `keys` extra (bcrypt).

        Raises:
            KeyFileError: not an OpenSSH Ed25519 private key, passphrase missing or wrong, or bcrypt missing.
        """
        if len(data) > _MAX_KEY_FILE:
            raise KeyFileError("the private key is too long to be one")
        secret = passphrase.encode() if isinstance(passphrase, str) else passphrase
        # Each error drops its cause: the texts of cryptography may quote parts of the input.
        try:
            key = serialization.load_ssh_private_key(data, secret or None)
        except TypeError:
            if secret:
                raise KeyFileError("the private key has no passphrase, but one was given", "leave it out") from None
            raise KeyFileError("the private key is protected by a passphrase", "give its passphrase") from None
        except UnsupportedAlgorithm:
            if secret and not _has_bcrypt():
                raise KeyFileError(
                    "a private key with a passphrase needs bcrypt", "pip install 'deploykit[keys]'"
                ) from None
            raise KeyFileError("the private key is of an unsupported kind", _MAKE_ONE) from None
        except ValueError:
            if secret:
                raise WrongPassphrase("the passphrase is wrong, or the private key is damaged") from None
            raise KeyFileError("the private key cannot be read", _MAKE_ONE) from None
        if not isinstance(key, Ed25519PrivateKey):
            raise KeyFileError("the private key is not an Ed25519 key", _MAKE_ONE)
        return cls(key)

    def to_openssh(self, passphrase: str | bytes | None = None) -> bytes:
        """Return the private key in OpenSSH's format. It is the secret itself: file mode 0600.

        Raises:
            KeyFileError: a passphrase was given, but bcrypt is missing.
        """
        secret = passphrase.encode() if isinstance(passphrase, str) else passphrase
        if secret and not _has_bcrypt():
            raise KeyFileError("a private key with a passphrase needs bcrypt", "pip install 'deploykit[keys]'")
        encryption = serialization.BestAvailableEncryption(secret) if secret else serialization.NoEncryption()
        return self._key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, encryption)

    @property
    def public_blob(self) -> bytes:
        """The public key in OpenSSH's wire form."""
        return self._blob

    @property
    def certificate(self) -> bytes:
        """The certificate that it signs with; empty for none."""
        return self._certificate

    @property
    def public_openssh(self) -> str:
        """The public key as one line, without a comment."""
        return public_line(self._blob)

    @property
    def fingerprint(self) -> str:
        """The public key's SHA-256 name, as `ssh-keygen -l` prints it."""
        return fingerprint(self._blob)

    def sign_body(self, body: bytes) -> bytes:
        """Return the SSHSIG blob of a signature over the bytes."""
        return encode_blob(self._certificate or self._blob, self._key.sign(signed_bytes(body)))

    def __repr__(self) -> str:
        return f"<SigningKey {self.fingerprint}>"


_MAKE_ONE: Final = "make one with `deploykit keys generate` or `ssh-keygen -t ed25519`"


def _has_bcrypt() -> bool:
    try:
        import bcrypt  # noqa: F401
    except ImportError:
        return False
    return True


@attrs.frozen(kw_only=True, slots=True)
class Signer:
    """Who made one signature: a key, and the principals it may sign as.

    Args:
        fingerprint: of the key, `SHA256:…`; of a certificate, of the key in it.
        principals: the pattern list of each allowed_signers line that counts.
        key_type: of the key, as OpenSSH names it.
        present: the signature shows that a person touched the key.
        verified: the signature shows that the key knew the person: by a PIN or a finger.
        origin: the web page that asked a passkey for the signature; empty for other keys.
        certificate: key id and serial of the certificate, in words for a person; empty for a plain key.
    """

    fingerprint: str
    principals: tuple[tuple[str, ...], ...]
    key_type: str = ED25519
    present: bool = False
    verified: bool = False
    origin: str = ""
    certificate: str = ""

    def is_principal(self, name: str) -> bool:
        """Return whether a line that counts lets this key sign as `name`."""
        return any(matches(patterns, name) for patterns in self.principals)

    def __str__(self) -> str:
        by = f", certificate {self.certificate}" if self.certificate else ""
        return f"{' or '.join(','.join(patterns) for patterns in self.principals)} ({self.fingerprint}{by})"


@attrs.frozen(kw_only=True, slots=True)
class Signers:
    """Who signed a message: one signer or several, each with another key, in the order of their fingerprints."""

    each: tuple[Signer, ...]

    @property
    def fingerprint(self) -> str:
        """The fingerprints of all keys, joined by commas."""
        return ",".join(signer.fingerprint for signer in self.each)

    @property
    def principals(self) -> tuple[tuple[str, ...], ...]:
        """The pattern lists of all lines that count, of all keys."""
        return tuple(patterns for signer in self.each for patterns in signer.principals)

    def is_principal(self, name: str) -> bool:
        """Return whether one of the keys may sign as `name`."""
        return any(signer.is_principal(name) for signer in self.each)

    def __str__(self) -> str:
        return " and ".join(map(str, self.each))


class BodySigner(Protocol):
    """What signs bodies: a `SigningKey`, or a key that an ssh-agent or a security key holds."""

    @property
    def public_blob(self) -> bytes:
        """The public key in OpenSSH's wire form."""

    @property
    def fingerprint(self) -> str:
        """The public key's SHA-256 name."""

    def sign_body(self, body: bytes) -> bytes:
        """Return the SSHSIG blob of a signature over the bytes."""


def sign(frame: Frame, key: BodySigner) -> Frame:
    """Return the frame with the signature of its body in header `deploykit-signature`; others are replaced."""
    return Frame({**frame.headers, HEADER: encode_header(key.sign_body(frame.body))}, frame.body)


def add_signature(frame: Frame, key: BodySigner) -> Frame:
    """Return the frame with one more signature in its header; one of the same key is replaced.

    Raises:
        SignatureError: the header is malformed, or holds four of other keys.
    """
    value = frame.headers.get(HEADER)
    blobs = [] if value is None else decode_headers(value)
    others = [blob for blob in blobs if decode_blob(blob).key != key.public_blob]
    if len(others) >= MAX_SIGNATURES:
        raise SignatureError(f"it has {MAX_SIGNATURES} signatures already, which is the most")
    made = ",".join(map(encode_header, (*others, key.sign_body(frame.body))))
    return Frame({**frame.headers, HEADER: made}, frame.body)


def verify(frame: Frame, allowed: AllowedSigners, now: datetime) -> Signers:
    """Return who signed the frame's body. All signatures must be good.

    Args:
        frame: as it was received; the body byte for byte.
        allowed: the keys that count.
        now: aware; keys may be valid for a limited time.

    Raises:
        SignatureError: unsigned, malformed, not by an allowed key, revoked or expired, or not for this body.
    """
    value = frame.headers.get(HEADER)
    if value is None:
        raise SignatureError("the message is not signed", f"sign it: header {HEADER}")
    found = [verify_blob(frame.body, blob, allowed, now) for blob in decode_headers(value)]
    if len(found) == 1:
        return Signers(each=tuple(found))
    if len({signer.fingerprint for signer in found}) < len(found):
        raise SignatureError("one key signed twice")
    return Signers(each=tuple(sorted(found, key=lambda signer: signer.fingerprint)))


def decode_headers(value: str) -> list[bytes]:
    """Return the blobs in a header's value: one, or up to four with commas between them.

    Raises:
        SignatureError: not canonical base64, too long, or too many.
    """
    parts = value.split(",", MAX_SIGNATURES)
    if len(parts) > MAX_SIGNATURES:
        raise SignatureError(f"the message has more than {MAX_SIGNATURES} signatures")
    return [decode_header(part) for part in parts]


def verify_blob(body: bytes, blob: bytes, allowed: AllowedSigners, now: datetime) -> Signer:
    """Return who signed a body, for a signature that does not come in a header (a file of `ssh-keygen`)."""
    if now.tzinfo is None:
        raise UsageError("`now` has no time zone", "use deploykit.messages.utc_now()")
    parts = decode_blob(blob)
    name = fingerprint(parts.key)
    principals = signing_principals(parts, allowed, now)
    check_fits(parts, body)
    if objection := allowed.rules.objection(parts):
        raise SignatureNotEnough(f"the signature by key {name} does not count: {objection}")
    return Signer(
        fingerprint=name,
        principals=principals,
        key_type=parts.public.key_type,
        present=parts.present,
        verified=parts.verified,
        origin=parts.origin,
        certificate=parts.certificate.words if parts.certificate else "",
    )


def body_digest(body: bytes) -> bytes:
    """Return a body's SHA-256: the `digest` that `ids.IdStore.claim` compares.

    The same id with another digest is another message under a stolen id. Headers do not count: brokers add to them.
    """
    return hashlib.sha256(body).digest()


def copy_digest(frame: Frame) -> str:
    """Return the name of a signed message, for `DeployReported.answers`: of its body, and of the keys that signed it.

    Hex SHA-256 of the body, a line feed, and the sorted fingerprints with commas between them. No byte of a signature
    is in it: a key may make two for one body.

    Args:
        frame: verified, or made by us. Of any other, use `frame_digest`: its header may name keys that signed nothing.

    Raises:
        SignatureError: the header is malformed.
    """
    keys = sorted(fingerprint(decode_blob(blob).key) for blob in decode_headers(frame.headers.get(HEADER, "")))
    return _name(frame.body, ",".join(keys))


def frame_digest(frame: Frame) -> str:
    """Return the name of one copy of a message as it came, verified or not: of its body and its signature header."""
    return _name(frame.body, frame.headers.get(HEADER, ""))


def _name(body: bytes, by: str) -> str:
    return hashlib.sha256(body + b"\n" + by.encode("utf-8", "surrogatepass")).hexdigest()


__all__ = [
    "HEADER",
    "MAX_SIGNATURES",
    "BodySigner",
    "Signer",
    "Signers",
    "SigningKey",
    "add_signature",
    "body_digest",
    "copy_digest",
    "decode_headers",
    "frame_digest",
    "sign",
    "verify",
    "verify_blob",
]
