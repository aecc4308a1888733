"""Where the servers of `deploykit.testing` may listen, and what to say when they cannot."""

from __future__ import annotations

import errno
import ipaddress

from deploykit.errors import UsageError


def require_loopback(host: str) -> None:
    """Accept an address that only this machine reaches.

    Raises:
        UsageError: others could reach it, or it is a name other than localhost.
    """
    if host == "localhost":
        return
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise UsageError(
            f"{host} can be reached by others", "listen on 127.0.0.1, or ask for it with allow_remote=True"
        )


def port_error(host: str, port: int, error: OSError) -> UsageError:
    """Return what to tell about a port that cannot be opened."""
    if error.errno == errno.EADDRINUSE:
        return UsageError(
            f"port {port} on {host} is in use", "stop what uses it, or choose another port; 0 picks a free one"
        )
    if error.errno == errno.EACCES:
        return UsageError(f"port {port} on {host} needs privileges", "choose a port above 1023")
    reason = error.strerror or str(error)
    return UsageError(f"cannot listen on {host} port {port}: {reason}", "choose an address of this machine")
