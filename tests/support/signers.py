"""Who signed a message, for tests that need no signature."""

from __future__ import annotations

from deploykit.trust.signature import Signer, Signers


def one(*, fingerprint: str = "SHA256:x", principals: tuple[tuple[str, ...], ...]) -> Signers:
    """One signer of a message."""
    return Signers(each=(Signer(fingerprint=fingerprint, principals=principals),))
