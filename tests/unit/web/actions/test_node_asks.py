"""What nodes say that the site asks of mandates makes a plan stricter, and never laxer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deploykit.errors import ActionRefused
from deploykit.fleet.journal import EventRecord
from deploykit.fleet.rolloutevents import NodeAnswered
from deploykit.trust.mandate import Requirement
from deploykit.web.actions.asked import NodesAsked, RollbackAsked
from tests.support.actionworld import LIVE, V1, ActionWorld


@pytest.fixture
def world(tmp_path: Path) -> ActionWorld:
    return ActionWorld(tmp_path)


def says(world: ActionWorld, node: str, **state: Any) -> None:
    """Let a node say something of its site."""
    world.nodes[node] = world.node(node, live=V1, commit=world.v1, **state)


def test_a_console_without_the_site_proposes_what_one_chosen_node_wants_signed(world: ActionWorld) -> None:
    says(world, "web2", signatures=2)
    plan = world.rollouts.plan(LIVE, world.deploy())
    assert (plan.needs, plan.needs_person) == (2, False)
    note = next(note for note in plan.notes if "must sign" in note)
    assert note.startswith("2 different people must sign before it begins: the site asks for it, as web2 says")
    assert "--propose" in plan.command
    outcome = world.rollouts.begin(LIVE, world.deploy(plan=plan.digest))
    assert (outcome.state, world.desk.started) == ("proposed", [])


def test_nodes_that_are_not_chosen_ask_for_nothing(world: ActionWorld) -> None:
    says(world, "web2", require="person")
    assert world.rollouts.plan(LIVE, world.deploy(chosen=NodesAsked(nodes=("web1",)))).needs == 0
    says(world, "web3", previous=world.back(V1, world.v1))
    back = world.rollouts.plan(LIVE, RollbackAsked(site="shop", chosen=NodesAsked(everybody=True)))
    assert ([node.node for node in back.nodes], back.needs) == (["web3"], 0), "web2 cannot go back, and is left out"


def test_settings_and_nodes_count_together_and_neither_makes_the_other_laxer(tmp_path: Path) -> None:
    world = ActionWorld(tmp_path, site="signatures = 2")
    plan = world.rollouts.plan(LIVE, world.deploy())
    assert (plan.needs, plan.needs_person) == (2, False), "no node asks for any"
    assert any(note.endswith("the site asks for it") for note in plan.notes)
    says(world, "web1", require="person")
    plan = world.rollouts.plan(LIVE, world.deploy())
    assert (plan.needs, plan.needs_person) == (2, True)
    assert any("as web1 says; the settings of this console ask for 2 different people" in note for note in plan.notes)


def test_a_plan_is_another_one_when_a_node_asks_for_more_meanwhile(world: ActionWorld) -> None:
    plan = world.rollouts.plan(LIVE, world.deploy())
    says(world, "web1", signatures=2)
    with pytest.raises(ActionRefused) as caught:
        world.rollouts.begin(LIVE, world.deploy(plan=plan.digest))
    assert caught.value.status == 409
    assert world.desk.kept == {}


def test_times_are_accepted_where_a_node_wants_a_mandate(world: ActionWorld) -> None:
    says(world, "web1", signatures=2)
    assert world.rollouts.plan(LIVE, world.deploy(not_before="2h")).needs == 2


def test_a_proposal_keeps_what_nodes_asked_for_and_a_retry_asks_them_again(world: ActionWorld) -> None:
    rollout = world.rollouts.begin(LIVE, world.deploy(chosen=NodesAsked(nodes=("web1",)))).rollout
    answer = NodeAnswered(node=world.nodes["web1"].node, phase="deploy", outcome="failure", detail="disk full")
    world.desk.records[rollout] = (EventRecord(at=world.desk.kept[rollout].begun + 1, event=answer),)
    world.desk.end(rollout)
    says(world, "web1", require="person")
    assert world.rollouts.plan_retry(LIVE, rollout).needs_person
    retried = world.rollouts.retry(LIVE, rollout)
    assert retried.state == "proposed"
    assert world.desk.kept[retried.rollout].head.asks == Requirement(require="person")
