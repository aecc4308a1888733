"""As whom a key may sign at a moment: by lines that name it, or by a certificate of an authority that lines name.

Rules:

* A key with a certificate counts by the lines of the authority alone, as in ssh-keygen. Without it, by its own.
* The names of a certificate are its principals that a line's patterns let pass; it signs as no other name.
* What is revoked counts for nothing: the key, its authority, the certificate's key id or serial.
* The cheap checks come first: nobody makes us verify a signature without a certificate that counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from deploykit.errors import KeyNotTrusted
from deploykit.trust.allowed_signers import AllowedSigners
from deploykit.trust.certificate import Certificate
from deploykit.trust.keyformat import fingerprint
from deploykit.trust.signerlines import matches
from deploykit.trust.sshsig import NAMESPACE, SignatureParts
from deploykit.trust.verification import check_authority


def signing_principals(parts: SignatureParts, allowed: AllowedSigners, now: datetime) -> tuple[tuple[str, ...], ...]:
    """Return the names that a signature's key may sign as, one pattern list for each line that counts.

    The signature itself is not verified here; the authority's, on a certificate, is.

    Raises:
        KeyNotTrusted: not allowed, revoked, or not at this time.
        SignatureError: the authority did not sign the certificate.
    """
    if parts.certificate is not None:
        return certificate_principals(parts.certificate, allowed, now)
    return key_principals(parts.key, allowed, now)


def key_principals(key: bytes, allowed: AllowedSigners, now: datetime) -> tuple[tuple[str, ...], ...]:
    """Return the names that a key without a certificate may sign as. See `signing_principals`."""
    name = fingerprint(key)
    if allowed.is_revoked(key):
        raise KeyNotTrusted(f"key {name} is revoked")
    lines = allowed.lines_for(key)
    if not lines:
        raise KeyNotTrusted(f"key {name} is not among the allowed signers", "add it with `deploykit keys trust`")
    objections = [line.objection(NAMESPACE, now) for line in lines]
    good = tuple(line.principals for line, objection in zip(lines, objections, strict=True) if not objection)
    if not good:
        raise KeyNotTrusted(f"key {name} does not count: {_joined(objections)}")
    return good


def certificate_principals(
    certificate: Certificate, allowed: AllowedSigners, now: datetime
) -> tuple[tuple[str, ...], ...]:
    """Return the names that a certificate's key may sign as. See `signing_principals`."""
    if objection := allowed.revoked.objection(certificate) or certificate.objection(now):
        raise KeyNotTrusted(objection)
    authority = fingerprint(certificate.authority)
    lines = allowed.authorities_for(certificate.authority)
    if not lines:
        raise KeyNotTrusted(
            f"{certificate} is by {authority}, which is no authority among the allowed signers",
            "add the authority's key with the option cert-authority",
        )
    objections, good = [], []
    for line in lines:
        names = tuple(name for name in certificate.names if matches(line.principals, name))
        why = line.objection(NAMESPACE, now) or ("" if names else f"line {line.line} allows none of its principals")
        objections.append(why)
        if not why and names not in good:
            good.append(names)
    if not good:
        raise KeyNotTrusted(f"{certificate} does not count: {_joined(objections)}")
    check_authority(certificate)
    return tuple(good)


def _joined(texts: Iterable[str]) -> str:
    return "; ".join(text for text in texts if text)


__all__ = ["certificate_principals", "key_principals", "signing_principals"]
