"""What a deploy does when all goes well, and what it does by itself when not."""

from __future__ import annotations

import json
import os
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from deploykit.errors import LockBusy, PolicyRefused, ReleaseError
from deploykit.git.repository import Repository
from deploykit.release import Allowances
from deploykit.settings import SiteSettings
from tests.support.gitrepo import EXECUTABLE, FILE, GITLINK, SYMLINK, contents
from tests.support.releasing import Files, Shop, script


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def test_a_site_that_does_not_exist_yet_is_set_up_and_needs_no_scripts(shop: Shop) -> None:
    result = shop.put({"index.html": b"one", "d/x": b"x"})
    assert (result.outcome, result.detail) == ("success", "")
    assert shop.read("index.html") == "one"
    assert shop.read("TAG") == "Tag: v1\n"
    assert shop.read(".deploykit/REVISION") == shop.live().commit + "\n"
    assert (shop.path / "current").readlink() == Path("releases") / result.release
    assert result.release == f"00001-v1-{shop.live().commit[:12]}"
    shop.whole()


def test_the_release_is_the_tree_that_git_would_check_out(shop: Shop, tmp_path: Path) -> None:
    for n in range(4):  # the last ones are recycled
        shop.settings = SiteSettings(keep=1, grace=0)
        shop.put({"a": b"%d" % n, f"d/{n}": b"x", "same": b"s", "l": (SYMLINK, b"a")})
        shop.repo.checkout(shop.live().commit, tmp_path / f"theirs{n}")
        ours = contents(shop.path / "current" / ".", ignore=[b"TAG", b".deploykit"])
        assert ours == contents(tmp_path / f"theirs{n}")


def test_a_tracked_file_called_tag_is_left_as_it_is(shop: Shop) -> None:
    shop.put({"TAG": b"mine", ".deploykit/REVISION": b"mine too"})
    assert shop.read("TAG") == "mine"
    assert shop.read(".deploykit/REVISION") == "mine too"
    shop.put({"TAG": b"still mine", ".deploykit": b"a file"})
    assert shop.read("TAG") == "still mine"
    assert shop.read(".deploykit") == "a file"
    shop.whole()


def test_scripts_run_in_order_in_the_release_with_the_tag_and_variables(shop: Shop) -> None:
    say = 'echo "$(basename $0) $1 $2"; pwd; env | grep ^DEPLOYKIT_ | grep -v _RUN= | sort; readlink ../../current'
    shop.put({"a": b"0"})
    result = shop.put(
        {"deploy/pre-deploy": script(say), "deploy/pre-link.sh": script(say), "deploy/post-deploy": script(say)},
        request="req-1",
        requested_by="ann",
    )
    assert result.outcome == "success", result
    steps = {s.name: s for s in result.steps}
    assert [s.name for s in result.steps] == [
        "preflight",
        "export",
        "pre-deploy",
        "link-shared",
        "pre-link",
        "finalize",
        "activate",
        "post-deploy",
        "health-check",
    ]
    release = shop.path / "releases" / result.release
    old = "releases/" + shop.runner.releases()[0].name
    said = [
        f"DEPLOYKIT_COMMIT={shop.live().commit}",
        "DEPLOYKIT_NODE=node1",
        f"DEPLOYKIT_PREVIOUS={shop.path}/{old}",
        "DEPLOYKIT_REF=refs/tags/v2",
        f"DEPLOYKIT_RELEASE={release}",
        "DEPLOYKIT_REQUEST=req-1",
        f"DEPLOYKIT_SHARED={shop.path}/shared",
        "DEPLOYKIT_SITE=site",
        f"DEPLOYKIT_SITE_DIR={shop.path}",
    ]
    for name, live in (("pre-deploy", old), ("pre-link", old), ("post-deploy", f"releases/{result.release}")):
        file = "pre-link.sh" if name == "pre-link" else name
        assert steps[name].output.splitlines() == [
            f"{file} -t v2",
            str(release),
            *said,
            f"DEPLOYKIT_STEP={name}",
            "DEPLOYKIT_TAG=v2",
            live,
        ]
        assert steps[name].exit_code == 0
    assert next(step for step, stream, _ in shop.heard if stream == "stdout") == "pre-deploy"
    assert shop.live().requested_by == "ann"


@pytest.mark.parametrize("step", ["pre-deploy", "pre-link"])
def test_a_failing_script_before_the_switch_leaves_the_old_release_live(shop: Shop, step: str) -> None:
    shop.put({"a": b"1"})
    result = shop.put({"a": b"2", f"deploy/{step}": script("echo no >&2", "exit 3")})
    assert result.outcome == "failure"
    assert result.detail.startswith(f"{step} ended with exit code 3")
    assert (result.steps[-1].exit_code, result.steps[-1].output) == (3, "no\n")
    assert shop.read("a") == "1"
    failed = shop.runner.releases()[-1]
    assert (failed.status, failed.present) == ("failed", True), "the bad one is kept and marked"
    shop.whole()


@pytest.mark.parametrize("step", ["post-deploy", "health-check"])
def test_a_failure_after_the_switch_goes_back_by_itself_and_tells_the_scripts(shop: Shop, step: str) -> None:
    note = 'echo "$DEPLOYKIT_TAG rollback=$DEPLOYKIT_ROLLBACK from=$DEPLOYKIT_PREVIOUS" >> $DEPLOYKIT_SHARED/log'
    shop.put({"a": b"1", "deploy/post-deploy": script(note)})
    result = shop.put({"a": b"2", f"deploy/{step}": script("exit 1")})
    assert result.outcome == "rolled-back"
    assert f"back to {shop.live().name}" in result.detail
    assert shop.read("a") == "1"
    log = (shop.path / "shared" / "log").read_text().splitlines()
    assert log == ["v1 rollback= from=", f"v1 rollback=1 from={shop.path}/releases/{result.release}"]
    assert shop.runner.releases()[-1].status == "failed"
    assert [s.name for s in result.steps][-1] == "post-deploy-rollback"
    shop.whole()


def test_the_first_deploy_that_fails_its_health_check_leaves_no_current(shop: Shop) -> None:
    result = shop.put({"a": b"1", "deploy/health-check": script("exit 1")})
    assert result.outcome == "rolled-back"
    assert not (shop.path / "current").is_symlink()
    assert shop.put({"a": b"2"}).outcome == "success"


class _Health(BaseHTTPRequestHandler):
    answers: ClassVar[list[int]] = []

    def do_GET(self) -> None:
        self.send_response(self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.mark.parametrize(
    ("answers", "outcome"),
    [([200], "success"), ([503, 503, 204], "success"), ([500], "rolled-back"), ([302], "rolled-back")],
)
def test_a_health_url_decides(shop: Shop, answers: list[int], outcome: str) -> None:
    shop.put({"a": b"1"})
    _Health.answers = list(answers)
    server = HTTPServer(("127.0.0.1", 0), _Health)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/up?x=1"
        shop.settings = SiteSettings(health_url=url, health_timeout=60 if outcome == "success" else 2.5)
        result = shop.put({"a": b"2"})
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert result.outcome == outcome
    assert shop.read("a") == ("2" if outcome == "success" else "1")


@pytest.mark.parametrize(
    "url", ["http://h:99999/", "http://h:x/", "http://[", "http://127.0.0.1:1/\u00e9", "http://a..b/", "http://a b/"]
)
def test_a_health_url_that_cannot_be_asked_goes_back_like_any_other(shop: Shop, url: str) -> None:
    shop.put({"a": b"1"})
    shop.settings = SiteSettings(health_url=url, health_timeout=0.1)
    assert shop.put({"a": b"2"}).outcome == "rolled-back"
    assert shop.read("a") == "1"


def test_threat_24_a_password_in_a_health_url_is_not_repeated(shop: Shop) -> None:
    shop.settings = SiteSettings(health_url="http://user:canary@127.0.0.1:1/", health_timeout=0.1)
    result = shop.put({"a": b"1"})
    assert result.outcome == "rolled-back"
    assert "canary" not in repr(result) + "".join(p.read_text() for p in shop.path.rglob("*.json"))


@pytest.mark.parametrize("environment", [{"A=B": "x"}, {"A": "a\0b"}])
def test_a_variable_that_can_be_none_fails_the_script_and_not_the_runner(
    shop: Shop, environment: dict[str, str]
) -> None:
    shop.put({"a": b"1"})
    shop.settings = SiteSettings(environment=environment)
    result = shop.put({"a": b"2", "deploy/pre-deploy": script("true")})
    assert (result.outcome, "cannot run" in result.detail) == ("failure", True)
    assert shop.read("a") == "1"


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


def test_prepare_and_activate_are_two_phases(shop: Shop) -> None:
    shop.put({"a": b"1"})
    commit = shop.commit(
        {"a": b"2", "deploy/pre-deploy": script("echo pre"), "deploy/post-deploy": script("echo post")}
    )
    with Repository(shop.repo.path) as source:
        prepared = shop.runner.prepare(source, "refs/tags/v2", commit, request="p1")
    assert prepared.outcome == "success"
    assert [s.name for s in prepared.steps][-1] == "finalize"
    assert shop.read("a") == "1"
    assert shop.runner.releases()[-1].status == "prepared"
    done = shop.runner.activate(commit, request="a1")
    assert done.outcome == "success"
    assert shop.read("a") == "2"
    assert [s.name for s in done.steps] == ["activate", "post-deploy", "health-check"]
    again = shop.runner.activate(commit, request="a2")
    assert (again.outcome, again.detail) == ("success", "v2 is live already")
    assert shop.runner.activate("v9").outcome == "refused"


def test_a_deploy_uses_what_was_prepared(shop: Shop) -> None:
    commit = shop.commit({"a": b"1"})
    with Repository(shop.repo.path) as source:
        prepared = shop.runner.prepare(source, "refs/tags/v1", commit)
    assert shop.deploy("v1", commit).release == prepared.release
    assert len(shop.runner.releases()) == 1


def test_what_was_prepared_before_the_live_release_was_made_is_not_activated(shop: Shop) -> None:
    commit = shop.commit({"a": b"1"})
    with Repository(shop.repo.path) as source:
        shop.runner.prepare(source, "refs/tags/v1", commit)
    shop.put({"a": b"2"})
    refused = shop.runner.activate("v1")
    assert (refused.outcome, refused.exit_code) == ("refused", 3)
    assert shop.runner.activate("v1", allow=Allowances(older=True)).outcome == "success"


def test_threat_16_a_tag_that_moved_after_it_was_decided_on_is_refused(shop: Shop) -> None:
    good = shop.commit({"a": b"good"}, tag="v1")
    shop.commit({"a": b"evil"}, tag="v1")
    result = shop.deploy("v1", good)
    assert (result.outcome, result.exit_code) == ("refused", 3)
    assert "refs/tags/v1 points at" in result.detail
    assert not (shop.path / "current").is_symlink()
    allowed = shop.deploy("v1", good, allow=Allowances(moved=True))
    assert allowed.outcome == "success"
    assert shop.read("a") == "good"


def test_threat_16_an_annotated_tag_that_moved_after_the_refs_were_packed_is_the_new_one(shop: Shop) -> None:
    """`packed-refs` still tells what the old tag stood for; the loose ref beside it is what counts."""
    who = {"GIT_COMMITTER_NAME": "A", "GIT_COMMITTER_EMAIL": "a@example.net"}
    for text in (b"1", b"2"):
        commit = shop.commit({"a": text}, tag=f"at-{text.decode()}")
        shop.repo.git("tag", "-f", "-a", "-m", "release", "v1", commit, env=who)
        if text == b"1":
            shop.repo.git("pack-refs", "--all")
    shop.deploy("v1").check()
    assert (shop.read("a"), shop.live().commit) == ("2", commit)


def test_threat_16_a_tag_that_is_gone_is_refused(shop: Shop) -> None:
    commit = shop.commit({"a": b"1"})
    shop.repo.git("update-ref", "-d", "refs/tags/v1")
    assert shop.deploy("v1", commit).outcome == "refused"
    assert shop.deploy("v1", commit, allow=Allowances(moved=True)).outcome == "success"


def test_threat_17_a_commit_older_than_the_live_one_is_refused_unless_told(shop: Shop) -> None:
    old = shop.commit({"a": b"vulnerable"})
    for n in range(3):
        shop.commit({"a": b"%d" % n})
    shop.deploy("v4")
    result = shop.deploy("v1", old)
    assert (result.outcome, result.exit_code) == ("refused", 3)
    assert isinstance(result.error, PolicyRefused)
    assert "is older than" in result.detail
    assert shop.deploy("v1", old, allow=Allowances(older=True)).outcome == "success"
    shop.deploy("v4")
    shop.settings = SiteSettings(older="allow")
    assert shop.deploy("v1", old).outcome == "success"


def test_threat_17_a_date_in_the_future_does_not_make_an_older_commit_newer(shop: Shop) -> None:
    now, shop.repo.clock = shop.repo.clock, 4_000_000_000
    old = shop.commit({"a": b"vulnerable"})
    shop.repo.clock = now
    shop.put({"a": b"mended"})
    assert "is older than" in shop.deploy("v1", old).detail


@pytest.mark.parametrize("skew", [-40_000_000, -1_600_000_000, 40_000_000])
def test_threat_17_a_commit_is_older_also_where_a_clock_was_wrong_in_between(shop: Shop, skew: int) -> None:
    shop.commit({"a": b"1"})
    now, shop.repo.clock = shop.repo.clock, shop.repo.clock + skew
    shop.commit({"a": b"2"})
    shop.repo.clock = now + 60
    shop.put({"a": b"3"})
    result = shop.deploy("v1")
    assert (result.outcome, "is older than" in result.detail) == ("refused", True)
    assert shop.put({"a": b"4"}).outcome == "success"


def test_a_commit_of_another_line_is_not_older(shop: Shop) -> None:
    base = shop.commit({"a": b"0"})
    shop.put({"a": b"1"})
    shop.repo.commit({"a": b"side"}, tag="side", branch="side", parent=base)
    assert shop.deploy("side").outcome == "success"


def test_the_same_commit_again_is_nothing_to_do_unless_asked_for(shop: Shop) -> None:
    first = shop.put({"a": b"1"})
    again = shop.deploy("v1")
    assert (again.outcome, again.release, again.detail) == ("success", first.release, "v1 is live already")
    assert shop.deploy("v1", again=True).release != first.release
    shop.repo.git("update-ref", "refs/tags/same-but-named-so", shop.live().commit)
    assert shop.deploy("same-but-named-so").release != first.release
    assert shop.read("TAG") == "Tag: same-but-named-so\n"


def test_a_request_that_comes_again_is_answered_and_not_repeated(shop: Shop) -> None:
    count = script("echo x >> $DEPLOYKIT_SHARED/count")
    first = shop.put({"a": b"1", "deploy/post-deploy": count}, request="r1")
    again = shop.deploy("v1", shop.live().commit, request="r1")
    assert again.again
    assert (again.outcome, again.release, again.steps) == (first.outcome, first.release, first.steps)
    assert (shop.path / "shared" / "count").read_text() == "x\n"
    failed = shop.put({"a": b"2", "deploy/pre-deploy": script("exit 1")}, request="r2")
    repeated = shop.deploy("v2", request="r2")
    assert (failed.outcome, repeated.outcome, repeated.again) == ("failure", "failure", True)
    with pytest.raises(ReleaseError):
        repeated.check()
    shop.put({"a": b"3"})
    assert "was used for" in shop.deploy("v3", request="r1", commit=shop.live().commit).detail


def test_shared_files_and_directories_are_linked_and_outlive_releases(shop: Shop) -> None:
    shop.settings = SiteSettings(shared=("uploads/", "var/cache/", "config.ini"), keep=1, grace=0)
    refused = shop.put({"a": b"1"})
    assert refused.outcome == "refused"
    assert "config.ini is missing" in refused.detail
    shop.put({"a": b"1", "config.ini": b"from the tree", "uploads/.keep": b""})
    assert (shop.path / "current" / "config.ini").is_symlink()
    assert (shop.path / "shared" / "config.ini").read_text() == "from the tree"
    (shop.path / "current" / "uploads" / "photo").write_text("p")
    (shop.path / "shared" / "config.ini").write_text("by hand")
    for n in range(4):
        assert shop.put({"a": b"%d" % n, "config.ini": b"from the tree", "uploads/.keep": b""}).outcome == "success"
        assert shop.read("uploads/photo") == "p"
        assert shop.read("config.ini") == "by hand"
        assert (shop.path / "current" / "var" / "cache").is_dir()
        shop.whole()
        assert not shop.runner.verify()


@pytest.mark.parametrize("path", ["/etc/", "../x/", "a/../../b/", ".git/", "", "a//b/", ".deploykit/"])
def test_a_shared_path_outside_the_release_is_refused(shop: Shop, path: str) -> None:
    shop.settings = SiteSettings(shared=(path,))
    result = shop.put({"a": b"1"})
    assert result.outcome == "refused"
    assert "is not a path inside a release" in result.detail


@pytest.mark.parametrize("paths", [("a/", "a/b/"), ("a/b/", "a/"), ("a/", "a"), ("x/y/z", "x/")])
def test_a_shared_path_within_another_is_refused_before_anything_is_touched(shop: Shop, paths: tuple[str, ...]) -> None:
    shop.settings = SiteSettings(shared=paths)
    result = shop.put({"a/b/c": b"x", "x/y/z": b"y"})
    assert (result.outcome, "which is shared" in result.detail) == ("refused", True)
    assert not shop.path.exists()


def test_a_changed_shared_setting_does_not_recycle_a_release_made_under_the_old_one(shop: Shop) -> None:
    shop.settings = SiteSettings(keep=1, grace=0, shared=("d/",))
    for n in range(3):
        shop.put({"a": b"%d" % n, "d/tracked": b"x"})
    shop.settings = SiteSettings(keep=1, grace=0)
    shop.put({"a": b"9", "d/tracked": b"x"})
    assert shop.read("d/tracked") == "x"
    assert not (shop.path / "current" / "d").is_symlink()


def test_drift_is_warned_of_refused_or_ignored(shop: Shop) -> None:
    shop.put({"a": b"1", "b": b"1", "cache/x": b"1"})
    (shop.path / "current" / "a").write_text("by hand")
    (shop.path / "current" / "cache" / "y").write_text("by the application")
    warned = shop.put({"a": b"2", "cache/x": b"1"})
    assert warned.outcome == "success"
    assert "was edited by hand: modified a, added cache/y" in warned.detail
    (shop.path / "current" / "a").write_text("by hand")
    shop.settings = SiteSettings(drift="refuse", drift_ignore=("cache/*",))
    refused = shop.put({"a": b"3"})
    assert (refused.outcome, refused.exit_code) == ("refused", 3)
    assert "modified a" in refused.detail
    assert "cache" not in refused.detail
    assert shop.deploy("v3", allow=Allowances(drift=True)).outcome == "success"
    (shop.path / "current" / "a").write_text("by hand")
    shop.settings = SiteSettings(drift="ignore")
    assert shop.put({"a": b"4"}).detail == ""


def test_what_scripts_leave_in_a_release_is_not_drift_but_a_later_edit_is(shop: Shop) -> None:
    build = script("echo built > built.css", "mkdir -p node_modules/x", "echo y > node_modules/x/y", "echo more >> a")
    shop.put({"a": b"1\n", "deploy/pre-deploy": build})
    assert shop.read("a") == "1\nmore\n"
    assert not shop.runner.verify()
    (shop.path / "current" / "built.css").write_text("edited")
    assert shop.runner.verify().lines() == ["modified built.css"]


def test_a_recycled_release_has_nothing_of_its_former_life(shop: Shop) -> None:
    build = script("echo $DEPLOYKIT_TAG >> generated", "echo more >> a")
    shop.settings = SiteSettings(keep=1, grace=0, drift="ignore")
    for n in range(1, 6):
        result = shop.put({"a": b"%d\n" % n, f"only-in-{n}": b"x", "deploy/pre-deploy": build})
        (shop.path / "current" / "trash").write_text("x")
    assert "recycled" in next(s.output for s in result.steps if s.name == "export")
    (shop.path / "current" / "trash").unlink()
    assert shop.read("generated") == "v5\n"
    assert shop.read("a") == "5\nmore\n"
    assert {p.name for p in (shop.path / "current").iterdir()} == {
        *("a", "only-in-5", "deploy", "generated", "TAG", ".deploykit"),
    }


def _looks(root: Path) -> dict[str, tuple[int, int, int]]:
    every = [root, *root.rglob("*")]
    return {str(p.relative_to(root)): (p.lstat().st_mode, p.lstat().st_uid, p.lstat().st_gid) for p in every}


def test_a_recycled_release_has_the_modes_owners_and_directories_of_a_fresh_one(shop: Shop, tmp_path: Path) -> None:
    """Whatever scripts or people did to the one it is made from."""
    shop.settings = SiteSettings(keep=1, grace=0, drift="ignore", submodules="skip", umask=0o022)
    for n in range(1, 6):
        files: Files = {"a": b"%d" % n, "d/e/same": b"same", "d/link": (SYMLINK, b"e"), "sub/mod": (GITLINK, b"1" * 40)}
        result = shop.put(files)
        live = (shop.path / "current").resolve()
        if n < 5:
            for name, mode in ((".", 0o700), ("d", 0o777), ("d/e", 0o2755), (".deploykit", 0o700)):
                (live / name).chmod(mode)
            (live / "sub/mod").rmdir()
            (live / "elsewhere").hardlink_to(live / "d/e/same")
            (live / "elsewhere").rename(tmp_path / f"elsewhere-{n}")
            if os.geteuid() == 0:
                for name in ("a", "d", "d/e/same", "d/link"):
                    os.chown(live / name, 12345, 12346, follow_symlinks=False)
    assert "recycled" in next(s.output for s in result.steps if s.name == "export")
    fresh = Shop(tmp_path / "other", shop.settings)
    fresh.repo = shop.repo
    fresh.deploy("v5").check()
    assert _looks(live) == _looks((fresh.path / "current").resolve())
    assert (live / "d/e/same").stat().st_nlink == 1
    shop.whole()


def test_a_recycled_release_keeps_no_directory_for_state_files_that_are_no_longer_wanted(shop: Shop) -> None:
    shop.settings = SiteSettings(keep=1, grace=0)
    for n in range(3):
        shop.put({"a": b"%d" % n})
    shop.settings = SiteSettings(keep=1, grace=0, state_files=False)
    for n in range(3):
        shop.put({"a": b"more %d" % n})
        assert [p.name for p in (shop.path / "current").iterdir()] == ["a"]


def test_keep_pinned_and_last_good(shop: Shop) -> None:
    shop.settings = SiteSettings(keep=2, grace=0)
    for n in range(1, 4):
        shop.put({"a": b"%d" % n})
    shop.runner.pin("v1")
    for n in range(4, 8):
        shop.put({"a": b"%d" % n})
    assert {r.tag for r in shop.runner.releases() if r.present} == {"v1", "v5", "v6", "v7"}
    assert next(r.tag for r in shop.runner.releases() if r.spare) == "v5"
    assert len(shop.names()) == 4
    shop.runner.pin("v1", pinned=False)
    shop.settings = SiteSettings(keep=2, recycle=False, grace=0)
    shop.put({"a": b"8"})
    assert {r.tag for r in shop.runner.releases() if r.present} == {"v7", "v8"}
    assert len(shop.names()) == 2
    assert {p.stem for p in (shop.path / ".deploykit" / "manifests").iterdir()} == shop.names()
    with pytest.raises(ReleaseError):
        shop.runner.pin("v1")


def test_failed_releases_never_push_good_ones_out(shop: Shop) -> None:
    shop.settings = SiteSettings(keep=2, grace=0)
    for n in range(1, 4):
        shop.put({"a": b"%d" % n})
    for n in range(8):
        shop.put({"a": b"bad %d" % n, "deploy/pre-deploy": script("exit 1")})
    good = {r.tag for r in shop.runner.releases() if r.present and r.status == "good"}
    assert good >= {"v2", "v3"}
    assert shop.read("a") == "3"
    assert len(shop.names()) <= 4
    assert shop.runner.rollback().outcome == "success"


def test_a_missing_required_script_is_refused_before_anything_is_touched(shop: Shop) -> None:
    shop.settings = SiteSettings(required=("pre-deploy", "post-deploy"))
    result = shop.put({"a": b"1", "deploy/pre-deploy": script("exit 0")})
    assert result.outcome == "refused"
    assert "the required script post-deploy is not in deploy" in result.detail
    assert shop.names() == set()
    assert shop.runner.releases() == ()


def test_a_script_that_is_not_executable_in_the_tree_is_refused_before_anything_is_touched(shop: Shop) -> None:
    result = shop.put({"deploy/post-deploy": (FILE, b"#!/bin/sh\n")})
    assert result.outcome == "refused"
    assert "deploy/post-deploy is not executable" in result.detail
    assert shop.names() == set()


def test_two_files_for_one_step_are_a_question(shop: Shop) -> None:
    result = shop.put({"deploy/post-deploy.sh": script("x"), "deploy/post-deploy.py": script("x")})
    assert "which one is post-deploy?" in result.detail


def test_scripts_can_live_outside_the_tree(shop: Shop, tmp_path: Path) -> None:
    outside = tmp_path / "scripts"
    outside.mkdir()
    (outside / "post-deploy").write_text("#!/bin/sh\necho outside; pwd\n")
    (outside / "post-deploy").chmod(0o755)
    shop.settings = SiteSettings(scripts=str(outside))
    result = shop.put({"a": b"1", "deploy/post-deploy": script("exit 1")})
    assert result.outcome == "success"
    assert next(s.output for s in result.steps if s.name == "post-deploy").splitlines() == [
        "outside",
        str(shop.path / "releases" / result.release),
    ]


def test_a_dry_run_touches_nothing_and_says_what_would_change(shop: Shop) -> None:
    shop.commit({"a": b"1", "d/x": b"1", "deploy/pre-link": script("true")})
    with Repository(shop.repo.path) as source:
        found = shop.runner.preview(source, "v1")
    assert not shop.path.exists()
    assert found.added == ("a", "d/x", "deploy/pre-link")
    assert (found.build, found.previous) == ("fresh", "")
    assert "pre-link" in found.steps
    assert "pre-deploy" not in found.steps
    shop.deploy("v1")
    before = contents(shop.path)
    shop.commit({"a": b"2", "b": b"2"})
    with Repository(shop.repo.path) as source:
        found = shop.runner.preview(source, "v2")
        assert shop.runner.preview(source, "v1").nothing_to_do
    assert (found.added, found.changed, found.removed) == (("b",), ("a",), ("d/", "deploy/"))
    assert contents(shop.path) == before


def test_a_dry_run_says_what_would_change_under_other_settings_and_without_the_old_tree(shop: Shop) -> None:
    shop.settings = SiteSettings(shared=("d/shared/",), submodules="skip")
    shop.put({"a": b"1", "d/x": b"1", "d/y": b"1", "d/shared/s": b"1", "sub": (GITLINK, b"1" * 40)})
    last = shop.commit({"a": b"1", "d/x": b"1", "d/y": b"2", "sub": (GITLINK, b"2" * 40)})
    shop.settings = SiteSettings(subdirectory="d", shared=("d/shared/",), submodules="skip")
    with Repository(shop.repo.path) as source:
        found = shop.runner.preview(source, "v2")
    assert (found.added, found.changed, found.removed) == (("x", "y"), (), ("a", "d/x", "d/y"))
    other = Shop(shop.base / "other", SiteSettings(shared=("d/shared/",), submodules="skip"))
    other.path = shop.path
    other.commit({"a": b"1", "d/x": b"1", "d/y": b"2"})
    with Repository(other.repo.path) as source:
        found = other.runner.preview(source, "v1")
    assert (found.added, found.changed, found.removed) == ((), ("d/y",), ())
    assert (found.warning, last != found.commit) == ("", True)


def test_a_dry_run_says_what_again_prepare_and_a_prepared_release_come_to(shop: Shop) -> None:
    commit = shop.commit({"a": b"1"})
    shop.deploy("v1")
    shop.commit({"a": b"2"})
    with Repository(shop.repo.path) as source:
        runner = shop.runner
        again = runner.preview(source, "v1", again=True)
        assert (again.nothing_to_do, again.commit, again.steps[-1]) == (False, commit, "activate")
        assert shop.deploy("v1", again=True).release == again.release
        prepare = runner.preview(source, "v2", again=True, activate=False)
        assert prepare.steps[-1] == "finalize"
        assert runner.prepare(source, "v2").release == prepare.release
        ready = runner.preview(source, "v2")
        assert (ready.release, ready.build, ready.steps) == (prepare.release, prepare.release, ("activate",))
        assert runner.deploy(source, "v2").release == ready.release


def test_two_deploys_at_once_come_one_after_the_other(shop: Shop) -> None:
    shop.put({"a": b"1"})
    slow = script("echo in >> $DEPLOYKIT_SHARED/log; sleep 0.5; echo out >> $DEPLOYKIT_SHARED/log")
    commits = [shop.commit({"a": b"%d" % n, "deploy/pre-deploy": slow}) for n in (2, 3)]
    results = []
    threads = [
        threading.Thread(target=lambda t=tag, c=c: results.append(shop.deploy(t, c, allow=Allowances(older=True))))
        for tag, c in zip(("v2", "v3"), commits, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [r.outcome for r in results] == ["success", "success"]
    assert (shop.path / "shared" / "log").read_text().split() == ["in", "out", "in", "out"]
    shop.whole()


def test_a_second_deploy_is_refused_at_once_where_the_setting_says_so(shop: Shop) -> None:
    shop.put({"a": b"1"})
    shop.settings = SiteSettings(lock_wait=0)
    shop.commit({"a": b"2"})
    with shop.site.locked(), pytest.raises(LockBusy, match=r"another deploy .* is running"):
        shop.deploy("v2")
    assert shop.deploy("v2").outcome == "success"


def test_history_keeps_every_step_with_its_output(shop: Shop) -> None:
    shop.put({"a": b"1", "deploy/pre-deploy": script("echo hello")}, requested_by="ann")
    shop.put({"a": b"2"})
    shop.runner.rollback(requested_by="bob")
    site = shop.site
    told = [(o.phase, o.outcome, o.requested_by, o.node) for o in site.history()]
    assert told == [
        ("deploy", "success", "ann", "node1"),
        ("deploy", "success", "", "node1"),
        ("rollback", "success", "bob", "node1"),
    ]
    assert "hello\n" in [s.output for s in site.steps(site.history()[0])]
    assert [r.status for r in shop.runner.releases()] == ["good", "withdrawn"]


def test_state_of_another_format_is_refused_not_guessed_at(shop: Shop) -> None:
    shop.put({"a": b"1"})
    path = shop.path / ".deploykit" / "state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 2}))
    with pytest.raises(ReleaseError, match="has format 2, known is 1"):
        shop.put({"a": b"2"})
    assert shop.read("a") == "1"


def test_current_pointing_elsewhere_by_hand_is_respected_until_the_next_deploy(shop: Shop, tmp_path: Path) -> None:
    shop.put({"a": b"1"})
    (tmp_path / "maintenance").mkdir()
    (shop.path / "current").unlink()
    (shop.path / "current").symlink_to(tmp_path / "maintenance")
    assert shop.runner.current() is None
    failed = shop.put({"a": b"2", "deploy/post-deploy": script("exit 1")})
    assert failed.outcome == "rolled-back"
    assert (shop.path / "current").readlink() == tmp_path / "maintenance"
    assert shop.put({"a": b"3"}).outcome == "success"
    assert shop.read("a") == "3"


def test_an_empty_tree_can_be_deployed(shop: Shop) -> None:
    shop.put({"a": b"1"})
    tree = shop.repo.tree([])
    commit = shop.repo.commit_tree(tree, parent=shop.repo.head())
    shop.repo.git("update-ref", "refs/tags/empty", commit)
    assert shop.deploy("empty").outcome == "success"
    assert shop.read("TAG") == "Tag: empty\n"
    shop.whole()
