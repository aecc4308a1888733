"""Builds and the agent, whole: results over a real broker open and close the gate, and have repositories fetched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest

from deploykit.audit.files import read_records
from deploykit.audit.record import AuditRecord
from deploykit.broker.server import EmbeddedBroker
from deploykit.builds import SignedResult
from deploykit.builds.store import builds_of
from deploykit.daemons.agent import agent as daemon
from deploykit.messages import BuildFinished, MirrorUpdated, RefUpdated
from deploykit.messages.topics import topic_of
from deploykit.names import ZERO_ID, ObjectId, RefName, SiteName
from deploykit.settings import CheckoutSettings, GrantSettings
from deploykit.trust.keyfiles import generate_key, trust
from deploykit.trust.signature import sign
from deploykit.wire import Frame, encode
from tests.brokers.server import BrokerServer
from tests.support.node import SHOP, Node, at_real_broker, git
from tests.support.wait import wait_until

JOB = "shop-tests"
MAIN = RefName("refs/heads/main")


class BuiltNode(Node):
    """A node that fetches after builds, and whose site requires one."""

    def __init__(self, root: Path, broker: EmbeddedBroker) -> None:
        super().__init__(root, broker)
        self.keys["jenkins"] = generate_key(root / "jenkins.key")
        trust(self.signers, "jenkins", self.keys["jenkins"].public_blob)
        trust(self.signers, "oncall@example.org", self.keys["stranger"].public_blob)
        builds = GrantSettings(principal="jenkins", types=("build.finished",), repos=("shop",), jobs=("shop-*",))
        oncall = GrantSettings(principal="oncall@example.org", types=("deploy.requested", "without-build"))
        live = CheckoutSettings(mode="branch", branch="main", target=root / "live")
        site, repository = self.settings.sites[SiteName("shop")], self.settings.repositories[SHOP]
        self.settings = attrs.evolve(
            self.settings,
            trust=attrs.evolve(self.settings.trust, grants=(*self.settings.trust.grants, builds, oncall)),
            repositories={SHOP: attrs.evolve(repository, fetch_on="build", checkouts=(live,))},
            sites={SiteName("shop"): attrs.evolve(site, require_build=(JOB,))},
        )

    @property
    def live(self) -> str:
        return (self.root / "live" / "index.html").read_text().strip()

    def built(self, commit: ObjectId, ref: str = MAIN, **changes: Any) -> BuildFinished:
        made = BuildFinished(
            source="jenkins/ci1", job=JOB, number=1, repo=SHOP, ref=RefName(ref), commit=commit, outcome="success"
        )
        return attrs.evolve(made, **changes)

    def result(self, message: BuildFinished, key: str | None = "jenkins") -> SignedResult | None:
        """Publish a result, signed or not."""
        frame = encode(message)
        if key is not None:
            frame = sign(frame, self.keys[key])
        self.bus.publish(topic_of(message, self.settings.topics), frame)
        return SignedResult.from_frame(frame) if key is not None else None

    def kept(self, count: int) -> None:
        """Wait until the node keeps so many results."""
        wait_until(lambda: builds_of(self.settings.state).count() == count)

    def deployed(self, tag: str, commit: ObjectId, *, key: str = "operator", **changes: Any) -> tuple[str, str]:
        """Ask for a deploy; return outcome and detail."""
        request = self.request(tag, commit, **changes)
        self.send(request, key=key)
        report = self.report_on(request)
        return report.outcome, report.detail


@pytest.fixture
def node(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> Iterator[BuiltNode]:
    made = BuiltNode(tmp_path, deploykit_broker)
    with made:
        yield made


def test_a_success_has_its_ref_fetched_and_opens_the_gate_and_a_push_does_neither(node: BuiltNode) -> None:
    first = node.origin.push()
    with node.agent() as agent:
        agent.ready()
        node.wait(MirrorUpdated, lambda m: m.new == first)  # the first clone, and its directory
        wait_until((node.root / "live" / "index.html").exists)
        other = node.origin.branch("unbuilt", {"other.html": "x"})
        commit = node.origin.push(tag="v1", files={"index.html": "one\n"})
        pushed = RefUpdated(source="git", repo=SHOP, ref=MAIN, old=first, new=commit)
        node.bus.publish(node.settings.topics.source, encode(pushed))
        assert node.deployed("v1", commit) == (
            "refused",
            f"no successful build of shop-tests for {commit[:8]}; none is known "
            "(run the build, or send its result with --evidence)",
        )
        node.result(node.built(commit), key=None)  # fetches, and opens nothing
        report = node.wait(MirrorUpdated, lambda m: m.new == commit)
        assert (report.ref, report.outcome) == (MAIN, "updated")
        wait_until(lambda: node.live == "one")
        assert node.deployed("v1", commit)[0] == "refused"
        node.result(node.built(commit, number=41, outcome="failure"))
        node.kept(1)
        assert "number 41 failed" in node.deployed("v1", commit)[1]
        node.result(node.built(commit, number=42))
        node.kept(2)
        assert node.deployed("v1", commit) == ("success", "")
        mirror = node.root / "state" / "mirrors" / "shop.git"
        assert git("rev-parse", "refs/heads/main", cwd=mirror) == commit
        assert other not in git("for-each-ref", cwd=mirror)


def test_a_legacy_success_fetches_and_opens_nothing(node: BuiltNode) -> None:
    first = node.origin.push()
    with node.agent() as agent:
        agent.ready()
        node.wait(MirrorUpdated, lambda m: m.new == first)
        commit = node.origin.push(tag="v1")
        node.bus.publish(node.settings.topics.build, encode(node.built(commit), legacy=True))
        node.wait(MirrorUpdated, lambda m: m.new == commit and m.ref == MAIN)
        assert node.deployed("v1", commit)[0] == "refused"
        assert builds_of(node.settings.state).count() == 0


def test_a_node_that_was_off_for_two_hours_learns_of_the_build(node: BuiltNode) -> None:
    first = node.origin.push()
    topics = attrs.evolve(node.settings.topics, build_success="/topic/good", build_failure="/topic/bad")
    node.settings = attrs.evolve(node.settings, topics=topics)
    with node.agent() as agent:
        agent.ready()
        node.wait(MirrorUpdated, lambda m: m.new == first)
    commit = node.origin.push(tag="v1", files={"index.html": "one\n"})
    ago = datetime.now(UTC) - timedelta(hours=2)
    node.result(node.built(commit, number=3, time=ago + timedelta(minutes=1)))
    node.result(node.built(commit, number=2, outcome="failure", time=ago))  # out of order
    with node.agent() as agent:
        agent.ready()
        node.kept(2)
        node.wait(MirrorUpdated, lambda m: m.new == commit and m.ref == MAIN)
        assert node.deployed("v1", commit)[0] == "success"
        assert node.live == "one"


def test_a_real_broker_keeps_the_results_for_a_node_that_is_off(
    tmp_path: Path, deploykit_broker: EmbeddedBroker, new_real_broker: Callable[..., BrokerServer]
) -> None:
    with new_real_broker() as server:
        node = BuiltNode(tmp_path, deploykit_broker)
        at_real_broker(node, server)
        with node:
            first = node.origin.push()
            with node.agent() as agent:
                agent.ready()
                node.wait(MirrorUpdated, lambda m: m.new == first)
            commit = node.origin.push(tag="v1", files={"index.html": "one\n"})
            node.result(node.built(commit, number=2))
            node.result(node.built(commit, number=1, outcome="failure"))
            with node.agent() as agent:
                agent.ready()
                node.kept(2)
                node.wait(MirrorUpdated, lambda m: m.new == commit and m.ref == MAIN)
                assert node.deployed("v1", commit)[0] == "success"
            daemon.forget(node.settings)


def test_an_origin_that_moved_on_and_an_annotated_tag_are_fetched_all_the_same(node: BuiltNode) -> None:
    first = node.origin.push()
    with node.agent() as agent:
        agent.ready()
        node.wait(MirrorUpdated, lambda m: m.new == first)
        commit = node.origin.push(files={"index.html": "one\n"})
        newer = node.origin.push(files={"index.html": "two\n"})
        node.result(node.built(commit))
        node.wait(MirrorUpdated, lambda m: m.new == newer and m.ref == MAIN)
        forged = node.built(ObjectId("ab" * 20), "refs/heads/none")
        node.result(forged, key=None)
        git("tag", "-a", "-m", "a release", "v1", commit, cwd=node.origin.work)
        git("push", "--quiet", "origin", "v1", cwd=node.origin.work)
        assert node.deployed("v1", commit) == ("success", "")


def test_results_that_do_not_count_open_nothing(node: BuiltNode) -> None:
    with node.agent() as agent:
        agent.ready()
        earlier = node.origin.push()
        commit = node.origin.push(tag="v1")
        good = node.built(commit)
        genuine = sign(encode(good), node.keys["jenkins"])
        node.result(good, key="stranger")
        node.result(attrs.evolve(good, job="other"))
        node.result(attrs.evolve(good, number=0))
        node.result(attrs.evolve(good, time=datetime.now(UTC) + timedelta(hours=1)))
        node.bus.publish(
            node.settings.topics.build, Frame(genuine.headers, genuine.body.replace(commit.encode(), b"f" * 40))
        )
        node.result(attrs.evolve(good, commit=earlier))  # a success of another commit: kept, of no use here
        node.kept(2)
        assert "number 1 succeeded just now, but it claims to be from the future" in node.deployed("v1", commit)[1]


def test_evidence_teaches_a_new_node_and_a_revoked_key_takes_it_back(node: BuiltNode) -> None:
    first = node.origin.push(tag="v1", files={"index.html": "one\n"})
    second = node.origin.push(tag="v2", files={"index.html": "two\n"})
    third = node.origin.push(tag="v3", files={"index.html": "three\n"})
    made = {
        commit: SignedResult.from_frame(sign(encode(node.built(commit)), node.keys["jenkins"])).evidence
        for commit in (first, second, third)
    }
    with node.agent() as agent:
        agent.ready()
        assert node.deployed("v1", first, evidence=(made[second],))[0] == "refused"  # kept all the same
        assert node.deployed("v1", first, evidence=(made[first],))[0] == "success"
        assert node.deployed("v2", second)[0] == "success"
        revoked = node.root / "revoked"
        revoked.write_text(node.keys["jenkins"].public_openssh + "\n")
    node.settings = attrs.evolve(node.settings, trust=attrs.evolve(node.settings.trust, revoked_keys=revoked))
    with node.agent() as agent:
        agent.ready()
        outcome, detail = node.deployed("v3", third, evidence=(made[third],))
        assert (outcome, "its key is not trusted" in detail) == ("refused", True)
        assert node.deployed("v1", first, phase="rollback")[0] == "success"


def test_without_a_build_needs_its_own_grant_and_stands_in_the_report(node: BuiltNode) -> None:
    commit = node.origin.push(tag="v1", files={"index.html": "one\n"})
    with node.agent() as agent:
        agent.ready()
        outcome, detail = node.deployed("v1", commit, without_build=True)
        assert (outcome, "may deploy, but not without a build for site shop" in detail) == ("refused", True)
        assert node.deployed("v1", commit, key="stranger")[0] == "refused"  # did not ask for it
        outcome, detail = node.deployed("v1", commit, key="stranger", without_build=True)
        assert (outcome, detail) == ("success", "without a build (--without-build)")
        record = (node.site / ".deploykit" / "state.json").read_text()
        assert "without a build" in record
    audited = [
        (each.action, each.decision, each.details.get("without_build", ""), each.reason)
        for each in read_records(node.settings.audit.path_in(node.settings.state))
        if isinstance(each, AuditRecord)
    ]
    assert [each[:3] for each in audited] == [
        ("deploy", "denied", "yes"),
        ("deploy", "allowed", ""),
        ("deploy.result", "denied", ""),
        ("deploy", "allowed", "yes"),
        ("deploy.result", "allowed", "yes"),
    ]
    assert "no successful build of shop-tests" in audited[2][3]
    assert audited[4][3] == "without a build (--without-build)"


def test_a_success_whose_fetch_a_crash_cut_off_is_fetched_at_the_next_start(node: BuiltNode) -> None:
    first = node.origin.push()
    away = node.origin.path.with_name("away.git")
    with node.agent() as agent:
        agent.ready()
        node.wait(MirrorUpdated, lambda m: m.new == first)
        commit = node.origin.push(files={"index.html": "two\n"})
        node.origin.path.rename(away)
        node.result(node.built(commit), key=None)
        node.wait(MirrorUpdated, lambda m: m.outcome == "failed")
    away.rename(node.origin.path)
    with node.agent() as agent:
        agent.ready()
        node.wait(MirrorUpdated, lambda m: m.new == commit)
        wait_until(lambda: node.live == "two")
        assert builds_of(node.settings.state).owed() == set()


def test_a_branch_that_was_deleted_or_not_built_is_left_alone(node: BuiltNode) -> None:
    first = node.origin.push()
    node.origin.branch("old", {"old.html": "x"})
    with node.agent() as agent:
        agent.ready()
        node.wait(MirrorUpdated, lambda m: m.new == first)
        node.origin.delete("old")
        message = RefUpdated(source="git", repo=SHOP, ref=RefName("refs/heads/old"), old=first, new=ZERO_ID)
        node.bus.publish(node.settings.topics.source, encode(message))
        commit = node.origin.push()
        node.result(node.built(commit))
        node.wait(MirrorUpdated, lambda m: m.new == commit)
        mirror = node.root / "state" / "mirrors" / "shop.git"
        assert "refs/heads/old" in git("for-each-ref", cwd=mirror)


def test_no_way_leads_around_the_gate_to_what_was_only_prepared(node: BuiltNode) -> None:
    first = node.origin.push(tag="v1", files={"index.html": "one\n"})
    second = node.origin.push(tag="v2", files={"index.html": "two\n"})
    with node.agent() as agent:
        agent.ready()
        node.result(node.built(first, number=1))
        node.result(node.built(second, number=2))
        node.kept(2)
        assert node.deployed("v1", first)[0] == "success"
        assert node.deployed("v2", second, phase="prepare")[0] == "success"
        node.result(node.built(second, number=3, outcome="failure"))
        node.kept(3)
        for phase in ("deploy", "activate", "rollback"):
            outcome, detail = node.deployed("v2", second, phase=phase)
            assert (outcome, "number 3 failed" in detail) == ("refused", True), phase
        node.result(node.built(second, number=4))
        node.kept(4)
        assert node.deployed("v2", second, phase="activate")[0] == "success"
        node.result(node.built(first, number=5, outcome="failure"))
        node.kept(5)
        assert node.deployed("v1", first, phase="rollback")[0] == "success"  # it was live: going back asks nobody


def test_a_directory_does_not_show_what_a_deploy_fetched_unbuilt(node: BuiltNode) -> None:
    site = node.settings.sites[SiteName("shop")]
    node.settings = attrs.evolve(node.settings, sites={SiteName("shop"): attrs.evolve(site, require_build=())})
    first = node.origin.push(files={"index.html": "built\n"})
    with node.agent() as agent:
        agent.ready()
        node.wait(MirrorUpdated, lambda m: m.new == first)
        wait_until((node.root / "live" / "index.html").exists)
        unbuilt = node.origin.push(files={"index.html": "unbuilt\n"})
        assert node.deployed("any", unbuilt, ref=MAIN)[0] == "success"
        other = node.origin.branch("other", {"other.html": "x"})
        node.result(node.built(other, "refs/heads/other"), key=None)
        node.wait(MirrorUpdated, lambda m: m.new == other)
        assert node.live == "built"
        node.result(node.built(unbuilt), key=None)
        wait_until(lambda: node.live == "unbuilt")
