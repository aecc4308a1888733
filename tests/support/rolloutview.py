"""Plans, models and progress events by hand, to try what is made of them for people."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from deploykit.fleet.options import Amount, RolloutOptions
from deploykit.fleet.plan import Plan, Target, make_plan
from deploykit.fleet.rollout import NodeStatus, RolloutModel
from deploykit.messages import DeployProgressed
from deploykit.messages.deploy import DeployPhase
from deploykit.messages.progress import ProgressState
from deploykit.messages.rollout import RolloutState
from deploykit.names import NodeName, ObjectId, RefName, SiteName

SHOP = SiteName("shop")
TARGET = Target(ref=RefName("refs/tags/v1.2"), commit=ObjectId("ab" * 20))
ROLLOUT = "shop-20260131-120400-1f2e"
START = datetime(2026, 1, 31, 12, 4, tzinfo=UTC)


def names(count: int) -> tuple[NodeName, ...]:
    """`web1`, `web2` …"""
    return tuple(NodeName(f"web{at}") for at in range(1, count + 1))


def plan_of(count: int = 3, *, batch: str = "1", max_failures: str = "0") -> Plan:
    """A deploy to so many nodes, one canary first."""
    options = RolloutOptions(batch=(Amount.parse(batch),), max_failures=Amount.parse(max_failures))
    return make_plan(site=SHOP, nodes=names(count), target=TARGET, options=options, rollout=ROLLOUT)


def model_of(
    plan: Plan,
    states: Mapping[str, NodeStatus] | None = None,
    *,
    state: RolloutState = "canary",
    outstanding: Mapping[str, DeployPhase] | None = None,
    stage: int = 0,
) -> RolloutModel:
    """A model of a plan in which these nodes are in these states, and all others are pending."""
    given = states or {}
    return RolloutModel(
        state=state,
        nodes={node: given.get(node, NodeStatus()) for node in plan.nodes},
        outstanding={NodeName(node): phase for node, phase in (outstanding or {}).items()},
        stage=stage,
        failures=sum(status.state in ("failed", "silent", "refused") for status in given.values()),
    )


def progress(
    node: str = "web1",
    step: str = "export",
    state: ProgressState = "began",
    *,
    number: int = 0,
    request: str = "r1",
    rollout: str | None = ROLLOUT,
    phase: DeployPhase = "deploy",
    output: str = "",
    seconds: float = 0.0,
    after: float = 0.0,
) -> DeployProgressed:
    """What a node says of one step."""
    return DeployProgressed(
        node=NodeName(node),
        site=SHOP,
        request=request,
        rollout=rollout,
        phase=phase,
        number=number,
        step=step,
        state=state,
        output=output,
        seconds=seconds,
        time=START + timedelta(seconds=after),
    )
