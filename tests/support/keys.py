"""Signing keys that are the same in every run: test ids that show them must not differ between workers."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from deploykit.trust.signature import SigningKey


def fixed_key(number: int) -> SigningKey:
    """Key `number`, 1 to 255."""
    return SigningKey(Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32))
