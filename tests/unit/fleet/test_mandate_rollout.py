"""Every command of a rollout lies inside its mandate, on every node: batches, splits, a resume, and the way back."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import attrs
import pytest

from deploykit.fleet.commands import CommandMaker
from deploykit.fleet.mandates import HeldMandate, approval_of
from deploykit.fleet.options import Amount, OnFailure, RolloutOptions
from deploykit.fleet.plan import Plan, Target, make_plan
from deploykit.fleet.rollout import AbortAsked, Ask, NodeAnswered, RolloutModel, start, step
from deploykit.messages import DeployOutcome, DeployRequested, SiteRelease
from deploykit.names import NodeName, ObjectId, RefName, SiteName
from deploykit.trust.mandate import Mandate, inside
from deploykit.trust.signature import Signers, SigningKey
from deploykit.wire import encode

NOW = datetime.fromisoformat("2026-03-01T12:00:00Z")
OLD = Target(ref=RefName("refs/tags/v0"), commit=ObjectId("0" * 39 + "1"))
NEW = Target(ref=RefName("refs/tags/v1"), commit=ObjectId("ab" * 20))
KEY = SigningKey.generate()
COUNT = 250


@attrs.define
class Place:
    """What a node has live, and had before."""

    live: Target
    previous: Target | None


def release(target: Target | None) -> SiteRelease | None:
    return None if target is None else SiteRelease(release="r", ref=target.ref, commit=target.commit)


class Judged:
    """A rollout whose commands are judged as each node judges them, and obeyed.

    Args:
        plan: of the rollout.
        fails: nodes that fail to activate.
    """

    def __init__(self, plan: Plan, fails: frozenset[NodeName] = frozenset()) -> None:
        message = approval_of(plan, now=NOW, not_before=NOW, not_after=NOW + timedelta(hours=2), source="desk")
        self.held = HeldMandate.of_frame(encode(message))
        self.mandate = Mandate(message=self.held.message, signers=Signers(each=()), digest=self.held.digest)
        self.maker = CommandMaker(
            rollout=plan.rollout,
            site=plan.site,
            requested_by="",
            correlation_id="c",
            key=KEY,
            expires_in=timedelta(minutes=5),
            mandate=self.held,
        )
        self.plan, self.fails = plan, fails
        back = plan.kind == "rollback"
        self.places = {node: Place(NEW if back else OLD, OLD if back else None) for node in plan.nodes}
        self.requests: list[DeployRequested] = []

    def run(self, abort: Callable[[RolloutModel], bool] = lambda model: False) -> RolloutModel:
        """Run it to its end; what is asked comes twice, as after a resume."""
        now, aborted = NOW, False
        model, actions = start(self.plan, now.timestamp())
        answers: list[NodeAnswered] = []
        while True:
            for action in actions:
                if isinstance(action, Ask):
                    for _ in range(2):
                        answers += self.ask(action, now)
            if model.ended:
                return model
            now += timedelta(seconds=1)
            if not aborted and abort(model):
                aborted = True
                model, actions = step(self.plan, model, AbortAsked(rollback=True), now.timestamp())
            else:
                model, actions = step(self.plan, model, answers.pop(0), now.timestamp())

    def ask(self, ask: Ask, now: datetime) -> list[NodeAnswered]:
        answers = []
        for command in self.maker.deploys(ask.phase, ask.target, ask.nodes, now):
            self.requests.append(command.request)
            answers += [self.obey(node, command.request, now) for node in command.request.audience]
        return answers

    def obey(self, node: NodeName, request: DeployRequested, now: datetime) -> NodeAnswered:
        place, target = self.places[node], Target(ref=request.ref, commit=request.commit)
        why = inside(self.mandate, request, node, now, release(place.previous), release(place.live))
        assert why == "", f"{request.phase} on {node}: {why}"
        bad = request.phase == "activate" and node in self.fails
        if request.phase in ("activate", "deploy", "rollback") and not bad and place.live != target:
            place.previous, place.live = (place.live if request.phase != "rollback" else None), target
        outcome: DeployOutcome = "failure" if bad else "success"
        return NodeAnswered(node=node, phase=request.phase, outcome=outcome, previous=place.previous, live=place.live)


def plan_of(count: int, on_failure: OnFailure = "stop") -> Plan:
    return make_plan(
        site=SiteName("shop"),
        nodes=[NodeName(f"web{number}") for number in range(1, count + 1)],
        target=NEW,
        options=RolloutOptions(batch=(Amount(number=120),), on_failure=on_failure),
        rollout="shop-1",
    )


def test_batches_and_splits_over_a_hundred_nodes() -> None:
    judged = Judged(plan_of(COUNT))
    assert judged.run().state == "succeeded"
    assert max(len(request.audience) for request in judged.requests) == 100
    assert {place.live for place in judged.places.values()} == {NEW}
    assert {request.phase for request in judged.requests} == {"prepare", "activate"}


def test_one_node_and_its_one_command() -> None:
    judged = Judged(plan_of(1))
    assert judged.run().state == "succeeded"
    assert {request.phase for request in judged.requests} == {"deploy"}


def test_the_way_back_after_too_many_failures() -> None:
    judged = Judged(plan_of(COUNT, "rollback"), frozenset([NodeName("web200")]))
    assert judged.run().state == "rolled-back"
    assert {place.live for place in judged.places.values()} == {OLD}
    assert {request.phase for request in judged.requests} == {"prepare", "activate", "rollback", "discard"}


def test_the_way_back_that_somebody_asks_for() -> None:
    judged = Judged(plan_of(COUNT))
    assert judged.run(lambda model: model.state == "rolling").state == "rolled-back"
    assert {place.live for place in judged.places.values()} == {OLD}


def test_a_rollback_of_its_own() -> None:
    nodes = [NodeName(f"web{number}") for number in range(1, COUNT + 1)]
    plan = make_plan(
        site=SiteName("shop"), nodes=nodes, target=dict.fromkeys(nodes, OLD), kind="rollback", rollout="shop-1"
    )
    judged = Judged(plan)
    assert judged.run().state == "succeeded"
    assert {request.phase for request in judged.requests} == {"rollback"}


def test_another_commit_would_be_seen() -> None:
    judged = Judged(plan_of(3))
    with pytest.raises(AssertionError, match="the mandate is for v1"):
        judged.ask(Ask(phase="prepare", target=OLD, nodes=judged.plan.nodes), NOW)
