"""The bytes of OpenSSH signatures (OpenSSH's PROTOCOL.sshsig and PROTOCOL.u2f). No cryptography.

Rules:

* SHA-512 only, and one namespace. The kind of the signature must fit the kind of its key.
* A field that is empty, longer, in another order or followed by anything is refused. So is non-canonical base64.
* No bit of a signature may change and leave it valid. `reserved` must be empty, though ssh-keygen ignores it.
* One key can make several good signatures of one body (`n - s`, counters): nothing may depend on a signature's bytes.
* Every input is bounded before it is parsed.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Final

import attrs

from deploykit.errors import SignatureError
from deploykit.trust.certificate import Certificate, is_certificate, read_certificate
from deploykit.trust.keyformat import (
    ED25519,
    ED25519_LENGTH,
    SK_ECDSA,
    SK_ED25519,
    BlobReader,
    MalformedBlob,
    PublicKey,
    decode_base64,
    is_weak_key,
    key_blob,
    read_key,
    shown,
    ssh_string,
)

#: What our signatures are for; a signature made for another purpose (git, file, email) is not one.
NAMESPACE: Final = "deploykit"
HASH_ALGORITHM: Final = "sha512"
KEY_TYPE: Final = ED25519
#: The kind of a signature that a web browser asked a passkey for; its key is of type `SK_ECDSA`.
WEBAUTHN: Final = "webauthn-sk-ecdsa-sha2-nistp256@openssh.com"
#: The key type that each kind of signature needs.
KINDS: Final = {ED25519: ED25519, SK_ED25519: SK_ED25519, SK_ECDSA: SK_ECDSA, WEBAUTHN: SK_ECDSA}

_MAGIC: Final = b"SSHSIG"
_VERSION: Final = 1
_MAX_BLOB: Final = 4096  # a 16384-bit RSA signature fits, so what is too weak or strange still gets its own error
#: Characters of the longest signature in a header.
MAX_SIGNATURE: Final = _MAX_BLOB * 4 // 3 + 4
#: Bits of `flags` (WebAuthn level 2, section 6.1).
_PRESENT: Final = 0x01
_VERIFIED: Final = 0x04
_ATTESTED: Final = 0x40
_EXTENDED: Final = 0x80

_ARMOR_BEGIN: Final = "-----BEGIN SSH SIGNATURE-----"
_ARMOR_END: Final = "-----END SSH SIGNATURE-----"


@attrs.frozen(kw_only=True, slots=True)
class SignatureParts:
    """A decoded signature.

    Args:
        key: the public key blob it claims to be from; not verified yet. Of a certificate, the key in it.
        public: the same, taken apart.
        certificate: what stood in the key's place; None where the key itself did. Not verified yet, either.
        kind: one of `KINDS`.
        signature: 64 raw bytes of Ed25519, or two SSH mpints, r and s, of ECDSA.
        flags: of a security key: what it knows of the person. Signed.
        counter: of a security key: how often it signed, by its own count. Signed.
        origin: of a passkey: the web page that asked for the signature. It must stand in `client_data` too.
        client_data: of a passkey: the JSON text that the browser had signed.
        extensions: of a passkey: what else the authenticator said, in CBOR. Signed.
    """

    key: bytes
    public: PublicKey
    kind: str = ED25519
    signature: bytes = attrs.field(repr=False)
    flags: int = 0
    counter: int = 0
    origin: str = ""
    client_data: bytes = attrs.field(default=b"", repr=False)
    extensions: bytes = attrs.field(default=b"", repr=False)
    certificate: Certificate | None = None

    @property
    def present(self) -> bool:
        """A person touched the key."""
        return bool(self.flags & _PRESENT)

    @property
    def verified(self) -> bool:
        """The key knew the person."""
        return bool(self.flags & _VERIFIED)

    @property
    def authenticator_data(self) -> bytes:
        """What a security key signs before the hash of the message (PROTOCOL.u2f, "SSH U2F signatures")."""
        application = hashlib.sha256(self.public.application.encode()).digest()
        return application + bytes([self.flags]) + self.counter.to_bytes(4, "big") + self.extensions


# -- signatures ------------------------------------------------------------------------------------------------------


_FOR_US: Final = ssh_string(NAMESPACE.encode()) + ssh_string(b"") + ssh_string(HASH_ALGORITHM.encode())
_SIGNED: Final = _MAGIC + _FOR_US + (64).to_bytes(4, "big")


def signed_bytes(body: bytes) -> bytes:
    """Return the bytes that the key signs: namespace, hash name, and the hash of the body."""
    return _SIGNED + hashlib.sha512(body).digest()


def encode_blob(key: bytes, signature: bytes) -> bytes:
    """Return the SSHSIG blob of an Ed25519 public key blob and a raw signature."""
    return encode_parts(key, ssh_string(KEY_TYPE.encode()) + ssh_string(signature))


def encode_parts(key: bytes, wrapped: bytes) -> bytes:
    """Return the SSHSIG blob of a public key blob and the content of its signature field, of any kind."""
    return b"".join(
        (
            _MAGIC,
            _VERSION.to_bytes(4, "big"),
            ssh_string(key),
            ssh_string(NAMESPACE.encode()),
            ssh_string(b""),
            ssh_string(HASH_ALGORITHM.encode()),
            ssh_string(wrapped),
        )
    )


def decode_blob(blob: bytes) -> SignatureParts:
    """Return the parts of an SSHSIG blob.

    Raises:
        SignatureError: anything else; the text names the first field that is wrong.
    """
    try:
        return _usual_parts(blob) or _decode_blob(blob)
    except MalformedBlob as error:
        raise SignatureError(f"the signature is malformed: {error}") from None


#: What stands around the point and the signature in the blob of a plain Ed25519 key, of which most are.
_BEFORE_KEY: Final = _MAGIC + _VERSION.to_bytes(4, "big")
_BEFORE_POINT: Final = _BEFORE_KEY + (ED25519_LENGTH).to_bytes(4, "big") + key_blob(bytes(32))[:-32]
_POINT_END: Final = len(_BEFORE_POINT) + 32
_BEFORE_SIGNATURE: Final = (
    _FOR_US + (len(KEY_TYPE) + 72).to_bytes(4, "big") + ssh_string(KEY_TYPE.encode()) + (64).to_bytes(4, "big")
)
_USUAL_LENGTH: Final = _POINT_END + len(_BEFORE_SIGNATURE) + 64


def _usual_parts(blob: bytes) -> SignatureParts | None:
    """Return the parts of a good blob of a plain Ed25519 key, in a tenth of the time; None for any other."""
    if (
        len(blob) != _USUAL_LENGTH
        or not blob.startswith(_BEFORE_POINT)
        or not blob.startswith(_BEFORE_SIGNATURE, _POINT_END)
        or is_weak_key(key := blob[len(_BEFORE_KEY) + 4 : _POINT_END])
    ):
        return None
    return SignatureParts(key=key, public=PublicKey(key_type=ED25519, point=key[-32:]), signature=blob[-64:])


def _decode_blob(blob: bytes) -> SignatureParts:
    if len(blob) > _MAX_BLOB:
        raise MalformedBlob("it is too long to be one")
    reader = BlobReader(blob)
    if reader.take(len(_MAGIC), "preamble") != _MAGIC:
        raise MalformedBlob("it does not begin with SSHSIG")
    version = reader.uint(4, "version")
    if version != _VERSION:
        raise MalformedBlob(f"its version is {version}, not {_VERSION}")
    key = reader.string("public key")
    namespace, reserved, algorithm = reader.string("namespace"), reader.string("reserved field"), reader.string("hash")
    wrapped = reader.string("signature")
    reader.finish()
    certificate = read_certificate(key) if is_certificate(key) else None
    if namespace != NAMESPACE.encode():
        raise MalformedBlob(f"it was made for namespace {shown(namespace)}, not {NAMESPACE!r}")
    if reserved:
        raise MalformedBlob("its reserved field is not empty")
    if algorithm != HASH_ALGORITHM.encode():
        raise MalformedBlob(f"its hash is {shown(algorithm)}, not {HASH_ALGORITHM}")
    if certificate is None:
        return read_signature(key, wrapped)
    return attrs.evolve(read_signature(certificate.key, wrapped), certificate=certificate)


def read_signature(key: bytes, wrapped: bytes) -> SignatureParts:
    """Return the parts of a signature: of the content of a signature field, by a public key blob.

    Raises:
        MalformedBlob: not exactly the structure of a kind that fits the key.
    """
    public, reader = read_key(key), BlobReader(wrapped)
    kind_bytes, signature = reader.string("signature type"), reader.string("signature value")
    kind = kind_bytes.decode("ascii", "replace")
    if KINDS.get(kind) != public.key_type:
        raise MalformedBlob(f"its kind {shown(kind_bytes)} does not fit its key, which is {public.key_type}")
    if public.key_type != SK_ECDSA and len(signature) != 64:
        raise MalformedBlob(f"it is not an {kind} signature of 64 bytes")
    if kind == ED25519:
        reader.finish()
        return SignatureParts(key=key, public=public, signature=signature)
    flags, counter = reader.uint(1, "flags"), reader.uint(4, "counter")
    origin, client_data, extensions = b"", b"", b""
    if kind == WEBAUTHN:
        origin, client_data = reader.string("origin"), reader.string("client data")
        extensions = reader.string("extensions")
    reader.finish()
    if flags & _ATTESTED or bool(flags & _EXTENDED) != bool(extensions):
        raise MalformedBlob(f"its flags 0x{flags:02x} promise data that is not in it, or hide data that is")
    return SignatureParts(
        key=key,
        public=public,
        kind=kind,
        signature=signature,
        flags=flags,
        counter=counter,
        origin=_origin(origin),
        client_data=client_data,
        extensions=extensions,
    )


def _origin(data: bytes) -> str:
    if any(not 0x20 < byte < 0x7F or byte in b'"\\' for byte in data):
        raise MalformedBlob("its origin holds what no origin holds")
    return data.decode("ascii")


def ecdsa_numbers(signature: bytes) -> tuple[int, int]:
    """Return r and s of an ECDSA signature (RFC 5656, section 3.1.2), each in its one form.

    Raises:
        MalformedBlob: a number that is negative, zero, over 256 bits, or written with more bytes than it needs.
    """
    reader = BlobReader(signature)
    r, s = _positive(reader.string("number r")), _positive(reader.string("number s"))
    reader.finish()
    return r, s


def _positive(data: bytes) -> int:
    value = int.from_bytes(data, "big")
    if not value or value.bit_length() > 256 or data != value.to_bytes(value.bit_length() // 8 + 1, "big"):
        raise MalformedBlob("a number of it is not a positive number of 256 bits in its one form")
    return value


def encode_header(blob: bytes) -> str:
    """Return a blob as a STOMP header's value: base64 on one line."""
    return base64.b64encode(blob).decode("ascii")


def decode_header(value: str) -> bytes:
    """Return the blob in a header's value.

    Raises:
        SignatureError: not canonical base64, or too long.
    """
    if len(value) > MAX_SIGNATURE:
        raise SignatureError("the signature is malformed: it is too long to be one")
    try:
        return decode_base64(value)
    except MalformedBlob as error:
        raise SignatureError(f"the signature is malformed: {error}") from None


def armor(blob: bytes) -> str:
    """Return a blob as the text that `ssh-keygen -Y sign` writes and `-Y verify -s` reads."""
    text = encode_header(blob)
    lines = [text[at : at + 70] for at in range(0, len(text), 70)]
    return "\n".join((_ARMOR_BEGIN, *lines, _ARMOR_END)) + "\n"


def dearmor(text: str) -> bytes:
    """Return the blob in a signature file of `ssh-keygen -Y sign`.

    Raises:
        SignatureError: not such a file, or too long.
    """
    if len(text) > 4 * _MAX_BLOB:
        raise SignatureError("the signature file is too long to be one")
    lines = [line.strip() for line in text.strip().splitlines()]
    if len(lines) < 3 or lines[0] != _ARMOR_BEGIN or lines[-1] != _ARMOR_END:
        raise SignatureError("not an SSH signature file", f"expected it to begin with {_ARMOR_BEGIN}")
    return decode_header("".join(lines[1:-1]))


__all__ = [
    "HASH_ALGORITHM",
    "KEY_TYPE",
    "KINDS",
    "MAX_SIGNATURE",
    "NAMESPACE",
    "SignatureParts",
    "WEBAUTHN",
    "armor",
    "dearmor",
    "decode_blob",
    "decode_header",
    "ecdsa_numbers",
    "encode_blob",
    "encode_header",
    "encode_parts",
    "read_signature",
    "signed_bytes",
]
