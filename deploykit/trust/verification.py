"""Does a signature fit a body: the mathematics of each kind. Whose keys count, and what they must show, is not here."""

from __future__ import annotations

import hashlib
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from deploykit.errors import SignatureError
from deploykit.trust.clientdata import check_client_data
from deploykit.trust.keyformat import ED25519, SK_ECDSA, MalformedBlob, fingerprint
from deploykit.trust.sshsig import WEBAUTHN, SignatureParts, ecdsa_numbers, signed_bytes

_CURVE: Final = ec.SECP256R1()
_HASH: Final = ec.ECDSA(hashes.SHA256())


def fits(parts: SignatureParts, body: bytes) -> bool:
    """Return whether the key in a signature made it, over these bytes.

    Raises:
        MalformedBlob: the signature is about these bytes in no form that counts.
    """
    message = signed_bytes(body)
    if parts.kind == WEBAUTHN:
        check_client_data(parts.client_data, challenge=message, origin=parts.origin)
        message = parts.client_data
    if parts.kind != ED25519:
        message = parts.authenticator_data + hashlib.sha256(message).digest()
    try:
        if parts.public.key_type == SK_ECDSA:
            # Both s and n - s pass: authenticators make either.
            key = ec.EllipticCurvePublicKey.from_encoded_point(_CURVE, parts.public.point)
            key.verify(encode_dss_signature(*ecdsa_numbers(parts.signature)), message, _HASH)
        else:
            Ed25519PublicKey.from_public_bytes(parts.public.point).verify(parts.signature, message)
    except MalformedBlob:
        raise
    except (InvalidSignature, ValueError):
        return False
    return True


def check_fits(parts: SignatureParts, body: bytes) -> None:
    """Refuse a signature that was not made by the key in it over these bytes.

    Raises:
        SignatureError: it was not; the text names the key.
    """
    name = fingerprint(parts.key)
    try:
        good = fits(parts, body)
    except MalformedBlob as error:
        raise SignatureError(f"the signature by key {name} is malformed: {error}") from None
    if not good:
        raise SignatureError(f"the signature by key {name} does not fit the message: one of them was changed")


__all__ = ["check_fits", "fits"]
