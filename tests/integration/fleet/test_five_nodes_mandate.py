"""Five real agents whose site asks for two people: what they signed once carries a rollout through kills, and back.

The keys of those who approve are taken away before anything is killed: nobody could sign again.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploykit.fleet.plan import Target
from deploykit.messages import ApprovalWanted, DeployRequested, RolloutApproved
from deploykit.operations.rolloutstore import list_rollouts
from tests.support.fivenodes.books import Books
from tests.support.fivenodes.brokers import broker_of
from tests.support.fivenodes.stages import Hit, play
from tests.support.fivenodes.world import FiveNodes
from tests.support.wait import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

APPROVERS = ("ann@fleet", "bob@fleet")
ALL = ("web1", "web2", "web3", "web4", "web5")


@pytest.fixture(scope="module")
def fleet(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FiveNodes]:
    """One fleet for the tests on the embedded broker: each has a tag of its own."""
    root = tmp_path_factory.mktemp("five")
    with (
        broker_of("embedded", root, request) as broker,
        FiveNodes(root, broker, killable=("web3",), approvers=APPROVERS) as made,
    ):
        yield made


def check_mandate(fleet: FiveNodes, rollout: str) -> None:
    """Compare what was heard: one mandate, signed by two people, and every command of the rollout names it."""
    mandates = fleet.books.wait(RolloutApproved, lambda one: one.rollout == rollout)
    assert len(mandates) == 1
    assert all(fleet.books.signed_by(mandates[0], name) for name in APPROVERS)
    commands = fleet.books.wait(DeployRequested, lambda one: one.rollout == rollout)
    mandate = fleet.desk.stored.contents.head.mandate
    assert mandate is not None
    assert {command.mandate for command in commands} == {mandate.digest}


def propose(fleet: FiveNodes, target: Target, *options: str) -> str:
    """Propose a rollout as a person does, and have two people sign it; return its id."""
    done = fleet.desk.run(target, "--propose", *options)
    assert done.code == 0, done.output
    (entry,) = [entry for entry in list_rollouts(fleet.settings) if entry.state == "proposed"]
    for key in fleet.people:
        done = fleet.desk.order("approve", entry.rollout, "--key", str(key), "--yes")
        assert done.code == 0, done.output
    return entry.rollout


def test_proposed_signed_by_two_started_killed_resumed_and_taken_back(fleet: FiveNodes) -> None:
    old, new = fleet.level(), fleet.push()
    rollout = propose(fleet, new, "--batch", "1", "--pause", "ask")
    assert fleet.asked("prepare", new) == set()
    with fleet.people_away():
        fleet.desk.begin("rollout", "start", rollout)
        fleet.desk.wait_paused()
        fleet.desk.kill()
        fleet.order("hold", "web2", "post-deploy", new)
        fleet.desk.resume()
        fleet.wait_held("web2", "post-deploy", new)
        fleet.desk.kill()
        fleet.let_go_of("web2", "post-deploy", new)
        done = fleet.desk.order("rollout", "abort", rollout, "--rollback")
    assert done.code == 0, done.output
    stored = Books(fleet=fleet, old=old, new=new).compare()
    assert stored.model.state == "rolled-back"
    assert fleet.asked("rollback", old) == {"web1", "web2"}
    check_mandate(fleet, rollout)
    assert fleet.desk.order("rollout", "show", rollout).output.count("SHA256:") == 2


def test_with_one_signature_no_node_obeys_and_the_books_say_why(fleet: FiveNodes) -> None:
    old, new = fleet.level(), fleet.push()
    done = fleet.desk.run(new, "--approve-with", str(fleet.people[0]), "--yes", approved=False)
    assert done.code != 0
    assert "2 different people" in done.output, done.output
    Books(fleet=fleet, old=old, new=new).compare()


def test_without_a_mandate_no_node_obeys(fleet: FiveNodes) -> None:
    old, new = fleet.level(), fleet.push()
    done = fleet.desk.run(new, approved=False)
    assert done.code == 3, done.output
    assert fleet.desk.stored.model.state == "failed"
    assert Books(fleet=fleet, old=old, new=new).live() == {}


def test_a_node_that_has_lost_the_mandate_asks_for_it_and_goes_on(fleet: FiveNodes) -> None:
    fleet.level()
    new = fleet.push()
    place = fleet.places["web3"]
    fleet.order("hold", "web1", "post-deploy", new)
    fleet.desk.start(new, "--batch", "4")
    fleet.wait_held("web1", "post-deploy", new)  # the canary: all the others are prepared
    with fleet.people_away():
        place.kill()
        shutil.rmtree(place.settings.state / "mandates")
        place.start()
        fleet.let_go_of("web1", "post-deploy", new)
        done = fleet.desk.wait()
    assert done.code == 0, done.output
    assert {fleet.live(short) for short in ALL} == {new}
    rollout = fleet.desk.stored.plan.rollout
    wait_until(
        lambda: fleet.books.of(ApprovalWanted, lambda one: one.rollout == rollout and one.node == place.name),
        "the question for the mandate",
    )
    check_mandate(fleet, rollout)


def test_a_rollback_that_two_people_approve_takes_all_nodes_back(fleet: FiveNodes) -> None:
    old, new = fleet.level(), fleet.push()
    assert fleet.desk.run(new, "--batch", "4").code == 0
    done = fleet.desk.roll_back()
    assert done.code in (1, 3), done.output
    assert {fleet.live(short) for short in ALL} == {new}
    keys = [word for key in fleet.people for word in ("--approve-with", str(key))]
    done = fleet.desk.roll_back("--batch", "4", "--yes", *keys)
    assert done.code == 0, done.output
    assert "none: nodes may only go back" in done.output
    assert {fleet.live(short) for short in ALL} == {old}
    check_mandate(fleet, fleet.desk.stored.plan.rollout)


def test_a_retry_needs_a_mandate_of_its_own(fleet: FiveNodes) -> None:
    fleet.level()
    new = fleet.push()
    fleet.order("fail", "web5", "post-deploy", new)
    done = fleet.desk.run(new, "--batch", "4")
    assert done.code == 1, done.output
    failed = fleet.desk.stored.plan.rollout
    fleet.let_fail("web5", "post-deploy", new)
    done = fleet.desk.order("rollout", "retry", failed)
    assert done.code == 3, done.output
    assert "a mandate is for one rollout id" in done.output
    keys = [word for key in fleet.people for word in ("--approve-with", str(key))]
    done = fleet.desk.order("rollout", "retry", failed, "--yes", *keys)
    assert done.code == 0, done.output
    assert fleet.live("web5") == new


@pytest.mark.parametrize("kind", [pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)])
def test_over_a_real_broker_killed_coordinators_go_on_without_a_new_signature(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    with broker_of(kind, tmp_path, request) as broker, FiveNodes(tmp_path, broker, approvers=APPROVERS) as fleet:
        play(fleet, "succeeds", Hit("succeeds", "preparing", "desk"), Hit("succeeds", "rolling", "moved"))
        check_mandate(fleet, fleet.desk.stored.plan.rollout)
        play(fleet, "goes-back", Hit("goes-back", "canary", "moved"), Hit("goes-back", "going-back", "desk"))
        check_mandate(fleet, fleet.desk.stored.plan.rollout)
