"""A device with passkeys, in software: makes them and logs in by them, right or wrong."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections.abc import Mapping
from typing import Any

import attrs
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

PRESENT, VERIFIED, ATTESTED = 0x01, 0x04, 0x40


@attrs.define(kw_only=True)
class SoftwareDevice:
    """A device with one passkey.

    Args:
        origin, rp_id: of the page that asks, as the browser writes them.
        verified: it says that it has verified the person.
        counter: it goes up with each use; None: it counts nothing.
        key: of the passkey.
        handle: what it keeps of whose it is; from the registration.
    """

    origin: str = "https://deploy.example.org"
    rp_id: str = "deploy.example.org"
    verified: bool = True
    counter: int | None = None
    key: ec.EllipticCurvePrivateKey = attrs.field(factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    credential: bytes = attrs.field(factory=lambda: secrets.token_bytes(32))
    handle: bytes = b""

    @property
    def point(self) -> bytes:
        """The public key: 4, x, y."""
        return self.key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)

    def register(self, options: Mapping[str, Any]) -> str:
        """Return the answer to the options of a registration."""
        self.handle = _bytes(options["user"]["id"])
        cose = b"\xa5\x01\x02\x03\x26\x20\x01\x21\x58\x20" + self.point[1:33] + b"\x22\x58\x20" + self.point[33:]
        data = self._authenticator(ATTESTED) + bytes(16) + len(self.credential).to_bytes(2, "big")
        data += self.credential + cose
        attestation = b"\xa3\x63fmt\x64none\x67attStmt\xa0\x68authData" + _cbor_bytes(data)
        response = {
            "clientDataJSON": _text(self._client("webauthn.create", options["challenge"])),
            "attestationObject": _text(attestation),
        }
        return self._answer(response)

    def log_in(self, options: Mapping[str, Any], **changed: str) -> str:
        """Return the answer to the options of a login; `changed` replaces parts of it."""
        client = self._client("webauthn.get", options["challenge"])
        data = self._authenticator(0)
        signature = self.key.sign(data + hashlib.sha256(client).digest(), ec.ECDSA(hashes.SHA256()))
        response = {
            "clientDataJSON": _text(client),
            "authenticatorData": _text(data),
            "signature": _text(signature),
            "userHandle": _text(self.handle),
        }
        return self._answer({**response, **changed})

    def _authenticator(self, more: int) -> bytes:
        if self.counter is not None:
            self.counter += 1
        flags = PRESENT | VERIFIED * self.verified | more
        return hashlib.sha256(self.rp_id.encode()).digest() + bytes([flags]) + (self.counter or 0).to_bytes(4, "big")

    def _client(self, kind: str, challenge: str) -> bytes:
        return json.dumps(
            {"type": kind, "challenge": challenge, "origin": self.origin, "crossOrigin": False}, separators=(",", ":")
        ).encode()

    def _answer(self, response: Mapping[str, str]) -> str:
        id_ = _text(self.credential)
        return json.dumps({"id": id_, "rawId": id_, "type": "public-key", "response": response})


def _cbor_bytes(data: bytes) -> bytes:
    return b"\x59" + len(data).to_bytes(2, "big") + data


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


__all__ = ["SoftwareDevice"]
