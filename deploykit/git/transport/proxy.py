"""The proxy on the way to an origin, by the environment's variables, as git (curl) reads them. Pure.

Rules:

* `https_proxy` or `http_proxy` by the origin's scheme, else `all_proxy`; lower case before upper case. `HTTP_PROXY` in
  upper case is not read: a web server sets it from a request's `Proxy` header.
* `no_proxy` lists hosts, the domains above them, addresses and networks; `*` is every host.
* Without a scheme it is `http`, without a port 1080. Other kinds (SOCKS, TLS to the proxy) are refused, not ignored.
* A login of the proxy is in no error.
"""

from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote, urlsplit

import attrs

from deploykit.errors import SettingsError
from deploykit.git.transport.address import OriginUrl

#: curl's, where a proxy's URL has none.
_PORT: Final = 1080
_HOST: Final = re.compile(r"[A-Za-z0-9_.:-]+\Z")
_ENTRY: Final = re.compile(
    r"(?P<host>\[[0-9a-f:.]+\]|[^:\[\]]+|[0-9a-f]*:[0-9a-f:.]*:[0-9a-f:./]*)(?::(?P<port>[0-9]{1,5}))?\Z"
)


@attrs.frozen(kw_only=True, slots=True)
class HttpProxy:
    """A proxy and how to log in to it.

    Args:
        variable: the environment variable that names it, for people.
        headers: its login.
    """

    host: str
    port: int
    variable: str
    headers: dict[str, str] = attrs.field(factory=dict, repr=False)

    @property
    def shown(self) -> str:
        """Host, port and where it is set, for people."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port} (from {self.variable})"


def proxy_for(origin: OriginUrl, environment: Mapping[str, str]) -> HttpProxy | None:
    """Return the proxy on the way to an origin; None where it is reached directly.

    Raises:
        SettingsError: the variable names a proxy that cannot be used.
    """
    names = [f"{origin.scheme}_proxy", "all_proxy"]
    tried = [each for name in names for each in (name, name.upper()) if each != "HTTP_PROXY"]
    variable = next((name for name in tried if environment.get(name, "").strip()), "")
    if not variable or _is_direct(origin, environment.get("no_proxy") or environment.get("NO_PROXY") or ""):
        return None
    text = environment[variable].strip()
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        host, port = parts.hostname or "", parts.port or _PORT
    except ValueError:
        raise _unusable(variable, "names no proxy") from None
    if parts.scheme != "http":
        raise _unusable(variable, f"names a proxy of the kind {parts.scheme[:20]!a}, which is not supported")
    if not _HOST.match(host):
        raise _unusable(variable, "names no proxy")
    headers = {}
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        headers["Proxy-Authorization"] = f"Basic {base64.b64encode(login).decode()}"
    return HttpProxy(host=host, port=port, variable=variable, headers=headers)


def _unusable(variable: str, why: str) -> SettingsError:
    return SettingsError(f"the environment variable {variable} {why}", "set it to http://HOST:PORT, or unset it")


def _is_direct(origin: OriginUrl, no_proxy: str) -> bool:
    """Return whether `no_proxy` lists an origin's host."""
    host = origin.host.lower().rstrip(".")
    port = origin.port or {"https": 443, "http": 80}.get(origin.scheme)
    return any(_lists(entry, host, port) for entry in re.split(r"[\s,]+", no_proxy.lower()) if entry)


def _lists(entry: str, host: str, port: int | None) -> bool:
    found = _ENTRY.match(entry)
    if found is None or (found["port"] and int(found["port"]) != port):
        return False
    name = found["host"].strip("[]").removeprefix("*.").strip(".")
    if name == "*":
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(name, strict=False)
    except ValueError:  # one of them is a name
        return bool(name) and (host == name or host.endswith(f".{name}"))


__all__ = ["HttpProxy", "proxy_for"]
