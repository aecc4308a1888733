"""What one login by a provider begins with, and what comes of it. Pure, and quick to import."""

from __future__ import annotations

import base64
import hashlib
from urllib.parse import urlsplit

import attrs


@attrs.frozen(kw_only=True, slots=True)
class OidcIdentity:
    """Whom a provider has logged in."""

    name: str
    groups: tuple[str, ...] = ()


@attrs.frozen(kw_only=True, slots=True)
class OidcChallenge:
    """What one login has to come back with.

    Args:
        state: in the address; its digest is in the ledger.
        nonce: in the ID token.
        verifier: of PKCE; the provider sees its digest first, and this at the end.
    """

    state: str
    nonce: str = attrs.field(repr=False)
    verifier: str = attrs.field(repr=False)

    @classmethod
    def of(cls, state: str, binding: str) -> OidcChallenge:
        """Return the challenge of a login that was begun in the browser that has the cookie `binding`."""
        return cls(state=state, nonce=_derived("nonce", state, binding), verifier=_derived("pkce", state, binding))


def _derived(what: str, state: str, binding: str) -> str:
    digest = hashlib.sha256(f"deploykit oidc {what}\0{state}\0{binding}".encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def host_of(issuer: str) -> str:
    """Return a provider's host, as people know it."""
    return urlsplit(issuer).hostname or issuer


__all__ = ["OidcChallenge", "OidcIdentity", "host_of"]
