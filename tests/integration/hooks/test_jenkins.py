"""jenkins-notify in the environments that Jenkins documents for its kinds of jobs."""

from __future__ import annotations

import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import attrs
import pytest

from deploykit.errors import SignatureError
from deploykit.hooking.jenkins import message_of
from deploykit.messages import BuildFinished, BuildStarted
from deploykit.settings.hooks import HookSettings
from deploykit.trust.allowed_signers import AllowedSigners
from deploykit.trust.signature import HEADER, verify
from deploykit.wire import decode
from tests.support.hookworld import World, lines
from tests.support.needs import missing, needs

COMMIT = "8f2b0f2d3c1a4e5f6a7b8c9d0e1f2a3b4c5d6e7f"
# Variables as the pages "Environment Variables" of Jenkins, of its git plugin and of multibranch jobs list them.
CORE = {
    "BUILD_NUMBER": "153",
    "BUILD_ID": "153",
    "BUILD_DISPLAY_NAME": "#153",
    "JOB_NAME": "team/shop",
    "JOB_BASE_NAME": "shop",
    "BUILD_TAG": "jenkins-team-shop-153",
    "EXECUTOR_NUMBER": "0",
    "NODE_NAME": "built-in",
    "WORKSPACE": "/var/lib/jenkins/workspace/shop",
    "JENKINS_HOME": "/var/lib/jenkins",
    "JENKINS_URL": "https://ci.example.org/",
    "BUILD_URL": "https://ci.example.org/job/team/job/shop/153/",
    "JOB_URL": "https://ci.example.org/job/team/job/shop/",
}
GIT = {
    "GIT_COMMIT": COMMIT,
    "GIT_PREVIOUS_COMMIT": "0" * 40,
    "GIT_BRANCH": "origin/main",
    "GIT_LOCAL_BRANCH": "main",
    "GIT_URL": "git@git.example.org:team/shop.git",
}
FREESTYLE = CORE | GIT
MULTIBRANCH = CORE | GIT | {"BRANCH_NAME": "feature/x", "GIT_BRANCH": "feature/x", "JOB_NAME": "team/shop/feature%2Fx"}
TAG = CORE | GIT | {"TAG_NAME": "v1.2", "BRANCH_NAME": "v1.2", "GIT_BRANCH": "v1.2"}
CHANGE = CORE | GIT | {"BRANCH_NAME": "PR-7", "CHANGE_ID": "7", "CHANGE_BRANCH": "topic", "GIT_BRANCH": "PR-7"}
SVN = CORE | {"SVN_REVISION": "77", "SVN_URL": "https://svn.example.org/web/trunk"}


@pytest.fixture
def notify(world: World) -> Path:
    """The script, installed for the pusher."""
    where = world.directory("bin")
    done = world.deploykit("hooks", "install", "--kind", "jenkins", where)
    assert done.returncode == 0, done.stderr
    world.write(world.root / "hooks.toml", f'spool = "{world.spool}"\nrelay = ""\n')
    return where / "jenkins-notify"


def run(world: World, notify: Path, *words: str, env: dict[str, str]) -> list[str]:
    """Run it as Jenkins would, and return what it said."""
    done = world.run(notify, "--config", world.root / "hooks.toml", *words, env=env)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return lines(done)


def test_a_build_is_told_at_its_begin_and_at_its_end(world: World, notify: Path) -> None:
    run(world, notify, "begin", env=FREESTYLE)
    run(world, notify, "success", env=FREESTYLE)
    begun, ended = world.events()
    assert isinstance(begun, BuildStarted)
    assert isinstance(ended, BuildFinished)
    for event in (begun, ended):
        assert (event.job, event.number, event.url) == ("team/shop", 153, FREESTYLE["BUILD_URL"])
        assert (event.repo, event.ref, event.commit) == ("shop", "refs/heads/main", COMMIT)
        assert event.source.startswith("jenkins/")
    assert ended.outcome == "success"
    assert [r.destination for r in world.records()][::2] == ["/topic/deploykit.build"] * 2


@pytest.mark.parametrize(
    ("word", "outcome"),
    [
        ("success", "success"), ("failure", "failure"), ("unstable", "unstable"), ("aborted", "aborted"),
        ("SUCCESS", "success"), ("NOT_BUILT", "aborted"), ("-p", "success"), ("-c", "failure"),
    ],
)  # fmt: skip
def test_every_outcome_and_the_originals_options(world: World, notify: Path, word: str, outcome: str) -> None:
    run(world, notify, word, env=FREESTYLE)
    assert world.events()[0].outcome == outcome


def test_the_originals_option_for_a_begun_build(world: World, notify: Path) -> None:
    run(world, notify, "-b", env=FREESTYLE)
    assert isinstance(world.events()[0], BuildStarted)


@pytest.mark.parametrize(
    ("env", "repo", "ref", "commit"),
    [
        (FREESTYLE, "shop", "refs/heads/main", COMMIT),
        (MULTIBRANCH, "shop", "refs/heads/feature/x", COMMIT),
        (TAG, "shop", "refs/tags/v1.2", COMMIT),
        (FREESTYLE | {"GIT_BRANCH": "origin/tags/v1"}, "shop", "refs/tags/v1", COMMIT),
        (FREESTYLE | {"GIT_BRANCH": "refs/tags/v1"}, "shop", "refs/tags/v1", COMMIT),
        (FREESTYLE | {"GIT_BRANCH": "detached"}, "shop", None, COMMIT),
        (FREESTYLE | {"GIT_BRANCH": "webshop/main"}, "webshop", "refs/heads/main", COMMIT),
        (FREESTYLE | {"GIT_URL": "https://git.example.org/group/app.git"}, "app", "refs/heads/main", COMMIT),
        (CHANGE, "shop", "refs/heads/PR-7", COMMIT),
        (SVN, "web", None, None),
        (CORE, None, None, None),
        (CORE | {"GIT_COMMIT": "not an id", "GIT_BRANCH": "origin/a b"}, None, None, None),
    ],
)
def test_repository_ref_and_commit_of_each_kind_of_job(
    world: World, notify: Path, env: dict[str, str], repo: str | None, ref: str | None, commit: str | None
) -> None:
    run(world, notify, "success", env=env)
    (event,) = world.events()
    assert (event.repo, event.ref, event.commit) == (repo, ref, commit)


def test_a_build_that_was_triggered_by_us_keeps_the_thread_and_our_names(world: World, notify: Path) -> None:
    ours = {
        "DEPLOYKIT_CORRELATION_ID": "5f0c1a8e-0000-4000-8000-000000000001",
        "DEPLOYKIT_REPO": "team/shop",
        "DEPLOYKIT_REF": "refs/tags/v2",
        "DEPLOYKIT_COMMIT": "1" * 40,
        "DEPLOYKIT_PROJECT": "web",
    }
    run(world, notify, "success", env=FREESTYLE | ours)
    (event,) = world.events()
    assert event.correlation_id == ours["DEPLOYKIT_CORRELATION_ID"]
    assert (event.repo, event.ref, event.commit, event.project) == ("team/shop", "refs/tags/v2", COMMIT, "web")
    assert {m.correlation_id for m in world.messages()} == {event.correlation_id}


def test_the_commit_is_the_one_that_was_built_and_not_the_one_that_was_asked_for(world: World, notify: Path) -> None:
    """Whoever may start a build chooses its parameters: a result must not open a gate for what was never built."""
    asked = {"DEPLOYKIT_COMMIT": "1" * 40}
    run(world, notify, "success", env=FREESTYLE | asked)
    run(world, notify, "success", env=CORE | asked)
    assert [event.commit for event in world.events()] == [COMMIT, "1" * 40]
    key = world.root / "bin" / "ci.key"
    assert world.deploykit("keys", "generate", key, "--principal", "ci@example.org").returncode == 0
    world.write(world.root / "hooks.toml", f'spool = "{world.spool}"\nrelay = ""\nsigning_key = "{key}"\n')
    world.empty_spool()
    run(world, notify, "success", env=FREESTYLE | asked)
    run(world, notify, "success", env=CORE | asked)
    assert [event.commit for event in world.events()] == [COMMIT, None]


HOSTILE = "x\n$(touch pwned);`id`\x1b[31m\r\0"[:-1]


@pytest.mark.parametrize("name", ["JOB_NAME", "GIT_BRANCH", "GIT_COMMIT", "BUILD_URL", "BUILD_NUMBER", "GIT_URL"])
def test_hostile_variables_are_text_and_nothing_else(world: World, notify: Path, name: str) -> None:
    """Threats 7, 18, 23 and 34: whoever names a branch or a job chooses no command, no header and no colour."""
    run(world, notify, "failure", env=FREESTYLE | {name: HOSTILE})
    (event,) = world.events()
    assert event.job.isprintable()
    assert event.url.isprintable()
    for record in world.records():
        text = "".join(record.frame.headers.values())
        assert text.isprintable()
    for message in world.messages():
        assert message.summary.isprintable()
    assert not list(world.root.rglob("pwned"))


def test_the_result_is_signed_where_a_key_is_configured(world: World, notify: Path) -> None:
    key = world.root / "bin" / "ci.key"
    done = world.deploykit("keys", "generate", key, "--principal", "ci@example.org")
    assert done.returncode == 0, done.stderr
    world.write(world.root / "hooks.toml", f'spool = "{world.spool}"\nrelay = ""\nsigning_key = "{key}"\n')
    run(world, notify, "begin", env=FREESTYLE)
    run(world, notify, "success", env=FREESTYLE)
    public = Path(f"{key}.pub").read_text()
    allowed = AllowedSigners.parse(f'ci@example.org namespaces="deploykit" {public}')
    begun, ended = (r.frame for r in world.records() if r.destination == "/topic/deploykit.build")
    assert verify(ended, allowed, datetime.now(UTC)).principals
    with pytest.raises(SignatureError):
        verify(begun, allowed, datetime.now(UTC))


def test_a_key_that_others_can_read_signs_nothing_and_tells_nothing(world: World, notify: Path) -> None:
    """Threats 24 and 27."""
    key = world.root / "bin" / "ci.key"
    world.deploykit("keys", "generate", key, "--principal", "ci@example.org")
    key.chmod(0o644)
    world.write(world.root / "hooks.toml", f'spool = "{world.spool}"\nsigning_key = "{key}"\n')
    (line,) = run(world, notify, "success", env=FREESTYLE)
    assert line.startswith("deploykit: nothing queued: ")
    assert str(key) in line
    assert world.records() == []


def test_legacy_bodies_are_the_originals(world: World, notify: Path) -> None:
    world.write(world.root / "hooks.toml", f'spool = "{world.spool}"\nrelay = ""\nlegacy = true\n')
    for word in ("-b", "-p", "-c"):
        run(world, notify, word, env=FREESTYLE)
    events = [r for r in world.records() if "events" not in r.destination]
    assert [r.destination for r in events] == [
        "/topic/future.jenkins",
        "/topic/future.jenkins.success",
        "/topic/future.jenkins.cake",
    ]
    url = FREESTYLE["BUILD_URL"]
    assert [r.frame.body.decode() for r in events] == [
        f"Repo: shop\nURL: {url}\nStatus: {status}\n" for status in ("Start job", "Success", "Cake")
    ]
    assert [r.frame.headers["subject"] for r in events] == [
        f"{verb} job 153 - [team/shop] shop/main {COMMIT}" for verb in ("Begin", "Complete", "Fail")
    ]
    ended = decode(events[1].frame.headers, events[1].frame.body, events[1].destination)
    assert isinstance(ended, BuildFinished)
    assert (ended.job, ended.number, ended.repo, ended.ref) == ("team/shop", 153, "shop", "refs/heads/main")
    assert (ended.commit, ended.outcome, ended.url) == (COMMIT, "success", url)
    world.empty_spool()
    world.write(world.root / "hooks.toml", f'spool = "{world.spool}"\nrelay = ""\n')
    run(world, notify, "-p", env=FREESTYLE)
    (native,) = world.events()
    same = {name: getattr(native, name) for name in ("id", "source", "time", "correlation_id")}
    assert attrs.evolve(ended, **same) == native


def test_a_legacy_build_of_no_known_repository_is_told_as_the_original_told_it(world: World, notify: Path) -> None:
    world.write(world.root / "hooks.toml", f'spool = "{world.spool}"\nrelay = ""\nlegacy = true\n')
    env = {name: value for name, value in FREESTYLE.items() if not name.startswith("GIT_URL")}
    run(world, notify, "-p", env=env | {"GIT_BRANCH": "origin/main"})
    event, line = world.records()
    assert event.destination == "/topic/future.jenkins.success"
    assert event.frame.headers["subject"] == f"Complete job 153 - [team/shop] origin/main {COMMIT}"
    assert event.frame.body.decode() == f"Repo: origin\nURL: {FREESTYLE['BUILD_URL']}\nStatus: Success\n"
    assert (line.destination, line.frame.headers["subject"]) == ("/topic/future.events.jenkins", "Talking to eventbot")


def test_a_signed_result_stays_native_beside_the_originals_programs(world: World, notify: Path) -> None:
    """A signature is of our form, and a gate believes nothing else."""
    key = world.root / "bin" / "ci.key"
    world.deploykit("keys", "generate", key, "--principal", "ci@example.org")
    text = f'spool = "{world.spool}"\nrelay = ""\nlegacy = true\nsigning_key = "{key}"\n'
    world.write(world.root / "hooks.toml", text)
    for word in ("begin", "success"):
        run(world, notify, word, env=FREESTYLE)
    begun, _, ended, line = world.records()
    assert begun.frame.body.startswith(b"Repo: shop\n")
    assert ended.destination == "/topic/future.jenkins.success"
    assert HEADER in ended.frame.headers
    assert isinstance(decode(ended.frame.headers, ended.frame.body, ended.destination), BuildFinished)
    assert ended.frame.body.startswith(b"{")
    assert line.frame.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize(
    ("words", "env", "says"),
    [
        ((), FREESTYLE, "expected one word: begin, or how the build ended"),
        (("nonsense",), FREESTYLE, "no such outcome: 'nonsense'"),
        (("success", "failure"), FREESTYLE, "expected one word: begin, or how the build ended"),
        (("success",), {}, "JOB_NAME is not set (run this from a Jenkins build)"),
    ],
)
def test_wrong_use_is_one_line_and_fails_no_build(
    world: World, notify: Path, words: tuple[str, ...], env: dict[str, str], says: str
) -> None:
    (line,) = run(world, notify, *words, env=env)
    assert line.startswith("deploykit: nothing queued: ")
    assert says in line


def test_settings_that_are_named_and_not_there_are_told_and_not_done_without(world: World, notify: Path) -> None:
    (world.root / "hooks.toml").unlink()
    (line,) = run(world, notify, "success", env=FREESTYLE | {"HOME": str(world.root)})
    assert f"nothing queued: no such file: {world.root}/hooks.toml" in line
    done = world.deploykit("hooks", "check", "--kind", "jenkins", "--config", world.root / "hooks.toml", notify)
    assert (done.returncode, f"'{world.root}/hooks.toml' does not exist" in done.stderr) == (2, True)


def test_help_says_how_it_is_called(world: World, notify: Path) -> None:
    done = world.run(notify, "--help")
    assert done.returncode == 0
    assert "begin|success|failure|unstable|aborted" in done.stderr


# -- contrib -----------------------------------------------------------------------------------------------------------

ROOT = Path(__file__).parents[3]


def recipe(language: str, world: World, notify: Path) -> list[str]:
    """The blocks of the freestyle recipe in one language, calling the script where it is."""
    path = ROOT / "contrib" / "jenkins" / "freestyle.md"
    if not path.exists():
        missing("the source tree (run the tests from a checkout)")
    called = f"{notify} --config {world.root}/hooks.toml"
    blocks = (part.split("```")[0] for part in path.read_text().split(f"```{language}\n")[1:])
    return [block.replace("/usr/local/bin/jenkins-notify", called) for block in blocks]


def execute_shell(world: World, script: str) -> subprocess.CompletedProcess[str]:
    """Run a build step as Jenkins does: /bin/sh -xe on a file, in the build's environment."""
    step = world.write(world.root / "bin" / "step.sh", script)
    return world.run(needs("sh", package="dash"), "-xe", step, env={"PATH": "/usr/bin:/bin", **FREESTYLE})


def test_the_freestyle_recipe_is_run_by_a_shell_as_it_stands(world: World, notify: Path) -> None:
    """The shell steps of the recipe: the build's own result is the step's, whatever the hook does."""
    for block in recipe("sh", world, notify):
        done = execute_shell(world, block)
        assert done.returncode == 0, done.stderr
    kinds = [type(event).__name__ for event in world.events()]
    assert kinds == ["BuildStarted", "BuildFinished"]


@pytest.mark.parametrize(("result", "outcome"), [("true", "success"), ("exit 3", "failure"), ("false", "failure")])
def test_the_recipes_trap_tells_of_either_end_and_keeps_the_builds_result(
    world: World, notify: Path, result: str, outcome: str
) -> None:
    (block,) = recipe("text", world, notify)
    assert "make test" in block
    done = execute_shell(world, block.replace("make test", result))
    assert done.returncode == {"true": 0, "exit 3": 3, "false": 1}[result]
    (event,) = world.events()
    assert event.outcome == outcome


def test_the_jenkinsfile_calls_the_script_by_words_it_knows(world: World, notify: Path) -> None:
    """`currentBuild.currentResult` is one of Jenkins' five words; whatever it is, the script takes it."""
    path = ROOT / "contrib" / "jenkins" / "Jenkinsfile"
    if not path.exists():
        missing("the source tree (run the tests from a checkout)")
    text = path.read_text()
    assert text.count("{") == text.count("}")
    steps = re.findall(r"""sh ['"](/usr/local/bin/jenkins-notify .*?)['"]""", text)
    assert len(steps) == 2
    parameters = re.findall(r"name: '(\w+)'", text)
    ours = {"DEPLOYKIT_CORRELATION_ID", "DEPLOYKIT_REPO", "DEPLOYKIT_REF", "DEPLOYKIT_COMMIT"}
    assert set(parameters) == ours
    words = ("SUCCESS", "UNSTABLE", "FAILURE", "ABORTED", "NOT_BUILT")
    commands = {step.replace("${currentBuild.currentResult}", word) for step in steps for word in words}
    assert len(commands) == 6, "one step has the word, the other is the same whatever it is"
    for command in commands:
        script = command.replace("/usr/local/bin/jenkins-notify", f"{notify} --config {world.root}/hooks.toml")
        done = execute_shell(world, script)
        assert (done.returncode, "nothing queued" in done.stderr) == (0, False), done.stderr
    assert len(world.events()) == 6


def test_parameters_that_a_build_by_hand_leaves_empty_are_not_there(world: World, notify: Path) -> None:
    empty = dict.fromkeys(("DEPLOYKIT_CORRELATION_ID", "DEPLOYKIT_REPO", "DEPLOYKIT_REF", "DEPLOYKIT_COMMIT"), "")
    run(world, notify, "success", env=FREESTYLE | empty)
    (event,) = world.events()
    assert event.correlation_id == event.id
    assert (event.repo, event.ref, event.commit) == ("shop", "refs/heads/main", COMMIT)


@pytest.mark.parametrize("told", ["x" * 256, "two\nlines", "\udcff"], ids=["long", "lines", "bytes"])
def test_a_thread_that_is_no_id_is_left_out_and_not_mended_into_another_one(told: str) -> None:
    environ = {"JOB_NAME": "shop", "DEPLOYKIT_CORRELATION_ID": told}
    event = message_of("success", HookSettings(), environ)
    assert event.correlation_id == event.id


@pytest.mark.parametrize("name", ["DEPLOYKIT_CORRELATION_ID", "DEPLOYKIT_REPO", "DEPLOYKIT_REF", "DEPLOYKIT_COMMIT"])
def test_hostile_parameters_are_dropped_or_made_one_line(world: World, notify: Path, name: str) -> None:
    """Threats 7, 9, 18 and 23: parameters are set by whoever may start the build."""
    run(world, notify, "success", env=FREESTYLE | {name: "../../x\r\nsubject:y\x1b[31m$(touch pwned)"})
    (event,) = world.events()
    assert event.correlation_id.isprintable()
    assert (event.repo, event.ref, event.commit) == ("shop", "refs/heads/main", COMMIT)
    for record in world.records():
        assert "".join([*record.frame.headers, *record.frame.headers.values()]).isprintable()
    assert not list(world.root.rglob("pwned"))
