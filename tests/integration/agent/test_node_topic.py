"""Commands on the topic of one node, beside those that go to all: durable, obeyed once; a rollout and its abort."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import attrs
import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.daemons.agent.agent import forget
from deploykit.messages import DeployPhase, DeployReported, Message, RolloutAbort, utc_now
from deploykit.messages.topics import TopicMap
from deploykit.names import NodeName, ObjectId, SiteName
from deploykit.settings import NodeSiteSettings, OutboxSettings
from deploykit.trust.keyfiles import generate_key, trust
from deploykit.trust.signature import sign
from deploykit.wire import Frame, encode
from tests.brokers.rabbitmq import RabbitMQ
from tests.support.node import NODE, SHOP, Node, NodeAgent, at_real_broker
from tests.support.wait import wait_until

WEB2 = NodeName("web2")


@pytest.fixture
def node(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> Iterator[Node]:
    with Node(tmp_path, deploykit_broker) as made:
        yield made


def to(node: Node, name: NodeName, message: Message) -> Frame:
    """Send a signed message on the topic of one node."""
    frame = sign(encode(message), node.keys["operator"])
    node.bus.publish(node.settings.topics.deploy_to(name), frame)
    return frame


def second(node: Node) -> NodeAgent:
    """The agent of another node, with the same repository and a site of its own."""
    root = node.root / WEB2
    root.mkdir()
    key = generate_key(root / "node.key")
    trust(node.signers, WEB2, key.public_blob)
    return node.agent(
        node=WEB2,
        state=root / "state",
        outbox=OutboxSettings(path=root / "spool"),
        signing_key=root / "node.key",
        sites={SiteName("shop"): NodeSiteSettings(path=root / "site", repo=SHOP)},
    )


def live(site: Path) -> str:
    page = site / "current" / "index.html"
    return page.read_text().strip() if page.exists() else ""


def test_a_command_on_both_topics_is_obeyed_and_reported_once(node: Node) -> None:
    commit = node.origin.push(tag="v1")
    with node.agent() as agent:
        agent.ready()
        command = node.request("v1", commit)
        frame = to(node, NODE, command)
        node.bus.publish(
            node.settings.topics.deploy, attrs.evolve(frame, headers={**frame.headers, "deploykit-id": "2"})
        )
        assert node.report_on(command).outcome == "success"
        after = node.request("v1", commit)
        node.send(after)
        assert node.report_on(after).outcome == "success"
    assert len(list((node.site / "releases").iterdir())) == 1
    outcomes = {(m.request, m.id) for m, _ in node.heard if isinstance(m, DeployReported)}
    assert len(outcomes) == 2, "copies of one report have one id"


def test_a_rollout_over_two_nodes_is_aborted_between_prepare_and_activate(node: Node) -> None:
    first = node.origin.push(tag="v1")
    site2 = node.root / WEB2 / "site"
    with node.agent() as web1, second(node) as web2:
        web1.ready()
        web2.ready()

        def ask(name: NodeName, phase: DeployPhase, tag: str, commit: ObjectId) -> DeployReported:
            command = node.request(tag, commit, phase=phase, rollout="roll-1", audience=(name,))
            to(node, name, command)
            return node.wait(DeployReported, lambda m: (m.node, m.request) == (name, command.id))

        for name in (NODE, WEB2):
            assert ask(name, "deploy", "v1", first).outcome == "success"
        other = node.request("v1", first, audience=(WEB2,))
        to(node, NODE, other)  # for another node than the topic's: ignored
        commit = node.origin.push(tag="v2")
        for name in (NODE, WEB2):
            prepared = ask(name, "prepare", "v2", commit)
            assert (prepared.outcome, prepared.target and prepared.target.commit) == ("success", commit)
        assert ask(NODE, "activate", "v2", commit).outcome == "success"

        now = utc_now()
        abort = RolloutAbort(
            site=SiteName("shop"),
            rollout="roll-1",
            expires=now + timedelta(minutes=5),
            requested_by="ada",
            reason="500s",
        )
        node.send(abort)
        for agent in (web1, web2):
            wait_until(lambda: agent._rollouts.get(SiteName("shop"), "roll-1").aborts, "the abort")  # noqa: B023 - at once
        late = ask(WEB2, "activate", "v2", commit)
        assert (late.outcome, "aborted by ada" in late.detail, "500s" in late.detail) == ("refused", True, True)
        discarded = ask(WEB2, "discard", "v2", commit)
        assert (discarded.outcome, discarded.commit) == ("success", first)
        back = ask(NODE, "rollback", "v1", first)
        assert (back.outcome, back.commit) == ("success", first)
        assert "is not discarded" in ask(NODE, "discard", "v2", commit).detail
        assert (live(node.site), live(site2)) == ("v1", "v1")
        assert len(list((site2 / "releases").iterdir())) == 1
    assert not [m for m, _ in node.heard if isinstance(m, DeployReported) and m.request == other.id]


@pytest.mark.rabbitmq
def test_a_command_that_is_sent_to_a_node_while_it_is_down_arrives_when_it_is_back(
    tmp_path: Path, deploykit_broker: EmbeddedBroker, rabbitmq: RabbitMQ, unique_name: str
) -> None:
    topics = TopicMap(
        source=f"/topic/test.source-{unique_name}",
        build=f"/topic/test.build-{unique_name}",
        mirror=f"/topic/test.mirror-{unique_name}",
        deploy=f"/topic/test.deploy-{unique_name}",
        report=f"/topic/test.report-{unique_name}",
        node=f"/topic/test.node-{unique_name}",
    )
    with at_real_broker(Node(tmp_path, deploykit_broker), rabbitmq, topics=topics) as node:
        commit = node.origin.push(tag="v1")
        with node.agent() as agent:
            agent.ready()
            first = node.request("v1", commit)
            to(node, NODE, first)
            assert node.report_on(first).outcome == "success"
        commit = node.origin.push(tag="v2")
        missed = node.request("v2", commit, rollout="roll-1")
        to(node, NODE, missed)
        with node.agent():
            assert node.report_on(missed).outcome == "success"
        assert live(node.site) == "v2"
        forget(node.settings)
