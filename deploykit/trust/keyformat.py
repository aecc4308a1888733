"""The bytes of OpenSSH public keys: RFC 4251 strings, RFC 8709, RFC 5656, OpenSSH's PROTOCOL.u2f. No cryptography.

Rules:

* Three kinds of keys: Ed25519, and Ed25519 and NIST P-256 on security keys. Passkeys are of the last kind.
* A key has one form. A P-256 point that is compressed or off the curve is refused, and an Ed25519 one of small order.
* A field that is empty, longer, in another order or followed by anything is refused. So is non-canonical base64.
* Every input is bounded before it is parsed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Final

import attrs

from deploykit.errors import KeyFileError

ED25519: Final = "ssh-ed25519"
SK_ED25519: Final = "sk-ssh-ed25519@openssh.com"
SK_ECDSA: Final = "sk-ecdsa-sha2-nistp256@openssh.com"
#: Bytes of an Ed25519 public key blob.
ED25519_LENGTH: Final = 51
#: Types of the keys that can sign for us.
KEY_TYPES: Final = (ED25519, SK_ED25519, SK_ECDSA)

_MAX_KEY_LINE: Final = 16384
_MAX_APPLICATION: Final = 255
_CURVE: Final = b"nistp256"

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

#: P-256 (SP 800-186, section 3.2.1.3): y^2 = x^3 - 3x + b modulo p.
_P: Final = 2**256 - 2**224 + 2**192 + 2**96 - 1
_B: Final = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B


class MalformedBlob(ValueError):
    """Bytes have not the expected structure. Public functions of `trust` raise their own error instead."""


@attrs.frozen(kw_only=True, slots=True)
class PublicKey:
    """A public key, taken apart.

    Args:
        key_type: one of `KEY_TYPES`.
        point: 32 bytes of Ed25519, or 65 bytes of P-256: 4, x, y.
        application: what a security key made the key for: `ssh:` and more, or a passkey's relying party; empty for
            others.
    """

    key_type: str
    point: bytes
    application: str = ""


# -- strings of the SSH wire format ----------------------------------------------------------------------------------


def ssh_string(data: bytes) -> bytes:
    """Return bytes with their length before them (RFC 4251, section 5)."""
    return len(data).to_bytes(4, "big") + data


class BlobReader:
    """Takes fields off the front of bounded bytes. Its methods raise `MalformedBlob`; `what` names the field."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int, what: str) -> bytes:
        """Return the next `count` bytes."""
        end = self._at + count
        if end > len(self._data):
            raise MalformedBlob(f"it is cut short in its {what}")
        found = self._data[self._at : end]
        self._at = end
        return found

    def string(self, what: str) -> bytes:
        """Return the next string."""
        return self.take(int.from_bytes(self.take(4, what), "big"), what)

    def uint(self, size: int, what: str) -> int:
        """Return the next number of `size` bytes, most significant first."""
        return int.from_bytes(self.take(size, what), "big")

    @property
    def left(self) -> int:
        """How many bytes are left."""
        return len(self._data) - self._at

    def finish(self) -> None:
        """Refuse anything that follows."""
        if self._at != len(self._data):
            raise MalformedBlob("something follows its end")


def shown(data: bytes) -> str:
    """Return the beginning of bytes from outside, safe to show."""
    return ascii(data[:40].decode("ascii", "replace"))


def decode_base64(text: str) -> bytes:
    """Return decoded base64 that is exactly what an encoder writes: no blanks, no stray bits in the last character.

    Raises:
        MalformedBlob: any other text.
    """
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error) as error:
        raise MalformedBlob("it is not base64") from error
    if base64.b64encode(data).decode("ascii") != text:
        raise MalformedBlob("its base64 is not canonical")
    return data


# -- public keys -----------------------------------------------------------------------------------------------------


def key_blob(raw: bytes) -> bytes:
    """Return the blob of an Ed25519 public key's 32 bytes (RFC 8709, section 4)."""
    return ssh_string(ED25519.encode()) + ssh_string(raw)


def encode_key(key: PublicKey) -> bytes:
    """Return the blob of a public key of any kind."""
    curve = ssh_string(_CURVE) if key.key_type == SK_ECDSA else b""
    application = b"" if key.key_type == ED25519 else ssh_string(key.application.encode())
    return ssh_string(key.key_type.encode()) + curve + ssh_string(key.point) + application


def read_key(blob: bytes) -> PublicKey:
    """Return the key in a public key blob.

    Raises:
        MalformedBlob: a type that cannot sign for us, not exactly its structure, or a point that is none or weak.
    """
    reader = BlobReader(blob)
    kind = reader.string("type")
    if kind == b"ssh-ed25519":
        point = _ed25519_point(reader)
        reader.finish()
        return PublicKey(key_type=ED25519, point=point)
    if kind == b"sk-ssh-ed25519@openssh.com":
        point = _ed25519_point(reader)
    elif kind == b"sk-ecdsa-sha2-nistp256@openssh.com":
        point = _p256_point(reader)
    else:
        raise MalformedBlob(f"its type is {shown(kind)}, only {', '.join(KEY_TYPES)} are accepted")
    application = _application(reader.string("application"))
    reader.finish()
    return PublicKey(key_type=kind.decode(), point=point, application=application)


def _ed25519_point(reader: BlobReader) -> bytes:
    point = reader.string("point")
    if len(point) != 32:
        raise MalformedBlob("its point is not 32 bytes long")
    if is_weak_key(point):
        raise MalformedBlob("it is a weak point that anybody can sign for")
    return point


def is_weak_key(key: bytes) -> bool:
    """Return whether an Ed25519 key, as blob or as 32 bytes, is a point of small order."""
    # Each of these ends in one of few bytes: most keys need no look at the others.
    return key[-1] & 0x7F in _SMALL_ORDER_ENDS and key[-32:-1] + bytes([key[-1] & 0x7F]) in _SMALL_ORDER


def _p256_point(reader: BlobReader) -> bytes:
    if (curve := reader.string("curve")) != _CURVE:
        raise MalformedBlob(f"its curve is {shown(curve)}, not nistp256")
    point = reader.string("point")
    if len(point) != 65 or point[0] != 4:
        raise MalformedBlob("its point is not 65 bytes that begin with 4")
    x, y = int.from_bytes(point[1:33], "big"), int.from_bytes(point[33:], "big")
    if x >= _P or y >= _P or (y * y - (x * x - 3) * x - _B) % _P:
        raise MalformedBlob("its point is not on the curve")
    return point


def _application(data: bytes) -> str:
    text = data.decode(errors="surrogateescape")  # halves of surrogates are not printable
    if not text.isprintable() or not 0 < len(data) <= _MAX_APPLICATION:
        raise MalformedBlob(f"its application is not 1 to {_MAX_APPLICATION} bytes of visible text")
    return text


#: Bytes of the fields after the type of each kind of key; None is any number. What cannot sign for us may be revoked.
_FIELDS: Final[dict[str, tuple[int | None, ...]]] = {
    ED25519: (32,),
    SK_ED25519: (32, None),
    SK_ECDSA: (len(_CURVE), 65, None),
    "ssh-rsa": (None, None),
    "ssh-dss": (None, None, None, None),
    "ecdsa-sha2-nistp256": (8, 65),
    "ecdsa-sha2-nistp384": (8, 97),
    "ecdsa-sha2-nistp521": (8, 133),
}


def is_whole(blob: bytes) -> bool | None:
    """Return whether a public key has all of its bytes and no others; None where its type is not known here.

    It may still be no key: a weak one, say. Lists of what is revoked ask this: a key that is cut short revokes nothing.
    """
    reader = BlobReader(blob)
    try:
        sizes = _FIELDS.get(reader.string("type").decode("ascii", "replace"))
        if sizes is None:
            return None
        good = all(size in (None, len(reader.string("field"))) for size in sizes)
        reader.finish()
    except MalformedBlob:
        return False
    return good


def parse_key(blob: bytes) -> PublicKey:
    """Return the key in a public key blob.

    Raises:
        KeyFileError: see `read_key`.
    """
    try:
        return read_key(blob)
    except MalformedBlob as error:
        raise KeyFileError(
            f"not a public key that can sign: {error}", "make one with `deploykit keys generate`"
        ) from None


def raw_key(blob: bytes) -> bytes:
    """Return the point in a public key blob.

    Raises:
        KeyFileError: see `read_key`.
    """
    return parse_key(blob).point


def key_type(blob: bytes) -> str:
    """Return the type that a public key blob names; empty when it names none."""
    try:
        return BlobReader(blob).string("type").decode("ascii")
    except (MalformedBlob, UnicodeDecodeError):
        return ""


def decode_key_text(text: str) -> bytes:
    """Return the decoded base64 field of a public key line. The structure inside is not checked.

    Raises:
        KeyFileError: not canonical base64, or too long.
    """
    if len(text) > _MAX_KEY_LINE:
        raise KeyFileError("the key is too long to be one")
    try:
        return decode_base64(text)
    except MalformedBlob as error:
        raise KeyFileError(f"not a public key: {error}") from None


def public_line(blob: bytes, comment: str = "") -> str:
    """Return a public key as OpenSSH writes it: type, base64, comment."""
    return " ".join(part for part in (key_type(blob), base64.b64encode(blob).decode("ascii"), comment) if part)


def parse_public_line(line: str) -> tuple[bytes, str]:
    """Return the key blob and the comment of one line of a `.pub` file.

    Raises:
        KeyFileError: not the line of a key that can sign for us.
    """
    kind, _, rest = line.strip().partition(" ")
    text, _, comment = rest.strip().partition(" ")
    if "-cert-" in kind and text:
        raise KeyFileError(
            "not a public key line: it is a certificate's",
            "name the key's own .pub file; to trust its authority: `deploykit keys trust WHO CA.pub --cert-authority`",
        )
    if kind not in KEY_TYPES or not text:
        raise KeyFileError(
            f"not a public key line of type {' or '.join(KEY_TYPES)}",
            f"expected `{ED25519} AAAA… comment`, as `deploykit keys show` prints",
        )
    blob = decode_key_text(text)
    if parse_key(blob).key_type != kind:
        raise KeyFileError(f"the line says {kind} but the key says {key_type(blob)}")
    return blob, comment.strip()


def fingerprint(blob: bytes) -> str:
    """Return a key's name as OpenSSH prints it: `SHA256:` and the unpadded base64 of its digest."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode("ascii").rstrip("=")


__all__ = [
    "ED25519",
    "ED25519_LENGTH",
    "KEY_TYPES",
    "SK_ECDSA",
    "SK_ED25519",
    "BlobReader",
    "MalformedBlob",
    "PublicKey",
    "decode_base64",
    "decode_key_text",
    "encode_key",
    "fingerprint",
    "is_weak_key",
    "is_whole",
    "key_blob",
    "key_type",
    "parse_key",
    "parse_public_line",
    "public_line",
    "raw_key",
    "read_key",
    "shown",
    "ssh_string",
]
