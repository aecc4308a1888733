"""A bus whose way to its broker a test breaks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from deploykit.broker.server import EmbeddedBroker
from deploykit.testing.proxy import FaultProxy


@contextmanager
def proxied(broker: EmbeddedBroker) -> Iterator[FaultProxy]:
    with FaultProxy(broker.port) as proxy:
        yield proxy


def through(proxy: FaultProxy) -> str:
    return proxy.address_for("ada:s3cret")
