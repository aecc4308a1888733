"""Rollouts of a site of several repositories: parts in plans, journals, commands, mandates and drift."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import attrs
import pytest

from deploykit.errors import JournalDamaged, MessageError
from deploykit.fleet.announcement import announcement
from deploykit.fleet.commandbook import CommandBook
from deploykit.fleet.commands import CommandMaker
from deploykit.fleet.drift import FleetReleases
from deploykit.fleet.journalformat import decode_event, decode_plan, encode_event, encode_plan
from deploykit.fleet.mandates import approval_of, objections
from deploykit.fleet.plan import Plan, Target, make_plan
from deploykit.fleet.reports import answer_of
from deploykit.fleet.rollout import NodeAnswered, start
from deploykit.fleet.rolloutevents import Ask
from deploykit.fleet.rolloutmodel import outstanding_asks
from deploykit.messages import DeployReported, HeldRef, NodeDescribed, SiteOperation, SitePart, SiteRelease, SiteState
from deploykit.messages.site import id_of
from deploykit.names import NodeName, ObjectId, RefName, RepoName, SiteName
from tests.support.keys import fixed_key

NOW = datetime(2026, 12, 1, tzinfo=UTC)
SHOP, APP, THEME = SiteName("shop"), RepoName("app"), RepoName("theme")
WEB = (NodeName("web1"), NodeName("web2"), NodeName("web3"))
COMMITS = {tag: ObjectId(f"{number:040x}") for number, tag in enumerate(("v1", "v2", "v3"), 1)}


def parts(app: str, theme: str) -> tuple[SitePart, ...]:
    return tuple(
        SitePart(repo=repo, ref=RefName(f"refs/tags/{tag}"), commit=COMMITS[tag])
        for repo, tag in ((APP, app), (THEME, theme))
    )


OLD, NEW = Target(parts=parts("v1", "v1")), Target(parts=parts("v2", "v1"))
PLAN = make_plan(site=SHOP, nodes=WEB, target=NEW, rollout="shop-1")
MAKER = CommandMaker(
    rollout="shop-1", site=SHOP, requested_by="ann", correlation_id="c", key=fixed_key(5), expires_in=timedelta(hours=1)
)


def test_a_target_is_of_one_repository_or_of_parts_that_fit_its_id() -> None:
    assert (NEW.ref, NEW.commit, NEW.name) == (None, id_of(NEW.parts), "v2+v1")
    with pytest.raises(MessageError):
        Target(commit=COMMITS["v1"])
    with pytest.raises(MessageError):
        Target(parts=NEW.parts, commit=COMMITS["v1"])
    with pytest.raises(MessageError):
        Target(ref=RefName("refs/tags/v1"), parts=NEW.parts)
    assert Target.of(SiteRelease(release="r", commit=COMMITS["v1"])) is None
    assert Target.of(SiteRelease(release="r", commit=NEW.commit, parts=NEW.parts)) == NEW


def test_the_journal_keeps_the_parts() -> None:
    kept = json.loads(json.dumps(encode_plan(PLAN)))
    assert decode_plan(kept) == PLAN
    answer = NodeAnswered(node=WEB[0], phase="prepare", outcome="success", previous=OLD, live=NEW)
    assert decode_event(json.loads(json.dumps(encode_event(answer)))) == answer
    assert "parts" not in json.dumps(encode_plan(make_plan(site=SHOP, nodes=WEB, target=_one())))


def _one() -> Target:
    return Target(ref=RefName("refs/tags/v1"), commit=COMMITS["v1"])


@pytest.mark.parametrize(
    "changes",
    [
        {"commit": COMMITS["v3"]},
        {"parts": []},
        {"parts": [{"repo": "app", "ref": "refs/tags/v1"}]},
        {"parts": [{"repo": "../app", "ref": "refs/tags/v1", "commit": COMMITS["v1"]}]},
        {"parts": "app"},
    ],
)
def test_a_journal_whose_parts_do_not_fit_is_damaged(changes: dict[str, object]) -> None:
    kept = json.loads(json.dumps(encode_plan(PLAN)))
    kept["targets"][0] |= changes
    with pytest.raises(JournalDamaged):
        decode_plan(kept)


def test_commands_carry_the_parts_and_are_found_again_by_them() -> None:
    (command,) = MAKER.deploys("prepare", NEW, PLAN.nodes, NOW)
    assert command.request.parts == NEW.parts
    book = CommandBook()
    book.add(command)
    asked = Ask(phase="prepare", target=NEW, nodes=PLAN.nodes)
    assert book.usable(WEB[0], asked, NOW) is command
    assert book.usable(WEB[0], attrs.evolve(asked, target=OLD), NOW) is None
    model, actions = start(PLAN, NOW.timestamp())
    assert [ask.target for ask in actions if isinstance(ask, Ask)] == [NEW]
    assert [ask.target for ask in outstanding_asks(PLAN, model)] == [NEW]


def test_a_report_says_which_parts_were_live_before_and_are_now() -> None:
    report = DeployReported(
        node=WEB[0], site=SHOP, request="d-1", phase="deploy", outcome="success", live_known=True, release="2",
        commit=NEW.commit, parts=NEW.parts, previous=SiteRelease(release="1", commit=OLD.commit, parts=OLD.parts),
    )  # fmt: skip
    answer = answer_of(report)
    assert (answer.previous, answer.live) == (OLD, NEW)


def test_announcements_and_mandates_name_the_parts_and_a_plan_with_others_is_outside() -> None:
    model, _ = start(PLAN, NOW.timestamp())
    announced = announcement(PLAN, model, NOW)
    assert (announced.ref, announced.commit, announced.parts) == (None, NEW.commit, NEW.parts)
    mandate = approval_of(PLAN, now=NOW, not_before=NOW, not_after=NOW + timedelta(hours=1), source="desk")
    assert (mandate.ref, mandate.commit, mandate.parts) == (None, NEW.commit, NEW.parts)
    assert objections(mandate, PLAN) == ()
    other = make_plan(site=SHOP, nodes=WEB, target=OLD, rollout="shop-1")
    assert objections(mandate, other) == (f"it lets v2+v1 {NEW.commit[:12]} go live, not v1+v1 {OLD.commit[:12]}",)


def test_nodes_that_go_back_to_different_parts_get_a_command_each() -> None:
    third = Target(parts=parts("v1", "v2"))
    targets = dict(zip(WEB, (OLD, OLD, third), strict=True))
    plan: Plan = make_plan(site=SHOP, nodes=WEB, target=targets, kind="rollback")
    assert plan.releases == (OLD, third)
    model, _ = start(plan, NOW.timestamp())
    assert announcement(plan, model, NOW).parts == ()


# -- how nodes stand ---------------------------------------------------------------------------------------------------


def node(name: str, app: str, theme: str, **changes: object) -> NodeDescribed:
    version = parts(app, theme)
    state = SiteState(
        site=SHOP,
        repo=APP,
        repos=(APP, THEME),
        release="r",
        commit=id_of(version),
        parts=version,
        **changes,  # type: ignore[arg-type]
    )
    refs = tuple(
        HeldRef(repo=repo, ref=RefName(f"refs/tags/{tag}"), commit=commit, time=NOW + timedelta(hours=int(tag[1])))
        for repo in (APP, THEME)
        for tag, commit in COMMITS.items()
    )
    return NodeDescribed(node=NodeName(name), sites=(state,), refs=refs)


def compared(*nodes: NodeDescribed) -> tuple[str, dict[str, tuple[str, str]]]:
    fleet = FleetReleases(nodes)
    wanted = fleet.newest_live(SHOP)
    drift = fleet.drift(SHOP, wanted)
    assert wanted is not None
    return str(wanted).split()[0], {each.node: (each.drift, each.detail) for each in drift.nodes}


def test_a_node_is_outdated_where_no_part_is_newer_and_one_is_older() -> None:
    wanted, found = compared(node("web1", "v2", "v2"), node("web2", "v1", "v2"), node("web3", "v1", "v1"))
    assert wanted == "v2+v2"
    assert found == {
        "web1": ("current", ""),
        "web2": ("outdated", "app v1 000000000000"),
        "web3": ("outdated", "app v1 000000000000, theme v1 000000000000"),
    }


def test_what_is_newer_in_one_part_and_older_in_another_is_neither() -> None:
    wanted, found = compared(node("web1", "v3", "v1"), node("web2", "v2", "v2"))
    assert wanted == "v3+v1", "the newest commit decides"
    assert found["web2"] == ("other", "app v2 000000000000, theme v2 000000000000")


def test_of_versions_with_the_same_newest_commit_the_one_whose_others_are_newer_is_current() -> None:
    wanted, found = compared(node("web1", "v3", "v1"), node("web2", "v3", "v2"), node("web3", "v3", "v1"))
    assert wanted == "v3+v2"
    assert found["web1"] == ("outdated", "theme v1 000000000000")


def test_the_same_commits_under_other_refs_are_current() -> None:
    same = tuple(attrs.evolve(part, ref=RefName("refs/heads/main")) for part in parts("v2", "v2"))
    other = node("web3", "v2", "v2")
    state = attrs.evolve(other.sites[0], parts=same, commit=id_of(same))
    _, found = compared(node("web1", "v2", "v2"), node("web2", "v2", "v2"), attrs.evolve(other, sites=(state,)))
    assert sorted(found.values()) == [("current", ""), ("current", ""), ("current", "as main+main")]


def test_a_node_that_makes_the_site_of_other_repositories_is_another() -> None:
    alone = SiteState(site=SHOP, repo=APP, release="r", ref=RefName("refs/tags/v1"), commit=COMMITS["v1"])
    _, found = compared(node("web1", "v2", "v2"), NodeDescribed(node=NodeName("web2"), sites=(alone,)))
    assert found["web2"] == ("other", "of other repositories")


def test_what_failed_last_names_its_parts_and_the_nodes_with_parts_have_no_single_ref() -> None:
    version = parts("v3", "v1")
    what = {"release": "r3", "commit": id_of(version), "parts": version}
    last = SiteOperation(number=2, phase="deploy", outcome="failure", **what)  # type: ignore[arg-type]
    nodes = node("web1", "v2", "v2", last=last), node("web2", "v2", "v2")
    _, found = compared(*nodes)
    assert found["web1"] == ("failed", f"deploy v3+v1 {id_of(version)[:12]} failure")
    fleet = FleetReleases(nodes)
    assert fleet.named_ref(SHOP, "v2") is None
    assert fleet.repositories(SHOP) == (APP, THEME)
