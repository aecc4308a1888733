"""State files say what was, the disk says what is: whatever is chosen to go live is looked at before, and after."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from deploykit.git.repository import Repository
from deploykit.release import Allowances
from deploykit.release.model import DeployResult
from deploykit.release.ondisk import damage
from deploykit.settings import SiteSettings
from tests.support.cli import run
from tests.support.gitrepo import contents
from tests.support.releasing import Files, Shop, script


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """A site with v1, v2 and v3, which is live."""
    shop = Shop(tmp_path)
    for n in (1, 2, 3):
        shop.put({"a": b"%d" % n, "d/b": b"same"}).check()
    return shop


def directory(shop: Shop, seq: int) -> Path:
    (found,) = (shop.path / "releases").glob(f"{seq:05d}-*")
    return found


def gone(shop: Shop, seq: int) -> None:
    shutil.rmtree(directory(shop, seq))


def emptied(shop: Shop, seq: int) -> None:
    for path in directory(shop, seq).iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def without_a_file(shop: Shop, seq: int) -> None:
    (directory(shop, seq) / "d/b").unlink()


def changed(shop: Shop, seq: int) -> None:
    (directory(shop, seq) / "d/b").write_bytes(b"hand")


harms = pytest.mark.parametrize("harm", [gone, emptied, without_a_file, changed])
Harm = Callable[[Shop, int], None]


def rollback(shop: Shop, to: str = "", *, mirror: bool = False, **more: object) -> DeployResult:
    if not mirror:
        return shop.runner.rollback(to, **more)  # type: ignore[arg-type]
    with Repository(shop.repo.path) as source:
        return shop.runner.rollback(to, source=source, **more)  # type: ignore[arg-type]


# -- rollback ----------------------------------------------------------------------------------------------------------


@harms
def test_a_rollback_never_goes_to_a_release_that_is_not_whole(shop: Shop, harm: Harm) -> None:
    harm(shop, 2)
    plan = shop.runner.rollback_plan("v2")
    result = rollback(shop, "v2")
    assert (plan.kind, result.outcome, result.exit_code) == ("impossible", "refused", 1)
    assert "no mirror was given to write it again" in result.detail
    assert "--mirror" in result.detail
    assert "--allow-drift" in result.detail
    assert result.live == shop.live()
    assert shop.read("a") == "3"
    shop.whole()


@harms
@pytest.mark.parametrize("to", ["", "v2"])
def test_a_mirror_makes_the_release_anew(shop: Shop, harm: Harm, to: str) -> None:
    harm(shop, 2)
    assert shop.runner.rollback_plan(to, can_rebuild=True).kind == "rebuild"
    result = rollback(shop, to, mirror=True)
    assert (result.outcome, result.release) == ("success", shop.live().name)
    assert (shop.live().tag, shop.live().seq) == ("v2", 4)
    assert contents(shop.path / "current")[b"d/b"] == contents(directory(shop, 3))[b"d/b"]
    shop.whole()


def test_without_a_name_or_a_mirror_what_is_gone_is_passed_over_and_that_is_said(shop: Shop) -> None:
    gone(shop, 2)
    plan = shop.runner.rollback_plan()
    assert (plan.kind, plan.passed_over[:5]) == ("instant", "00002")
    result = rollback(shop)
    assert (result.outcome, result.release) == ("success", shop.live().name)
    assert "00002-v2" in result.detail
    assert shop.read("a") == "1"
    shop.whole()


def test_without_a_name_or_a_mirror_what_was_edited_is_refused_and_may_be_allowed(shop: Shop) -> None:
    changed(shop, 2)
    result = rollback(shop)
    assert (result.outcome, "modified d/b" in result.detail) == ("refused", True)
    assert shop.read("a") == "3"
    assert rollback(shop, allow=Allowances(drift=True)).outcome == "success"
    assert (shop.read("a"), shop.read("d/b")) == ("2", "hand")


def test_nothing_to_go_back_to_on_disk_leaves_the_live_release(shop: Shop) -> None:
    for seq in (1, 2):
        gone(shop, seq)
    assert rollback(shop).outcome == "refused"
    assert shop.read("a") == "3"


@pytest.mark.parametrize("settings", [{"drift": "ignore"}, {"drift_ignore": ("d/*",)}])
def test_edits_that_the_settings_allow_are_no_harm(shop: Shop, settings: dict[str, object]) -> None:
    shop.settings = SiteSettings(**settings)  # type: ignore[arg-type]
    changed(shop, 2)
    assert rollback(shop, "v2").outcome == "success"
    assert shop.read("d/b") == "hand"


def test_what_was_added_and_what_scripts_wrote_is_no_harm(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.put({"a": b"1", "deploy/post-deploy": script("echo 1 > cache")}).check()
    shop.put({"a": b"2"}).check()
    (directory(shop, 1) / "log").write_text("added")
    (directory(shop, 1) / "cache").write_text("changed since")
    assert rollback(shop).outcome == "success"
    assert shop.read("a") == "1"


def test_what_scripts_wrote_may_be_lost_but_no_file_of_the_commit(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    post = script("mkdir -p var/cache", "echo x > var/cache/c", "echo 1 >> b")
    for n in (b"1", b"2"):
        shop.put({"a": n, "b": b"edited by the script", "deploy/post-deploy": post}).check()
        shutil.rmtree(shop.path / "current" / "var")
    assert shop.deploy("v2").detail == "v2 is live already"
    assert rollback(shop).outcome == "success"
    (directory(shop, 1) / "b").unlink()
    assert "missing b" in damage(shop.site, shop.live().name)


def test_a_target_that_a_script_removes_while_it_is_put_live_is_no_success(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    kill = script('[ -z "$DEPLOYKIT_ROLLBACK" ] || rm -rf "$DEPLOYKIT_RELEASE"')
    shop.put({"a": b"1", "deploy/post-deploy": kill}).check()
    shop.put({"a": b"2"}).check()
    result = rollback(shop)
    assert (result.outcome, "is gone" in result.detail) == ("rolled-back", True)
    assert shop.read("a") == "2"
    assert result.live == shop.live()
    shop.whole()


def test_exactly_the_ref_and_commit_that_are_named(shop: Shop) -> None:
    v1, v2, _ = (r.commit for r in shop.runner.releases())
    shop.repo.git("tag", "other", v1)
    refused = [rollback(shop, v1, ref="refs/tags/other"), rollback(shop, v2, ref="refs/tags/v1")]
    assert [(r.outcome, "there is no release of" in r.detail) for r in refused] == [("refused", True)] * 2
    assert rollback(shop, v1[:12], ref="refs/tags/v1").outcome == "refused", "a whole commit"
    assert shop.read("a") == "3"
    result = rollback(shop, v1, ref="refs/tags/v1", request="r1")
    assert (result.outcome, shop.read("a")) == ("success", "1")
    again = rollback(shop, v1, ref="refs/tags/v1")
    assert (again.outcome, again.release) == ("success", shop.live().name), "it is live already"
    other = rollback(shop, v2, ref="refs/tags/v2", request="r1")
    assert (other.outcome, "was used for" in other.detail) == ("refused", True)


def test_of_several_releases_of_one_commit_the_one_that_is_whole_is_taken(shop: Shop) -> None:
    v2 = shop.runner.releases()[1].commit
    shop.deploy("v2", allow=Allowances(older=True)).check()
    shop.deploy("v3").check()
    gone(shop, 4)
    assert rollback(shop, v2, ref="refs/tags/v2").release[:5] == "00002"
    shop.whole()


@harms
def test_a_rollback_from_a_release_that_was_made_anew_goes_further_back(shop: Shop, harm: Harm) -> None:
    harm(shop, 3)
    anew = shop.deploy("v3")
    assert (anew.outcome, shop.live().seq, anew.previous and anew.previous.tag) == ("success", 4, "v2")
    back = rollback(shop, mirror=True)
    assert (back.outcome, shop.live().tag, back.previous and back.previous.tag) == ("success", "v2", "v1")


def test_rollbacks_end_where_each_target_had_to_be_made_anew(shop: Shop) -> None:
    gone(shop, 1)
    gone(shop, 2)
    went = [(rollback(shop, mirror=True).outcome, shop.live().tag) for _ in range(3)]
    assert went == [("success", "v2"), ("success", "v1"), ("refused", "v1")]


def test_what_a_result_names_as_previous_is_never_what_is_live(shop: Shop) -> None:
    again = shop.deploy("v3", again=True)
    assert (shop.live().seq, again.previous and again.previous.tag) == (4, "v2")


# -- activate and deploy -----------------------------------------------------------------------------------------------


@harms
def test_a_prepared_release_that_is_not_whole_is_not_activated_but_made_anew(shop: Shop, harm: Harm) -> None:
    commit = shop.commit({"a": b"4", "d/b": b"same"})
    with Repository(shop.repo.path) as source:
        shop.runner.prepare(source, "refs/tags/v4", commit).check()
        harm(shop, 4)
        refused = shop.runner.activate("v4")
        assert (refused.outcome, shop.read("a")) == ("refused", "3")
        assert "--mirror" in refused.detail
        assert "--allow-drift" in refused.detail
        assert shop.runner.activate().outcome == "refused"
        result = shop.runner.activate(commit, ref="refs/tags/v4", source=source)
    assert (result.outcome, result.release) == ("success", shop.live().name)
    assert (shop.live().seq, shop.read("a")) == (5, "4")
    shop.whole()


def test_an_older_prepared_release_never_stands_in_for_the_newest(shop: Shop) -> None:
    for n in (4, 5):
        commit = shop.commit({"a": b"%d" % n})
        with Repository(shop.repo.path) as source:
            shop.runner.prepare(source, f"refs/tags/v{n}", commit).check()
    gone(shop, 5)
    assert shop.runner.activate().outcome == "refused"
    assert shop.read("a") == "3"


def test_activate_looks_at_the_ref_too(shop: Shop) -> None:
    commit = shop.commit({"a": b"4"})
    with Repository(shop.repo.path) as source:
        shop.runner.prepare(source, "refs/tags/v4", commit).check()
    assert shop.runner.activate(commit, ref="refs/tags/v1").outcome == "refused"
    assert shop.runner.activate(commit, ref="refs/tags/v4").outcome == "success"
    assert shop.runner.activate(commit, ref="refs/tags/v4").outcome == "success", "it is live already"
    assert shop.runner.activate(commit, ref="refs/tags/v1").outcome == "refused"


@harms
def test_a_deploy_of_what_is_prepared_but_not_whole_makes_it_anew(shop: Shop, harm: Harm) -> None:
    commit = shop.commit({"a": b"4", "d/b": b"same"})
    with Repository(shop.repo.path) as source:
        shop.runner.prepare(source, "refs/tags/v4", commit).check()
        harm(shop, 4)
        assert shop.runner.preview(source, "refs/tags/v4", commit).release[:5] == "00005"
    assert shop.deploy("v4").release[:5] == "00005"
    shop.whole()


@harms
def test_live_already_is_only_said_of_what_is_there(shop: Shop, harm: Harm) -> None:
    harm(shop, 3)
    with Repository(shop.repo.path) as source:
        assert not shop.runner.preview(source, "refs/tags/v3").nothing_to_do
    result = shop.deploy("v3")
    assert (result.outcome, result.release) == ("success", shop.live().name)
    assert (shop.live().seq, shop.read("d/b")) == (4, "same")
    shop.whole()
    assert shop.deploy("v3").detail == "v3 is live already"


def test_an_activation_of_what_is_live_is_a_success_also_where_it_was_prepared_twice(shop: Shop) -> None:
    commit = shop.commit({"a": b"4"})
    ask(shop, "prepare", "p").check()
    ask(shop, "prepare", "q").check()
    results = [shop.runner.activate(commit, ref="refs/tags/v4") for _ in range(2)]
    assert [(r.outcome, r.release[:5]) for r in results] == [("success", "00005")] * 2
    ask(shop, "prepare", "r").check()
    assert shop.runner.activate(commit, ref="refs/tags/v4").release[:5] == "00006", "a newer one was asked for"


def ask(shop: Shop, phase: str, request: str, *, mirror: bool = True) -> DeployResult:
    with Repository(shop.repo.path) as source:
        if phase in ("deploy", "prepare"):
            act = shop.runner.deploy if phase == "deploy" else shop.runner.prepare
            return act(source, "refs/tags/v4", request=request)
        back = shop.runner.activate if phase == "activate" else shop.runner.rollback
        return back("v4" if phase == "activate" else "", source=source if mirror else None, request=request)


@pytest.mark.parametrize("phase", ["deploy", "prepare", "activate", "rollback"])
def test_a_request_is_not_answered_as_a_success_where_its_release_is_lost(shop: Shop, phase: str) -> None:
    shop.commit({"a": b"4"})
    if phase == "activate":
        ask(shop, "prepare", "p").check()
    first = ask(shop, phase, "q").check()
    assert ask(shop, phase, "q").again
    shutil.rmtree(shop.path / "releases" / first.release)
    if phase in ("activate", "rollback"):
        assert ask(shop, phase, "q", mirror=False).outcome == "refused"
    result = ask(shop, phase, "q")
    assert (result.outcome, result.again, result.about and result.about.tag) == ("success", False, first.release[6:8])
    assert (shop.path / "releases" / result.release).is_dir()
    shop.whole()


def test_a_request_whose_release_was_followed_by_others_stays_answered(shop: Shop) -> None:
    shop.commit({"a": b"4"})
    ask(shop, "deploy", "q").check()
    shop.put({"a": b"5"}).check()
    gone(shop, 4)
    assert (ask(shop, "deploy", "q").again, shop.read("a")) == (True, "5")


def test_live_already_is_only_said_of_this_very_ref(shop: Shop) -> None:
    shop.repo.git("branch", "v3", "v3")
    with Repository(shop.repo.path) as source:
        result = shop.runner.deploy(source, "refs/heads/v3")
    assert result.live is not None
    assert (result.outcome, result.live.ref) == ("success", "refs/heads/v3")


def test_edits_of_the_live_release_are_refused_where_the_settings_say_so(shop: Shop) -> None:
    shop.settings = SiteSettings(drift="refuse")
    changed(shop, 3)
    assert shop.deploy("v3").outcome == "refused"
    assert shop.read("d/b") == "hand"


# -- the way back of a failed deploy -----------------------------------------------------------------------------------

FAILS: Files = {"a": b"4", "deploy/post-deploy": script('rm -rf "$DEPLOYKIT_PREVIOUS"', "exit 1")}


def test_the_way_back_leads_to_what_is_there_and_makes_the_lost_one_anew(shop: Shop) -> None:
    result = shop.put(FAILS)
    assert result.outcome == "rolled-back"
    assert (shop.live().tag, shop.live().seq) == ("v3", 5)
    assert result.live == shop.live()
    assert shop.live().name in result.detail
    shop.whole()


@pytest.mark.parametrize("harm", [gone, emptied])
def test_the_way_back_where_the_live_release_was_gone_before(shop: Shop, harm: Harm) -> None:
    harm(shop, 3)
    result = shop.put({"a": b"4", "deploy/post-deploy": script("exit 1")})
    assert (result.outcome, shop.live().tag, shop.read("a")) == ("rolled-back", "v3", "3")
    shop.whole()


def test_the_way_back_without_a_mirror_is_the_newest_whole_one(shop: Shop) -> None:
    commit = shop.commit(FAILS)
    with Repository(shop.repo.path) as source:
        shop.runner.prepare(source, "refs/tags/v4", commit).check()
    without_a_file(shop, 2)
    result = shop.runner.activate()
    assert (result.outcome, result.live) == ("rolled-back", shop.live())
    assert shop.read("a") == "1"
    shop.whole()


def test_where_nothing_is_left_to_go_back_to_nothing_is_live_and_that_is_said(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.put({"a": b"1"}).check()
    commit = shop.commit(FAILS)
    with Repository(shop.repo.path) as source:
        shop.runner.prepare(source, "refs/tags/v2", commit).check()
    result = shop.runner.activate()
    assert (result.outcome, result.seen, result.live) == ("failure", True, None)
    assert "none is live now" in result.detail
    assert not (shop.path / "current").is_symlink()


def test_a_way_back_that_leads_out_of_the_site_is_taken_only_where_it_leads_somewhere(
    tmp_path: Path, shop: Shop
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (shop.path / "current").unlink()
    (shop.path / "current").symlink_to(elsewhere)
    result = shop.put({"a": b"4", "deploy/post-deploy": script(f"rmdir {elsewhere}", "exit 1")})
    assert (result.outcome, result.live) == ("failure", None)
    assert not (shop.path / "current").is_symlink()


def test_edits_are_no_reason_to_go_further_back_than_to_what_was_live(shop: Shop) -> None:
    without_a_file(shop, 3)
    result = shop.put({"a": b"4", "deploy/post-deploy": script("exit 1")})
    assert (result.outcome, shop.live().seq) == ("rolled-back", 3)


@pytest.mark.parametrize("phase", ["deploy", "rollback"])
def test_a_release_that_is_gone_when_a_crash_is_recovered_is_taken_back(tmp_path: Path, phase: str) -> None:
    shop = Shop(tmp_path)
    cut = script(f'[ "{phase}" = deploy -o -n "$DEPLOYKIT_ROLLBACK" ] && kill -9 $PPID', "true")
    if phase == "deploy":
        shop.put({"a": b"1"}).check()
        shop.commit({"a": b"2", "deploy/post-deploy": cut})
        words = ["deploy", str(shop.path), "--mirror", str(shop.repo.path), "--ref", "v2"]
        lost, left = 2, "1"
    else:
        shop.put({"a": b"1", "deploy/post-deploy": cut}).check()
        shop.put({"a": b"2"}).check()
        words = ["rollback", str(shop.path)]
        lost, left = 1, "2"
    assert run("release", *words).returncode == -9
    gone(shop, lost)
    done = shop.runner.recover()
    assert done is not None
    assert done.outcome == "rolled-back"
    assert shop.read("a") == left
    shop.whole()


@pytest.mark.parametrize("step", ["pre-deploy", "post-deploy"])
def test_a_release_that_lost_a_file_while_it_was_cut_off_is_not_finished(tmp_path: Path, step: str) -> None:
    shop = Shop(tmp_path)
    flag = tmp_path / "flag"
    flag.touch()
    shop.put({"a": b"1"}).check()
    commit = shop.commit({"a": b"2", f"deploy/{step}": script(f"[ -e {flag} ] && rm {flag} && kill -9 $PPID", "true")})
    words = ("--mirror", str(shop.repo.path), "--ref", "v2", "--request", "q")
    assert run("release", "deploy", str(shop.path), *words).returncode == -9
    (directory(shop, 2) / "a").unlink()
    if step == "post-deploy":
        done = shop.runner.recover()
        assert done is not None
        assert (done.outcome, shop.read("a")) == ("rolled-back", "1")
        assert "missing a" in done.detail
    else:
        result = shop.deploy("v2", commit, request="q")
        assert (result.outcome, result.release[:5], shop.read("a")) == ("success", "00003", "2")
    shop.whole()


def test_a_script_that_is_left_to_a_person_is_no_reason_to_leave_a_release_live_that_is_gone(tmp_path: Path) -> None:
    shop = Shop(tmp_path, SiteSettings(at_crash={"post-deploy": "stop"}))
    file = tmp_path / "site.toml"
    file.write_text('at_crash = { post-deploy = "stop" }\n')
    shop.put({"a": b"1"}).check()
    shop.commit({"a": b"2", "deploy/post-deploy": script("kill -9 $PPID")})
    words = ("deploy", str(shop.path), "--mirror", str(shop.repo.path), "--ref", "v2", "--settings", str(file))
    assert run("release", *words).returncode == -9
    gone(shop, 2)
    done = shop.runner.recover()
    assert done is not None
    assert (done.outcome, shop.read("a")) == ("rolled-back", "1")


# -- what people are shown ---------------------------------------------------------------------------------------------


def test_the_command_line_says_the_truth_about_the_disk(shop: Shop) -> None:
    site, mirror = str(shop.path), ("--mirror", str(shop.repo.path))
    gone(shop, 2)
    listed = run("release", "list", site).stdout.splitlines()
    assert [line.split()[-1] for line in listed[1:]] == ["good", "gone", "good"]
    assert "00001" in run("release", "rollback", site, "--dry-run").stdout
    dry = run("release", "rollback", site, "--to", "v2", "--dry-run")
    assert (dry.returncode, dry.stdout.startswith("impossible: ")) == (1, True)
    assert run("release", "rollback", site, "--to", "v2").returncode == 1
    assert run("release", "rollback", site, "--to", "v2", *mirror, "--dry-run").stdout.startswith("rebuild: ")
    gone(shop, 3)
    warned = run("release", "list", site)
    assert "nothing is live" in warned.stderr
    assert not any(r["current"] for r in json.loads(run("release", "list", site, "--json").stdout))
    assert run("release", "verify", site).returncode == 1
    assert "v3 is live already" not in run("release", "deploy", site, *mirror, "--ref", "v3", "--dry-run").stdout
    assert run("release", "deploy", site, *mirror, "--ref", "v3").returncode == 0
    assert run("release", "rollback", site, "--to", "v2", *mirror).returncode == 0
    assert shop.read("a") == "2"
    shop.whole()


def test_a_result_names_what_is_live_and_what_a_rollback_would_name(shop: Shop) -> None:
    v1, v2, v3 = shop.runner.releases()
    failed = shop.put({"a": b"4", "deploy/pre-deploy": script("exit 1")})
    assert failed.about is not None
    assert (failed.outcome, failed.live, failed.previous, failed.about.tag) == ("failure", v3, v2, "v4")
    refused = shop.deploy("v1")
    assert (refused.outcome, refused.live, refused.previous, refused.about) == ("refused", v3, v2, None)
    gone(shop, 2)
    back = rollback(shop)
    assert (back.live, back.previous) == (shop.live(), None)
    assert back.live is not None
    assert back.live.name == v1.name
