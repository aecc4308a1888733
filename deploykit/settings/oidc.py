"""How people log in through an OpenID Connect provider, `[web.oidc]`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import attrs

from deploykit.settings.site import is_web_address


@attrs.frozen(kw_only=True, slots=True)
class OidcSettings:
    """An OpenID Connect provider; the console asks it by code and PKCE.

    Args:
        issuer: `https://id.example.org/realms/ops`, exactly as its tokens name it.
        client_id: as the provider knows this console.
        client_secret_file: in one line, mode 0600 or 0640; None: a public client, with PKCE alone.
        scopes: asked for; `openid` is always among them.
        name_claim: the claim whose value is the user's name in `[[web.access]]`.
        groups_claim: the claim that lists groups, written `@NAME` in `[[web.access]] users`; empty for none.
    """

    issuer: str = ""
    client_id: str = ""
    client_secret_file: Path | None = None
    scopes: tuple[str, ...] = ("openid", "profile")
    name_claim: str = "preferred_username"
    groups_claim: str = ""

    def problems(self) -> tuple[str, ...]:
        """Return what is wrong where people log in by it, one line each; empty when all is well."""
        return tuple(self._problems())

    def _problems(self) -> Iterator[str]:
        parts = urlsplit(self.issuer) if is_web_address(self.issuer) else None
        loopback = parts is not None and parts.hostname in ("localhost", "127.0.0.1", "::1")
        if (
            parts is None
            or parts.query
            or parts.fragment
            or parts.username
            or not (parts.scheme == "https" or loopback)
        ):
            yield "issuer: expected https://HOST/PATH, as the provider's tokens name it"
        if not self.client_id:
            yield "client_id: expected the name under which the provider knows this console"
        if not self.name_claim:
            yield "name_claim: expected the name of a claim, e.g. preferred_username"
        for scope in self.scopes:
            if not scope or not scope.isascii() or not scope.isprintable() or " " in scope:
                yield f"scopes: expected words without a blank, not {scope[:60]!a}"


__all__ = ["OidcSettings"]
