"""A tag rolled out to five real agents by the real command line: what fails stops it, and the books agree."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from deploykit.bus import Bus
from deploykit.errors import PolicyRefused
from deploykit.fleet.options import Amount, RolloutOptions
from deploykit.operations.rollout import start_rollout
from deploykit.operations.rolloutplan import plan_deploy
from tests.support.fivenodes.books import Books
from tests.support.fivenodes.brokers import broker_of
from tests.support.fivenodes.world import FiveNodes
from tests.support.needs import other_clock
from tests.support.wait import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ALL = ("web1", "web2", "web3", "web4", "web5")


@pytest.fixture(scope="module")
def fleet(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FiveNodes]:
    """One fleet for the module: each test begins with the same release on all nodes, and has a tag of its own."""
    root = tmp_path_factory.mktemp("five")
    with broker_of("embedded", root, request) as broker, FiveNodes(root, broker, killable=("web3",)) as made:
        yield made


def test_a_canary_that_fails_leaves_the_others_untouched_and_nothing_prepared(fleet: FiveNodes) -> None:
    old, new = fleet.fresh(), fleet.push()
    fleet.order("fail", "web1", "post-deploy", new)
    done = fleet.desk.run(new)
    assert done.code == 1, done.output
    stored = Books(fleet=fleet, old=old, new=new).compare()
    assert stored.model.state == "failed"
    assert fleet.asked("prepare", new) == set(ALL)
    assert fleet.asked("activate", new) == {"web1"}
    assert fleet.asked("discard", new) == set(ALL[1:])
    assert fleet.asked("rollback", old) == set()


def test_the_third_of_five_fails_and_those_that_were_activated_go_back(fleet: FiveNodes) -> None:
    old, new = fleet.level(), fleet.push()
    fleet.order("fail", "web3", "post-deploy", new)
    done = fleet.desk.run(new, "--batch", "1", "--on-failure", "rollback")
    assert done.code == 1, done.output
    stored = Books(fleet=fleet, old=old, new=new).compare()
    assert stored.model.state == "rolled-back"
    assert fleet.asked("rollback", old) >= {"web1", "web2"}
    assert fleet.asked("discard", new) == {"web4", "web5"}


def test_a_tag_that_moves_after_the_decision_brings_the_decided_commit_or_nothing(fleet: FiveNodes) -> None:
    old, new = fleet.level(), fleet.push()
    options = RolloutOptions(batch=(Amount(number=4),), timeout=120.0)
    planned = plan_deploy(fleet.settings, "shop", new.name, fleet.nodes, options)
    moved = fleet.push(new.name)
    assert moved.commit != new.commit
    with Bus(fleet.settings.broker, client_id="operator") as bus:
        assert bus.wait_connected(60)
        result = start_rollout(planned, bus)
    assert result.exit_code == 3
    stored = Books(fleet=fleet, old=old, new=new).compare()
    assert all("by now, not at" in status.detail for status in stored.model.nodes.values())
    with pytest.raises(PolicyRefused, match="at the origin, not"):
        plan_deploy(fleet.settings, "shop", new.name, fleet.nodes, options, commit=new.commit)


def test_a_tag_that_moves_half_way_changes_nothing(fleet: FiveNodes) -> None:
    old, new = fleet.level(), fleet.push()
    fleet.desk.start(new, "--batch", "4", "--pause", "ask")
    fleet.desk.wait_paused()
    fleet.push(new.name)
    fleet.desk.ask("promote")
    done = fleet.desk.wait()
    assert done.code == 0, done.output
    Books(fleet=fleet, old=old, new=new).compare(**dict.fromkeys(ALL, "new"))


def test_a_node_whose_clock_is_off_is_named_with_the_reason_and_obeys_once_it_is_right(fleet: FiveNodes) -> None:
    old, new = fleet.level(), fleet.push()
    web3 = fleet.places["web3"]
    books = Books(fleet=fleet, old=old, new=new)
    try:
        web3.restart(**other_clock("-1h"))  # it does not obey commands of the future, and what it says is believed
        done = fleet.desk.run(new)
        assert done.code == 1, done.output
        stored = books.compare()
        status = stored.model.nodes[web3.name]
        assert (status.state, stored.doubts) == ("refused", {})
        assert "claims to be from the future (compare the clocks (NTP))" in status.detail
        assert status.detail in done.output
        assert fleet.asked("activate", new) == set()
        assert fleet.asked("discard", new) == {"web1", "web2", "web4", "web5"}
        web3.restart(**other_clock("+1h"))  # what it says comes from the future, and is not believed
        fleet.desk.start(new, "--batch", "4")
        wait_until(lambda: "claims to be from the future" in fleet.desk.output, "a word about the clock")
        fleet.desk.kill()
    finally:
        web3.restart()
    (doubt,) = fleet.desk.stored.doubts[web3.name]
    assert "compare the clocks" in doubt
    assert books.live() == {}
    fleet.desk.resume()
    done = fleet.desk.wait()
    assert done.code == 0, done.output
    books.compare(**dict.fromkeys(ALL, "new"))


def test_the_third_of_five_fails_and_the_budget_stops_the_rollout(fleet: FiveNodes) -> None:
    old, new = fleet.fresh(), fleet.push()
    fleet.order("fail", "web3", "post-deploy", new)
    done = fleet.desk.run(new, "--batch", "1")
    assert done.code == 1, done.output
    stored = Books(fleet=fleet, old=old, new=new).compare(web1="new", web2="new")
    assert (stored.model.state, stored.model.failures) == ("failed", 1)
    assert fleet.asked("activate", new) == {"web1", "web2", "web3"}
    assert fleet.asked("discard", new) == {"web4", "web5"}
    assert fleet.asked("rollback", old) == set()
