"""`publish_many` where not all goes well: who reads its outcomes knows what to send again."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Sized

import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.bus import Bus
from deploykit.errors import DialectError, PublishError, PublishManyFailed, PublishRefused
from deploykit.wire.frame import Frame
from tests.support.bus import Collector, fast, running, text


def failed(bus: Bus, messages: Iterable[tuple[str, Frame]], timeout: float = 30.0) -> PublishManyFailed:
    with pytest.raises(PublishManyFailed) as raised:
        bus.publish_many(messages, timeout=timeout)
    return raised.value


def test_outcomes_say_which_messages_arrived(deploykit_broker: EmbeddedBroker) -> None:
    collector = Collector()
    messages = [
        ("/queue/q", text("one")),
        ("no destination\n", text("two")),
        ("/queue/q", text("three", receipt="mine")),
        ("/queue/q", text("four")),
    ]
    with running(fast(deploykit_broker.address)) as bus:
        error = failed(bus, messages)
        bus.subscribe("/queue/q", collector)
        collector.wait(2)
    assert [type(outcome) for outcome in error.outcomes] == [type(None), DialectError, PublishRefused, type(None)]
    assert collector.bodies == ["one", "four"]
    assert "2 of 4" in str(error)


@pytest.mark.parametrize("window", [3, 1000])
def test_without_a_broker_every_message_of_a_list_has_its_outcome_in_time(unused_port: int, window: int) -> None:
    with Bus(fast(f"stomp://127.0.0.1:{unused_port}", window=window)) as bus:
        began = time.monotonic()
        error = failed(bus, [("/queue/q", text(str(n))) for n in range(10)], timeout=0.5)
        assert time.monotonic() - began < 20
    assert len(error.outcomes) == 10
    assert all(isinstance(outcome, PublishError) for outcome in error.outcomes)


@pytest.mark.parametrize("up", [True, False])
def test_an_iterator_without_end_is_read_no_longer_than_the_time_lasts(
    deploykit_broker: EmbeddedBroker, unused_port: int, up: bool
) -> None:
    numbers = itertools.count()
    messages = (("/queue/q", text(str(number))) for number in numbers)
    assert not isinstance(messages, Sized)
    address = deploykit_broker.address if up else f"stomp://127.0.0.1:{unused_port}"
    with Bus(fast(address, window=50)) as bus:
        error = failed(bus, messages, timeout=1.0)
    assert len(error.outcomes) == next(numbers), "what was read has its outcome, and the rest is still there"
    assert isinstance(error.outcomes[-1], PublishError)
    assert (error.outcomes[0] is None) is up
