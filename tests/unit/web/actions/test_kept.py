"""A rollout of which the bus has told nothing yet: what the ledger has of it is shown to those who may see it."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploykit.errors import ActionRefused, LedgerError
from deploykit.fleet.journal import EventRecord
from deploykit.fleet.rolloutevents import NodeAnswered
from deploykit.web.actions.asked import NodesAsked, OptionsAsked
from deploykit.web.projection.views import PageRequested
from tests.support.actionworld import LIVE, LOOK, NOBODY, ActionWorld, StandingRollouts

PAGE = PageRequested(limit=50)


@pytest.fixture
def world(tmp_path: Path) -> ActionWorld:
    return ActionWorld(tmp_path)


def begun(world: ActionWorld, first: str = "web1") -> str:
    """Begin a rollout to two nodes, one of them at first; return its id."""
    both = NodesAsked(nodes=("web1", "web2"))
    asked = world.deploy(chosen=both, options=OptionsAsked(first_nodes=(first,)), reason="carts")
    return world.rollouts.begin(LIVE, asked).rollout


def test_what_has_just_begun_is_shown_with_its_plan_and_every_node(world: ActionWorld) -> None:
    rollout = begun(world)
    found = world.rollouts.begun(LOOK, rollout, PAGE)
    assert found is not None
    one = found.summary
    assert (one.rollout, one.kind, one.ref, one.commit) == (rollout, "deploy", "refs/tags/v2", world.v2)
    assert (one.requested_by, one.ended, sum(one.counts.values())) == ("liv", None, 2)
    assert one.began is not None
    assert [node.node for node in found.nodes.items] == ["web1", "web2"]
    assert {node.ended for node in found.nodes.items} == {None}
    assert found.nodes.total == 2


def test_what_the_journal_has_heard_is_shown_and_what_failed_comes_first(world: ActionWorld) -> None:
    rollout = begun(world, first="web2")
    kept = world.desk.kept[rollout]
    last = next(node for node in kept.head.plan.nodes if node == "web2")
    answer = NodeAnswered(node=last, phase="prepare", outcome="failure", detail="disk full")
    world.desk.records[rollout] = (EventRecord(at=kept.begun + 1, event=answer),)
    found = world.rollouts.begun(LOOK, rollout, PAGE)
    assert found is not None
    first = found.nodes.items[0]
    assert (first.node, first.state, first.detail) == (last, "failure", "disk full")
    assert found.summary.failed == (last,)


def test_the_nodes_come_by_pages_and_can_be_searched(world: ActionWorld) -> None:
    rollout = begun(world)
    first = world.rollouts.begun(LOOK, rollout, PageRequested(limit=1))
    assert first is not None
    assert [node.node for node in first.nodes.items] == ["web1"]
    after = world.rollouts.begun(LOOK, rollout, PageRequested(limit=1, after=first.nodes.next))
    assert after is not None
    assert ([node.node for node in after.nodes.items], after.nodes.next) == (["web2"], "")
    searched = world.rollouts.begun(LOOK, rollout, PageRequested(search="WEB2", after="x9"))
    assert searched is not None
    assert [node.node for node in searched.nodes.items] == ["web2"]


@pytest.mark.parametrize("state", ["proposed", "withdrawn"])
def test_what_never_began_is_not_shown(world: ActionWorld, state: str) -> None:
    rollout = begun(world)
    world.desk.end(rollout, state)
    assert world.rollouts.begun(LIVE, rollout, PAGE) is None


def test_who_may_not_see_the_site_sees_no_rollout_of_it(world: ActionWorld) -> None:
    assert world.rollouts.begun(NOBODY, begun(world), PAGE) is None


@pytest.mark.parametrize("rollout", ["r-unknown", "../x", "", "x" * 5000, "a\0b"])
def test_an_id_of_nothing_is_nothing(world: ActionWorld, rollout: str) -> None:
    assert world.rollouts.begun(LIVE, rollout, PAGE) is None


def test_a_ledger_that_is_away_is_said_and_is_no_decision(world: ActionWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    rollout = begun(world)

    def away(_desk: StandingRollouts, _id: str) -> None:
        raise LedgerError("the ledger is away")

    monkeypatch.setattr(StandingRollouts, "find", away)
    lines = len(world.lines)
    with pytest.raises(ActionRefused) as caught:
        world.rollouts.begun(LOOK, rollout, PAGE)
    assert caught.value.status == 503
    assert len(world.lines) == lines
