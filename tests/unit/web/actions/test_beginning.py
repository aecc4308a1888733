"""What begins a rollout, what proposes it, and what keeps two people from each other's way."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest

from deploykit.errors import ActionRefused, ConnectError, LedgerError, RolloutBusy
from deploykit.fleet.journal import EventRecord
from deploykit.fleet.rolloutevents import NodeAnswered
from deploykit.messages import utc_now
from deploykit.names import RefName
from deploykit.web.actions import rollouts
from deploykit.web.actions.asked import ControlAsked, DeployAsked, NodesAsked, RollbackAsked
from deploykit.web.actions.shown import ActionOutcome
from deploykit.web.projection.rolloutviews import RolloutOverview
from deploykit.web.viewer import Viewer
from tests.support.actionworld import ADMIN, LIVE, LOOK, NOBODY, STAGE, V1, ActionWorld, StandingRollouts

V2 = RefName("refs/tags/v2")


@pytest.fixture
def world(tmp_path: Path) -> ActionWorld:
    return ActionWorld(tmp_path)


def refused(world: ActionWorld, asked: DeployAsked | RollbackAsked, viewer: Viewer = LIVE) -> ActionRefused:
    """Return why something is not begun; the audit has it, too."""
    before = len(world.lines)
    with pytest.raises(ActionRefused) as caught:
        world.rollouts.begin(viewer, asked)
    assert [line.decision for line in world.lines[before:]] == ["refused"]
    assert world.lines[-1].who == viewer.name
    return caught.value


def planned(world: ActionWorld, viewer: Viewer = LIVE, **asked: Any) -> DeployAsked:
    """Return what was asked for, with the digest of the plan that was shown."""
    wanted = attrs.evolve(world.deploy(), **asked)
    return attrs.evolve(wanted, plan=world.rollouts.plan(viewer, wanted).digest)


def begun(world: ActionWorld, viewer: Viewer = LIVE, **asked: Any) -> ActionOutcome:
    """Begin a rollout as it was shown."""
    return world.rollouts.begin(viewer, planned(world, viewer, **asked))


def test_what_was_shown_is_begun_in_the_name_of_who_asked(world: ActionWorld) -> None:
    outcome = begun(world, reason="carts")
    assert outcome.state == "started"
    kept = world.desk.kept[outcome.rollout]
    assert (kept.requested_by, kept.head.plan.requested_by) == ("liv", "liv")
    assert kept.head.plan.targets[kept.head.plan.nodes[0]].commit == world.v2
    line = world.lines[-1]
    assert (line.action, line.decision, line.who, line.site, line.rollout) == (
        *("deploy", "done", "liv", "shop"),
        outcome.rollout,
    )
    assert "carts" in line.detail


def test_a_plan_that_came_out_otherwise_is_not_carried_out(world: ActionWorld) -> None:
    asked = planned(world)
    world.nodes["web4"] = world.node("web4", live=V1, commit=world.v1)
    error = refused(world, asked)
    assert (error.status, list(error.problems)) == (409, ["plan"])
    del world.nodes["web4"]
    world.nodes["web1"] = world.node("web1", live=V2, commit=world.v2)
    assert refused(world, asked).status == 409
    assert refused(world, attrs.evolve(asked, plan="x")).status == 409
    assert world.desk.kept == {}


def test_never_more_nodes_than_were_shown(world: ActionWorld) -> None:
    asked = planned(world, chosen=NodesAsked(everybody=True, exactly=("web1", "web2", "web3")))
    world.nodes["web4"] = world.node("web4", live=V1, commit=world.v1)
    outcome = world.rollouts.begin(LIVE, asked)
    assert set(world.desk.kept[outcome.rollout].head.plan.nodes) == {"web1", "web2", "web3"}


def test_a_ref_that_moved_since_the_plan_is_not_deployed(tmp_path: Path) -> None:
    world = ActionWorld(tmp_path, own_origin=True)
    asked = planned(world)
    world.origin.push(tag="v2", files={"index.html": "other\n"})
    assert refused(world, asked).status == 409
    asked = attrs.evolve(asked, commit=world.v2)
    assert "has moved" in str(refused(world, asked))


def test_two_people_at_once_the_second_reads_who_began_what_and_when(world: ActionWorld) -> None:
    first, second = planned(world), planned(world, ADMIN)
    rollout = world.rollouts.begin(LIVE, first).rollout
    error = refused(world, second, ADMIN)
    assert error.status == 409
    assert f"liv began rollout {rollout} (deploy of v2" in str(error)
    assert "and it runs" in str(error)
    world.desk.end(rollout)
    error = refused(world, second, ADMIN)
    assert f"liv began rollout {rollout}" in str(error)
    assert "after you looked" in str(error)
    assert begun(world, ADMIN).state == "started", "whoever looks again may"


def test_what_was_begun_elsewhere_since_somebody_looked_refuses_and_before_does_not(world: ActionWorld) -> None:
    asked = planned(world)
    at = utc_now()
    overview = RolloutOverview(
        rollout="shop-7", site="shop", state="succeeded", requested_by="ops", ref=V2, began=at + timedelta(seconds=1)
    )
    world.queries.rollout_list = (overview,)
    assert "ops began rollout shop-7" in str(refused(world, asked))
    world.queries.rollout_list = (attrs.evolve(overview, began=at - timedelta(seconds=5)),)
    assert world.rollouts.begin(LIVE, asked).state == "started"


def test_a_race_that_the_ledger_decides_is_a_conflict(world: ActionWorld) -> None:
    world.desk.error = RolloutBusy("rollout shop-2 of shop runs, begun by bob")
    error = refused(world, planned(world))
    assert (error.status, "begun by bob" in str(error)) == (409, True)


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (LedgerError("state/web/ledger.db is damaged"), "the console's ledger cannot be used"),
        (ConnectError("no broker is connected"), "no broker is connected"),
    ],
)
def test_what_is_away_is_said_and_names_no_path(world: ActionWorld, failure: Exception, words: str) -> None:
    world.desk.error = failure
    error = refused(world, planned(world))
    assert (error.status, words in str(error), "ledger.db" in str(error)) == (503, True, False)


@pytest.mark.parametrize(("viewer", "status"), [(LOOK, 403), (NOBODY, 404)])
def test_who_may_not_begin_is_refused_and_in_the_audit(world: ActionWorld, viewer: Viewer, status: int) -> None:
    assert refused(world, world.deploy(), viewer).status == status
    assert not world.questions


def test_the_role_stage_only_proposes(world: ActionWorld) -> None:
    outcome = begun(world, STAGE)
    assert outcome.state == "proposed"
    assert world.desk.started == []
    assert world.lines[-1].decision == "asked"
    shown = world.rollouts.proposal(LOOK, outcome.rollout)
    assert shown is not None
    assert (shown.requested_by, shown.ref, shown.commit, shown.nodes) == (
        *("stan", V2, world.v2),
        ("web1", "web2", "web3"),
    )
    assert world.rollouts.proposal(NOBODY, outcome.rollout) is None
    assert world.rollouts.proposals(NOBODY) == ()
    assert [each.rollout for each in world.rollouts.proposals(LIVE, "shop")] == [outcome.rollout]
    assert any(line.startswith("site ") for line in shown.text)
    assert shown.command == f"deploykit approve {outcome.rollout} --via URL --key KEY"
    assert "stan" in "\n".join(shown.text)


def test_a_console_that_signs_for_nobody_only_proposes(tmp_path: Path) -> None:
    world = ActionWorld(tmp_path, more="[web]\nconsole_signs = []")
    assert begun(world, ADMIN).state == "proposed"


def test_no_setting_lets_the_role_stage_start_anything(tmp_path: Path) -> None:
    world = ActionWorld(tmp_path, more='[web]\nconsole_signs = ["stage", "live", "admin"]')
    assert begun(world, STAGE).state == "proposed"


def test_a_locked_site_refuses_and_says_who(world: ActionWorld) -> None:
    from tests.unit.web.actions.test_locking import locked_by

    asked = world.deploy()
    for name, node in world.nodes.items():
        world.nodes[name] = locked_by(world, "ann", node, reason="audit", holder="Ann")
    plan = world.rollouts.plan(LIVE, asked)
    assert "locked by Ann" in plan.locked
    assert any("audit: nodes refuse this until it is unlocked" in line for line in plan.warnings)
    error = refused(world, attrs.evolve(asked, plan=plan.digest))
    assert (error.status, "audit" in str(error)) == (409, True)
    over = attrs.evolve(asked, override_lock="fire")
    assert world.rollouts.begin(ADMIN, over).state == "started"


def test_a_lock_that_came_after_the_plan_is_another_plan(world: ActionWorld) -> None:
    from tests.unit.web.actions.test_locking import locked_by

    asked = planned(world, ADMIN, override_lock="fire")
    world.nodes["web1"] = locked_by(world, "ann", world.nodes["web1"])
    assert list(refused(world, asked, ADMIN).problems) == ["plan"]


# -- signatures --------------------------------------------------------------------------------------------------------


def proposed(world: ActionWorld, **asked: Any) -> tuple[str, bytes]:
    """Propose a rollout; return its id and the bytes to sign."""
    rollout = begun(world, LIVE, approval=True, **asked).rollout
    shown = world.rollouts.proposal(LIVE, rollout)
    assert shown is not None
    return rollout, base64.b64decode(shown.body)


def sign_refused(world: ActionWorld, rollout: str, signature: str, viewer: Viewer = STAGE) -> ActionRefused:
    """Return why a signature is not added; the audit has it, and the proposal has no more signatures than before."""
    shown = world.rollouts.proposal(LIVE, rollout)
    with pytest.raises(ActionRefused) as caught:
        world.rollouts.sign(viewer, rollout, signature)
    assert world.decisions()[-1] == ("approve", "refused")
    after = world.rollouts.proposal(LIVE, rollout)
    assert shown is not None
    assert after is not None
    assert shown.signatures == after.signatures
    return caught.value


def test_one_signature_that_counts_starts_what_needs_one(world: ActionWorld) -> None:
    rollout, body = proposed(world)
    outcome = world.rollouts.sign(STAGE, rollout, world.signature("ann", body))
    assert (outcome.state, world.desk.started) == ("started", [rollout])
    assert world.decisions()[-2:] == [("approve", "done"), ("deploy", "done")]


def test_four_eyes_are_two_people(tmp_path: Path) -> None:
    world = ActionWorld(tmp_path, site="signatures = 2")
    rollout = begun(world).rollout
    shown = world.rollouts.proposal(LIVE, rollout)
    assert shown is not None
    assert shown.missing == "2 people must sign"
    body = base64.b64decode(shown.body)
    outcome = world.rollouts.sign(STAGE, rollout, world.signature("ann", body))
    assert (outcome.state, outcome.detail) == ("proposed", "signed; 1 more person must sign")
    assert world.desk.started == []
    error = sign_refused(world, rollout, world.signature("ann", body))
    assert (error.status, "signed it already" in str(error)) == (409, True)
    assert world.rollouts.sign(ADMIN, rollout, world.signature("bob", body)).state == "started"


def test_a_signature_that_no_grant_covers_is_refused(world: ActionWorld) -> None:
    rollout, body = proposed(world)
    for name in ("eve", "desk", "mallory"):
        error = sign_refused(world, rollout, world.signature(name, body))
        assert (error.status, list(error.problems)) == (403, ["signature"])
    assert world.desk.started == []


def test_a_signature_of_other_bytes_is_refused(world: ActionWorld) -> None:
    rollout, body = proposed(world)
    world.desk.withdraw(rollout)
    other, _ = proposed(world)
    error = sign_refused(world, other, world.signature("ann", body))
    assert (error.status, "does not fit" in str(error)) == (422, True)


@pytest.mark.parametrize("signature", ["", "x", "A" * 100_000, "AAAA,AAAA", "\x00", "a\r\nb: c"])
def test_what_is_no_signature_is_refused(world: ActionWorld, signature: str) -> None:
    rollout, _ = proposed(world)
    assert sign_refused(world, rollout, signature).status == 422


def test_the_same_key_twice_in_one_header_is_refused(world: ActionWorld) -> None:
    rollout, body = proposed(world)
    one = world.signature("ann", body)
    assert sign_refused(world, rollout, f"{one},{one}").status in (409, 422)


def test_who_may_not_sign_here_is_refused(world: ActionWorld) -> None:
    rollout, body = proposed(world)
    signature = world.signature("ann", body)
    assert sign_refused(world, rollout, signature, LOOK).status == 403
    assert sign_refused(world, rollout, signature, NOBODY).status == 404


def test_a_mandate_that_begins_later_waits(world: ActionWorld) -> None:
    rollout, body = proposed(world, not_before="2h")
    outcome = world.rollouts.sign(STAGE, rollout, world.signature("ann", body))
    assert (outcome.state, "begins at" in outcome.detail) == ("proposed", True)
    with pytest.raises(ActionRefused, match="begins at"):
        world.rollouts.control(LIVE, rollout, ControlAsked(kind="promote"))
    assert world.desk.started == []


def test_a_mandate_that_is_over_takes_no_signature(world: ActionWorld) -> None:
    rollout, body = proposed(world, not_after="10m")
    signature = world.signature("ann", body)
    world.moment = utc_now() + timedelta(minutes=11)
    assert sign_refused(world, rollout, signature).status == 409


def test_a_signed_proposal_waits_for_its_site_and_is_started_by_promote(world: ActionWorld) -> None:
    rollout, body = proposed(world)
    other = begun(world, ADMIN).rollout
    outcome = world.rollouts.sign(STAGE, rollout, world.signature("ann", body))
    assert (outcome.state, other in outcome.detail) == ("proposed", True)
    world.desk.end(other)
    with pytest.raises(ActionRefused):
        world.rollouts.control(STAGE, rollout, ControlAsked(kind="promote"))
    assert world.rollouts.control(LIVE, rollout, ControlAsked(kind="promote")).state == "started"


def test_a_signature_that_is_kept_is_never_answered_as_if_nothing_was_done(
    world: ActionWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    rollout, body = proposed(world)

    def away(_: StandingRollouts, _rollout: str) -> None:
        raise LedgerError("the database is away")

    monkeypatch.setattr(StandingRollouts, "start_approved", away)
    outcome = world.rollouts.sign(STAGE, rollout, world.signature("ann", body))
    assert (outcome.state, "signed, and it does not begin now" in outcome.detail) == ("proposed", True)
    assert world.decisions()[-2:] == [("approve", "done"), ("deploy", "refused")]


def test_refusals_about_a_rollout_name_its_site_in_the_audit(world: ActionWorld) -> None:
    rollout, _ = proposed(world)
    runs = begun(world, ADMIN).rollout
    before = len(world.lines)
    attempts: tuple[Callable[[], object], ...] = (
        lambda: world.rollouts.sign(STAGE, rollout, "x"),
        lambda: world.rollouts.withdraw(LOOK, rollout),
        lambda: world.rollouts.control(LOOK, runs, ControlAsked(kind="abort")),
        lambda: world.rollouts.control(NOBODY, runs, ControlAsked(kind="abort")),
        lambda: world.rollouts.retry(LOOK, runs),
        lambda: world.rollouts.plan_retry(LOOK, runs),
    )
    for attempt in attempts:
        with pytest.raises(ActionRefused):
            attempt()
    found = [(line.decision, line.site) for line in world.lines[before:]]
    assert found == [("refused", "shop")] * len(attempts)


def test_promote_starts_nothing_that_too_few_have_signed(world: ActionWorld) -> None:
    rollout, _ = proposed(world)
    with pytest.raises(ActionRefused, match="waits for signatures"):
        world.rollouts.control(ADMIN, rollout, ControlAsked(kind="promote"))
    assert world.desk.started == []


def test_who_may_only_propose_hides_no_proposals_of_others(world: ActionWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollouts, "MOST_PROPOSALS", 2)
    first, _ = proposed(world)
    proposed(world)
    error = refused(world, planned(world, STAGE), STAGE)
    assert (error.status, "wait for people" in str(error)) == (409, True)
    assert len(world.rollouts.proposals(LIVE, "shop")) == 2
    world.rollouts.withdraw(STAGE, first)
    assert begun(world, STAGE).state == "proposed"


def test_a_proposal_is_withdrawn_once(world: ActionWorld) -> None:
    rollout, body = proposed(world)
    with pytest.raises(ActionRefused, match="may not withdraw"):
        world.rollouts.withdraw(LOOK, rollout)
    assert world.rollouts.withdraw(STAGE, rollout).state == "done"
    with pytest.raises(ActionRefused, match="was withdrawn"):
        world.rollouts.withdraw(STAGE, rollout)
    with pytest.raises(ActionRefused, match="was withdrawn"):
        world.rollouts.sign(STAGE, rollout, world.signature("ann", body))
    assert world.rollouts.proposal(LIVE, rollout) is None


def test_times_that_nodes_do_not_accept_name_their_field(world: ActionWorld) -> None:
    for asked in ({"not_after": "30d"}, {"not_before": "2h", "not_after": "1h"}):
        error = refused(world, planned(world, LIVE, approval=True, **asked))
        assert (error.status, list(error.problems)) == (422, ["not_after"])


# -- what runs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "rollback", "least"),
    [
        ("pause", False, STAGE),
        ("abort", False, STAGE),
        ("resume", False, LIVE),
        ("promote", False, LIVE),
        ("abort", True, LIVE),
    ],
)
def test_each_request_needs_its_role(world: ActionWorld, kind: object, rollback: bool, least: Viewer) -> None:
    rollout = begun(world).rollout
    asked = ControlAsked(kind=kind, rollback=rollback)  # type: ignore[arg-type]  # one of the four
    lower = {STAGE.name: LOOK, LIVE.name: STAGE}[least.name]
    with pytest.raises(ActionRefused) as caught:
        world.rollouts.control(lower, rollout, asked)
    assert caught.value.status == 403
    assert world.desk.asked == []
    assert world.rollouts.control(least, rollout, asked).state == "asked"
    assert [(name, r.kind, r.by, r.rollback) for name, r in world.desk.asked] == [(rollout, kind, least.name, rollback)]
    assert world.decisions()[-1] == (kind, "asked")


def test_what_has_ended_or_is_not_there_is_asked_nothing(world: ActionWorld) -> None:
    rollout = begun(world).rollout
    world.desk.end(rollout)
    with pytest.raises(ActionRefused) as caught:
        world.rollouts.control(LIVE, rollout, ControlAsked(kind="pause"))
    assert caught.value.status == 409
    with pytest.raises(ActionRefused) as caught:
        world.rollouts.control(LIVE, "shop-0", ControlAsked(kind="pause"))
    assert caught.value.status == 404


@pytest.mark.parametrize("rollout", ["", "\x00", "../x", "a" * 5000, "shop-1' OR 1=1", "é"])
def test_what_is_no_id_of_a_rollout_is_not_looked_up(world: ActionWorld, rollout: str) -> None:
    looked_up: list[str] = []
    world.desk.looked_up = looked_up
    asked: list[Callable[[], object]] = [
        lambda: world.rollouts.control(LIVE, rollout, ControlAsked(kind="pause")),
        lambda: world.rollouts.plan_retry(LIVE, rollout),
        lambda: world.rollouts.retry(LIVE, rollout),
        lambda: world.rollouts.sign(LIVE, rollout, "x"),
        lambda: world.rollouts.withdraw(LIVE, rollout),
    ]
    for ask in asked:
        with pytest.raises(ActionRefused) as caught:
            ask()
        assert caught.value.status == 404
    assert world.rollouts.proposal(LIVE, rollout) is None
    assert looked_up == []
    assert all(line.rollout.isprintable() and len(line.rollout) <= 200 for line in world.lines)


def test_a_rollout_of_another_machine_is_named_with_the_command_that_reaches_it(world: ActionWorld) -> None:
    world.queries.rollout_list = (RolloutOverview(rollout="shop-7", site="shop", state="rolling", host="desk2"),)
    with pytest.raises(ActionRefused) as caught:
        world.rollouts.control(LIVE, "shop-7", ControlAsked(kind="abort"))
    assert caught.value.status == 409
    assert "desk2" in str(caught.value)
    assert "deploykit rollout abort shop-7" in str(caught.value)


def test_only_an_abort_of_a_deploy_takes_back(world: ActionWorld) -> None:
    rollout = begun(world).rollout
    with pytest.raises(ActionRefused) as caught:
        world.rollouts.control(LIVE, rollout, ControlAsked(kind="pause", rollback=True))
    assert list(caught.value.problems) == ["rollback"]
    world.desk.end(rollout)
    for name, node in world.nodes.items():
        state = attrs.evolve(node.sites[0], previous=world.back(V1, world.v1))
        world.nodes[name] = attrs.evolve(node, sites=(state,))
    back = world.rollouts.begin(LIVE, RollbackAsked(site="shop", chosen=NodesAsked(everybody=True))).rollout
    with pytest.raises(ActionRefused) as caught:
        world.rollouts.control(LIVE, back, ControlAsked(kind="abort", rollback=True))
    assert list(caught.value.problems) == ["rollback"]


def test_a_retry_is_for_what_failed_and_only_for_that(world: ActionWorld) -> None:
    rollout = begun(world, chosen=NodesAsked(nodes=("web1",))).rollout
    with pytest.raises(ActionRefused, match="has not ended"):
        world.rollouts.plan_retry(LIVE, rollout)
    node = world.desk.kept[rollout].head.plan.nodes[0]
    answer = NodeAnswered(node=node, phase="deploy", outcome="failure", detail="disk full")
    at = world.desk.kept[rollout].begun + 1
    world.desk.records[rollout] = (EventRecord(at=at, event=answer),)
    world.desk.end(rollout)
    plan = world.rollouts.plan_retry(LIVE, rollout)
    assert [each.node for each in plan.nodes] == ["web1"]
    assert plan.command == f"deploykit rollout retry {rollout}"
    outcome = world.rollouts.retry(LIVE, rollout, plan.digest)
    assert outcome.state == "started"
    assert outcome.rollout != rollout
    assert world.lines[-1].action == "retry"


def test_a_retry_that_others_shall_sign_is_proposed_and_not_started(world: ActionWorld) -> None:
    rollout = begun(world, chosen=NodesAsked(nodes=("web1",))).rollout
    node = world.desk.kept[rollout].head.plan.nodes[0]
    answer = NodeAnswered(node=node, phase="deploy", outcome="failure", detail="disk full")
    world.desk.records[rollout] = (EventRecord(at=world.desk.kept[rollout].begun + 1, event=answer),)
    world.desk.end(rollout)
    world.moment = datetime.fromtimestamp(world.desk.kept[rollout].begun, UTC) + timedelta(seconds=5)
    plan = world.rollouts.plan_retry(LIVE, rollout, approval=True)
    assert plan.needs == 1
    assert [each.node for each in plan.left_out] == [], "who answers besides was never meant"
    outcome = world.rollouts.retry(LIVE, rollout, plan.digest, approval=True, reason="once more")
    assert outcome.state == "proposed"
    mandate = world.desk.kept[outcome.rollout].head.mandate
    assert mandate is not None
    assert mandate.message.reason == "once more"


def test_a_retry_of_what_people_signed_needs_them_again(world: ActionWorld) -> None:
    rollout, body = proposed(world, chosen=NodesAsked(nodes=("web1",)))
    world.rollouts.sign(STAGE, rollout, world.signature("ann", body))
    kept = world.desk.kept[rollout]
    answer = NodeAnswered(node=kept.head.plan.nodes[0], phase="deploy", outcome="failure", detail="")
    world.desk.records[rollout] = (EventRecord(at=kept.begun + 1, event=answer),)
    world.desk.end(rollout)
    assert world.rollouts.plan_retry(LIVE, rollout).needs == 1
    assert world.rollouts.retry(LIVE, rollout).state == "proposed"


def test_a_retry_of_what_succeeded_has_nothing_to_do(world: ActionWorld) -> None:
    rollout = begun(world, chosen=NodesAsked(nodes=("web1",))).rollout
    kept = world.desk.kept[rollout]
    answer = NodeAnswered(node=kept.head.plan.nodes[0], phase="deploy", outcome="success", detail="")
    world.desk.records[rollout] = (EventRecord(at=kept.begun + 1, event=answer),)
    world.desk.end(rollout)
    with pytest.raises(ActionRefused) as caught:
        world.rollouts.plan_retry(LIVE, rollout)
    assert (caught.value.status, "nothing is left" in str(caught.value)) == (409, True)
