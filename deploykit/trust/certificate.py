"""OpenSSH certificates: a key, and names for it, signed by a certificate authority (CA). Pure: bytes in, decisions out.

Format: OpenSSH's PROTOCOL.certkeys. Rules:

* What we accept, ssh-keygen accepts with the same meaning.
* Only user certificates count, as in ssh-keygen; the node's name is the principal of a node's certificate.
* A certificate without principals is refused: to sshd it would be good for any name.
* A principal is a name, never a pattern. One that could be read as a pattern does not count.
* Every critical option but `verify-required` is refused. Extensions are ignored, `no-touch-required` too.
* Nothing here verifies the authority's signature: `signed` and `signature` are for who does.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

import attrs

from deploykit.errors import KeyFileError, SignatureError
from deploykit.trust.keyformat import (
    ED25519,
    SK_ECDSA,
    SK_ED25519,
    BlobReader,
    MalformedBlob,
    fingerprint,
    key_type,
    read_key,
    ssh_string,
)

#: The suffix that every type of certificate ends with.
CERTIFICATE_SUFFIX: Final = "-cert-v01@openssh.com"
#: Types of certificates that count, and the types of the keys in them.
CERTIFIED_TYPES: Final = {
    f"{kind.removesuffix('@openssh.com')}{CERTIFICATE_SUFFIX}": kind for kind in (ED25519, SK_ED25519, SK_ECDSA)
}
#: Fields of a public key of each type, after the type.
_KEY_FIELDS: Final = {
    ED25519: ("point",),
    SK_ED25519: ("point", "application"),
    SK_ECDSA: ("curve", "point", "application"),
}
_MARK: Final = CERTIFICATE_SUFFIX.encode()
_USER: Final = 1
_HOST: Final = 2
_MAX_PRINCIPALS: Final = 256  # as ssh-keygen
_VERIFY_REQUIRED: Final = b"verify-required"
#: What begins or makes a pattern, or parts a list of them.
_NOT_IN_NAME: Final = frozenset("*?!,")


@attrs.frozen(kw_only=True, slots=True)
class Certificate:
    """What a certificate says. Nothing of it counts before the authority's signature was verified.

    Args:
        key: the blob of the public key in it, as it stands without a certificate.
        authority: the blob of the key that signed it.
        serial: 0 where the authority does not number its certificates.
        key_id: the authority's words for the holder.
        host: it is for a host; to ssh-keygen and us such a certificate signs nothing.
        principals: the names that it is for, as they stand in it.
        valid_after, valid_before: seconds since 1970; the first counts, the last does not.
        critical: the names of its critical options.
        signed: the bytes that the authority signed.
        signature: the authority's signature: type and value.
    """

    key: bytes = attrs.field(repr=fingerprint)
    authority: bytes = attrs.field(repr=fingerprint)
    serial: int
    key_id: bytes
    host: bool
    principals: tuple[bytes, ...]
    valid_after: int
    valid_before: int
    critical: tuple[bytes, ...]
    signed: bytes = attrs.field(repr=False)
    signature: bytes = attrs.field(repr=False)

    @property
    def verify_required(self) -> bool:
        """Whether its key's signatures count only where the key knew the person."""
        return _VERIFY_REQUIRED in self.critical

    @property
    def names(self) -> tuple[str, ...]:
        """The principals that count: names in UTF-8 that nothing could take for a pattern."""
        return tuple(name for name in map(_name, self.principals) if name)

    def names_where(self, allows: Callable[[str], bool]) -> tuple[str, ...]:
        """Return the principals that count and that `allows` lets pass: the patterns of a line, mostly."""
        return tuple(name for name in self.names if allows(name))

    def objection(self, now: datetime) -> str:
        """Return why it does not count at `now`, whoever signed it; empty when it does."""
        unknown = sorted(set(self.critical) - {_VERIFY_REQUIRED})
        if self.host:
            return f"{self} is a host certificate (make one without -h)"
        if unknown:
            return f"{self} has the critical option {_shown(unknown[0])}, which is not supported here"
        if not self.principals:
            return f"{self} has no principals (make one with -n NAME)"
        if not self.names:
            return f"{self} has no principal that is a plain name"
        return self._out_of_time(now.timestamp())

    def _out_of_time(self, seconds: float) -> str:
        if seconds < self.valid_after:
            return f"{self} is valid only after {_shown_time(self.valid_after)}"
        if seconds >= self.valid_before:
            return f"{self} was valid only before {_shown_time(self.valid_before)}"
        return ""

    def __str__(self) -> str:
        return f"certificate {self.words}"

    @property
    def words(self) -> str:
        """Its key id and serial, for a person."""
        return f"key id {_shown(self.key_id)} serial {self.serial}"


def is_certificate(blob: bytes) -> bool:
    """Return whether a blob names the type of a certificate that can count here."""
    # Asked for each message: most are signed without one.
    return _MARK in blob[:64] and key_type(blob) in CERTIFIED_TYPES


def parse_certificate(blob: bytes) -> Certificate:
    """Return what a certificate's blob says.

    Raises:
        SignatureError: it is malformed, or not of a type that counts.
    """
    try:
        return read_certificate(blob)
    except MalformedBlob as error:
        raise SignatureError(f"the certificate is malformed: {error}") from None


def certified_key(blob: bytes) -> bytes:
    """Return the public key blob in a public key or certificate blob: what stays when the certificate is left away.

    A blob that is no certificate comes back as it is.

    Raises:
        KeyFileError: a malformed certificate.
    """
    try:
        return read_certificate(blob).key if is_certificate(blob) else blob
    except MalformedBlob as error:
        raise KeyFileError(f"not a certificate: {error}", "make one with `ssh-keygen -s CA_KEY`") from None


@lru_cache(maxsize=1024)  # a node signs each report with the same one
def read_certificate(blob: bytes) -> Certificate:
    """Return what a certificate's blob says.

    Raises:
        MalformedBlob: not exactly its structure, or not of a type that counts.
    """
    reader = BlobReader(blob)
    kind = CERTIFIED_TYPES.get(reader.string("type").decode("ascii", "replace"))
    if kind is None:
        raise MalformedBlob("it is not a certificate of a key type that counts here")
    reader.string("nonce")
    key = ssh_string(kind.encode()) + b"".join(ssh_string(reader.string(what)) for what in _KEY_FIELDS[kind])
    serial, type_ = reader.uint(8, "serial"), reader.uint(4, "certificate type")
    key_id, packed = reader.string("key id"), reader.string("principals")
    after, before = reader.uint(8, "valid-after time"), reader.uint(8, "valid-before time")
    options, extensions = reader.string("critical options"), reader.string("extensions")
    reader.string("reserved field")
    authority = reader.string("authority's key")
    signed = blob[: len(blob) - reader.left]
    signature = reader.string("authority's signature")
    reader.finish()
    read_key(key)
    if type_ not in (_USER, _HOST):
        raise MalformedBlob(f"its certificate type is {type_}, neither user nor host")
    principals = _strings(packed, "principals")
    if len(principals) > _MAX_PRINCIPALS:
        raise MalformedBlob(f"it has more than {_MAX_PRINCIPALS} principals")
    if any(b"\0" in text for text in (key_id, *principals)):
        raise MalformedBlob("its key id or a principal holds a NUL")
    _names_of_pairs(extensions, "extensions")
    return Certificate(
        key=key,
        authority=authority,
        serial=serial,
        key_id=key_id,
        host=type_ == _HOST,
        principals=principals,
        valid_after=after,
        valid_before=before,
        critical=_names_of_pairs(options, "critical options"),
        signed=signed,
        signature=signature,
    )


def _strings(packed: bytes, what: str) -> tuple[bytes, ...]:
    reader = BlobReader(packed)
    found = []
    while reader.left:
        found.append(reader.string(what))
    return tuple(found)


def _names_of_pairs(packed: bytes, what: str) -> tuple[bytes, ...]:
    """Return the names in a list of names and values."""
    found = _strings(packed, what)
    if len(found) % 2:
        raise MalformedBlob(f"it is cut short in its {what}")
    return found[::2]


def _name(principal: bytes) -> str:
    """Return a principal as text; empty when it is no plain name."""
    try:
        text = principal.decode()
    except UnicodeDecodeError:
        return ""
    return text if text.isprintable() and not _NOT_IN_NAME & set(text) else ""


def _shown(data: bytes) -> str:
    text = data.decode("utf-8", "replace")
    return ascii(text if len(text) <= 80 else f"{text[:79]}\u2026")


def _shown_time(seconds: int) -> str:
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"
    except (ValueError, OverflowError, OSError):
        return f"second {seconds} since 1970"


__all__ = [
    "CERTIFICATE_SUFFIX",
    "CERTIFIED_TYPES",
    "Certificate",
    "certified_key",
    "is_certificate",
    "parse_certificate",
    "read_certificate",
]
