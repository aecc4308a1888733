"""A rollout over the bus: signed commands to each node's own topic, only believed reports, each end that there is."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import attrs
import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.builds.result import write_results
from deploykit.bus import Bus
from deploykit.errors import ConnectError, RolloutBusy, UsageError
from deploykit.fleet import sender
from deploykit.fleet.plan import Amount, make_plan
from deploykit.messages import DeployReported, DeployRequested, RolloutReported
from deploykit.names import NodeName, ObjectId, RefName
from deploykit.operations.deploy import connected_bus
from deploykit.operations.rollout import start_rollout
from deploykit.operations.rolloutplan import plan_retry
from deploykit.operations.rolloutstore import ask_rollout, list_rollouts, read_rollout
from deploykit.trust.signature import SigningKey, copy_digest
from deploykit.wire import Frame
from tests.support.builds import OTHER, result, signed
from tests.support.rollouts import NEW, ONE_BY_ONE, Rolling, Seen, plan_of, planned, roll_out
from tests.support.standins import OLD, SHOP, StandIns, names
from tests.support.wait import wait_until

TWO = (Amount(number=2),)
#: Seconds until a node is silent. In them a busy machine connects, and has the other nodes asked and heard.
SILENCE = 6.0


def test_all_are_prepared_then_the_canary_goes_first_and_the_others_batch_by_batch(
    tmp_path: Path, deploykit_broker: EmbeddedBroker
) -> None:
    seen = Seen()
    order: list[tuple[str, str]] = []
    with StandIns(tmp_path, deploykit_broker.address, names(5)) as fleet:
        fleet.before = lambda node, request: order.append((node, request.phase))
        result = roll_out(fleet, seen=seen, batch=TWO)
        assert (result.exit_code, result.model.state, result.interrupted) == (0, "succeeded", False)
        assert set(fleet.live().values()) == {NEW.commit}
        assert all(fleet.acted(node) == ["prepare", "activate"] for node in fleet.nodes)
    assert [phase for _, phase in order[:5]] == ["prepare"] * 5
    assert order[5] == ("web1", "activate")
    assert {node for node, _ in order[6:8]} == {"web2", "web3"}
    assert seen.states[-1] == "succeeded"
    assert len(seen.reports) == 10
    (entry,) = list_rollouts(fleet.settings)
    assert (entry.state, entry.running, entry.nodes, entry.counts) == ("succeeded", False, 5, {"active": 5})
    stored = read_rollout(fleet.settings, "last")
    assert stored.model == result.model
    assert stored.exit_code == 0


def test_one_node_is_asked_once_for_all_of_a_deploy(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> None:
    with StandIns(tmp_path, deploykit_broker.address, names(1)) as fleet:
        result = roll_out(fleet)
        assert fleet.acted("web1") == ["deploy"]
    assert result.exit_code == 0
    assert result.reports[NodeName("web1")].outcome == "success"


def test_a_canary_that_fails_leaves_the_others_untouched(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> None:
    behaves = {"web1": {"activate": "failure"}}
    with StandIns(tmp_path, deploykit_broker.address, names(3), behaves=behaves) as fleet:
        result = roll_out(fleet)
        assert (result.exit_code, result.model.state) == (1, "failed")
        assert set(fleet.live().values()) == {OLD.commit}
        assert [fleet.acted(node) for node in ("web2", "web3")] == [["prepare", "discard"]] * 2
        assert all(stand.prepared is None for stand in fleet.nodes.values() if stand.name != "web1")


def test_more_failures_than_the_budget_stop_the_batches(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> None:
    behaves = {node: {"activate": "rolled-back"} for node in ("web2", "web3")}
    with StandIns(tmp_path, deploykit_broker.address, names(5), behaves=behaves) as fleet:
        result = roll_out(fleet, batch=ONE_BY_ONE, max_failures=Amount(number=1))
        assert (result.exit_code, result.model.state) == (1, "failed")
        assert [node for node, commit in fleet.live().items() if commit == NEW.commit] == ["web1"]
        assert all(fleet.nodes[NodeName(node)].prepared is None for node in ("web4", "web5"))


def test_going_back_takes_the_activated_nodes_back(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> None:
    behaves = {"web3": {"activate": "failure"}}
    with StandIns(tmp_path, deploykit_broker.address, names(4), behaves=behaves) as fleet:
        result = roll_out(fleet, batch=ONE_BY_ONE, on_failure="rollback")
        assert (result.exit_code, result.model.state) == (1, "rolled-back")
        assert set(fleet.live().values()) == {OLD.commit}
        assert fleet.acted("web2") == ["prepare", "activate", "rollback"]


def test_a_silent_node_counts_and_is_told_apart_from_a_failed_one(
    tmp_path: Path, deploykit_broker: EmbeddedBroker
) -> None:
    behaves = {"web2": {"prepare": "silent"}}
    with StandIns(tmp_path, deploykit_broker.address, names(2), behaves=behaves) as fleet:
        result = roll_out(fleet, timeout=SILENCE)
    assert (result.exit_code, result.model.state) == (1, "failed")
    assert result.model.nodes[NodeName("web2")].state == "silent"


def test_where_every_node_refuses_nothing_changed(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> None:
    behaves = {node: {"prepare": "refused"} for node in ("web1", "web2")}
    with StandIns(tmp_path, deploykit_broker.address, names(2), behaves=behaves) as fleet:
        assert roll_out(fleet).exit_code == 3


def test_a_rollback_asks_each_node_for_its_own_release(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> None:
    other = attrs.evolve(NEW, ref=RefName("refs/tags/v2"), commit=ObjectId("cd" * 20))
    with StandIns(tmp_path, deploykit_broker.address, names(3)) as fleet:
        targets = {NodeName("web1"): NEW, NodeName("web2"): other, NodeName("web3"): NEW}
        plan = make_plan(site=SHOP, nodes=targets, target=targets, kind="rollback", rollout="back-1")
        result = roll_out(fleet, plan)
        assert result.exit_code == 0
        assert fleet.live() == {node: target.commit for node, target in targets.items()}
        assert all(fleet.acted(node) == ["rollback"] for node in fleet.nodes)


def test_a_list_is_split_and_each_node_gets_its_command_on_its_own_topic(
    tmp_path: Path, deploykit_broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploykit.fleet.commands.MOST_NODES", 2)
    with StandIns(tmp_path, deploykit_broker.address, names(5)) as fleet:
        assert roll_out(fleet, first=Amount(number=0)).exit_code == 0
        prepared = {stand.acted[0][0] for stand in fleet.nodes.values()}
        assert len(prepared) == 3
        assert all(sum(stand.heard.values()) == 2 for stand in fleet.nodes.values())


# -- whom to believe ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "changes", "says"),
    [
        (None, {}, "not signed"),
        ("stranger", {}, "not among the allowed signers"),
        ("operator", {}, "may not report for node"),
        (
            "node",
            {"commit": ObjectId("cd" * 20)},
            "another commit than asked for: v1 cdcdcdcdcdcd, not v1 abababababab",
        ),
        ("node", {"ref": RefName("refs/tags/v2")}, "another ref"),
        ("node", {"ref": None, "commit": None}, "another commit"),
        ("node", {"phase": "rollback"}, "asked was"),
        ("node", {"outcome": "refused", "answers": "0" * 64}, "another copy"),
        ("node", {"outcome": "refused", "answers": ""}, "another copy"),
    ],
)
def test_threat_6_a_forged_or_unfitting_report_is_a_doubt_and_the_node_is_waited_for(
    tmp_path: Path, deploykit_broker: EmbeddedBroker, key: str | None, changes: dict[str, Any], says: str
) -> None:
    seen = Seen()
    with StandIns(tmp_path, deploykit_broker.address, names(1), behaves={"web1": {"deploy": "failure"}}) as fleet:
        stand = fleet.nodes[NodeName("web1")]
        keys = {"node": stand.key, "operator": fleet.operator, "stranger": SigningKey.generate()}

        def forge(node: NodeName, request: DeployRequested) -> None:
            report = forged(fleet, node, request)
            for _ in range(20):  # a flood is one doubt
                fleet.report(attrs.evolve(report, id=f"forged-{_}", **changes), keys[key] if key else None)

        fleet.before = forge
        result = roll_out(fleet, seen=seen)
    assert result.reports[NodeName("web1")].outcome == "failure"
    assert result.exit_code == 1
    (doubt,) = result.doubts[NodeName("web1")]
    assert says in doubt
    assert seen.doubts == [("web1", doubt)]
    assert read_rollout(fleet.settings, "last").doubts == result.doubts


def test_a_flood_of_claims_to_coordinate_it_is_told_a_few_times(
    tmp_path: Path, deploykit_broker: EmbeddedBroker
) -> None:
    seen = Seen()
    with StandIns(tmp_path, deploykit_broker.address, names(1)) as fleet:
        key = fleet.nodes[NodeName("web1")].key

        def claim(node: NodeName, request: DeployRequested) -> None:
            for number in range(20):
                host = f"host{number}\x1b[31m"
                claimed = RolloutReported(
                    site=request.site, rollout=request.rollout or "", kind="deploy", state="rolling", host=host
                )
                fleet.report(claimed, key)

        fleet.before = claim
        assert roll_out(fleet, seen=seen).exit_code == 0
    told = [text for text in seen.problems if "another process" in text]
    assert len(told) == 5
    assert all(text.isprintable() for text in told)


def forged(fleet: StandIns, node: NodeName, request: DeployRequested) -> DeployReported:
    """Return a report of success on a command, but for who signs it."""
    frame = fleet.frames[request.id]
    return DeployReported(
        node=node,
        site=request.site,
        request=request.id,
        answers=copy_digest(Frame(frame.headers, frame.body)),
        phase=request.phase,
        outcome="success",
        ref=request.ref,
        commit=request.commit,
        live_known=True,
    )


def test_a_second_agent_of_a_cloned_machine_that_fails_is_heard_after_the_first_success(
    tmp_path: Path, deploykit_broker: EmbeddedBroker
) -> None:
    with StandIns(tmp_path, deploykit_broker.address, names(2)) as fleet:
        plan = plan_of(fleet.nodes, bake=60.0)
        with Rolling(fleet, plan) as rolling:
            rolling.seen.wait(lambda model: model.task == "bake", "the canary's bake")
            stand = fleet.nodes[NodeName("web1")]
            (activated,) = (request for request, phase in stand.acted if phase == "activate")
            report = attrs.evolve(stand.answers[activated], id="twin", outcome="failure", detail="on the clone")
            fleet.report(report, stand.key)
            result = rolling.result()
    assert result.model.state == "failed"
    assert result.model.nodes[NodeName("web1")].detail == "on the clone"


def test_reports_on_other_requests_or_of_other_nodes_are_passed_over(
    tmp_path: Path, deploykit_broker: EmbeddedBroker
) -> None:
    with StandIns(tmp_path, deploykit_broker.address, names(2), behaves={"web1": {"deploy": "silent"}}) as fleet:

        def others(node: NodeName, request: DeployRequested) -> None:
            report = forged(fleet, node, request)
            fleet.report(attrs.evolve(report, request="another"), fleet.nodes[node].key)
            fleet.report(attrs.evolve(report, node=NodeName("web2")), fleet.nodes[NodeName("web2")].key)

        fleet.before = others
        result = roll_out(fleet, plan_of(names(1), timeout=SILENCE))
    assert result.model.nodes[NodeName("web1")].state == "silent"
    assert result.doubts == {}
    assert "may yet obey" in result.model.nodes[NodeName("web1")].detail


def test_a_report_that_was_lost_is_asked_for_again_with_the_same_bytes_and_only_of_the_silent(
    tmp_path: Path, deploykit_broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "ASK_AGAIN", 5.0)  # within which web1, which is asked once, has answered each time
    with StandIns(tmp_path, deploykit_broker.address, names(3), behaves={"web2": {"prepare": "lost"}}) as fleet:
        assert roll_out(fleet).exit_code == 0
        stand = fleet.nodes[NodeName("web2")]
        assert fleet.acted("web2") == ["prepare", "activate"]
        assert stand.heard[stand.acted[0][0]] >= 2
        assert all(len(bodies) == 1 for bodies in stand.bodies.values())
        assert set(fleet.nodes[NodeName("web1")].heard.values()) == {1}


# -- what other processes ask ------------------------------------------------------------------------------------------


def test_an_abort_half_way_is_sent_to_all_and_leaves_nothing_prepared(
    tmp_path: Path, deploykit_broker: EmbeddedBroker
) -> None:
    with StandIns(tmp_path, deploykit_broker.address, names(3)) as fleet, Rolling(fleet, pause="ask") as rolling:
        rolling.seen.wait(lambda model: model.state == "paused", "the pause after the canary")
        assert read_rollout(fleet.settings, "last").running
        ask_rollout(fleet.settings, rolling.plan.rollout, "abort")
        result = rolling.result()
        assert (result.exit_code, result.model.state) == (1, "aborted")
        wait_until(lambda: bool(fleet.aborts), "the broadcast abort")
        assert fleet.aborts[0].rollout == rolling.plan.rollout
        assert fleet.acted("web2") == fleet.acted("web3") == ["prepare", "discard"]
        assert fleet.live()["web1"] == NEW.commit
        assert read_rollout(fleet.settings, rolling.plan.rollout).requests == ()
        assert roll_out(fleet).exit_code == 0  # a new one can start at once


def test_an_abort_with_rollback_takes_back_what_was_activated(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> None:
    with StandIns(tmp_path, deploykit_broker.address, names(3)) as fleet, Rolling(fleet, pause="ask") as rolling:
        rolling.seen.wait(lambda model: model.state == "paused", "the pause after the canary")
        ask_rollout(fleet.settings, rolling.plan.rollout, "abort", rollback=True)
        assert rolling.result().model.ended
        assert set(fleet.live().values()) == {OLD.commit}


def test_pause_and_promote_from_elsewhere(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> None:
    with StandIns(tmp_path, deploykit_broker.address, names(2)) as fleet:
        plan = plan_of(fleet.nodes)

        def pause_at_the_canary(node: NodeName, request: DeployRequested) -> None:
            if request.phase == "activate" and node == "web1":
                ask_rollout(fleet.settings, plan.rollout, "pause")

        fleet.before = pause_at_the_canary
        with Rolling(fleet, plan) as rolling:
            rolling.seen.wait(lambda model: model.state == "paused", "the pause that was asked for")
            stored = read_rollout(fleet.settings, plan.rollout)
            assert stored.exit_code == 0
            assert stored.holder is not None
            assert stored.holder.rollout == plan.rollout
            ask_rollout(fleet.settings, plan.rollout[:-1], "promote")
            assert rolling.result().exit_code == 0
    with pytest.raises(UsageError, match="has ended"):
        ask_rollout(fleet.settings, plan.rollout, "pause")


def test_one_rollout_of_a_site_and_the_error_says_whose_it_is(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> None:
    with StandIns(tmp_path, deploykit_broker.address, names(2)) as fleet, Rolling(fleet, pause="ask") as rolling:
        rolling.seen.wait(lambda model: model.state == "paused", "the pause")
        with pytest.raises(RolloutBusy) as caught:
            roll_out(fleet)
        assert f"deploykit rollout abort {rolling.plan.rollout}" in str(caught.value)
        assert len(list_rollouts(fleet.settings)) == 1
        ask_rollout(fleet.settings, rolling.plan.rollout, "resume")
        assert rolling.result().exit_code == 0


def test_what_failed_is_retried_and_nothing_else(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> None:
    behaves = {"web2": {"activate": "failure"}}
    with StandIns(tmp_path, deploykit_broker.address, names(3), behaves=behaves) as fleet:
        first = roll_out(fleet, max_failures=Amount(number=1))
        assert first.exit_code == 0 or first.model.state == "failed"
        fleet.nodes[NodeName("web2")].behaves = {}
        again = plan_retry(fleet.settings, first.plan.rollout)
        assert again.plan.nodes == ("web2",)
        assert again.plan.targets == {"web2": NEW}
        assert again.plan.rollout != first.plan.rollout
        assert again.evidence == ()
        file = tmp_path / "results.jsonl"
        file.write_text(write_results([signed(result(commit=NEW.commit))]))
        assert len(plan_retry(fleet.settings, first.plan.rollout, evidence=[file]).evidence) == 1
        file.write_text(write_results([signed(result(commit=OTHER))]))
        with pytest.raises(UsageError, match="no build result of"):
            plan_retry(fleet.settings, first.plan.rollout, evidence=[file])
        assert roll_out(fleet, again.plan).exit_code == 0
        assert set(fleet.live().values()) == {NEW.commit}
        assert fleet.acted("web1") == ["prepare", "activate"]


# -- the connection ----------------------------------------------------------------------------------------------------


def test_a_broker_that_is_down_is_an_error_in_seconds_and_nothing_is_left(tmp_path: Path) -> None:
    fleet = StandIns(tmp_path, "stomp://127.0.0.1:1", names(2))
    settings = attrs.evolve(fleet.settings, broker=attrs.evolve(fleet.settings.broker, connect_timeout=1.0))
    begun = time.monotonic()
    with pytest.raises(ConnectError, match="no broker reachable"), connected_bus(settings):
        pass
    with Bus(settings.broker, client_id="operator") as bus, pytest.raises(ConnectError, match="nothing was sent"):
        start_rollout(attrs.evolve(planned(fleet), settings=settings), bus)
    assert time.monotonic() - begun < 20
    assert list_rollouts(settings) == ()


def test_a_broker_that_restarts_is_waited_for(tmp_path: Path) -> None:
    with EmbeddedBroker() as broker:
        address, port = broker.address, int(broker.address.rpartition(":")[2])
        with StandIns(tmp_path, address, names(3)) as fleet, Rolling(fleet, pause="ask", batch=TWO) as rolling:
            rolling.seen.wait(lambda model: model.state == "paused", "the pause")
            broker.stop()
            wait_until(lambda: bool(rolling.seen.problems), "a word about the lost connection")
            ask_rollout(fleet.settings, rolling.plan.rollout, "promote")
            with EmbeddedBroker(port=port):
                assert rolling.result().exit_code == 0
                assert set(fleet.live().values()) == {NEW.commit}
            assert "connected again" in rolling.seen.problems


def test_the_time_limit_of_one_node_counts_from_the_command(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> None:
    fleet = StandIns(tmp_path, deploykit_broker.address, names(1), behaves={"web1": {"deploy": "silent"}})
    with fleet, Bus(fleet.settings.broker, client_id="operator") as bus:
        assert bus.wait_connected(60)
        begun = time.monotonic() - 60.0  # what looking the commit up and connecting took
        result = start_rollout(planned(fleet, timeout=60.0 + SILENCE), bus, begun=begun)
        assert time.monotonic() - begun < 120.0  # and not 61 s more
    assert result.exit_code == 1
    assert result.plan.options.timeout <= SILENCE


def test_states_are_announced_signed(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> None:
    heard: list[RolloutReported] = []
    with StandIns(tmp_path, deploykit_broker.address, names(2)) as fleet:

        def hear(delivery: Any) -> None:
            if isinstance(delivery.message, RolloutReported):
                assert "deploykit-signature" in delivery.headers
                heard.append(delivery.message)

        assert fleet.bus.subscribe(fleet.settings.topics.report, hear).wait_active(60)
        result = roll_out(fleet)
        wait_until(lambda: any(message.state == "succeeded" for message in heard), "the announced end")
    assert {message.rollout for message in heard} == {result.plan.rollout}
    assert heard[-1].nodes == {"active": 2}
    assert heard[-1].commit == NEW.commit
