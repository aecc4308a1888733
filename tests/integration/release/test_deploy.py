"""What a deploy does when all goes well, and what it does by itself when not."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from deploykit.errors import LockBusy, ReleaseError
from deploykit.release import Allowances
from deploykit.settings import SiteSettings
from tests.support.gitrepo import FILE, SYMLINK, contents
from tests.support.releasing import Shop, script


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


def test_what_the_old_release_prints_on_the_way_back_is_heard_under_a_name_of_its_own(shop: Shop) -> None:
    shop.put({"a": b"1", "deploy/post-deploy": script("echo old")})
    shop.heard.clear()
    result = shop.put({"a": b"2", "deploy/post-deploy": script("echo new", "exit 1")})
    assert result.outcome == "rolled-back"
    heard = [(step, text.strip()) for step, _, text in shop.heard]
    assert heard == [("post-deploy", "new"), ("post-deploy-rollback", "old")]


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


def test_what_a_script_prints_on_the_way_back_goes_by_a_name_of_its_own(shop: Shop) -> None:
    shop.put({"a": b"1", "deploy/post-deploy": script("echo 200 OK")})
    shop.heard.clear()
    shop.put({"a": b"2", "deploy/post-deploy": script("echo 500", "exit 1")})
    assert shop.heard == [("post-deploy", "stdout", "500\n"), ("post-deploy-rollback", "stdout", "200 OK\n")]
