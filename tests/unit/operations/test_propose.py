"""From a proposal to a rollout and back: what a journal may do under its mandate, and what stays of a failed start."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import attrs
import pytest

from deploykit.bus import Bus
from deploykit.cli.rolloutshow import show_lines, shown_entry
from deploykit.errors import ConnectError, PolicyRefused
from deploykit.fleet.inbox import RolloutInbox
from deploykit.fleet.journal import JournalHead, RolloutJournal, journal_path
from deploykit.fleet.mandates import HeldMandate
from deploykit.messages import utc_now
from deploykit.names import ObjectId
from deploykit.operations.approval import ApprovalDesk
from deploykit.operations.mandatefiles import blobs_of
from deploykit.operations.proposals import find_proposal, read_proposal
from deploykit.operations.propose import mandate_for, plan_approved
from deploykit.operations.rollout import read_resumable, resume_rollout, start_rollout
from deploykit.operations.rolloutplan import plan_retry
from deploykit.operations.rolloutstore import list_rollouts, read_rollout
from tests.support.approving import ApprovalWorld
from tests.support.node import Origin, git

NO_BUS = cast("Bus", None)


@pytest.fixture
def world(tmp_path: Path) -> ApprovalWorld:
    return ApprovalWorld(tmp_path)


def signed(world: ApprovalWorld, held: HeldMandate) -> HeldMandate:
    desk = ApprovalDesk.from_settings(world.settings)
    for name in ("ann", "bob"):
        held = desk.signed(held, world.keys[name])
    return held


def journal(world: ApprovalWorld, **changes: Any) -> Path:
    """Leave the journal of a rollout that has begun, and return its path."""
    planned = world.planned()
    values: dict[str, Any] = {
        "plan": planned.plan,
        "begun": utc_now().timestamp(),
        "mandate": signed(world, world.mandate()),
    }
    head = JournalHead(**{**values, **changes})
    with RolloutJournal.create(world.settings.rollouts_directory, head):
        return journal_path(world.settings.rollouts_directory, "shop-1")


def test_a_journal_whose_plan_lies_outside_is_not_gone_on_with(world: ApprovalWorld) -> None:
    plan = world.planned().plan
    other = attrs.evolve(next(iter(plan.targets.values())), commit=ObjectId("cd" * 20))
    journal(world, plan=attrs.evolve(plan, targets=dict.fromkeys(plan.nodes, other)))
    with pytest.raises(PolicyRefused, match="lets v1 abababababab go live, not v1 cdcdcdcdcdcd"):
        resume_rollout(world.settings, NO_BUS, "shop-1", then=None)


def test_what_its_commands_would_carry_is_compared_too(world: ApprovalWorld) -> None:
    journal(world, without_build=True)
    with pytest.raises(PolicyRefused, match="without a build"):
        resume_rollout(world.settings, NO_BUS, "shop-1", then=None)


def test_a_rollout_that_has_begun_shows_who_approved_it(world: ApprovalWorld) -> None:
    journal(world)
    stored = read_rollout(world.settings, "shop-1")
    names = [world.keys[name].fingerprint for name in ("ann", "bob")]
    assert any(f"signed by {', '.join(names)}" in line for line in show_lines(stored))
    mandate = shown_entry(stored)["mandate"]
    assert isinstance(mandate, dict)
    assert mandate["signed_by"] == names


def test_after_the_end_of_its_mandate_it_can_only_be_ended(world: ApprovalWorld) -> None:
    old = mandate_for(world.planned(), utc_now() - timedelta(days=2))
    path, directory = journal(world, mandate=signed(world, old)), world.settings.rollouts_directory
    for options in ({}, {"aborting": True, "rollback": True}):
        with pytest.raises(PolicyRefused, match="ended at"):
            read_resumable(directory, path, **options)
    assert read_resumable(directory, path, aborting=True).rollout == "shop-1"


def test_a_start_that_reaches_no_broker_keeps_the_proposal_and_its_signatures(
    world: ApprovalWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(self: RolloutInbox) -> RolloutInbox:
        raise ConnectError("no broker")

    monkeypatch.setattr(RolloutInbox, "__enter__", unreachable)
    made = world.proposed()
    from deploykit.operations.proposals import change_mandate

    change_mandate(made.path, lambda held: signed(world, held))
    ready = plan_approved(world.settings, made.path)
    with pytest.raises(ConnectError):
        start_rollout(ready, NO_BUS)
    found = find_proposal(world.settings.rollouts_directory, "shop-1")
    assert found is not None
    assert len(blobs_of(read_proposal(found).mandate)) == 2
    assert [entry.state for entry in list_rollouts(world.settings)] == ["proposed"]


def test_a_retry_does_not_take_the_mandate_along(world: ApprovalWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    from deploykit.operations import rolloutplan

    journal(world)
    monkeypatch.setattr(rolloutplan, "retry_plan", lambda plan, model, rollout, requested_by: plan)
    again = plan_retry(world.settings, "shop-1")
    assert (again.mandate, again.retried) == (None, "shop-1")


def test_a_commit_of_a_local_mirror_has_its_line_shown(world: ApprovalWorld, tmp_path: Path) -> None:
    origin = Origin(tmp_path / "git")
    commit = origin.push(tag="v1", files={"index.html": "v1\n"})
    mirror = world.settings.state / "mirrors" / "shop.git"
    git("clone", "--quiet", "--mirror", str(origin.path), str(mirror), cwd=tmp_path)
    plan = world.planned().plan
    target = attrs.evolve(next(iter(plan.targets.values())), commit=commit)
    planned = world.planned(plan=attrs.evolve(plan, targets=dict.fromkeys(plan.nodes, target)))
    desk, now = ApprovalDesk.from_settings(world.settings), utc_now()
    found = desk.sheet(mandate_for(planned, now), now).commit
    assert found is not None
    assert found.repo == "shop"
    assert found.line == git("log", "-1", "--format=%s", commit, cwd=origin.path).strip()
    assert desk.sheet(world.mandate(), now).commit is None
