"""Rollouts that a console began over HTTP on five real agents: killed, reloaded, taken over by a second console."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from deploykit.config import load_settings
from deploykit.fleet.plan import Target
from deploykit.messages import DeployRequested, RolloutAbort
from tests.support.consolepair import FleetConsole
from tests.support.fivenodes.brokers import broker_of
from tests.support.fivenodes.world import FiveNodes
from tests.support.hosting import ledger_of, wait_ended
from tests.support.postgres import running_postgres


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[FiveNodes]:
    """Five agents, for which consoles may act."""
    root = tmp_path_factory.mktemp("consoles")
    (root / "fleet").mkdir()
    with broker_of("embedded", root, request) as broker, FiveNodes(root / "fleet", broker, console=True) as made:
        yield made


def begun(fleet: FiveNodes, console: FleetConsole, new: Target) -> str:
    """Begin a rollout of which the second node waits in the middle; return its id."""
    fleet.order("hold", "web2", "post-deploy", new)
    body = {
        "ref": new.ref,
        "chosen": {"nodes": list(fleet.nodes)},
        "options": {"first": "1", "batch": ["1"]},
        "reason": "the sale",
    }
    answer = console.post("sites/shop/deploys", body)
    assert answer.status_code == 202, answer.text
    fleet.wait_held("web2", "post-deploy", new)
    return str(answer.json()["rollout"])


def check(fleet: FiveNodes, new: Target) -> None:
    """Every node has the release, was asked once for each phase with the same bytes, and ran its script once."""
    assert {fleet.live(short) for short in fleet.places} == {new}
    requests = fleet.books.of(DeployRequested, lambda one: one.commit == new.commit)
    by_id = {one.id: one for one in requests}
    asked = [(node, one.phase) for one in by_id.values() for node in one.audience]
    assert len(asked) == len(set(asked)), "a node was asked for the same by two commands"
    for short in fleet.places:
        ran = (fleet.root / "orders" / f"{fleet.named(short)}.ran").read_text().splitlines()
        assert ran.count(f"post-deploy {new.name}") == 1, f"{short} ran it twice"


def test_killed_in_the_middle_the_next_process_goes_on(fleet: FiveNodes) -> None:
    new = fleet.push()
    with FleetConsole(fleet, "alone") as console:
        rollout = begun(fleet, console, new)
        console.member.kill()
        fleet.let_go()
        console.member.start()
        with ledger_of(load_settings(console.file)) as ledger:
            assert wait_ended(ledger, rollout, 120).model.state == "succeeded"
    check(fleet, new)


def test_killed_in_the_middle_a_second_console_on_postgresql_takes_over(fleet: FiveNodes) -> None:
    new = fleet.push()
    with (
        running_postgres() as server,
        FleetConsole(fleet, "console1", database=server) as one,
        FleetConsole(fleet, "console2", database=server) as two,
    ):
        rollout = begun(fleet, one, new)
        refused = two.post("sites/shop/deploys", {"ref": new.ref, "chosen": {"nodes": list(fleet.nodes)}})
        assert refused.status_code == 409, refused.text
        assert rollout in refused.text
        one.member.kill()
        fleet.let_go()
        with ledger_of(load_settings(two.file)) as ledger:
            assert wait_ended(ledger, rollout, 120).model.state == "succeeded"
        assert f"rollout {rollout} is gone on with here" in two.member.output
    check(fleet, new)


def test_hup_hands_the_rollout_to_the_new_service_and_it_obeys(fleet: FiveNodes) -> None:
    old = fleet.live("web5")
    new = fleet.push()
    with FleetConsole(fleet, "reloaded") as console:
        rollout = begun(fleet, console, new)
        before = console.member.output.count("ready: console at ")
        console.member.signal(signal.SIGHUP)
        console.member.wait_printed("ready: console at ", before + 1)
        answer = console.post(f"deploys/{rollout}/control", {"kind": "abort"})
        assert answer.status_code == 202, answer.text
        # It is asked for, and carried out a moment later: until then the nodes go on.
        fleet.books.wait(RolloutAbort, lambda one: one.rollout == rollout)
        with ledger_of(load_settings(console.file)) as ledger:
            fleet.let_go()
            assert wait_ended(ledger, rollout, 120).model.state == "aborted"
    assert fleet.live("web1") == new
    assert fleet.live("web5") == old
