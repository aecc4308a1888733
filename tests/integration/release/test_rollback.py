"""Going back: at once, further each time, past releases that failed, and with the scripts of where it goes."""

from __future__ import annotations

import pytest

from deploykit.git.repository import Repository
from deploykit.settings import SiteSettings
from tests.support.gitrepo import EXECUTABLE, SYMLINK
from tests.support.releasing import Files, Shop, script


def test_rollback_is_instant_and_the_one_after_goes_further_back(shop: Shop) -> None:
    for n in range(1, 4):
        shop.put({"a": b"%d" % n})
    assert shop.runner.rollback_plan().kind == "instant"
    assert shop.runner.rollback().outcome == "success"
    assert shop.read("a") == "2"
    assert shop.runner.rollback().outcome == "success"
    assert shop.read("a") == "1"
    nowhere = shop.runner.rollback()
    assert (nowhere.outcome, nowhere.exit_code) == ("refused", 1)
    assert "no earlier good release" in nowhere.detail
    assert shop.runner.rollback("v3").outcome == "success"
    assert shop.read("a") == "3"
    assert shop.runner.rollback("v3").outcome == "refused"


def test_rollback_skips_failed_releases(shop: Shop) -> None:
    shop.put({"a": b"1"})
    shop.put({"a": b"2", "deploy/pre-deploy": script("exit 1")})
    shop.put({"a": b"3"})
    assert shop.runner.rollback().outcome == "success"
    assert shop.read("a") == "1"
    assert shop.runner.rollback("v2").outcome == "refused"


def test_rollback_to_what_is_gone_is_rebuilt_from_a_mirror_and_impossible_without(shop: Shop) -> None:
    shop.settings = SiteSettings(keep=1, recycle=False, grace=0)
    for n in range(1, 5):
        shop.put({"a": b"%d" % n})
    assert shop.runner.rollback_plan("v1").kind == "impossible"
    assert "no longer on disk" in shop.runner.rollback("v1").detail
    assert shop.runner.rollback_plan("v1", can_rebuild=True).kind == "rebuild"
    with Repository(shop.repo.path) as source:
        result = shop.runner.rollback("v1", source=source)
    assert result.outcome == "success"
    assert shop.read("a") == "1"
    assert shop.live().seq == 5
    shop.whole()


def test_a_rollback_whose_own_post_deploy_fails_stays_and_says_so(shop: Shop) -> None:
    fails = script('[ -z "$DEPLOYKIT_ROLLBACK" ]')
    shop.put({"a": b"1", "deploy/post-deploy": fails})
    shop.put({"a": b"2"})
    result = shop.runner.rollback()
    assert result.outcome == "failure"
    assert "is live" in result.detail
    assert shop.read("a") == "1"


def test_a_rollback_is_not_stopped_by_scripts_it_does_not_run_and_told_in_advance_of_those_it_does(shop: Shop) -> None:
    files: Files = {
        "a": b"1",
        "deploy/pre-link": script("chmod -x deploy/pre-link"),
        "deploy/post-deploy": script("true"),
    }
    shop.put(files)
    shop.put({"a": b"2"})
    assert shop.runner.rollback_plan().kind == "instant"
    assert shop.runner.rollback().outcome == "success"
    shop.put({"a": b"3"})
    (shop.path / "releases" / shop.site.releases()[0].name / "deploy/post-deploy").chmod(0o644)
    plan = shop.runner.rollback_plan()
    assert (plan.kind, "post-deploy: it is not executable" in plan.why) == ("impossible", True)
    assert shop.runner.rollback().outcome == "refused"
    assert shop.read("a") == "3"


@pytest.mark.parametrize("kind", [EXECUTABLE, SYMLINK])
def test_a_file_that_has_the_name_of_the_scripts_directory_is_no_obstacle(shop: Shop, kind: str) -> None:
    for n in (1, 2, 3):
        shop.put({"a": b"%d" % n, "deploy": (kind, b"a"), "a-file": b"x"}).check()
    assert shop.runner.rollback_plan().kind == "instant"
    shop.runner.rollback().check()
    assert shop.read("a") == "2"


@pytest.mark.parametrize(
    ("link", "target", "scripts"),
    [("deploy", b"ops/deploy", "deploy"), ("x", b"ops", "x/deploy"), ("ops/now", b"./deploy/", "ops/now")],
)
def test_scripts_behind_a_symlink_are_refused_and_not_left_out_in_silence(
    shop: Shop, link: str, target: bytes, scripts: str
) -> None:
    shop.settings = SiteSettings(scripts=scripts)
    shop.put({"a": b"1"})
    result = shop.put({"a": b"2", link: (SYMLINK, target), "ops/deploy/post-deploy": script("true")})
    assert (result.outcome, 'set scripts = "ops/deploy"' in result.detail) == ("refused", True)
    shop.settings = SiteSettings(scripts="ops/deploy")
    assert shop.deploy("v2").outcome == "success"
    assert [s.name for s in shop.site.steps(shop.site.history()[-1]) if s.exit_code == 0] == ["post-deploy"]


def test_a_symlink_to_no_scripts_is_no_obstacle_and_nothing_behind_it_is_run(shop: Shop) -> None:
    never = script("touch $DEPLOYKIT_SHARED/ran")
    make = script(
        "mkdir -p elsewhere; cp deploy/pre-deploy elsewhere/post-deploy; rm -r deploy; ln -s elsewhere deploy"
    )
    shop.put({"a": b"1", "deploy": (SYMLINK, b"docs"), "docs/x": b"1"}).check()
    shop.put({"a": b"2", "deploy/pre-deploy": make}).check()
    shop.put({"a": b"3", "loop": (SYMLINK, b"loop"), "deploy/post-deploy": never}).check()
    (shop.path / "shared" / "ran").unlink()
    shop.runner.rollback().check()
    assert shop.read("a") == "2"
    assert not (shop.path / "shared" / "ran").exists()
