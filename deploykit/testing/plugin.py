"""The pytest plugin that deploykit's users get: fixtures around the embedded broker.

pytest imports this file in every run of every project that has deploykit installed, so it imports nothing but pytest;
the broker is loaded when a fixture is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deploykit.testing.broker import EmbeddedBroker


@pytest.fixture
def deploykit_broker() -> Iterator[EmbeddedBroker]:
    """A running STOMP broker on a free loopback port, fresh for each test; login `guest`, passcode `guest`."""
    from deploykit.testing.broker import EmbeddedBroker

    with EmbeddedBroker(users={"guest": "guest"}, record=1000) as broker:
        yield broker
