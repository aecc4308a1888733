"""What a deploy of a site of several repositories puts live: named refs, and of the others what all nodes have."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from deploykit.cli.fleetparts import asked_for, asks_what_is_live, check_repeats, ref_options
from deploykit.errors import UsageError
from deploykit.fleet.plan import Target, make_plan
from deploykit.messages import SitePart, SiteState
from deploykit.messages.site import id_of
from deploykit.names import NodeName, ObjectId, RefName, RepoName, SiteName
from deploykit.operations.siteparts import names_all, parts_kept, sources_of, target_asked
from deploykit.settings import NodeSiteSettings, RepositorySettings, Settings

APP, THEME = RepoName("app"), RepoName("theme")
SHOP = SiteName("shop")
IDS = {"v1": ObjectId("1" * 40), "v2": ObjectId("2" * 40)}


def settings(site: NodeSiteSettings | None = None) -> Settings:
    repositories = {repo: RepositorySettings(url=f"https://git.example.org/{repo}.git") for repo in (APP, THEME)}
    return Settings(node=NodeName("desk"), repositories=repositories, sites={SHOP: site} if site is not None else {})


OF_PARTS = settings(NodeSiteSettings(path=Path("/srv/shop"), parts={APP: "app", THEME: "web/theme"}))
OF_ONE = settings(NodeSiteSettings(path=Path("/srv/shop"), repo=APP))


def part(repo: RepoName, tag: str) -> SitePart:
    return SitePart(repo=repo, ref=RefName(f"refs/tags/{tag}"), commit=IDS[tag])


def live(**tags: str) -> SiteState:
    parts = tuple(part(RepoName(repo), tag) for repo, tag in sorted(tags.items()))
    return SiteState(
        site=SHOP, repo=APP, repos=(APP, THEME), release="r", commit=id_of(parts) if parts else None, parts=parts
    )


def nodes(**states: SiteState) -> Mapping[NodeName, SiteState]:
    return {NodeName(name): state for name, state in states.items()}


BOTH = live(app="v1", theme="v1")


def test_what_is_not_named_stays_as_all_nodes_have_it_live() -> None:
    target = target_asked(
        settings(), "shop", {APP: "refs/tags/v2"}, commit={APP: IDS["v2"]}, live=nodes(web1=BOTH, web2=BOTH)
    )
    assert target == Target(parts=(part(APP, "v2"), part(THEME, "v1")))
    assert sources_of(settings(), "shop", target) == ((APP, IDS["v2"]), (THEME, IDS["v1"]))


def test_no_node_is_asked_where_all_repositories_are_named() -> None:
    refs = {THEME: "refs/tags/v1", APP: "refs/tags/v2"}
    assert names_all(OF_PARTS, "shop", refs)
    assert not names_all(OF_PARTS, "shop", {APP: "v2"})
    assert not names_all(settings(), "shop", refs), "who does not know the site does not know whether these are all"
    target = target_asked(OF_PARTS, "shop", refs, commit={APP: IDS["v2"], THEME: IDS["v1"]})
    assert target.parts == (part(APP, "v2"), part(THEME, "v1"))


@pytest.mark.parametrize(
    ("states", "says"),
    [
        (
            nodes(web1=BOTH, web2=live(app="v1", theme="v2")),
            "theme is v1 111111111111 on web1; v2 222222222222 on web2",
        ),
        (nodes(web1=BOTH, web2=live(app="v1")), "theme is v1 111111111111 on web1; not live on web2"),
        (nodes(web1=live()), "theme is not live on web1"),
        (nodes(), "no node says what is live"),
        (
            nodes(web1=BOTH, web2=SiteState(site=SHOP, repo=APP)),
            "of different repositories: app, theme on web1; app on web2",
        ),
        (nodes(web1=SiteState(site=SHOP, repo=THEME)), "made of theme on the nodes, and not of app"),
    ],
)
def test_nobody_guesses_what_a_repository_that_is_not_named_should_be(
    states: Mapping[NodeName, SiteState], says: str
) -> None:
    with pytest.raises(UsageError) as refused:
        parts_kept("shop", {APP}, states)
    assert says in refused.value.problem


def test_the_way_out_names_each_repository_that_has_to_be_named() -> None:
    with pytest.raises(UsageError) as refused:
        parts_kept("shop", {APP}, nodes(web1=BOTH, web2=live(app="v1", theme="v2")), option="to")
    assert refused.value.remedy == "name what it should be: --to theme=REF"


def test_nodes_may_differ_in_what_is_named() -> None:
    both = nodes(web1=BOTH, web2=live(app="v2", theme="v1"))
    assert parts_kept("shop", {APP}, both) == (part(THEME, "v1"),)


def test_a_field_that_a_newer_node_says_of_a_part_is_not_sent_on() -> None:
    newer = SitePart(repo=THEME, ref=RefName("refs/tags/v1"), commit=IDS["v1"], extra={"signed_by": "ann"})
    state = SiteState(site=SHOP, repo=APP, repos=(APP, THEME), commit=id_of((newer,)), parts=(newer,))
    (kept,) = parts_kept("shop", {APP}, nodes(web1=state))
    assert not kept.extra
    assert Target.of(state) == Target(parts=(part(THEME, "v1"),))
    assert not Target.of(state).parts[0].extra  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("known", "refs", "commits", "repo", "says"),
    [
        (OF_PARTS, ["v2"], [], None, "--ref v2: the site is made of app, theme (say of which: --ref app=v2)"),
        (OF_PARTS, ["app="], [], None, "say of which: --ref app=TAG"),
        (OF_PARTS, ["app=v1", "app=v2"], [], None, "--ref app=… is given twice"),
        (OF_PARTS, ["apq=v1"], [], None, "--ref apq=v1: the site is made of app, theme"),
        (OF_PARTS, ["app=v1"], [], "app", "leave --repo out: --ref app=REF"),
        (OF_PARTS, ["app=v1"], ["11"], None, "--commit 11: the site is made of several repositories"),
        (OF_ONE, ["app=v1", "theme=v1"], [], None, "made of one repository"),
        (OF_ONE, ["v1"], ["1", "2"], None, "at most one --commit"),
        (settings(), ["v1", "v2"], [], None, "--ref v1: the site is made of several repositories"),
        (settings(), ["app=v1", "v2"], [], None, "--ref v2: the site is made of several repositories"),
    ],
)
def test_what_cannot_be_meant_is_said(
    known: Settings, refs: list[str], commits: list[str], repo: str | None, says: str
) -> None:
    with pytest.raises(UsageError) as refused:
        asked_for(known, "shop", refs, commits, repo)
    assert says in str(refused.value)


def test_a_tag_with_an_equals_sign_is_a_tag_of_a_site_of_one_repository() -> None:
    assert asked_for(OF_ONE, "shop", ["app=v1"], [], None) == ("app=v1", None)
    assert asked_for(settings(), "shop", ["release=v1"], [], None) == ("release=v1", None)
    assert asked_for(settings(), "shop", ["app=v1"], ["app=11"], None) == ({APP: "v1"}, {APP: "11"})


def test_a_commit_goes_with_a_ref() -> None:
    with pytest.raises(UsageError, match=r"--commit theme=… without --ref theme=…"):
        target_asked(OF_PARTS, "shop", {APP: "v1"}, commit={THEME: "1"})


def test_nodes_are_asked_where_a_repository_is_not_named() -> None:
    assert asks_what_is_live(OF_PARTS, "shop", {APP: "v1"})
    assert not asks_what_is_live(OF_PARTS, "shop", {APP: "v1", THEME: "v1"})
    assert not asks_what_is_live(OF_PARTS, "shop", "v1")


def test_a_retry_names_what_the_rollout_was_of() -> None:
    target = Target(parts=(part(APP, "v2"), part(THEME, "v1")))
    plan = make_plan(site=SHOP, nodes=[NodeName("web1")], target=target)
    assert ref_options(target) == "--ref app=v2 --ref theme=v1"
    check_repeats(plan, [], [])
    check_repeats(plan, ["app=v2", "theme=refs/tags/v1"], [f"app={IDS['v2']}"])
    for refs, commits in ((["app=v1"], []), (["v2"], []), ([], [IDS["v2"]]), ([], [f"app={IDS['v1']}"])):
        with pytest.raises(UsageError, match=r"is of v2\+v1, not|is of commit app="):
            check_repeats(plan, refs, commits)
