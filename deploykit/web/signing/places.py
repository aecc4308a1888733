"""Which web page may ask passkeys for signatures, and which passkeys are its own. Pure.

Rules:

* A passkey belongs to one web site, its relying party. That is the host of the page that signs.
* With `web.sign_origin` the console's own page never asks for one: it links there.
* A page whose address is a number, or that is plain http and not `localhost`, has no passkeys.
"""

from __future__ import annotations

from urllib.parse import urlsplit

import attrs

from deploykit.settings.trust import ORIGIN
from deploykit.settings.web import WebSettings

_DEFAULT_PORTS = {"http": 80, "https": 443}


@attrs.frozen(kw_only=True, slots=True)
class SigningPlace:
    """Where people sign.

    Args:
        origin: of the page that asks for passkeys, as browsers write it: what nodes compare with `trust.origins`.
        rp_id: the relying party of its passkeys: what nodes compare with `trust.rp_ids`.
        elsewhere: it is not the console's own page.
        problem: why no passkey can sign there; empty where it can.
    """

    origin: str
    rp_id: str
    elsewhere: bool = False
    problem: str = ""


def signing_place(settings: WebSettings, address: str) -> SigningPlace:
    """Return where people sign.

    Args:
        settings: `[web]`.
        address: as the browser reached the console, `http://localhost:8470`; counts only where there is no `url`.

    >>> signing_place(WebSettings(url="https://deploy.example.org/"), "").origin
    'https://deploy.example.org'
    """
    if settings.sign_origin:
        return SigningPlace(origin=settings.sign_origin, rp_id=_host(settings.sign_origin), elsewhere=True)
    origin = _origin(settings.url or address)
    problem = "" if ORIGIN.fullmatch(origin) else _no_passkeys(origin)
    return SigningPlace(origin=origin, rp_id=_host(origin), problem=problem)


def _origin(address: str) -> str:
    """Return the origin of an address in the form that browsers give it."""
    parts = urlsplit(address)
    host = f"[{parts.hostname}]" if parts.hostname and ":" in parts.hostname else parts.hostname or ""
    port = parts.port if parts.port != _DEFAULT_PORTS.get(parts.scheme) else None
    return f"{parts.scheme}://{host}" + (f":{port}" if port else "")


def _host(origin: str) -> str:
    return urlsplit(origin).hostname or ""


def _no_passkeys(origin: str) -> str:
    parts = urlsplit(origin)
    if parts.scheme == "http" and parts.port and _host(origin) in ("127.0.0.1", "::1"):
        return f"browsers have no passkeys for an address that is a number: open http://localhost:{parts.port}"
    return f"browsers have no passkeys at {origin}: it needs https and a name (web.url)"


__all__ = ["SigningPlace", "signing_place"]
