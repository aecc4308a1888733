"""Which `Host` and which `Origin` a console takes. Pure.

Rules:

* With `url` only its host and port count. Without, only names and addresses of this machine's loopback.
* So a page of another host, whose name was pointed at this machine (DNS rebinding), reads nothing.
* A request that changes something comes from a page of the console itself: `Sec-Fetch-Site` says so, else `Origin`.
* A request with neither header comes from no browser. It needs a login of its own, never a cookie.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from typing import Final, Literal
from urllib.parse import urlsplit

import attrs

#: Where a request that changes something comes from: our own page, another page, or no browser.
Sender = Literal["own", "foreign", "program"]

_HOST: Final = re.compile(
    r"(?:\[(?P<six>[0-9a-fA-F:.]{2,45})\]|(?P<name>[A-Za-z0-9._-]{1,253}))(?::(?P<port>\d{1,5}))?\Z"
)
_PORTS: Final = {"http": 80, "https": 443}


@attrs.frozen(kw_only=True, slots=True)
class HostRule:
    """Which hosts a console takes.

    Args:
        scheme, host, port: of `[web] url`; an empty host: any name of the loopback.
    """

    scheme: str = "http"
    host: str = ""
    port: int | None = None

    @classmethod
    def of(cls, url: str) -> HostRule:
        """Return the rule of a setting `url`, which may be empty."""
        parts = urlsplit(url)
        return cls(scheme=parts.scheme or "http", host=_plain(parts.hostname or ""), port=parts.port)

    @property
    def url(self) -> str:
        """What people type to reach the console; empty where no host is set."""
        if not self.host:
            return ""
        name = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{name}{f':{self.port}' if self.port is not None else ''}/"

    @property
    def secure(self) -> bool:
        """Whether people reach the console by https, so that a cookie can be bound to it."""
        return self.scheme == "https"

    def takes(self, hosts: Sequence[str]) -> bool:
        """Return whether the values of the header `Host` are exactly one that counts."""
        found = _HOST.match(hosts[0]) if len(hosts) == 1 else None
        if found is None:
            return False
        name = _plain(found["six"] or found["name"])
        if not self.host:
            return _is_here(name)
        port = int(found["port"]) if found["port"] else _PORTS[self.scheme]
        return name == self.host and port == (self.port or _PORTS[self.scheme])

    def sender(self, *, host: str, sites: Sequence[str], origins: Sequence[str]) -> Sender:
        """Return where a request comes from.

        Args:
            host: its `Host`, which `takes` accepts.
            sites: values of `Sec-Fetch-Site`.
            origins: values of `Origin`.
        """
        if len(sites) > 1 or len(origins) > 1:
            return "foreign"
        if sites:
            return "own" if sites[0] == "same-origin" else "foreign"
        if origins:
            # A proxy may end TLS in front of us, and without `url` nobody has said so: the host and port decide then.
            scheme, _, origin = origins[0].partition("://")
            fits = scheme == self.scheme if self.host else scheme in _PORTS
            return "own" if fits and _same_host(origin, host, scheme) else "foreign"
        return "program"


def _same_host(one: str, other: str, scheme: str) -> bool:
    first, second = _HOST.match(one.lower()), _HOST.match(other.lower())
    if first is None or second is None:
        return False
    default = str(_PORTS.get(scheme, 0))
    return (first["six"] or first["name"], first["port"] or default) == (
        second["six"] or second["name"],
        second["port"] or default,
    )


def _plain(name: str) -> str:
    """Return a host name in the form that is compared: lower case, without the dot of the root."""
    return name.lower().removesuffix(".")


def _is_here(name: str) -> bool:
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


__all__ = ["HostRule", "Sender"]
