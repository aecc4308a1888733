"""Ports for servers that the tests start: a port that is free now may be some connection's a moment later.

And sockets on which they listen: the file of one is there before anybody may connect to it.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Final

from tests.brokers.process import PortLease

_LEASES: Final[list[PortLease]] = []


def free_port() -> int:
    """Return a loopback port that nobody uses, and that no test and no connection gets while this process lives."""
    _LEASES.append(PortLease())
    return _LEASES[-1].port


def listens(address: Path | tuple[str, int]) -> bool:
    """Return whether a server takes connections at a path or a port."""
    family, where = (socket.AF_UNIX, str(address)) if isinstance(address, Path) else (socket.AF_INET, address)
    with socket.socket(family) as tried:
        return tried.connect_ex(where) == 0
