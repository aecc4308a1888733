"""A plan is compared with its mandate, part by part; commands name it, and are good for no longer."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest

from deploykit.errors import PolicyRefused, RolloutError
from deploykit.fleet.commands import CommandMaker
from deploykit.fleet.journal import JournalHead, RolloutJournal, read_journal
from deploykit.fleet.mandates import HeldMandate, approval_of, objections, require_inside, time_objection
from deploykit.fleet.options import RolloutOptions
from deploykit.fleet.plan import Plan, Target, make_plan
from deploykit.messages import Notice, RolloutApproved
from deploykit.names import NodeName, ObjectId, RefName, SiteName
from deploykit.trust.signature import add_signature, body_digest
from deploykit.wire import encode
from tests.unit.fleet.test_journal import BEGUN, KEY, NOW, PLAN

OTHER = Target(ref=RefName("refs/tags/v0"), commit=ObjectId("cd" * 20))


def approved(plan: Plan = PLAN, **changes: Any) -> RolloutApproved:
    made = approval_of(plan, now=NOW, not_before=NOW, not_after=NOW + timedelta(hours=1), source="operator/desk")
    return attrs.evolve(made, id="mandate-1", **changes)


def held(plan: Plan = PLAN, **changes: Any) -> HeldMandate:
    return HeldMandate.of_frame(add_signature(encode(approved(plan, **changes)), KEY))


def way_back() -> Plan:
    return make_plan(
        site=PLAN.site,
        nodes=PLAN.nodes,
        target={PLAN.nodes[0]: OTHER, PLAN.nodes[1]: PLAN.targets[PLAN.nodes[1]]},
        kind="rollback",
        rollout="shop-1",
    )


@pytest.mark.parametrize("plan", [PLAN, way_back()], ids=["deploy", "rollback"])
def test_a_plan_lies_inside_of_what_was_proposed_for_it(plan: Plan) -> None:
    assert objections(approved(plan), plan) == ()


def test_of_one_node_the_mandate_allows_one_phase_and_of_a_rollback_none() -> None:
    one = make_plan(site=PLAN.site, nodes=PLAN.nodes[:1], target=PLAN.targets, rollout="shop-1")
    assert approved(one).phases == ("deploy",)
    assert approved().phases == ("prepare", "activate")
    back = approved(way_back())
    assert (back.ref, back.commit, back.phases, back.allow_rollback) == (None, None, (), True)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"rollout": "shop-2"}, "for rollout shop-2, not shop-1"),
        ({"site": SiteName("bank")}, "for site bank, not shop"),
        ({"nodes": PLAN.nodes[:1]}, "does not name web2, web3"),
        ({"commit": OTHER.commit}, "lets v1 cdcdcdcdcdcd go live, not v1 abababababab"),
        ({"ref": OTHER.ref}, "lets v0 abababababab go live, not v1"),
        ({"ref": None, "commit": None}, "lets nothing go live"),
        ({"phases": ("prepare",)}, "does not allow activate"),
        ({"allow_rollback": False}, "does not let nodes go back"),
    ],
)
def test_each_difference_is_named(changes: dict[str, Any], why: str) -> None:
    plan = attrs.evolve(PLAN, options=RolloutOptions(on_failure="rollback"))
    (found,) = objections(approved(**changes), plan)
    assert why in found
    with pytest.raises(PolicyRefused, match=why):
        require_inside(held(**changes), plan)


def test_what_commands_would_carry_is_compared_too() -> None:
    assert "without a build" in objections(approved(), PLAN, without_build=True)[0]
    assert objections(approved(without_build=True), PLAN, without_build=True) == ()
    assert "lock be overridden" in objections(approved(), PLAN, override_lock="fire")[0]
    assert "for this reason" in objections(approved(override_lock="flood"), PLAN, override_lock="fire")[0]
    assert objections(approved(override_lock="fire"), PLAN, override_lock="fire") == ()


def test_both_ends_of_its_time_are_inside() -> None:
    mandate = approved()
    assert time_objection(mandate, mandate.not_before) == time_objection(mandate, mandate.not_after) == ""
    assert "begins" in time_objection(mandate, mandate.not_before - timedelta(seconds=1))
    assert "ended" in time_objection(mandate, mandate.not_after + timedelta(seconds=1))


def test_a_further_signature_changes_no_digest() -> None:
    frame = encode(approved())
    assert HeldMandate.of_frame(frame).digest == held().digest == body_digest(frame.body).hex()
    with pytest.raises(RolloutError, match="approves no rollout"):
        HeldMandate.of_frame(encode(Notice(text="x")))


def maker(mandate: HeldMandate | None) -> CommandMaker:
    return CommandMaker(
        rollout="shop-1",
        site=PLAN.site,
        requested_by="ada",
        correlation_id="c",
        key=KEY,
        expires_in=timedelta(minutes=5),
        override_lock="fire",
        mandate=mandate,
    )


def test_commands_name_the_mandate_and_are_good_for_no_longer() -> None:
    mandate, late = held(), NOW + timedelta(minutes=58)
    for phase in ("prepare", "activate", "rollback"):
        (command,) = maker(mandate).deploys(phase, OTHER, PLAN.nodes, late)
        assert command.request.mandate == mandate.digest
        assert command.request.expires == mandate.message.not_after
        assert command.request.override_lock == "fire"
    (discard,) = maker(mandate).deploys("discard", OTHER, PLAN.nodes, late)
    assert (discard.request.expires, discard.request.override_lock) == (late + timedelta(minutes=5), "")
    (alone,) = maker(None).deploys("prepare", OTHER, PLAN.nodes, late)
    assert (alone.request.mandate, alone.request.expires) == (None, late + timedelta(minutes=5))


def test_a_split_over_a_hundred_nodes_names_one_mandate() -> None:
    nodes = [NodeName(f"web{number}") for number in range(1, 251)]
    commands = list(maker(held()).deploys("prepare", OTHER, nodes, NOW))
    assert [len(command.request.audience) for command in commands] == [100, 100, 50]
    assert {command.request.mandate for command in commands} == {held().digest}


def test_the_journal_keeps_the_mandate_byte_for_byte(tmp_path: Path) -> None:
    head = JournalHead(plan=PLAN, begun=BEGUN, mandate=held(), override_lock="fire")
    with RolloutJournal.create(tmp_path, head) as journal:
        again = read_journal(journal.path).head
    assert again == head
    assert again.mandate is not None
    assert again.mandate.frame.body == held().frame.body
    assert json.loads(journal.path.read_bytes().splitlines()[0])["mandate"]
