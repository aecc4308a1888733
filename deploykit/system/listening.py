"""Addresses a server may listen on, errors where it cannot, and ports that are held for it."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import weakref

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
    """Return the error for a port that cannot be opened."""
    if error.errno == errno.EADDRINUSE:
        return UsageError(
            f"port {port} on {host} is in use", "stop what uses it, or choose another port; 0 picks a free one"
        )
    if error.errno == errno.EACCES:
        return UsageError(f"port {port} on {host} needs privileges", "choose a port above 1023")
    reason = error.strerror or str(error)
    return UsageError(f"cannot listen on {host} port {port}: {reason}", "choose an address of this machine")


def hold_port(host: str, owner: object) -> int:
    """Take a free port of an address and keep it while `owner` lives; return it, or 0 where `host` is a name.

    The port is bound and never listened on: connections to it are refused, the owner's own server may listen on it any
    number of times, and the kernel gives it to no other program.

    Raises:
        OSError: the address is not one of this machine's.
    """
    try:
        family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
    except ValueError:
        return 0
    with socket.socket(family, socket.SOCK_STREAM) as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        held.bind((host, 0))
        port: int = held.getsockname()[1]
        weakref.finalize(owner, os.close, held.detach())
    return port
