"""Does a signature fit a body: the mathematics of each kind. Whose keys count, and what they must show, is not here."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from deploykit.errors import SignatureError, SignatureNotEnough
from deploykit.trust.certificate import Certificate
from deploykit.trust.clientdata import check_client_data
from deploykit.trust.keyformat import ED25519, SK_ECDSA, MalformedBlob, fingerprint, ssh_string
from deploykit.trust.signaturerules import SignatureRules
from deploykit.trust.sshsig import WEBAUTHN, SignatureParts, ecdsa_numbers, read_signature, signed_bytes

_CURVE: Final = ec.SECP256R1()
_HASH: Final = ec.ECDSA(hashes.SHA256())
#: What an authority's signature must show: a touch, where it is a security key. No passkey is an authority.
_AUTHORITY_RULES: Final = SignatureRules()
#: Digests of certificates whose authorities' signatures are good: a node signs each report with the same one.
_GOOD: Final[set[bytes]] = set()
_MOST_REMEMBERED: Final = 100_000


def fits(parts: SignatureParts, body: bytes) -> bool:
    """Return whether the key in a signature made it, over these bytes.

    Raises:
        MalformedBlob: the signature is about these bytes in no form that counts.
    """
    return _fits(parts, signed_bytes(body))


def _fits(parts: SignatureParts, message: bytes) -> bool:
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
            _ed25519(parts.public.point).verify(parts.signature, message)
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


@lru_cache(maxsize=4096)
def _ed25519(point: bytes) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(point)


def check_authority(certificate: Certificate) -> None:
    """Check that the authority that a certificate names signed it. A good signature is verified once and remembered.

    The authority may be a security key of OpenSSH's (`ssh:`): somebody must have touched it.

    Raises:
        SignatureError: the authority did not sign these bytes, or its key is of a type that does not count.
    """
    signed = hashlib.sha256(
        b"".join(map(ssh_string, (certificate.authority, certificate.signed, certificate.signature)))
    )
    if (digest := signed.digest()) in _GOOD:
        return
    try:
        parts = read_signature(certificate.authority, certificate.signature)
        if not _fits(parts, certificate.signed):
            raise SignatureError(f"{certificate} was not signed by the authority that it names, or was changed since")
    except MalformedBlob as error:
        raise SignatureError(f"the authority's signature on {certificate} is malformed: {error}") from None
    if objection := _AUTHORITY_RULES.objection(parts):
        raise SignatureNotEnough(f"the authority's signature on {certificate} does not count: {objection}")
    if len(_GOOD) >= _MOST_REMEMBERED:
        _GOOD.clear()
    _GOOD.add(digest)


__all__ = ["check_authority", "check_fits", "fits"]
