"""The brokers of five nodes, each of which can be killed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.support.chain.brokers import ChainBroker, EmbeddedProcess, RealBroker

REAL: Final = [
    pytest.param("rabbitmq", marks=pytest.mark.rabbitmq),
    pytest.param("activemq", marks=pytest.mark.activemq),
]
BROKERS: Final = ["embedded", *REAL]


@contextmanager
def broker_of(kind: str, root: Path, request: pytest.FixtureRequest) -> Iterator[ChainBroker]:
    """Start a broker of a kind; what it keeps is removed with the test."""
    if kind != "embedded":
        yield RealBroker(request.getfixturevalue(f"new_{kind}")().start())
        return
    embedded = EmbeddedProcess(root)
    try:
        yield embedded.start()
    finally:
        embedded.close()
