"""Rollouts to real agents: a canary that fails costs one node, an abort leaves nothing prepared, on each broker."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.fleet.plan import Amount
from deploykit.messages import DeployReported
from deploykit.names import NodeName
from deploykit.operations.rolloutplan import plan_rollback
from deploykit.operations.rolloutstore import ask_rollout
from tests.brokers.server import BrokerServer
from tests.support.realfleet import RealFleet, topics_below
from tests.support.rollouts import Seen

WEB = ("web1", "web2", "web3")
NOT_ON_WEB1 = '[ "$DEPLOYKIT_NODE" != web1 ]'


@pytest.fixture
def fleet(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> Iterator[RealFleet]:
    with RealFleet(tmp_path, deploykit_broker.address, WEB) as made:
        yield made


def test_a_canary_a_success_and_the_way_back(fleet: RealFleet) -> None:
    """One story: agents take seconds to start."""
    fleet.push("v1")
    seen = Seen()
    first = fleet.run(fleet.planned("v1"), seen)
    assert first.exit_code == 0, first.model
    assert fleet.live() == ["v1"] * 3
    assert any(progress.rollout == first.plan.rollout for progress in seen.progress)

    fleet.push("v2", post_deploy=NOT_ON_WEB1)
    failed = fleet.run(fleet.planned("v2"))
    assert (failed.exit_code, failed.model.state) == (1, "failed")
    assert fleet.live() == ["v1"] * 3
    assert [fleet.releases(node) for node in WEB[1:]] == [1, 1], "the canary's failure left something prepared"

    fleet.push("v3", post_deploy="exit 0")
    third = fleet.run(fleet.planned("v3", batch=(Amount(number=2),)))
    assert third.exit_code == 0
    assert fleet.live() == ["v3"] * 3
    previous = {node: report.previous for node, report in third.reports.items() if report.previous is not None}
    assert set(previous) == set(WEB)
    back = fleet.run(plan_rollback(fleet.desk, "shop", previous))
    assert back.exit_code == 0, back.model
    assert fleet.live() == ["v1"] * 3


def test_an_abort_half_way_leaves_nothing_prepared(fleet: RealFleet) -> None:
    fleet.push("v1")
    assert fleet.run(fleet.planned("v1")).exit_code == 0
    fleet.push("v2")
    planned = fleet.planned("v2", pause="ask")
    seen = Seen()
    asked = threading.Event()

    def abort_at_the_pause(model: object) -> None:
        if getattr(model, "state", "") == "paused" and not asked.is_set():
            asked.set()
            ask_rollout(fleet.desk, planned.plan.rollout, "abort")

    seen.on_change = abort_at_the_pause
    result = fleet.run(planned, seen)
    assert (result.model.state, result.exit_code) == ("aborted", 1)
    assert fleet.live() == ["v2", "v1", "v1"]
    assert [fleet.releases(node) for node in WEB] == [2, 1, 1]


def test_a_lost_report_is_given_again_and_nothing_is_done_twice(
    fleet: RealFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first report is dropped on the way, as when the broker restarts under the coordinator."""
    from deploykit.fleet import sender
    from deploykit.fleet.reports import ReportJudge

    monkeypatch.setattr(sender, "ASK_AGAIN", 1.0)
    dropped: list[DeployReported] = []
    believe = ReportJudge.believe

    def lossy(judge: ReportJudge, delivery: object) -> object:
        report = getattr(delivery, "message", None)
        if isinstance(report, DeployReported) and not dropped:
            dropped.append(report)
            return None
        return believe(judge, delivery)  # type: ignore[arg-type]

    monkeypatch.setattr(ReportJudge, "believe", lossy)
    fleet.push("v1")
    assert fleet.run(fleet.planned("v1", ["web1"])).exit_code == 0
    assert len(dropped) == 1
    assert fleet.releases("web1") == 1


def test_a_rollout_on_a_real_broker(tmp_path: Path, real_broker: BrokerServer, unique_name: str) -> None:
    topics = topics_below(unique_name)
    with RealFleet(tmp_path, real_broker.address, WEB, topics=topics) as fleet:
        fleet.push("v1")
        assert fleet.run(fleet.planned("v1")).exit_code == 0
        fleet.push("v2", post_deploy=NOT_ON_WEB1)
        failed = fleet.run(fleet.planned("v2"))
        assert failed.model.state == "failed"
        assert failed.model.nodes[NodeName("web1")].state == "failed"
        assert fleet.live() == ["v1"] * 3
        assert [fleet.releases(node) for node in WEB[1:]] == [1, 1]
