"""Choosing nodes by what they answer: lists are checked, nobody is addressed by a guess."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.bus import Bus
from deploykit.config import load_settings
from deploykit.errors import NobodyMatches, RefNotFound, UsageError
from deploykit.fleet import discovery
from deploykit.fleet.inventory import DiscoveryWindow
from deploykit.fleet.selection import Selection
from deploykit.messages import HeldRef, NodeDescribed, NodeQueried, SiteOperation, SiteRelease, SiteState
from deploykit.names import NodeName, ObjectId, RefName, RepoName, SiteName
from deploykit.operations.fleetstatus import fleet_status
from deploykit.operations.nodes import find_nodes
from deploykit.operations.sitehistory import site_history
from deploykit.operations.targets import resolve_targets
from deploykit.settings import Settings
from deploykit.trust.mandate import Requirement
from tests.support.node import Origin
from tests.support.responders import STRANGER, Reply, Responders, asker_settings, described, end_with_the_answers

WEB1, WEB2, WEB3, DB1 = (NodeName(name) for name in ("web1", "web2", "web3", "db1"))
SHOP, REPO = SiteName("shop"), RepoName("shop")
V1 = SiteRelease(release="r1", ref=RefName("refs/tags/v1"), commit=ObjectId("1" * 40))
V2 = SiteRelease(release="r2", ref=RefName("refs/tags/v2"), commit=ObjectId("2" * 40))
START = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
REFS = tuple(
    HeldRef(repo=REPO, ref=each.ref, commit=each.commit, time=START + timedelta(days=number))
    for number, each in enumerate((V1, V2))
    if each.ref is not None and each.commit is not None
)


@pytest.fixture(autouse=True)
def _all_answers_are_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    end_with_the_answers(monkeypatch)


@pytest.fixture
def settings(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> Settings:
    return load_settings(asker_settings(tmp_path, deploykit_broker.address))


@pytest.fixture
def bus(settings: Settings) -> Iterator[Bus]:
    with Bus(settings.broker) as made:
        assert made.wait_connected(60)
        yield made


def web(
    name: str, live: SiteRelease | None = V2, previous: SiteRelease | None = V1, **changes: object
) -> NodeDescribed:
    """A node with the site: what is live on it, and what was before."""
    state = SiteState(
        site=SHOP,
        repo=REPO,
        release=live.release if live else "",
        ref=live.ref if live else None,
        commit=live.commit if live else None,
        since=START,
        previous=previous,
        **changes,  # type: ignore[arg-type]
    )
    return described(name, classes=("web",), facts={"env": "live"}, version="1", sites=(state,), refs=REFS)


@pytest.fixture
def fleet(deploykit_broker: EmbeddedBroker) -> Iterator[list[Reply]]:
    """The answers to each question, to be filled by the test."""
    replies: list[Reply] = []
    with Responders(deploykit_broker.address, lambda question: replies):
        yield replies


def test_a_selection_chooses_among_those_that_answer(settings: Settings, bus: Bus, fleet: list[Reply]) -> None:
    fleet += [web("web2"), described("db1", classes=("db",)), web("web1")]
    found = find_nodes(settings, bus, Selection(classes=("web",), facts=("env=live",)))
    assert [each.node for each in found.nodes] == [WEB1, WEB2]
    assert (found.answered, found.exit_code, found.notes) == (3, 0, ())


def test_what_a_selection_looks_at_is_asked_for_too(
    settings: Settings, bus: Bus, deploykit_broker: EmbeddedBroker
) -> None:
    with Responders(deploykit_broker.address, lambda question: [web("web1")]) as nodes:
        find_nodes(settings, bus, Selection(classes=("web",)), details=("history",))
        find_nodes(settings, bus, Selection(identities=("web1", "web1")), details=("history",))
        by_class, by_name = nodes.asked
    assert (by_class.details, by_class.audience) == (("history", "facts", "sites"), None)
    assert (by_name.details, by_name.audience) == (("history",), (WEB1,))


def test_answers_are_checked_against_a_list(settings: Settings, bus: Bus, fleet: list[Reply]) -> None:
    fleet += [web("web1"), web("web3"), described("db1")]
    listed = Selection(listed=(WEB1, WEB2), classes=("web",))
    found = find_nodes(settings, bus, listed)
    assert [each.node for each in found.nodes] == [WEB1]
    assert (found.silent, found.unexpected) == ((WEB2,), (WEB3,))  # db1 would not match: it is nobody's business
    assert found.exit_code == 1


@pytest.mark.parametrize(
    ("listed", "answers", "code"),
    [((WEB1,), ["web1"], 0), ((WEB1,), ["web1", "web2"], 1), ((WEB1, WEB2), ["web1"], 1)],
)
def test_the_exit_code_tells_whether_the_fleet_is_as_listed(
    settings: Settings, bus: Bus, fleet: list[Reply], listed: tuple[NodeName, ...], answers: list[str], code: int
) -> None:
    fleet += [web(name) for name in reversed(answers)]
    assert find_nodes(settings, bus, Selection(listed=listed)).exit_code == code


def test_nobody_there_is_a_failure_that_says_what_to_look_at(settings: Settings, bus: Bus, fleet: list[Reply]) -> None:
    found = find_nodes(settings, bus, Selection(everybody=True), timeout=0.3)
    assert found.exit_code == 1
    assert "node.queried" in found.notes[0]


def test_an_answer_that_is_not_believed_is_a_note_and_a_failure(
    settings: Settings, bus: Bus, fleet: list[Reply]
) -> None:
    fleet += [web("web1"), (web("web2"), STRANGER)]
    found = find_nodes(settings, bus, Selection(everybody=True))
    assert (found.exit_code, found.doubted) == (1, (WEB2,))
    assert "web2 was not believed" in found.notes[0]


def test_a_forged_answer_beside_the_true_one_is_a_note_alone(settings: Settings, bus: Bus, fleet: list[Reply]) -> None:
    fleet += [(web("web1"), STRANGER), web("web1")]
    found = find_nodes(settings, bus, Selection(everybody=True))
    assert (found.exit_code, found.doubted, len(found.notes)) == (0, (), 1)


# -- whom a command addresses ------------------------------------------------------------------------------------------


def test_names_are_taken_as_they_are_and_nobody_is_asked(settings: Settings) -> None:
    targets = resolve_targets(settings, None, Selection(identities=("web2", "web1")), site=SHOP)
    assert targets.nodes == (WEB2, WEB1)
    listed = resolve_targets(settings, None, Selection(listed=(WEB3, WEB1), exclude=("web1",)), site=SHOP)
    assert listed.nodes == (WEB3,)


def test_another_number_than_expected_is_refused(settings: Settings, bus: Bus, fleet: list[Reply]) -> None:
    with pytest.raises(UsageError, match="1 node matched, and --expect is 2"):
        resolve_targets(settings, None, Selection(identities=("web1",), expect=2), site=SHOP)
    fleet += [web("web1"), web("web2")]
    with pytest.raises(UsageError, match="2 nodes matched"):
        resolve_targets(settings, bus, Selection(classes=("web",), expect=3), site=SHOP)
    assert resolve_targets(settings, bus, Selection(classes=("web",), expect=2), site=SHOP).nodes == (WEB1, WEB2)


def test_what_the_addressed_nodes_ask_of_mandates_is_known_and_noted(
    settings: Settings, bus: Bus, fleet: list[Reply]
) -> None:
    fleet += [web("web1"), web("web2", signatures=2), web("web3", previous=None, require="person")]
    targets = resolve_targets(settings, bus, Selection(everybody=True), site=SHOP, want_previous=True)
    assert targets.nodes == (WEB1, WEB2)
    assert targets.asks == Requirement(signatures=2), "web3 is left alone, and counts for nothing"
    assert "site shop asks that a rollout is signed by 2 different people: so say web2" in targets.notes
    fleet[1] = web("web2")
    targets = resolve_targets(settings, bus, Selection(everybody=True), site=SHOP, want_previous=True)
    assert (targets.asks, targets.notes) == (None, ())


def test_who_matches_nothing_addresses_nobody(settings: Settings, bus: Bus, fleet: list[Reply]) -> None:
    fleet += [web("web1"), (web("web2"), None)]
    with pytest.raises(NobodyMatches, match=r"1 answered, 1 answered in a way that is not believed.*nobody was addr"):
        resolve_targets(settings, bus, Selection(facts=("nosuch!=x",)), site=SHOP)
    with pytest.raises(NobodyMatches, match="no node is left"):
        resolve_targets(settings, None, Selection(listed=(WEB1,), exclude=("web1",)), site=SHOP)


def test_a_listed_node_that_is_silent_cannot_match_and_is_named(
    settings: Settings, bus: Bus, fleet: list[Reply]
) -> None:
    fleet += [web("web1"), web("web3")]
    targets = resolve_targets(settings, bus, Selection(listed=(WEB1, WEB2), classes=("web",)), site=SHOP)
    assert (targets.nodes, targets.silent, targets.unexpected) == ((WEB1,), (WEB2,), (WEB3,))


def test_nodes_without_the_site_are_left_out_unless_they_were_named(
    settings: Settings, bus: Bus, fleet: list[Reply]
) -> None:
    fleet += [described("db1", classes=("web",)), web("web1")]
    found = resolve_targets(settings, bus, Selection(classes=("web",)), site=SHOP)
    assert (found.nodes, found.without_site) == ((WEB1,), (DB1,))
    assert "db1" in found.notes[0]
    named = resolve_targets(settings, bus, Selection(classes=("web",), listed=(DB1, WEB1)), site=SHOP)
    assert set(named.nodes) == {DB1, WEB1}


def test_a_rollback_knows_what_each_node_goes_back_to_and_names_those_that_cannot(
    settings: Settings, bus: Bus, fleet: list[Reply]
) -> None:
    bare = SiteRelease(release="r0", commit=ObjectId("3" * 40))
    fleet += [
        web("web1"),
        web("web2", previous=None),
        web("web3", previous=bare),
        web("web4", live=None, previous=None),
        web("web5", problem="unreadable"),
        described("db1"),
    ]
    names = ("web1", "web2", "web3", "web4", "web5", "db1")
    targets = resolve_targets(settings, bus, Selection(identities=names), site=SHOP, want_previous=True)
    assert targets.nodes == (WEB1,)
    assert targets.previous == {WEB1: V1}
    assert {node: why.split(" ")[0] for node, why in targets.without_previous.items()} == {
        "web2": "no",
        "web3": "release",
        "web4": "nothing",
        "web5": "unreadable",
        "db1": "it",
    }


# -- the fleet's status and history ------------------------------------------------------------------------------------


def test_the_status_compares_with_the_newest_live_release(settings: Settings, bus: Bus, fleet: list[Reply]) -> None:
    fleet += [web("web1"), web("web2", live=V1, previous=None), web("web3", modified=2)]
    status = fleet_status(settings, bus, Selection(everybody=True))
    (shop,) = status.sites
    assert [each.drift for each in shop.nodes] == ["current", "outdated", "modified"]
    assert shop.wanted is not None
    assert shop.wanted.reason == "the newest that is live, on 2 of 3 nodes"
    assert status.exit_code == 1


def test_a_comparison_that_takes_nodes_long_loses_none_of_them(
    settings: Settings, bus: Bus, deploykit_broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Silence of half a second would end the wait between two nodes, were they not known from another question."""
    held_back = iter((60.0, 0.0))  # silence is to end the second question alone, if anything does
    monkeypatch.setattr(
        discovery,
        "DiscoveryWindow",
        lambda **values: DiscoveryWindow(**values | {"held_back": next(held_back)}),
    )

    def compared(question: NodeQueried) -> Iterator[Reply]:
        yield web("web1")
        if "drift" in question.details:
            assert not threading.Event().wait(1.0)
            yield web("web2", modified=1)
        else:
            yield web("web2")

    with Responders(deploykit_broker.address, compared) as nodes:
        status = fleet_status(settings, bus, Selection(everybody=True))
        assert [each.drift for each in status.sites[0].nodes] == ["current", "modified"]
        assert [question.audience for question in nodes.asked] == [None, (WEB1, WEB2)]


def test_a_node_that_answers_the_first_question_alone_is_silent(
    settings: Settings, bus: Bus, deploykit_broker: EmbeddedBroker
) -> None:
    def replies(question: NodeQueried) -> list[Reply]:
        return [web("web1")] if "drift" in question.details else [web("web1"), web("web2")]

    with Responders(deploykit_broker.address, replies):
        status = fleet_status(settings, bus, Selection(everybody=True))
    assert {each.node: each.drift for each in status.sites[0].nodes} == {WEB1: "current", WEB2: "silent"}
    assert status.exit_code == 1


def test_all_current_is_a_success_and_a_silent_node_is_none(settings: Settings, bus: Bus, fleet: list[Reply]) -> None:
    fleet += [web("web1"), web("web2")]
    assert fleet_status(settings, bus, Selection(everybody=True)).exit_code == 0
    listed = fleet_status(settings, bus, Selection(listed=(WEB1, WEB3)), site=SHOP)
    assert {each.node: each.drift for each in listed.sites[0].nodes} == {
        WEB1: "current",
        WEB2: "unexpected",
        WEB3: "silent",
    }
    assert listed.exit_code == 1


def test_a_ref_that_is_asked_for_is_looked_up_at_the_origin_that_the_settings_name(
    tmp_path: Path, deploykit_broker: EmbeddedBroker, fleet: list[Reply]
) -> None:
    origin = Origin(tmp_path / "git")
    commit = origin.push(tag="v7")
    more = f'[repositories.shop]\nurl = "{origin.path}"\n[sites.shop]\npath = "/srv/shop"\nrepo = "shop"\n'
    settings = load_settings(asker_settings(tmp_path, deploykit_broker.address, more=more))
    live = SiteRelease(release="r7", ref=RefName("refs/tags/v7"), commit=commit)
    fleet += [web("web1", live=live), web("web2")]
    with Bus(settings.broker) as bus:
        assert bus.wait_connected(60)
        status = fleet_status(settings, bus, Selection(everybody=True), ref="v7")
        with pytest.raises(RefNotFound, match="v9"):
            fleet_status(settings, bus, Selection(everybody=True), ref="v9")
    (shop,) = status.sites
    assert [each.drift for each in shop.nodes] == ["current", "other"]
    assert shop.wanted is not None
    assert "origin" in shop.wanted.reason


def test_a_ref_that_no_node_knows_or_that_fits_several_sites_is_refused(
    settings: Settings, bus: Bus, fleet: list[Reply]
) -> None:
    fleet += [web("web1")]
    with pytest.raises(UsageError, match="no node holds v9"):
        fleet_status(settings, bus, Selection(everybody=True), ref="v9")
    fleet += [described("web2", sites=(SiteState(site=SiteName("blog"), repo=REPO),))]
    with pytest.raises(UsageError, match="which site should be at v2"):
        fleet_status(settings, bus, Selection(everybody=True), ref="v2")
    with pytest.raises(NobodyMatches, match="no node has site wiki"):
        fleet_status(settings, bus, Selection(everybody=True), site=SiteName("wiki"))


def test_the_history_of_a_site_is_read_from_each_nodes_journal(
    settings: Settings, bus: Bus, fleet: list[Reply]
) -> None:
    def did(number: int, hour: int) -> SiteOperation:
        return SiteOperation(number=number, phase="deploy", outcome="success", started=START + timedelta(hours=hour))

    fleet += [
        web("web1", history=(did(2, 3), did(1, 1))),
        web("web2", history=(did(1, 2),)),
        web("web3", problem="unreadable"),
        described("db1"),
    ]
    past = site_history(settings, bus, Selection(everybody=True), SHOP)
    assert [(each.node, each.operation.number) for each in past.entries] == [(WEB1, 2), (WEB2, 1), (WEB1, 1)]
    assert past.nodes == (WEB1, WEB2, WEB3)
    assert past.unreadable == ((WEB3, "unreadable"),)
    assert past.exit_code == 1
    with pytest.raises(NobodyMatches, match="no node has site wiki"):
        site_history(settings, bus, Selection(everybody=True), SiteName("wiki"))
