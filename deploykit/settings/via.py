"""The web console by which commands reach the fleet from a machine without a broker, `[via]`."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import attrs

#: In the place of a URL on the command line: go by the broker, whatever the settings say.
NOWHERE: Final = "-"


@attrs.frozen(kw_only=True, slots=True)
class ViaSettings:
    """A console that plans and coordinates; keys stay here, and sign here.

    Args:
        url: of the console, `https://deploy.example.org`. Plain http only to this machine. Empty: go by the broker.
        token_file: an API token in one line, mode 0600 or 0640; None: the console asks for no login.
        ca_file: certificates that vouch for the console; None: those of the system.
        timeout: seconds for one request; a plan asks nodes, so give it some.
    """

    url: str = ""
    token_file: Path | None = None
    ca_file: Path | None = None
    timeout: float = 60.0

    def problems(self) -> tuple[str, ...]:
        """Return what is wrong, one line each; empty when all is well."""
        return tuple(self._problems())

    def _problems(self) -> Iterator[str]:
        if self.url and (problem := console_url_problem(self.url)):
            yield f"url: {problem}"
        for name, file in (("token_file", self.token_file), ("ca_file", self.ca_file)):
            if file is not None and not self.url:
                yield f"{name}: it is for the console at url, and there is none (set url, or leave it out)"
        if not 1 <= self.timeout <= 3600:
            yield f"timeout: expected 1 to 3600 seconds, not {self.timeout:g}"


def console_url_problem(url: str) -> str:
    """Return what is wrong with the URL of a console; empty when all is well.

    >>> console_url_problem("https://deploy.example.org"), console_url_problem("http://127.0.0.1:8470/")
    ('', '')
    >>> console_url_problem("http://deploy.example.org")
    'expected https://HOST: plain http only to this machine'
    """
    try:
        parts = urlsplit(url)
        here = _is_here(parts.hostname or "")
        checks = (
            (not url.isascii() or not url.isprintable() or "\\" in url or " " in url, "holds what no URL has"),
            (parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0, "expected https://HOST"),
            ("@" in parts.netloc, "holds a name or password (use token_file)"),
            (bool(parts.path.strip("/") or parts.query or parts.fragment), "expected https://HOST, without a path"),
            (parts.scheme == "http" and not here, "expected https://HOST: plain http only to this machine"),
        )
    except ValueError:
        return "expected https://HOST"
    return next((problem for wrong, problem in checks if wrong), "")


def _is_here(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


__all__ = ["NOWHERE", "ViaSettings", "console_url_problem"]
