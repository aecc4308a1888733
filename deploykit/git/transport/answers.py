"""What an HTTP answer means where git's was expected: the error for each, with what to do about it. Pure."""

from __future__ import annotations

import http.client
import ssl
from typing import Final

from deploykit.errors import OriginError
from deploykit.git.transport.pktline import printable

_LOGIN: Final = "check credentials_file or credential_helper"
_LATER: Final = "try again later, or look at the server and any proxy before it"
#: (what it does, what to do) by status.
_MEANING: Final = {
    401: ("wants a login, or refuses ours", _LOGIN),
    403: ("forbids this", f"{_LOGIN}, and that the login may read"),
    404: ("has no such repository, or hides it from us", f"check the address; {_LOGIN}"),
    407: ("is behind a proxy that wants a login", "put USER:PASSWORD@ into the proxy's URL"),
    408: ("waited too long for us", _LATER),
    410: ("has it no longer", "check the address"),
    429: ("gets too many requests from us", "try again later, or fetch less often"),
}
_REDIRECTS: Final = range(300, 400)
_SERVER: Final = range(500, 600)


def refused(shown: str, status: int, headers: http.client.HTTPMessage) -> OriginError:
    """Return the error for an answer that is not 200.

    Args:
        shown: the origin's URL for people.
    """
    what, remedy = _MEANING.get(status, ("refuses", "check the address"))
    if status in _REDIRECTS:
        what, remedy = "redirects a request that is not followed elsewhere", "set the address to where it leads"
    elif status in _SERVER:
        what, remedy = "fails", _LATER
    pause = headers.get("Retry-After", "").strip()
    if pause and pause.isascii() and pause.isdecimal():
        remedy = f"{remedy} (it asks for {pause[:9]} s)"
    return OriginError(f"{shown} {what} (HTTP {status})", remedy)


def coding_problem(headers: http.client.HTTPMessage) -> str:
    """Return how an answer is coded, where it is coded in a way that nobody asked for; empty when it is not."""
    for name, plain in (("Content-Encoding", ("", "identity")), ("Transfer-Encoding", ("", "chunked"))):
        value = headers.get(name, "").strip()
        if value.lower() not in plain:
            return f"{name}: {printable(value.encode(), 40)}"
    return ""


def tunnel_refused(proxy: str, origin: str, status: int) -> OriginError:
    """Return the error for a proxy that did not open the way to an origin; both as people see them."""
    if status == 407:
        return OriginError(f"the proxy {proxy} wants a login, or refuses ours (HTTP 407)", _MEANING[407][1])
    if status in _SERVER:
        remedy = "look at the proxy, or list the host in no_proxy"
        return OriginError(f"the proxy {proxy} cannot reach {origin} (HTTP {status})", remedy)
    return OriginError(f"the proxy {proxy} refuses the way to {origin} (HTTP {status})", "list the host in no_proxy")


def broken(exc: Exception) -> str:
    """Return why an exchange broke, in words; never what was sent."""
    if isinstance(exc, http.client.RemoteDisconnected):
        return "closed without an answer"
    if isinstance(exc, ssl.SSLError):
        return f"no TLS with it: {exc.reason or exc.strerror or 'broken off'}"
    if isinstance(exc, OSError):
        return exc.strerror or type(exc).__name__
    return "it sent what is not HTTP"


__all__ = ["broken", "coding_problem", "refused", "tunnel_refused"]
