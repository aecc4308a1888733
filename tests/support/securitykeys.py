"""Security keys and passkeys in software, written from OpenSSH's PROTOCOL.u2f and the WebAuthn standard.

They make the bytes that a token makes, and those that it would never make: without a touch, say, or `n - s` for `s`.
No hardware was tried. `browser_signatures` are real ones of a browser, whose authenticator was software too.
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

import attrs
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from deploykit.trust.keyformat import SK_ECDSA, SK_ED25519, PublicKey, encode_key, fingerprint, public_line, ssh_string
from deploykit.trust.sshsig import WEBAUTHN, encode_parts, signed_bytes

#: The order of P-256's group.
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
PRESENT, VERIFIED, ATTESTED, EXTENDED = 0x01, 0x04, 0x40, 0x80


@attrs.frozen(kw_only=True)
class BrowserSignature:
    """What a browser had a passkey sign, when a page asked for verification or not."""

    body: bytes
    public_openssh: str
    header: str
    origin: str
    rp_id: str
    verified: bool


def browser_signatures() -> tuple[BrowserSignature, ...]:
    """Recorded signatures: one with the larger s and one with the smaller, one with verification and one without."""
    path = Path(__file__).parents[1] / "data" / "passkeys" / "chromium-156.json"
    record = json.loads(path.read_text())
    return tuple(
        BrowserSignature(
            body=record["body"].encode(),
            public_openssh=record["public_key"],
            header=each["header"],
            origin=record["origin"],
            rp_id=record["rp_id"],
            verified=each["verification"] == "required",
        )
        for each in record["signatures"]
    )


class SoftwareSecurityKey:
    """A key on a token; its switches may be turned between signatures. A `BodySigner`.

    Args:
        key_type: `SK_ED25519` or `SK_ECDSA`.
        seed: of the private key: the same seed, the same key.
        application: what it was made for.
        presence, verified: what it says of the person.
        counter: goes up with each signature, unless it is None: then it stays 0.
        high_s: take the larger of `s` and `n - s`, or the smaller; None takes what comes.
    """

    def __init__(
        self,
        key_type: str,
        *,
        seed: int = 1,
        application: str = "ssh:",
        presence: bool = True,
        verified: bool = False,
        counter: int | None = 7,
        high_s: bool | None = None,
    ) -> None:
        self.key_type = key_type
        self.application = application
        self.presence = presence
        self.verified = verified
        self.counter = counter
        self.high_s = high_s
        self.more_flags = 0
        self.extensions = b""
        if key_type == SK_ED25519:
            self._ed = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
            point = self._ed.public_key().public_bytes_raw()
        else:
            self._ec = ec.derive_private_key(seed, ec.SECP256R1())
            point = self._ec.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        self.public = PublicKey(key_type=key_type, point=point, application=application)

    @classmethod
    def ed25519(
        cls,
        *,
        seed: int = 1,
        application: str = "ssh:",
        presence: bool = True,
        verified: bool = False,
        counter: int | None = 7,
    ) -> SoftwareSecurityKey:
        """A key as `ssh-keygen -t ed25519-sk` makes one."""
        return cls(
            SK_ED25519, seed=seed, application=application, presence=presence, verified=verified, counter=counter
        )

    @classmethod
    def ecdsa(
        cls,
        *,
        seed: int = 1,
        application: str = "ssh:",
        presence: bool = True,
        verified: bool = False,
        counter: int | None = 7,
        high_s: bool | None = None,
    ) -> SoftwareSecurityKey:
        """A key as `ssh-keygen -t ecdsa-sk` makes one."""
        return cls(
            SK_ECDSA,
            seed=seed,
            application=application,
            presence=presence,
            verified=verified,
            counter=counter,
            high_s=high_s,
        )

    @property
    def public_blob(self) -> bytes:
        return encode_key(self.public)

    @property
    def public_openssh(self) -> str:
        return public_line(self.public_blob)

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.public_blob)

    @property
    def flags(self) -> int:
        touched = PRESENT * self.presence | VERIFIED * self.verified
        return touched | EXTENDED * bool(self.extensions) | self.more_flags

    def sign_body(self, body: bytes) -> bytes:
        """The SSHSIG blob of a signature over the bytes, as a touch of the token makes it."""
        return encode_parts(self.public_blob, self.signature_of(signed_bytes(body), self.key_type))

    def signature_of(self, message: bytes, kind: str, tail: bytes = b"") -> bytes:
        """The content of the signature field over a message, with what follows the counter."""
        if self.counter is not None:
            self.counter += 1
        touched = bytes([self.flags]) + (self.counter or 0).to_bytes(4, "big")
        application = hashlib.sha256(self.application.encode()).digest()
        signature = self._sign(application + touched + self.extensions + hashlib.sha256(message).digest())
        return ssh_string(kind.encode()) + ssh_string(signature) + touched + tail

    def _sign(self, data: bytes) -> bytes:
        if self.key_type == SK_ED25519:
            return self._ed.sign(data)
        # No chance in it (RFC 6979): the same message and switches give the same bytes, so failures can be repeated.
        r, s = decode_dss_signature(self._ec.sign(data, ec.ECDSA(hashes.SHA256(), deterministic_signing=True)))
        if self.high_s is not None:
            s = max(s, ORDER - s) if self.high_s else min(s, ORDER - s)
        return mpint(r) + mpint(s)


class SoftwarePasskey(SoftwareSecurityKey):
    """A passkey in a browser: signs what a web page asks for, with the page's origin. A `BodySigner`.

    `client_data_tail` is what the browser writes after the origin; `challenge`, when it is set, replaces the message's.
    """

    def __init__(
        self,
        origin: str = "https://deploy.example.org",
        rp_id: str = "deploy.example.org",
        *,
        seed: int = 1,
        presence: bool = True,
        verified: bool = True,
        counter: int | None = None,
        high_s: bool | None = None,
    ) -> None:
        super().__init__(
            SK_ECDSA,
            seed=seed,
            application=rp_id,
            presence=presence,
            verified=verified,
            counter=counter,
            high_s=high_s,
        )
        self.origin = origin
        self.client_data_tail = ',"crossOrigin":false}'
        self.challenge: bytes | None = None

    def client_data(self, message: bytes) -> bytes:
        """The JSON text that the browser has the authenticator sign."""
        challenge = base64.urlsafe_b64encode(self.challenge or message).decode().rstrip("=")
        fields = {"type": "webauthn.get", "challenge": challenge, "origin": self.origin}
        return (json.dumps(fields, separators=(",", ":"))[:-1] + self.client_data_tail).encode()

    def sign_body(self, body: bytes) -> bytes:
        """The SSHSIG blob of a signature over the bytes, as a web page makes it from what the browser returns."""
        data = self.client_data(signed_bytes(body))
        tail = ssh_string(self.origin.encode()) + ssh_string(data) + ssh_string(self.extensions)
        return encode_parts(self.public_blob, self.signature_of(data, WEBAUTHN, tail))


def mpint(number: int) -> bytes:
    """A positive number as RFC 4251 writes it."""
    return ssh_string(number.to_bytes(number.bit_length() // 8 + 1, "big"))
