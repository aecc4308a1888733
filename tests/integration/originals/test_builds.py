"""Half-old fleets that build: hooks, build daemons and build helpers of both kinds on one bus."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

import attrs
import pytest

from deploykit.daemons.jenkins.trigger import JenkinsTrigger
from deploykit.hooking import installer
from deploykit.messages import MirrorUpdated
from deploykit.names import RepoName, SiteName
from deploykit.settings import JenkinsSettings, JobSettings
from tests.brokers.server import BrokerServer
from tests.support.mixedfleet import MixedFleet
from tests.support.needs import needs
from tests.support.node import SHOP, Node
from tests.support.originals.hookprogram import install
from tests.support.originals.oldstomp import OldFrame
from tests.support.originals.publishers import OriginalCrash, git_post_receive, jenkins_helper, keepalive
from tests.support.originals.readers import OldDaemon, OldEventbot, OldJenkinsTrigger, OldProject, keyed
from tests.support.stubjenkins import StubJenkins, StubJob
from tests.support.wait import wait_until

WEB = RepoName("web")


class Svn:
    """A Subversion repository with two projects, from before any hook."""

    def __init__(self, root: Path) -> None:
        self.path = root / "svn"
        subprocess.run([needs("svnadmin", package="subversion"), "create", str(self.path)], check=True)
        self.mkdir("a/trunk", "a/tags", "b/trunk", "b/branches", "b/tags")

    def mkdir(self, *paths: str, log: str = "dirs") -> None:
        """Make directories in one commit, which runs the hook."""
        urls = [f"file://{self.path}/{path}" for path in paths]
        words = [str(needs("svn", package="subversion")), "mkdir", "-q", "--parents", "--username", "ada", "-m", log]
        done = subprocess.run([*words, *urls], capture_output=True, text=True, env={"LC_ALL": "C.UTF-8"}, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")


def our_trigger(fleet: MixedFleet, jenkins: StubJenkins, *jobs: JobSettings) -> JenkinsTrigger:
    """Our build daemon."""
    found = JenkinsSettings(servers={"ci": jenkins.settings(fleet.root)}, jobs=jobs, pause_max=0.2)
    return JenkinsTrigger(attrs.evolve(fleet.settings, jenkins=found))


def built(jenkins: StubJenkins, name: str, parameter: str) -> list[str]:
    """What the stub has built, by one parameter."""
    return [build.parameters[parameter] for build in jenkins.queue.jobs[name].builds]


def test_the_originals_hooks_start_builds_of_ours(tmp_path: Path, real_broker: BrokerServer) -> None:
    fleet = MixedFleet(tmp_path, real_broker)
    svn, origin = Svn(tmp_path), fleet.origin()
    install(fleet.old, "svn", "web", svn.path)
    fleet.old_hook(origin)
    jobs = [StubJob(name="shop tests"), StubJob(name="web", parameters=("DEPLOYKIT_PROJECT", "DEPLOYKIT_REVISION"))]
    with StubJenkins(jobs) as jenkins:
        of_shop = JobSettings(repo=SHOP, job="shop%20tests", ignore=("refs/heads/wip*",))
        of_web = JobSettings(repo=WEB, job="web", projects=("*",))
        with our_trigger(fleet, jenkins, of_shop, of_web) as trigger:
            assert trigger.wait_connected(60)
            keepalive(fleet.old, fleet.topics.source)
            svn.mkdir("a/trunk/one", "b/trunk/one", log="grüße\n\nProject: evil")
            svn.mkdir("b/tags/1.0")  # the original names the project "1.0" or "tags"
            origin.branch("wip", {"x": "1"})
            commit = origin.push(tag="v1")
            jenkins.queue.wait_for_builds("web", 3)
            jenkins.queue.wait_for_builds("shop tests", 2)
            wait_until(lambda: not trigger.waiting, "the end of all builds")
        assert sorted(built(jenkins, "web", "DEPLOYKIT_PROJECT")) == ["a", "b", "b"]
        assert sorted(built(jenkins, "shop tests", "DEPLOYKIT_REF")) == ["refs/heads/main", "refs/tags/v1"]
        assert set(built(jenkins, "shop tests", "DEPLOYKIT_COMMIT")) == {commit}


def test_our_hooks_start_builds_of_the_originals_daemon_and_of_ours(tmp_path: Path, real_broker: BrokerServer) -> None:
    """A revision in two projects is two messages: two requests of the original's daemon, and two builds of ours."""
    fleet = MixedFleet(tmp_path, real_broker)
    svn, origin = Svn(tmp_path), fleet.origin()
    fleet.hook_settings(svn.path, "web")
    installer.install(svn.path)
    fleet.new_hook(origin)
    web = {name: OldProject(project=f"{name}%20tests", ticket="t") for name in ("a", "b", "evil")}
    job = StubJob(name="web", parameters=("DEPLOYKIT_PROJECT", "DEPLOYKIT_REVISION"))
    with StubJenkins([job, StubJob(name="shop")]) as jenkins, fleet.relay(), OldEventbot(fleet.old) as bot:
        projects: dict[str, OldProject | Mapping[str, OldProject]] = {
            "web": web,
            "shop": OldProject("shop", "t", "wip"),
            "off": OldProject("off", "t", None),
        }
        ours = our_trigger(fleet, jenkins, JobSettings(repo=WEB, job="web", projects=("*",)))
        with OldJenkinsTrigger(fleet.old, jenkins.url, projects) as old, ours as trigger:
            assert trigger.wait_connected(60)
            keepalive(fleet.old, fleet.topics.source)
            svn.mkdir("a/trunk/one", "b/trunk/one", log="grüße\nProject: evil\nrepo: off")
            wait_until(lambda: len(old.asked) == 2, f"two requests, not {old.asked}")
            origin.branch("wip/1", {"x": "1"})
            origin.push()
            wait_until(lambda: len(old.asked) == 3, f"one request more, not {old.asked}")
            svn.mkdir("b/branches/1.0")
            wait_until(lambda: len(old.asked) == 4, f"one request more, not {old.asked}")
            jenkins.queue.wait_for_builds("web", 3)
            wait_until(lambda: not trigger.waiting, "the end of all builds")
            assert old.runs
        paths = [f"/jenkins/job/{name}/build" for name in ("a%20tests", "b%20tests", "shop", "b%20tests")]
        assert sorted(old.asked[:2]) + old.asked[2:] == paths
        assert [seen.method for seen in jenkins.seen if seen.query.startswith("token=")] == ["GET"] * 4
        assert sorted(built(jenkins, "web", "DEPLOYKIT_PROJECT")) == ["a", "b", "b"]
        line = "oldhost Requested Jenkins build: [web] 2  / a_tests"
        wait_until(lambda: ("jenkins", line) in bot.lines, f"{line} in {bot.lines}")


@pytest.mark.rabbitmq
def test_a_deleted_branch_is_told_in_legacy_only_where_a_setting_says_so(
    tmp_path: Path, rabbitmq: BrokerServer
) -> None:
    """The original's build daemon builds what was deleted; its own hook never told it. [seen]"""
    fleet = MixedFleet(tmp_path, rabbitmq)
    origin = fleet.origin()
    origin.branch("one", {"x": "1"})
    origin.branch("two", {"x": "1"})
    old = OldJenkinsTrigger(fleet.old, "http://127.0.0.1:9/", {"shop": OldProject("shop", "t", "")})
    fleet.new_hook(origin)
    with fleet.relay(), OldDaemon(fleet.old, ["git.commits"]) as reader:
        origin.delete("one")
        fleet.hook_settings(origin.path, "shop", "legacy_deletes = true")
        with old:
            origin.delete("two")
            # Its Jenkins is down: it ends, as it does on each such day. [seen]
            wait_until(lambda: not old.runs, "its end")
        wait_until(lambda: bool(reader.heard), "the second deletion")
    assert isinstance(old.died, ConnectionRefusedError)
    assert [frame.headers["subject"].split(" ")[1] for frame in reader.heard] == ["refs/heads/two"]
    with pytest.raises(OriginalCrash):
        git_post_receive(fleet.old, "shop", origin.path, f"{'1' * 40} {'0' * 40} refs/heads/one\n")


HELPED = {
    "JOB_NAME": "shop-tests",
    "BUILD_NUMBER": "41",
    "BUILD_URL": "https://ci.example.org/job/shop-tests/41/",
    "GIT_BRANCH": "shop/main",
}


@pytest.mark.rabbitmq
def test_the_originals_build_helper_has_our_agent_fetch_and_opens_no_gate(
    tmp_path: Path, rabbitmq: BrokerServer
) -> None:
    """A success that nobody signed is believed to be worth a look at the origin, and no more."""
    fleet = MixedFleet(tmp_path, rabbitmq)
    node = Node(tmp_path / "node", rabbitmq)
    site = attrs.evolve(node.settings.sites[SiteName("shop")], require_build=("shop-tests",))
    repository = attrs.evolve(node.settings.repositories[SHOP], fetch_on="build")
    node.settings = attrs.evolve(
        node.settings, topics=fleet.topics, sites={SiteName("shop"): site}, repositories={SHOP: repository}
    )
    node.origin.push()
    with node, node.agent() as agent:
        agent.ready()
        commit = node.origin.push(tag="v1")
        for option in ("-b", "-p"):
            jenkins_helper(fleet.old, option, {**HELPED, "GIT_COMMIT": commit})
        assert node.wait(MirrorUpdated, lambda m: m.new == commit).ref == "refs/heads/main"
        asked = node.request("v1", commit)
        node.send(asked)
        report = node.report_on(asked)
        assert (report.outcome, "no successful build of shop-tests" in report.detail) == ("refused", True)


class OldBuildReader(OldDaemon):
    """Somebody's own reader of build results: what its subject and its keys say."""

    def __init__(self, fleet: MixedFleet) -> None:
        self.results: list[tuple[str, str, str]] = []
        super().__init__(fleet.old, ["jenkins.success", "jenkins.cake"])

    def handle(self, frame: OldFrame) -> None:
        fields = keyed(frame.text)
        self.results.append((frame.headers["subject"], fields["Repo"], fields["Status"]))


@pytest.mark.rabbitmq
def test_our_build_helper_tells_the_originals_readers_what_its_own_told_them(
    tmp_path: Path, rabbitmq: BrokerServer
) -> None:
    fleet = MixedFleet(tmp_path, rabbitmq)
    (tmp_path / "bin").mkdir()
    script = installer.install(tmp_path / "bin", "jenkins").path
    config = fleet.hook_settings(tmp_path)
    commit = "8f" * 20
    env = {**HELPED, "GIT_COMMIT": commit, "GIT_URL": "git@git.example.org:team/shop.git", "GIT_BRANCH": "origin/main"}
    with fleet.relay(), OldBuildReader(fleet) as reader, OldEventbot(fleet.old) as bot:
        for option in ("-b", "-p", "-c"):
            # As the original's, in a step of the job.
            done = subprocess.run([script, "--config", config, option], env=env, capture_output=True, timeout=60)
            assert done.returncode == 0, done.stderr
        jenkins_helper(fleet.old, "-p", {**HELPED, "GIT_COMMIT": commit})
        wait_until(lambda: len(reader.results) == 3, f"three results, not {reader.results}")
        wait_until(lambda: len(bot.lines) >= 4, f"four lines, not {bot.lines}")
    end = f"job 41 - [shop-tests] shop/main {commit}"
    passed, failed = (f"Complete {end}", "shop", "Success"), (f"Fail {end}", "shop", "Cake")
    assert sorted(reader.results) == sorted([passed, passed, failed])
    assert {where for where, _ in bot.lines} == {"jenkins"}
