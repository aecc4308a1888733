"""Where an LFS server is: beside its origin, or where the settings say. Pure.

Rules:

* No file of a repository says where objects come from: `.lfsconfig` is never read.
* A login is one for the origin, or for the server that the settings name. It goes nowhere else.
"""

from __future__ import annotations

from urllib.parse import urlsplit

import attrs

from deploykit.errors import UsageError
from deploykit.git.transport.address import OriginUrl, parse_origin_url
from deploykit.settings.mirror import MirrorSettings

_PORTS = {"https": 443, "http": 80}


@attrs.frozen(kw_only=True, slots=True)
class LfsEndpoint:
    """An LFS server's API.

    Args:
        url: without a slash at the end and without a login.
        login: whose login is used, and nobody else's: the origin, or the server that the settings name.
    """

    url: str
    login: OriginUrl

    def is_of(self, url: str) -> bool:
        """Return whether a URL leads to the same scheme, host and port."""
        return place_of(url) == place_of(self.url)


def endpoint_of(origin: str, settings: MirrorSettings) -> LfsEndpoint:
    """Return the LFS server of an origin.

    Raises:
        UsageError: the origin has none, and the settings name none.
    """
    if settings.lfs_url:
        address = parse_origin_url(settings.lfs_url, allow_http=settings.allow_http)
        if address.scheme not in _PORTS or address.user or "?" in address.path:
            raise UsageError("lfs_url is not the address of an LFS server", "give https://HOST/PATH")
        return LfsEndpoint(url=address.shown.rstrip("/"), login=address)
    address = parse_origin_url(origin, allow_http=settings.allow_http)
    if address.scheme not in _PORTS or "?" in address.path:
        raise UsageError(f"no LFS server is known for {address.shown}", "set lfs_url: its address with https")
    url = address.shown.rstrip("/")
    return LfsEndpoint(url=f"{url if url.endswith('.git') else url + '.git'}/info/lfs", login=address)


def place_of(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port of a URL that was checked."""
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or _PORTS[parts.scheme]


__all__ = ["LfsEndpoint", "endpoint_of", "place_of"]
