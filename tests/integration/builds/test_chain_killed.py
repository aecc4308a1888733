"""The whole chain with broker, Jenkins and each daemon killed at every stage, and the books compared.

Each push is built at least once, and twice only where the event says "perhaps twice"; nothing is lost; each command has
one report of each node; nothing goes live without its build. CI plays a sample on the embedded broker, the same
each time; `nox -s sweep` plays every point on every broker.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.chain.brokers import EmbeddedProcess, RealBroker
from tests.support.chain.stages import ALL_HITS, Hit, play
from tests.support.chain.world import Chain
from tests.support.chance import dice
from tests.support.killsweep import sample_size

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]

_SAMPLE = sample_size(4)
_REAL = [
    pytest.param("rabbitmq", marks=pytest.mark.rabbitmq),
    pytest.param("activemq", marks=pytest.mark.activemq),
]


def hits() -> Sequence[Hit]:
    """All points, in an order of their own; or a sample."""
    return dice().sample(ALL_HITS, len(ALL_HITS) if _SAMPLE is None else min(_SAMPLE, len(ALL_HITS)))


@pytest.mark.parametrize("kind", ["embedded", *(_REAL if _SAMPLE is None else ())])
def test_whatever_is_killed_at_whatever_stage_the_books_agree(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    embedded = EmbeddedProcess(tmp_path) if kind == "embedded" else None
    try:
        broker = embedded.start() if embedded else RealBroker(request.getfixturevalue(f"new_{kind}")().start())
        with Chain(tmp_path, broker) as chain:
            play(chain, "v0", None)
            for number, hit in enumerate(hits(), 1):
                try:
                    play(chain, f"v{number}", hit)
                except BaseException as error:
                    error.add_note(f"killed: {hit}; the logs are in {tmp_path}")
                    raise
            chain.end()
    finally:
        if embedded is not None:
            embedded.close()


def test_the_sweep_hits_everything_at_every_stage() -> None:
    assert len(ALL_HITS) == len(set(ALL_HITS)) == 8 * 5 + 2
