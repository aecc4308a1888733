"""The bytes of OpenSSH keys and signatures (RFC 4251 strings, RFC 8709, OpenSSH's PROTOCOL.sshsig). No cryptography.

Rules:

* Ed25519 and SHA-512 only, and one namespace: a signature has exactly one acceptable form.
* A field that is empty, longer, in another order or followed by anything is refused. So is non-canonical base64.
* No bit of a signature may change and leave it valid. `reserved` must be empty, though ssh-keygen ignores it.
* Every input is bounded before it is parsed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Final

import attrs

from deploykit.errors import KeyFileError, SignatureError

#: What our signatures are for; a signature made for another purpose (git, file, email) is not one.
NAMESPACE: Final = "deploykit"
HASH_ALGORITHM: Final = "sha512"
KEY_TYPE: Final = "ssh-ed25519"
#: Bytes of an Ed25519 public key blob.
KEY_LENGTH: Final = 51

_MAGIC: Final = b"SSHSIG"
_VERSION: Final = 1
_MAX_BLOB: Final = 4096  # a 16384-bit RSA signature fits, so what is too weak or strange still gets its own error
_MAX_KEY_LINE: Final = 16384

_ARMOR_BEGIN: Final = "-----BEGIN SSH SIGNATURE-----"
_ARMOR_END: Final = "-----END SSH SIGNATURE-----"

#: Ed25519 points of small order, sign bit cleared (Cremers & Jackson 2019, "Prime, Order Please!", section 5): under
#: such a "key" one signature fits nearly any text, so a line that holds one would let everybody in.
_SMALL_ORDER: Final = frozenset(
    bytes.fromhex(text)
    for text in (
        "00" * 32,
        "01" + "00" * 31,
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ec" + "ff" * 30 + "7f",
        "ed" + "ff" * 30 + "7f",
        "ee" + "ff" * 30 + "7f",
    )
)
_SMALL_ORDER_ENDS: Final = frozenset(point[-1] for point in _SMALL_ORDER)


class _Malformed(ValueError):
    """Bytes have not the expected structure. Each public function below raises its own error instead."""


@attrs.frozen(kw_only=True, slots=True)
class SignatureParts:
    """A decoded signature.

    Args:
        key: the public key blob it claims to be from; not verified yet.
        signature: the raw 64 bytes.
    """

    key: bytes
    signature: bytes = attrs.field(repr=False)


# -- strings of the SSH wire format ----------------------------------------------------------------------------------


def _string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


class _Reader:
    """Takes SSH strings off the front of bounded bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int, what: str) -> bytes:
        end = self._at + count
        if end > len(self._data):
            raise _Malformed(f"it is cut short in its {what}")
        found = self._data[self._at : end]
        self._at = end
        return found

    def string(self, what: str) -> bytes:
        return self.take(int.from_bytes(self.take(4, what), "big"), what)

    def finish(self) -> None:
        if self._at != len(self._data):
            raise _Malformed("something follows its end")


def _shown(data: bytes) -> str:
    return ascii(data[:40].decode("ascii", "replace"))


def _base64(text: str) -> bytes:
    """Return decoded base64 that is exactly what an encoder writes: no blanks, no stray bits in the last character."""
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error) as error:
        raise _Malformed("it is not base64") from error
    if base64.b64encode(data).decode("ascii") != text:
        raise _Malformed("its base64 is not canonical")
    return data


# -- public keys -----------------------------------------------------------------------------------------------------


def key_blob(raw: bytes) -> bytes:
    """Return the blob of an Ed25519 public key's 32 bytes (RFC 8709, section 4)."""
    return _string(KEY_TYPE.encode()) + _string(raw)


def raw_key(blob: bytes) -> bytes:
    """Return the 32 bytes in an Ed25519 public key blob.

    Raises:
        KeyFileError: another type, not exactly that structure, or a point of small order.
    """
    try:
        return _raw_key(blob)
    except _Malformed as error:
        raise KeyFileError(f"not an Ed25519 public key: {error}", "make one with `deploykit keys generate`") from None


def _raw_key(blob: bytes) -> bytes:
    reader = _Reader(blob)
    kind = reader.string("type")
    if kind != KEY_TYPE.encode():
        raise _Malformed(f"its type is {_shown(kind)}, only {KEY_TYPE} is accepted")
    raw = reader.string("point")
    reader.finish()
    if len(raw) != 32:
        raise _Malformed("its point is not 32 bytes long")
    if is_weak_key(raw):
        raise _Malformed("it is a weak point that anybody can sign for")
    return raw


def is_weak_key(key: bytes) -> bool:
    """Return whether an Ed25519 key, as blob or as 32 bytes, is a point of small order."""
    # All of them end in one of these bytes; the rest of the keys, nine of ten, need no look at the others.
    return key[-1] & 0x7F in _SMALL_ORDER_ENDS and key[-32:-1] + bytes([key[-1] & 0x7F]) in _SMALL_ORDER


def key_type(blob: bytes) -> str:
    """Return the type that a public key blob names; empty when it names none."""
    try:
        return _Reader(blob).string("type").decode("ascii")
    except (_Malformed, UnicodeDecodeError):
        return ""


def decode_key_text(text: str) -> bytes:
    """Return the decoded base64 field of a public key line. The structure inside is not checked.

    Raises:
        KeyFileError: not canonical base64, or too long.
    """
    if len(text) > _MAX_KEY_LINE:
        raise KeyFileError("the key is too long to be one")
    try:
        return _base64(text)
    except _Malformed as error:
        raise KeyFileError(f"not a public key: {error}") from None


def public_line(blob: bytes, comment: str = "") -> str:
    """Return a public key as OpenSSH writes it: type, base64, comment."""
    return " ".join(part for part in (key_type(blob), base64.b64encode(blob).decode("ascii"), comment) if part)


def parse_public_line(line: str) -> tuple[bytes, str]:
    """Return the key blob and the comment of one line of a `.pub` file.

    Raises:
        KeyFileError: not an Ed25519 public key line.
    """
    kind, _, rest = line.strip().partition(" ")
    text, _, comment = rest.strip().partition(" ")
    if kind != KEY_TYPE or not text:
        raise KeyFileError(
            f"not an {KEY_TYPE} public key line",
            f"expected `{KEY_TYPE} AAAA… comment`, as `deploykit keys show` prints",
        )
    blob = decode_key_text(text)
    raw_key(blob)
    return blob, comment.strip()


def fingerprint(blob: bytes) -> str:
    """Return a key's name as OpenSSH prints it: `SHA256:` and the unpadded base64 of its digest."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode("ascii").rstrip("=")


# -- signatures ------------------------------------------------------------------------------------------------------


def signed_bytes(body: bytes) -> bytes:
    """Return the bytes that the key signs: namespace, hash name, and the hash of the body."""
    return b"".join(
        (
            _MAGIC,
            _string(NAMESPACE.encode()),
            _string(b""),
            _string(HASH_ALGORITHM.encode()),
            _string(hashlib.sha512(body).digest()),
        )
    )


def encode_blob(key: bytes, signature: bytes) -> bytes:
    """Return the SSHSIG blob of a public key blob and a raw signature."""
    return b"".join(
        (
            _MAGIC,
            _VERSION.to_bytes(4, "big"),
            _string(key),
            _string(NAMESPACE.encode()),
            _string(b""),
            _string(HASH_ALGORITHM.encode()),
            _string(_string(KEY_TYPE.encode()) + _string(signature)),
        )
    )


def decode_blob(blob: bytes) -> SignatureParts:
    """Return the parts of an SSHSIG blob, in the one form that `encode_blob` writes.

    Raises:
        SignatureError: anything else; the text names the first field that is wrong.
    """
    try:
        return _decode_blob(blob)
    except _Malformed as error:
        raise SignatureError(f"the signature is malformed: {error}") from None


def _decode_blob(blob: bytes) -> SignatureParts:
    if len(blob) > _MAX_BLOB:
        raise _Malformed("it is too long to be one")
    reader = _Reader(blob)
    if reader.take(len(_MAGIC), "preamble") != _MAGIC:
        raise _Malformed("it does not begin with SSHSIG")
    version = int.from_bytes(reader.take(4, "version"), "big")
    if version != _VERSION:
        raise _Malformed(f"its version is {version}, not {_VERSION}")
    key = reader.string("public key")
    namespace, reserved, algorithm = reader.string("namespace"), reader.string("reserved field"), reader.string("hash")
    wrapped = reader.string("signature")
    reader.finish()
    _raw_key(key)
    if namespace != NAMESPACE.encode():
        raise _Malformed(f"it was made for namespace {_shown(namespace)}, not {NAMESPACE!r}")
    if reserved:
        raise _Malformed("its reserved field is not empty")
    if algorithm != HASH_ALGORITHM.encode():
        raise _Malformed(f"its hash is {_shown(algorithm)}, not {HASH_ALGORITHM}")
    inner = _Reader(wrapped)
    kind, signature = inner.string("signature type"), inner.string("signature value")
    inner.finish()
    if kind != KEY_TYPE.encode() or len(signature) != 64:
        raise _Malformed(f"it is not an {KEY_TYPE} signature of 64 bytes")
    return SignatureParts(key=key, signature=signature)


def encode_header(blob: bytes) -> str:
    """Return a blob as a STOMP header's value: base64 on one line."""
    return base64.b64encode(blob).decode("ascii")


def decode_header(value: str) -> bytes:
    """Return the blob in a header's value.

    Raises:
        SignatureError: not canonical base64, or too long.
    """
    if len(value) > _MAX_BLOB * 4 // 3 + 4:
        raise SignatureError("the signature is malformed: it is too long to be one")
    try:
        return _base64(value)
    except _Malformed as error:
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
    "KEY_LENGTH",
    "KEY_TYPE",
    "NAMESPACE",
    "SignatureParts",
    "armor",
    "dearmor",
    "decode_blob",
    "decode_header",
    "decode_key_text",
    "encode_blob",
    "encode_header",
    "fingerprint",
    "is_weak_key",
    "key_blob",
    "key_type",
    "parse_public_line",
    "public_line",
    "raw_key",
    "signed_bytes",
]
