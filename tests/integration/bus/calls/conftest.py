"""The brokers on which a bus is called by its own handlers and callbacks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from deploykit.broker.server import EmbeddedBroker
from tests.brokers.server import BrokerServer
from tests.support.bus import fast
from tests.support.busplaces import BREAKS_PREFETCH, UNKNOWN, WAIT, Place


@pytest.fixture(
    params=[
        "unknown",
        "breaks-prefetch",
        "embedded",
        pytest.param("rabbitmq", marks=pytest.mark.rabbitmq),
        pytest.param("activemq", marks=pytest.mark.activemq),
    ]
)
def place(request: pytest.FixtureRequest, unique_name: str) -> Iterator[Place]:
    kind = str(request.param)
    changes = {"dead_letter": f"/queue/dead-{unique_name}", "publish_timeout": WAIT}
    if kind in ("rabbitmq", "activemq"):
        broker: BrokerServer = request.getfixturevalue(kind)
        settings = fast(broker.address, client_id=f"client-{unique_name}", **changes)
        yield Place(settings=settings, name=unique_name, durable=True, real=True)
        return
    named = {"unknown": UNKNOWN, "breaks-prefetch": BREAKS_PREFETCH, "embedded": "deploykit"}
    with EmbeddedBroker(server=named[kind]) as embedded:
        settings = fast(embedded.address, client_id=f"client-{unique_name}", **changes)
        yield Place(settings=settings, name=unique_name, durable=kind == "embedded")
