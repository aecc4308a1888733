"""What a plan shows, and what it refuses before anything is sent."""

from __future__ import annotations

import shlex
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest

from deploykit.daemons.agent.mirrors import mirror_path
from deploykit.errors import ActionRefused
from deploykit.fleet.selection import Selection
from deploykit.messages import SiteOperation, SitePart
from deploykit.messages.site import id_of
from deploykit.names import RefName, RepoName
from deploykit.operations.nodes import FoundNodes
from deploykit.settings import NodeSiteSettings
from deploykit.web.actions import choosing
from deploykit.web.actions.asked import DeployAsked, NodesAsked, OptionsAsked, RollbackAsked
from deploykit.web.actions.rollouts import ConsoleRollouts
from deploykit.web.projection.activityviews import RefView
from deploykit.web.projection.rolloutviews import RolloutOverview
from deploykit.web.projection.views import SiteSummary
from tests.support.actionworld import ADMIN, LIVE, LOOK, NOBODY, SHOP, STAGE, V1, ActionWorld
from tests.support.node import git

V2 = RefName("refs/tags/v2")


def refused(world: ActionWorld, asked: DeployAsked | RollbackAsked, viewer: object = LIVE) -> ActionRefused:
    """Return why a plan is refused."""
    with pytest.raises(ActionRefused) as caught:
        world.rollouts.plan(viewer, asked)  # type: ignore[arg-type]  # a viewer
    return caught.value


@pytest.fixture
def world(tmp_path: Path) -> ActionWorld:
    return ActionWorld(tmp_path)


def test_a_plan_shows_what_each_node_has_and_gets(world: ActionWorld) -> None:
    plan = world.rollouts.plan(LIVE, world.deploy())
    assert (plan.kind, plan.ref, plan.commit, plan.needs) == ("deploy", V2, world.v2, 0)
    assert [(n.node, n.stage, n.live_commit, n.to_commit, n.holds) for n in plan.nodes] == [
        ("web1", 0, world.v1, world.v2, True),
        ("web2", 1, world.v1, world.v2, True),
        ("web3", 2, world.v1, world.v2, True),
    ]
    assert not plan.warnings
    assert world.desk.kept == {}


def test_nothing_chosen_is_nobody(world: ActionWorld) -> None:
    error = refused(world, world.deploy(chosen=NodesAsked()))
    assert (error.status, list(error.problems)) == (422, ["nodes"])
    assert not world.questions, "nobody was asked"


def test_a_selector_that_matches_nobody_addresses_nobody(world: ActionWorld) -> None:
    error = refused(world, world.deploy(chosen=NodesAsked(select="env=stage")))
    assert (error.status, list(error.problems)) == (422, ["nodes"])
    assert "3 answered" in str(error)


@pytest.mark.parametrize("select", ["env=live and", "(env=live", "env AND x"])
def test_what_is_no_selector_names_its_field(world: ActionWorld, select: str) -> None:
    error = refused(world, world.deploy(chosen=NodesAsked(select=select)))
    assert (error.status, list(error.problems)) == (422, ["select"])


def test_all_and_some_contradict_each_other(world: ActionWorld) -> None:
    error = refused(world, world.deploy(chosen=NodesAsked(everybody=True, nodes=("web1",))))
    assert (error.status, list(error.problems)) == (422, ["everybody"])


def test_an_unknown_node_is_named_with_the_one_that_was_meant(world: ActionWorld) -> None:
    error = refused(world, world.deploy(chosen=NodesAsked(nodes=("web1", "wbe2"))))
    assert (error.status, list(error.problems)) == (422, ["nodes"])
    assert "there is no node wbe2" in str(error)
    assert "did you mean web2?" in str(error)
    error = refused(world, world.deploy(chosen=NodesAsked(nodes=("web-2",))))
    assert "did you mean web2?" in str(error)


def test_a_known_node_that_is_silent_is_left_out_and_named(world: ActionWorld) -> None:
    world.silent = {"web2"}
    plan = world.rollouts.plan(LIVE, world.deploy(chosen=NodesAsked(nodes=("web1", "web2"))))
    assert [node.node for node in plan.nodes] == ["web1"]
    assert [(each.node, "did not answer" in each.why) for each in plan.left_out] == [("web2", True)]
    assert "left out: web2" in plan.warnings


def test_a_node_beyond_those_that_were_shown_is_left_out(world: ActionWorld) -> None:
    plan = world.rollouts.plan(LIVE, world.deploy(chosen=NodesAsked(everybody=True, exactly=("web1", "web3"))))
    assert [node.node for node in plan.nodes] == ["web1", "web3"]
    assert [each.node for each in plan.left_out] == ["web2"]


def test_a_misspelt_site_is_not_found_and_the_right_one_is_named(world: ActionWorld) -> None:
    for asked in (
        attrs.evolve(world.deploy(), site="shpo"),
        attrs.evolve(world.deploy(), site="shpo", chosen=NodesAsked(nodes=("web1",))),
    ):
        error = refused(world, asked)
        assert (error.status, error.remedy) == (404, "did you mean shop?")
    assert refused(world, attrs.evolve(world.deploy(), site="../x")).status == 404


def test_who_may_not_look_does_not_learn_that_the_site_exists(world: ActionWorld) -> None:
    seen = refused(world, world.deploy(), NOBODY)
    assert (seen.status, "there is no site" in str(seen)) == (404, True)
    assert refused(world, world.deploy(), LOOK).status == 403
    assert not world.questions


def test_an_unknown_ref_and_one_that_moved_are_refused(world: ActionWorld) -> None:
    error = refused(world, world.deploy("v9"))
    assert (error.status, list(error.problems)) == (422, ["ref"])
    error = refused(world, world.deploy("v2", commit=world.v1))
    assert (error.status, "has moved" in str(error)) == (409, True)
    assert world.v2[:12] in str(error)
    assert world.v1[:12] in str(error)
    assert refused(world, world.deploy("")).problems == {"ref": "which tag or branch?"}
    assert list(refused(world, world.deploy("v2", commit="abc")).problems) == ["commit"]
    assert list(refused(world, world.deploy("--upload-pack=x")).problems) == ["ref"]


def test_an_origin_that_is_away_lets_only_a_full_ref_with_its_commit_pass(tmp_path: Path) -> None:
    world = ActionWorld(tmp_path, own_origin=True)
    world.origin.path.rename(world.root / "away")
    assert refused(world, world.deploy("v2")).status == 503
    plan = world.rollouts.plan(LIVE, world.deploy(str(V2), commit=world.v2))
    assert "the origin could not be asked whether the ref still stands for this commit" in plan.warnings


def test_without_an_origin_what_nodes_hold_counts_and_that_is_said(tmp_path: Path) -> None:
    world = ActionWorld(tmp_path)
    world.ports = attrs.evolve(world.ports, settings=attrs.evolve(world.settings, repositories={}))
    world.rollouts = type(world.rollouts)(world.ports)
    plan = world.rollouts.plan(LIVE, world.deploy())
    assert plan.commit == world.v2
    assert any("does not know the origin of shop" in line for line in plan.warnings)
    assert list(refused(world, world.deploy("v9")).problems) == ["ref"]


def test_nodes_that_lack_the_ref_are_marked(world: ActionWorld) -> None:
    world.queries.ref_list = (RefView(repo="shop", ref=V2, commit=world.v2, holders=2, expected=3, missing=("web2",)),)
    plan = world.rollouts.plan(LIVE, world.deploy())
    assert [node.holds for node in plan.nodes] == [True, False, True]
    assert plan.nodes[1].warning == "it must fetch the ref first"
    world.queries.ref_list = ()
    plan = world.rollouts.plan(LIVE, world.deploy())
    assert {node.holds for node in plan.nodes} == {None}
    assert "no node is known to hold v2: each must fetch it first" in plan.warnings
    world.queries.ref_list = (RefView(repo="shop", ref=V2, commit=world.v1, holders=3, expected=3),)
    plan = world.rollouts.plan(LIVE, world.deploy())
    assert {node.holds for node in plan.nodes} == {False}


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (OptionsAsked(first="-1"), "first"),
        (OptionsAsked(batch=("0",)), "batch"),
        (OptionsAsked(batch=("1,x",)), "batch"),
        (OptionsAsked(max_failures="200%"), "max_failures"),
        (OptionsAsked(pause="soon"), "pause"),
        (OptionsAsked(timeout="0"), "timeout"),
        (OptionsAsked(timeout="nan"), "timeout"),
        (OptionsAsked(on_failure="pray"), "on_failure"),
        (OptionsAsked(order="size"), "order"),
        (OptionsAsked(quorum="0"), "quorum"),
        (OptionsAsked(first="1", first_nodes=("web1",)), "first"),
        (OptionsAsked(first_nodes=("web9",)), "first_nodes"),
        (OptionsAsked(first_nodes=("../x",)), "first_nodes"),
    ],
)
def test_a_wrong_option_names_its_field(world: ActionWorld, options: OptionsAsked, field: str) -> None:
    error = refused(world, world.deploy(options=options))
    assert (error.status, list(error.problems)) == (422, [field])


def test_options_decide_the_stages(world: ActionWorld) -> None:
    options = OptionsAsked(first_nodes=("web3",), batch=("2",), pause="ask", on_failure="rollback")
    plan = world.rollouts.plan(LIVE, world.deploy(options=options))
    assert [(node.node, node.stage) for node in plan.nodes] == [("web3", 0), ("web1", 1), ("web2", 1)]


def test_a_rollback_has_neither_a_quorum_nor_a_way_back(world: ActionWorld) -> None:
    asked = RollbackAsked(site="shop", chosen=NodesAsked(everybody=True))
    for options, field in ((OptionsAsked(quorum="1"), "quorum"), (OptionsAsked(on_failure="rollback"), "on_failure")):
        assert list(refused(world, attrs.evolve(asked, options=options)).problems) == [field]


def test_a_way_back_says_per_node_to_what_and_why(world: ActionWorld) -> None:
    since = datetime(2026, 11, 30, 14, 3, tzinfo=UTC)
    done = SiteOperation(
        number=3,
        phase="activate",
        outcome="success",
        release="v1-0",
        ref=V1,
        commit=world.v1,
        requested_by="bob",
        finished=since - timedelta(days=1),
    )
    world.nodes["web1"] = world.node(
        "web1", live=V2, commit=world.v2, previous=world.back(V1, world.v1), history=(done,)
    )
    plan = world.rollouts.plan(LIVE, RollbackAsked(site="shop", chosen=NodesAsked(everybody=True)))
    assert [(node.node, node.to_ref, node.to_commit) for node in plan.nodes] == [("web1", V1, world.v1)]
    assert plan.nodes[0].why == (
        "its previous release, live from 2026-11-29 14:03 UTC until 2026-11-01 00:00 UTC, put there by bob"
    )
    assert {each.node: each.why for each in plan.left_out} == {
        "web2": "no release was live there before the present one",
        "web3": "no release was live there before the present one",
    }
    assert world.questions[-1][1] == ("sites", "history")


def test_where_no_node_can_go_back_a_ref_is_asked_for(world: ActionWorld) -> None:
    error = refused(world, RollbackAsked(site="shop", chosen=NodesAsked(everybody=True)))
    assert (error.status, list(error.problems)) == (422, ["to"])
    plan = world.rollouts.plan(LIVE, RollbackAsked(site="shop", to="v1", chosen=NodesAsked(everybody=True)))
    assert (plan.kind, plan.ref) == ("rollback", V1)
    assert "every node has v1 already" in plan.warnings


def test_only_an_admin_overrides_a_lock_or_leaves_builds_out(world: ActionWorld) -> None:
    for asked in (world.deploy(override_lock="fire"), world.deploy(without_build=True)):
        assert refused(world, asked, LIVE).status == 403
        assert world.rollouts.plan(ADMIN, asked).nodes
    assert not [line for line in world.lines if line.who == "ada"]


def test_who_must_sign_is_decided_by_the_site_the_role_and_what_was_asked(tmp_path: Path) -> None:
    world = ActionWorld(tmp_path, site='signatures = 2\nrequire = "person"')
    plan = world.rollouts.plan(ADMIN, world.deploy())
    assert (plan.needs, plan.needs_person) == (2, True)
    assert any("the site asks for it" in note for note in plan.notes)


def test_a_role_for_which_the_console_does_not_sign_needs_a_person(world: ActionWorld) -> None:
    assert world.rollouts.plan(LIVE, world.deploy()).needs == 0
    assert world.rollouts.plan(STAGE, world.deploy()).needs == 1
    assert world.rollouts.plan(LIVE, world.deploy(approval=True)).needs == 1


def test_times_are_only_for_what_people_sign(world: ActionWorld) -> None:
    assert set(refused(world, world.deploy(not_before="2h", not_after="later")).problems) == {"not_after"}
    assert not world.questions, "what is no time is refused before anybody is asked"
    error = refused(world, world.deploy(not_before="2h", not_after="3h"))
    assert set(error.problems) == {"not_before", "not_after"}
    assert world.rollouts.plan(LIVE, world.deploy(not_before="2h", approval=True)).needs == 1


def test_the_digest_changes_with_whatever_decides(world: ActionWorld) -> None:
    def digest(**asked: Any) -> str:
        return world.rollouts.plan(ADMIN, world.deploy(**asked)).digest.partition("-")[2]

    first = digest()
    assert digest() == first, "the same plan has the same name"
    assert digest(options=OptionsAsked(order="random")) == digest(options=OptionsAsked(order="random"))
    others = {
        digest(options=OptionsAsked(batch=("1",))),
        digest(override_lock="fire"),
        digest(without_build=True),
        digest(approval=True),
        digest(chosen=NodesAsked(nodes=("web1",))),
        digest(ref="v1"),
        digest(options=OptionsAsked(order="random")),
    }
    world.nodes["web2"] = world.node("web2", live=V2, commit=world.v2)
    others.add(digest())
    assert len(others | {first}) == 9


def test_the_command_line_says_the_same_and_is_quoted(world: ActionWorld) -> None:
    asked = world.deploy(
        chosen=NodesAsked(nodes=("web*",)),
        reason="it's $(reboot)\n; rm",
        approval=True,
        options=OptionsAsked(batch=("1", "50%"), pause="ask"),
    )
    words = shlex.split(world.rollouts.plan(LIVE, asked).command)
    assert words == [
        *("deploykit", "deploy", "shop", "--ref", "v2", "--commit", world.v2),
        *("--node=web1", "--node=web2", "--node=web3", "--batch=1,50%", "--pause=ask"),
        *("--propose", "--reason=it's $(reboot) ; rm"),
    ]


def test_a_rollout_that_others_announced_and_never_ended_is_a_warning(world: ActionWorld) -> None:
    world.queries.rollout_list = (
        RolloutOverview(rollout="shop-7", site="shop", state="rolling", requested_by="ops", host="desk2", ref=V2),
        RolloutOverview(rollout="shop-6", site="shop", state="failed", requested_by="ops", host="desk2"),
    )
    plan = world.rollouts.plan(LIVE, world.deploy())
    assert [line for line in plan.warnings if "shop-7" in line]
    assert not [line for line in plan.warnings if "shop-6" in line]


def test_nodes_of_different_repositories_are_not_deployed_together(world: ActionWorld) -> None:
    state = attrs.evolve(world.nodes["web2"].sites[0], repo=RepoName("other"))
    world.nodes["web2"] = attrs.evolve(world.nodes["web2"], sites=(state,))
    error = refused(world, world.deploy())
    assert (error.status, "other, shop" in str(error)) == (409, True)


def test_a_site_that_no_node_of_the_console_knows_is_found_by_its_nodes(world: ActionWorld) -> None:
    world.queries.site_list = ()
    assert world.rollouts.plan(LIVE, world.deploy()).nodes
    world.queries.site_list = (SiteSummary(site="shop"),)
    assert world.rollouts.plan(LIVE, world.deploy()).site == SHOP


def test_five_thousand_nodes_are_planned_and_named_in_one_line(tmp_path: Path) -> None:
    world = ActionWorld(tmp_path, nodes=0)
    world.nodes = {f"n{at}": world.node(f"n{at}", live=V1, commit=world.v1) for at in range(5000)}
    plan = world.rollouts.plan(LIVE, world.deploy())
    assert (len(plan.nodes), plan.nodes[-1].stage) == (5000, 10)
    assert "--all" in plan.command
    assert "--expect=5000" in plan.command
    error = refused(world, world.deploy(chosen=NodesAsked(exactly=tuple(f"n{at}" for at in range(10_001)))))
    assert (error.status, list(error.problems)) == (422, ["nodes"])


def test_a_console_without_a_key_says_so(world: ActionWorld) -> None:
    world.ports = attrs.evolve(world.ports, settings=attrs.evolve(world.settings, signing_key=None))
    error = refused(attrs_world(world), world.deploy())
    assert (error.status, error.remedy) == (503, "set signing_key")


def attrs_world(world: ActionWorld) -> ActionWorld:
    """Return a world whose actions work with its ports as they are now."""
    world.rollouts = type(world.rollouts)(world.ports)
    return world


def test_a_mistyped_field_of_a_plan_is_no_decision_and_a_missing_right_is(world: ActionWorld) -> None:
    refused(world, world.deploy("v9"))
    assert world.lines == []
    refused(world, world.deploy(), LOOK)
    assert world.decisions() == [("plan", "refused")]
    assert (world.lines[0].who, world.lines[0].site) == ("lou", "shop")


def test_hostile_texts_of_nodes_stay_one_line(world: ActionWorld) -> None:
    evil = "x\n\x1b[31m<script>" + "y" * 5000
    state = attrs.evolve(world.nodes["web1"].sites[0], problem=evil, release=evil)
    world.nodes["web1"] = attrs.evolve(world.nodes["web1"], sites=(state,))
    plan = world.rollouts.plan(LIVE, world.deploy())
    first = plan.nodes[0]
    assert first.warning.isprintable()
    assert len(first.warning) < 1000
    assert first.live_release.isprintable()


def test_nodes_are_asked_for_few_people_at_once(world: ActionWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    let_go, inside = threading.Event(), threading.Semaphore(0)

    def slow(*_: object, **__: object) -> FoundNodes:
        inside.release()
        assert let_go.wait(30)
        return FoundNodes(nodes=())

    monkeypatch.setattr(choosing, "find_nodes", slow)
    monkeypatch.setattr(choosing, "WAITING", 0.01)
    ask = choosing.asking_nodes(world.settings, world.ports.bus, world.ports.signer, world.ports.trust)
    everybody = Selection(everybody=True)
    threads = [threading.Thread(target=ask, args=(everybody, ("sites",), None, 20)) for _ in range(choosing.AT_ONCE)]
    try:
        for thread in threads:
            thread.start()
        for _ in threads:
            assert inside.acquire(timeout=30)
        with pytest.raises(ActionRefused) as caught:
            ask(everybody, ("sites",), None, 20)
        assert caught.value.status == 503
    finally:
        let_go.set()
        for thread in threads:
            thread.join(30)
    assert ask(everybody, ("sites",), None, 20).nodes == ()


def mirrored(world: ActionWorld) -> None:
    """Give this machine a mirror of the origin."""
    path = mirror_path(world.settings, RepoName("shop"))
    path.parent.mkdir(parents=True)
    git("clone", "--quiet", "--mirror", str(world.origin.path), str(path), cwd=world.root)


def test_with_a_mirror_here_commits_files_and_scripts_are_shown(tmp_path: Path) -> None:
    world = ActionWorld(tmp_path, own_origin=True)
    files = {"deploy/pre-deploy.sh": "#!/bin/sh\necho <b>\n", "deploy/notes": "x", "deploy/post-deploy": "#!/bin/sh\n"}
    world.origin.push(tag="v3", files=files)
    (world.origin.work / "deploy/pre-deploy.sh").chmod(0o644)
    git("commit", "--quiet", "--all", "--message", "not executable", cwd=world.origin.work)
    world.origin.push(tag="v4", files={})
    mirrored(world)
    plan = world.rollouts.plan(LIVE, world.deploy("v4"))
    assert plan.comparison is not None
    assert (plan.comparison.relation, plan.comparison.ahead_count) == ("forward", 4)
    assert [(each.step, each.path, each.text) for each in plan.scripts] == [
        ("pre-deploy", "deploy/pre-deploy.sh (it is not executable)", "#!/bin/sh\necho <b>\n"),
        ("post-deploy", "deploy/post-deploy", "#!/bin/sh\n"),
    ]
    world.nodes["web2"] = world.node("web2", live=V2, commit=world.v2)
    plan = world.rollouts.plan(LIVE, world.deploy("v4"))
    assert plan.comparison is None
    assert "2 different releases are live: there is no one comparison" in plan.notes


def test_without_a_mirror_or_with_a_damaged_one_the_plan_stands(world: ActionWorld) -> None:
    plan = world.rollouts.plan(LIVE, world.deploy())
    assert (plan.comparison, plan.scripts) == (None, ())
    assert any("no preview of commits: the console's machine has no mirror" in note for note in plan.notes)
    mirrored(world)
    for file in (mirror_path(world.settings, RepoName("shop")) / "objects").rglob("*"):
        if file.is_file():
            file.chmod(0o600)
            file.write_bytes(b"damaged")
    plan = world.rollouts.plan(LIVE, world.deploy())
    assert (len(plan.nodes), plan.scripts) == (3, ())
    assert str(world.root) not in str(plan), "paths of this machine are for its log"


@pytest.mark.parametrize("known", [True, False])
def test_a_site_of_several_repositories_is_refused_with_the_command_to_run(tmp_path: Path, known: bool) -> None:
    """By the console's settings, or as its nodes say."""
    world = ActionWorld(tmp_path)
    parts = tuple(SitePart(repo=RepoName(repo), ref=V2, commit=world.v2) for repo in ("shop", "theme"))
    version: dict[str, Any] = {"repos": tuple(part.repo for part in parts), "ref": None}
    version |= {"parts": parts, "commit": id_of(parts)}
    if known:
        site = NodeSiteSettings(path=tmp_path / "site", parts={part.repo: part.repo for part in parts})
        world.ports = attrs.evolve(world.ports, settings=attrs.evolve(world.settings, sites={SHOP: site}))
        world.rollouts = ConsoleRollouts(world.ports)
    else:
        for name, node in world.nodes.items():
            world.nodes[name] = attrs.evolve(node, sites=(attrs.evolve(node.sites[0], **version),))
    error = refused(world, world.deploy())
    assert (error.status, error.remedy) == (
        409,
        "from a shell: deploykit deploy shop --ref shop=REF --ref theme=REF --all",
    )
    assert "site shop is made of several repositories (shop, theme)" in error.problem
    back = refused(world, RollbackAsked(site="shop", chosen=NodesAsked(everybody=True)))
    assert back.remedy == "from a shell: deploykit rollback shop --all"
    assert world.desk.kept == {}
