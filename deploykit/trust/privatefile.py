"""What an OpenSSH private key file shows without its passphrase: the public key, and whether it has a passphrase.

Source: PROTOCOL.key of OpenSSH. Nothing here is secret, and nothing is verified: it only chooses how to sign.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

import attrs

_BEGIN: Final = b"-----BEGIN OPENSSH PRIVATE KEY-----"
_END: Final = b"-----END OPENSSH PRIVATE KEY-----"
_MAGIC: Final = b"openssh-key-v1\0"


@attrs.frozen(kw_only=True, slots=True)
class PrivateFileHead:
    """The readable part of a private key file.

    Args:
        public_blob: the public key in OpenSSH's wire form, as the file claims.
        encrypted: whether it takes a passphrase to read the rest.
    """

    public_blob: bytes
    encrypted: bool


def read_head(data: bytes) -> PrivateFileHead | None:
    """Return the readable part of a private key file's bytes; None where it is no such file."""
    begin, end = data.find(_BEGIN), data.find(_END)
    if begin < 0 or end < begin:
        return None
    try:
        content = base64.b64decode(b"".join(data[begin + len(_BEGIN) : end].split()), validate=True)
    except binascii.Error:
        return None
    if not content.startswith(_MAGIC):
        return None
    at = len(_MAGIC)
    fields = []
    for number in range(4):  # cipher, key derivation, its options, public key; the number of keys before the last
        at += 4 if number == 3 else 0
        length = int.from_bytes(content[at : at + 4], "big")
        field = content[at + 4 : at + 4 + length]
        if len(field) != length or at + 4 > len(content):
            return None
        fields.append(field)
        at += 4 + length
    return PrivateFileHead(public_blob=fields[3], encrypted=fields[0] != b"none")


__all__ = ["PrivateFileHead", "read_head"]
