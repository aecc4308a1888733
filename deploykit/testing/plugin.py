"""The pytest plugin of deploykit: fixtures for the embedded broker, and for a fault proxy before it.

pytest imports this file in every run of every project that has deploykit installed, so it imports nothing but pytest;
a server is loaded when a fixture asks for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deploykit.broker.server import EmbeddedBroker
    from deploykit.testing.proxy import FaultProxy


@pytest.fixture
def deploykit_broker() -> Iterator[EmbeddedBroker]:
    """A STOMP broker on a free loopback port, fresh for each test; login `guest`, passcode `guest`.

    `address` is for a `Bus`; `sent()` returns what was published, `peek()` what waits in a queue. `wait_for()` waits
    for a condition; `faults` has the fault switches.
    """
    from deploykit.broker.server import EmbeddedBroker

    with EmbeddedBroker(users={"guest": "guest"}, record=1000) as broker:
        yield broker


@pytest.fixture
def deploykit_proxy(deploykit_broker: EmbeddedBroker) -> Iterator[FaultProxy]:
    """A TCP proxy before `deploykit_broker`, for latency, cuts and black holes: `address_for("guest:guest")`."""
    from deploykit.testing.proxy import FaultProxy

    with FaultProxy(deploykit_broker.port) as proxy:
        yield proxy
