"""Five real agents, and broker, desk or a node killed at every stage of a rollout: it ends as it would have.

CI plays a sample on the embedded broker, and a few points together on each real one; `nox -s sweep` plays every point
on every broker.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.chance import dice
from tests.support.fivenodes.brokers import BROKERS, REAL, broker_of
from tests.support.fivenodes.stages import ALL_HITS, STAGES, Hit, killable, play
from tests.support.fivenodes.world import FiveNodes
from tests.support.killsweep import sample_size

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]

_SAMPLE = sample_size(2)
#: Of the sample, at most: each costs a rollout.
_MOST = 2


def hits() -> list[Hit]:
    """All points, in an order of their own; or a sample."""
    return dice().sample(ALL_HITS, len(ALL_HITS) if _SAMPLE is None else min(_SAMPLE, _MOST))


@pytest.mark.parametrize("kind", BROKERS if _SAMPLE is None else ["embedded"])
def test_whatever_is_killed_at_whatever_stage_the_rollout_ends_as_it_would_have(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    chosen = hits()
    with (
        broker_of(kind, tmp_path, request) as broker,
        FiveNodes(tmp_path, broker, killable=killable(chosen)) as fleet,
    ):
        for hit in chosen:
            try:
                play(fleet, hit.plot, hit)
            except BaseException as error:
                error.add_note(f"{hit}; the logs are in {tmp_path}")
                raise


@pytest.mark.parametrize("kind", REAL)
def test_on_a_real_broker_that_is_killed_with_a_node_and_the_desk(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    with broker_of(kind, tmp_path, request) as broker, FiveNodes(tmp_path, broker, killable=("web3",)) as fleet:
        play(
            fleet,
            "goes-back",
            Hit("goes-back", "preparing", "node"),
            Hit("goes-back", "canary", "broker"),
            Hit("goes-back", "going-back", "moved"),
        )


def test_the_sweep_hits_everything_at_every_stage() -> None:
    assert len(ALL_HITS) == len(set(ALL_HITS)) == sum(map(len, STAGES.values())) * 4
