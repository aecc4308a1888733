"""The embedded broker, with a user and a record of what it saw."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from deploykit.broker.server import EmbeddedBroker


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker(users={"ada": "s3cret"}, record=10_000) as embedded:
        yield embedded
