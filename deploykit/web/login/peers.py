"""Who is at the other end of a connection, and whether its headers count. Pure.

Rules:

* A header with a name counts only from a peer that `[web] proxies` lists, exactly once, and whole.
* From anybody else it is not ignored but refused: somebody tries to be somebody.
* A connection counts as one over the UNIX socket only where the settings have the console listen on one.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Final

import attrs

from deploykit.settings.web import UNIX_PEER
from deploykit.system.passwordfile import is_login_name
from deploykit.web.login.refusals import AccessRefusal

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
#: Bits of an IPv6 address that one household or machine has for itself.
_SAME_SIX: Final = 64


@attrs.frozen(kw_only=True, slots=True)
class RequestPeer:
    """The other end of a connection.

    Args:
        address: None for a UNIX socket, or where the server does not know it.
        unix: it is a UNIX socket.
    """

    address: _Address | None = None
    unix: bool = False

    def __str__(self) -> str:
        if self.unix:
            return UNIX_PEER
        return str(self.address) if self.address is not None else "unknown"

    @property
    def group(self) -> str:
        """What limits count for: the address; of an IPv6 address the network."""
        if isinstance(self.address, ipaddress.IPv6Address):
            return str(ipaddress.ip_network((self.address, _SAME_SIX), strict=False))
        return str(self)

    def listed(self, proxies: Sequence[str]) -> bool:
        """Return whether the setting `proxies` lists it."""
        if self.unix:
            return UNIX_PEER in proxies
        if self.address is None:
            return False
        return any(self.address in ipaddress.ip_network(proxy, strict=False) for proxy in proxies if proxy != UNIX_PEER)


def peer_of(client: Sequence[object] | None, *, on_unix_socket: bool) -> RequestPeer:
    """Return the peer that an ASGI server reports.

    Args:
        client: `scope["client"]`.
        on_unix_socket: the console listens on a UNIX socket, and on nothing else.
    """
    if client is None:
        return RequestPeer(unix=on_unix_socket)
    return RequestPeer(address=_address(str(client[0])))


def forwarded_peer(peer: RequestPeer, forwarded: Sequence[str], proxies: Sequence[str]) -> RequestPeer:
    """Return the peer of a listed proxy: the last one in `X-Forwarded-For`, which the proxy itself has written."""
    if not peer.listed(proxies) or not forwarded:
        return peer
    address = _address(forwarded[-1].rpartition(",")[2].strip())
    return RequestPeer(address=address) if address is not None else peer


def proxy_name(values: Sequence[str], peer: RequestPeer, *, header: str, proxies: Sequence[str]) -> str | AccessRefusal:
    """Return the name that a proxy has logged in; empty: it has not.

    Args:
        values: those of its header in this request.
        peer: whose request it is.
        header: how it is called, for people.
        proxies: the setting.
    """
    if not peer.listed(proxies):
        if values:
            return AccessRefusal(
                status=403,
                detail=f"The header {header} counts only from a proxy that [web] proxies lists; this is none.",
                audit=f"{header} from {peer}, which is not a listed proxy",
            )
        return ""
    if len(values) > 1 or any("," in value for value in values):
        return AccessRefusal(
            status=403,
            detail=f"The proxy sent several values of {header}: have it replace what a browser sends, not add to it.",
            audit=f"several values of {header} through {peer}",
        )
    name = _decoded(values[0]) if values else ""
    if name and not is_login_name(name):
        return AccessRefusal(
            status=403, detail=f"The proxy sent a {header} that is no name.", audit=f"no name in {header}"
        )
    return name


def _decoded(value: str) -> str:
    """Return a header's value, which ASGI servers give as latin-1, as the UTF-8 that it is; or itself."""
    try:
        return value.encode("latin-1").decode()
    except UnicodeError:
        return "\0"


def _address(text: str) -> _Address | None:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


__all__ = ["RequestPeer", "forwarded_peer", "peer_of", "proxy_name"]
