"""Ports for servers that the tests start: a port that is free now may be some connection's a moment later."""

from __future__ import annotations

from typing import Final

from tests.brokers.process import PortLease

_LEASES: Final[list[PortLease]] = []


def free_port() -> int:
    """Return a loopback port that nobody uses, and that no test and no connection gets while this process lives."""
    _LEASES.append(PortLease())
    return _LEASES[-1].port
