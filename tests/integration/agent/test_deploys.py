"""The agent, whole: real git, real keys, the embedded broker; what it does and what it refuses to do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.ids import Claim, IdStore
from deploykit.messages import DeployReported, MirrorUpdated, RefUpdated
from deploykit.names import ZERO_ID, NodeName, ObjectId, RefName, RepoName, SiteName
from deploykit.settings import SiteSettings
from deploykit.trust.keyfiles import trust
from deploykit.trust.signature import body_digest, sign
from deploykit.wire import encode
from tests.support.node import NODE, Node, NodeAgent, git, write_settings
from tests.support.wait import wait_until

SCRIPTED = SiteSettings(required=("pre-deploy", "post-deploy"))


@pytest.fixture
def node(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> Iterator[Node]:
    with Node(tmp_path, deploykit_broker) as made:
        yield made


def ready(agent: NodeAgent) -> None:
    """Wait until an agent hears its topics, and compares nothing any more: what moves a ref now is a message."""
    agent.ready()


def live(node: Node) -> str | None:
    """What the live release says of itself."""
    page = node.site / "current" / "index.html"
    return page.read_text().strip() if page.exists() else None


def pushed(ref: str, new: ObjectId, old: ObjectId = ZERO_ID, repo: str = "shop") -> RefUpdated:
    return RefUpdated(source="git", repo=RepoName(repo), ref=RefName(ref), old=old, new=new)


def test_a_push_message_becomes_a_mirror_and_a_report(node: Node) -> None:
    first = node.origin.push()
    with node.agent() as agent:
        ready(agent)
        node.wait(MirrorUpdated, lambda m: m.new == first)
        commit = node.origin.push(tag="v1")
        message = pushed("refs/tags/v1", commit)
        node.bus.publish(node.settings.topics.source, encode(message))
        report = node.wait(MirrorUpdated, lambda m: m.ref == "refs/tags/v1")
        assert (report.outcome, report.new, report.correlation_id) == ("updated", commit, message.id)
    mirror = node.root / "state" / "mirrors" / "shop.git"
    assert git("rev-parse", "refs/tags/v1", cwd=mirror) == commit


def test_a_mirror_is_made_at_the_start_and_after_every_lost_message(node: Node) -> None:
    first = node.origin.push()
    with node.agent() as agent:
        ready(agent)
        node.wait(MirrorUpdated, lambda m: m.new == first)
        missed = node.origin.push(tag="missed")  # its message never comes
        second = node.origin.push()
        node.bus.publish(node.settings.topics.source, encode(pushed("refs/heads/main", second, old=missed)))
        node.wait(MirrorUpdated, lambda m: m.ref == "refs/tags/missed" and m.new == missed)


def test_a_forged_push_message_moves_no_ref_to_what_the_origin_does_not_show(node: Node) -> None:
    commit = node.origin.push()
    with node.agent() as agent:
        ready(agent)
        node.wait(MirrorUpdated, lambda m: m.new == commit)
        forged = ObjectId("ab" * 20)
        node.bus.publish(node.settings.topics.source, encode(pushed("refs/heads/main", forged, old=commit)))
        node.bus.publish(node.settings.topics.source, encode(pushed("refs/heads/main", ZERO_ID, old=commit)))
        other = node.origin.push(tag="after")
        node.bus.publish(node.settings.topics.source, encode(pushed("refs/tags/after", other)))
        node.wait(MirrorUpdated, lambda m: m.ref == "refs/tags/after")
    mirror = node.root / "state" / "mirrors" / "shop.git"
    assert git("rev-parse", "refs/heads/main", cwd=mirror) in (commit, other)


def test_threat_9_a_repository_that_is_not_in_the_settings_is_left_alone(node: Node) -> None:
    with node.agent() as agent:
        ready(agent)
        body = encode(pushed("refs/heads/main", ObjectId("ab" * 20))).body.replace(b'"shop"', b'"../../x"')
        frame = attrs.evolve(encode(pushed("refs/heads/main", ObjectId("ab" * 20))), body=body)
        node.bus.publish(node.settings.topics.source, frame)
        node.bus.publish(node.settings.topics.source, encode(pushed("refs/heads/x", ObjectId("ab" * 20), repo="other")))
        commit = node.origin.push(tag="after")
        node.bus.publish(node.settings.topics.source, encode(pushed("refs/tags/after", commit)))
        node.wait(MirrorUpdated, lambda m: m.ref == "refs/tags/after")
    assert [p.name for p in (node.root / "state" / "mirrors").glob("*.git")] == ["shop.git"]
    assert not (node.root / "x").exists()


def test_an_origin_that_is_away_is_reported_and_tried_again(node: Node) -> None:
    commit = node.origin.push()
    away = node.origin.path.with_name("away.git")
    node.origin.path.rename(away)
    with node.agent() as agent:
        ready(agent)
        node.bus.publish(node.settings.topics.source, encode(pushed("refs/heads/main", commit)))
        failed = node.wait(MirrorUpdated, lambda m: m.outcome == "failed")
        assert failed.detail
        away.rename(node.origin.path)
        node.wait(MirrorUpdated, lambda m: m.outcome == "updated" and m.new == commit)


def test_a_signed_command_becomes_a_release_with_every_step_reported(
    tmp_path: Path, deploykit_broker: EmbeddedBroker
) -> None:
    with Node(tmp_path, deploykit_broker, release=SCRIPTED) as node, node.agent() as agent:
        ready(agent)
        script = "#!/bin/sh\necho $0 $*\n"
        files = {"index.html": "one\n", "deploy/pre-deploy": script, "deploy/post-deploy": script}
        commit = node.origin.push(tag="v1", files=files)
        request = node.request("v1", commit)
        node.send(request)
        report = node.report_on(request)
        assert (report.outcome, report.commit, report.node) == ("success", commit, NODE)
        steps = {step.name: step for step in report.steps}
        assert "-t v1" in steps["pre-deploy"].output
        assert steps["post-deploy"].exit_code == 0
        assert live(node) == "one"


def test_a_failing_post_deploy_goes_back_and_says_so(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> None:
    with Node(tmp_path, deploykit_broker) as node, node.agent() as agent:
        ready(agent)
        good = node.request("v1", node.origin.push(tag="v1", files={"index.html": "one\n"}))
        node.send(good)
        assert node.report_on(good).outcome == "success"
        broken = {"index.html": "two\n", "deploy/post-deploy": "#!/bin/sh\necho broken; exit 3\n"}
        bad = node.request("v2", node.origin.push(tag="v2", files=broken))
        node.send(bad)
        report = node.report_on(bad)
        assert report.outcome == "rolled-back"
        assert any(step.exit_code == 3 and "broken" in step.output for step in report.steps)
        assert live(node) == "one"


@pytest.mark.parametrize("key", [None, "stranger"])
def test_threat_1_an_unsigned_or_strange_command_is_refused(node: Node, key: str | None) -> None:
    with node.agent() as agent:
        ready(agent)
        request = node.request("v1", node.origin.push(tag="v1"))
        node.send(request, key=key)
        assert node.report_on(request).outcome == "refused"
        assert live(node) is None


def test_threat_6_a_refused_copy_of_a_request_does_not_stand_for_the_genuine_one(node: Node) -> None:
    """Somebody takes the signature off a genuine command and is refused: the asker must not believe that it was him."""
    from deploykit.trust.signature import copy_digest, frame_digest

    with node.agent() as agent:
        ready(agent)
        request = node.request("v1", node.origin.push(tag="v1", files={"index.html": "one\n"}))
        stripped = node.send(request, key=None)
        refusal = node.report_on(request)
        assert (refusal.outcome, refusal.answers) == ("refused", frame_digest(stripped))
        genuine = sign(encode(request), node.keys["operator"])
        genuine = attrs.evolve(genuine, headers={**genuine.headers, "deploykit-id": "another-transport-id"})
        node.bus.publish(node.settings.topics.deploy, genuine)
        success = node.wait(DeployReported, lambda m: m.outcome == "success")
        assert success.answers == copy_digest(genuine) != refusal.answers


def test_threat_1_a_command_changed_on_the_way_is_refused(node: Node) -> None:
    with node.agent() as agent:
        ready(agent)
        request = node.request("v1", node.origin.push(tag="v1"))
        signed = sign(encode(request), node.keys["operator"])
        node.send(request, key=None, frame=attrs.evolve(signed, body=signed.body.replace(b"shop", b"s0op")))
        report = node.report_on(request)
        assert report.outcome == "refused"
        assert live(node) is None


def test_threat_4_a_known_key_may_not_deploy_a_site_it_was_not_granted(node: Node) -> None:
    trust(node.signers, "dev@example.org", node.keys["stranger"].public_blob)
    with node.agent() as agent:
        ready(agent)
        request = node.request("v1", node.origin.push(tag="v1"))
        node.send(request, key="stranger")
        assert "may not send" in node.report_on(request).detail
        assert live(node) is None


def test_threat_5_a_command_for_another_node_is_ignored(node: Node) -> None:
    with node.agent() as agent:
        ready(agent)
        commit = node.origin.push(tag="v1")
        node.send(node.request("v1", commit, audience=(NodeName("web2"),)))
        mine = node.request("v1", commit)
        node.send(mine)
        node.report_on(mine)
        assert node.count(DeployReported) == 1


@pytest.mark.parametrize(("shift", "says"), [(timedelta(hours=-2), "expired"), (timedelta(days=30), "further ahead")])
def test_threat_3_a_stale_or_far_future_command_is_refused(node: Node, shift: timedelta, says: str) -> None:
    with node.agent() as agent:
        ready(agent)
        request = node.request("v1", node.origin.push(tag="v1"), expires=datetime.now(UTC) + shift)
        node.send(request)
        assert says in node.report_on(request).detail
        assert live(node) is None


def test_threat_2_a_replayed_command_is_answered_again_and_not_repeated(node: Node) -> None:
    request = node.request("v1", node.origin.push(tag="v1", files={"index.html": "one\n"}))
    with node.agent() as agent:
        ready(agent)
        frame = node.send(request)
        first = node.report_on(request)
        second = node.request("v2", node.origin.push(tag="v2", files={"index.html": "two\n"}))
        node.send(second)
        node.report_on(second)
    with node.agent() as agent:  # after a restart too
        ready(agent)
        node.listen_afresh()
        node.bus.publish(node.settings.topics.deploy, frame)
        again = node.report_on(request)
        assert (again.id, again.outcome) == (first.id, first.outcome)
        assert live(node) == "two"


def test_threat_2_the_same_id_with_other_bytes_is_refused(node: Node) -> None:
    with node.agent() as agent:
        ready(agent)
        request = node.request("v1", node.origin.push(tag="v1", files={"index.html": "one\n"}))
        node.send(request)
        node.report_on(request)
        other = node.request("v2", node.origin.push(tag="v2", files={"index.html": "two\n"}), id=request.id)
        node.send(other)
        last = node.request("v1", request.commit)
        node.send(last)
        node.report_on(last)
        assert live(node) == "one"


def test_a_command_cut_off_by_a_crash_is_finished_when_it_comes_again(node: Node) -> None:
    request = node.request("v1", node.origin.push(tag="v1", files={"index.html": "one\n"}))
    frame = sign(encode(request), node.keys["operator"])
    state = node.root / "state"
    state.mkdir()
    with IdStore(state / "ids.sqlite") as ids:  # claimed, and then the power went
        claimed = ids.claim(node.keys["operator"].fingerprint, request.id, body_digest(frame.body), datetime.now(UTC))
        assert claimed is Claim.FRESH
    with node.agent() as agent:
        ready(agent)
        node.bus.publish(node.settings.topics.deploy, frame)
        assert node.report_on(request).outcome == "success"
        assert live(node) == "one"


def test_threat_16_a_tag_that_moved_after_the_decision_is_refused(node: Node) -> None:
    # Before the agent is there: a mirror that still holds the decided commit would rightly deploy it.
    decided = node.origin.push(tag="v1", files={"index.html": "decided\n"})
    node.origin.push(tag="v1", files={"index.html": "moved\n"})
    with node.agent() as agent:
        ready(agent)
        request = node.request("v1", decided)
        node.send(request)
        assert node.report_on(request).outcome == "refused"
        assert live(node) is None


def test_without_an_id_store_no_command_is_obeyed(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    from deploykit.errors import IdStoreError

    def broken(*_: object, **__: object) -> Claim:
        raise IdStoreError("disk full")

    with node.agent() as agent:
        ready(agent)
        monkeypatch.setattr(IdStore, "claim", broken)
        request = node.request("v1", node.origin.push(tag="v1"))
        node.send(request)
        node.bus.publish(node.settings.topics.source, encode(pushed("refs/tags/v1", request.commit)))
        node.wait(MirrorUpdated, lambda m: m.ref == "refs/tags/v1")
        assert live(node) is None
        monkeypatch.undo()
        assert node.report_on(request).outcome == "success"  # handed out again, and done then


def test_a_site_this_node_does_not_have_is_refused(node: Node) -> None:
    grants = (attrs.evolve(node.settings.trust.grants[0], sites=("*",)),)
    with node.agent(trust=attrs.evolve(node.settings.trust, grants=grants)) as agent:
        ready(agent)
        request = node.request("v1", node.origin.push(tag="v1"), site=SiteName("blog"))
        node.send(request)
        assert "no site blog" in node.report_on(request).detail


def test_rubbish_on_every_topic_stops_nothing(node: Node, deploykit_broker: EmbeddedBroker) -> None:
    from deploykit.wire import Frame

    with node.agent() as agent:
        ready(agent)
        topics = node.settings.topics
        for topic in (topics.source, topics.deploy, topics.deploy_to(NODE)):
            for body in (b"", b"\n", b"{", b"\xff" * 100, b'{"specversion":"1.0"}', b"[" * 5000):
                node.bus.publish(topic, Frame({"content-type": "application/cloudevents+json"}, body))
        request = node.request("v1", node.origin.push(tag="v1", files={"index.html": "one\n"}))
        node.send(request)
        assert node.report_on(request).outcome == "success"


def test_a_command_sent_while_the_node_was_down_is_done_when_it_is_back(node: Node) -> None:
    with node.agent() as agent:
        ready(agent)
    request = node.request("v1", node.origin.push(tag="v1", files={"index.html": "one\n"}))
    node.send(request)
    with node.agent():
        assert node.report_on(request).outcome == "success"


def test_hup_reads_the_settings_again_and_bad_ones_leave_the_old_in_place(node: Node) -> None:
    file = write_settings(node)
    log = node.root / "agent.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "deploykit", "agent", "-c", str(file)], stdout=out, stderr=out
        )
    try:
        wait_until(lambda: log.read_text().count("ready: agent") == 1, "the agent", 60)
        file.write_text("node = [")
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: "the old ones stay" in log.read_text(), "the answer to HUP", 60)
        assert log.read_text().count("ready: agent") == 1, "bad settings must not even interrupt the agent"
        request = node.request("v1", node.origin.push(tag="v1", files={"index.html": "one\n"}))
        node.send(request)
        assert node.report_on(request).outcome == "success"
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()


def test_a_report_said_while_the_broker_was_away_arrives_after(tmp_path: Path) -> None:
    """The deploy goes on while the broker is gone; its report waits in the outbox."""
    gate = tmp_path / "gate"
    slow = f"#!/bin/sh\nwhile [ ! -e {gate} ]; do sleep 0.05; done\n"
    # It keeps durable subscriptions: who is back first, agent or listener, is not ours to say.
    with (
        EmbeddedBroker(data=tmp_path / "broker") as broker,
        Node(tmp_path, broker) as node,
        node.agent() as agent,
    ):
        ready(agent)
        files = {"index.html": "one\n", "deploy/post-deploy": slow}
        request = node.request("v1", node.origin.push(tag="v1", files=files))
        node.send(request)
        wait_until((node.site / "current").exists, "the release", 60)
        broker.stop()
        gate.touch()
        wait_until(lambda: node.waits(DeployReported), "the report in the spool", 60)
        broker.start()
        assert node.report_on(request).outcome == "success"
