"""Mandates over a broker: agents that hear them, miss them, forget them, and ask for them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import attrs
import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.daemons.agent import mandate_asks, mandates
from deploykit.messages import ApprovalWanted, DeployReported, DeployRequested, RolloutApproved, utc_now
from deploykit.names import NodeName, ObjectId, RefName, SiteName
from deploykit.settings import GrantSettings
from deploykit.trust.keyfiles import generate_key, load_allowed_signers, trust
from deploykit.trust.signature import add_signature, sign, verify
from deploykit.wire import Frame, encode
from tests.brokers.rabbitmq import RabbitMQ
from tests.support.daemon import RunningDaemon
from tests.support.node import NODE, Node, at_real_broker, write_settings
from tests.support.wait import wait_until

SHOP = SiteName("shop")
PEOPLE = ("ann@example.org", "bob@example.org")
GRANTS = (
    GrantSettings(principal="ops@example.org", types=("rollout.run",), sites=("shop",)),
    *(GrantSettings(principal=who, types=("rollout.approved",)) for who in PEOPLE),
)


@pytest.fixture(autouse=True)
def no_long_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mandates, "WAIT", 0.3)


@pytest.fixture
def node(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> Iterator[Node]:
    """A node whose site needs the approval of two people; its operator may run rollouts, and nothing else."""
    with Node(tmp_path, deploykit_broker) as made:
        for who in PEOPLE:
            made.keys[who] = generate_key(tmp_path / f"{who}.key")
            trust(made.signers, who, made.keys[who].public_blob)
        site = attrs.evolve(made.settings.sites[SHOP], signatures=2)
        made.settings = attrs.evolve(
            made.settings, sites={SHOP: site}, trust=attrs.evolve(made.settings.trust, grants=GRANTS)
        )
        yield made


def mandate(node: Node, tag: str, commit: ObjectId, by: tuple[str, ...] = PEOPLE, **more: Any) -> Frame:
    """A mandate for a tag on the node, signed by these people."""
    approved = RolloutApproved(
        site=SHOP,
        rollout="r1",
        ref=RefName(f"refs/tags/{tag}"),
        commit=commit,
        nodes=(NODE,),
        phases=("deploy",),
        allow_rollback=True,
        not_before=utc_now(),
        not_after=utc_now() + timedelta(hours=1),
    )
    frame = sign(encode(attrs.evolve(approved, **more)), node.keys[by[0]])
    for who in by[1:]:
        frame = add_signature(frame, node.keys[who])
    return frame


def copy_of(frame: Frame, number: int) -> Frame:
    """The same message in another transport frame, as whoever sends it again makes it."""
    return Frame({**frame.headers, "deploykit-id": f"copy-{number}"}, frame.body)


def command(node: Node, frame: Frame, tag: str, commit: ObjectId, **more: Any) -> DeployRequested:
    return node.request(tag, commit, rollout="r1", mandate=sha256(frame.body).hexdigest(), **more)


def send(node: Node, request: DeployRequested, number: int = 0) -> None:
    """Send a command on the topic of the node, as a coordinator does."""
    frame = copy_of(sign(encode(request), node.keys["operator"]), number)
    node.bus.publish(node.settings.topics.deploy_to(NODE), frame)


def give(node: Node, frame: Frame, request: DeployRequested, number: int = 1) -> None:
    """Do as a coordinator does that heard what a node wants: the mandate, and then the command again."""
    node.bus.publish(node.settings.topics.deploy_to(NODE), copy_of(frame, number))
    send(node, request, number)


def wants(node: Node, frame: Frame) -> ApprovalWanted:
    """Wait until the node asks for a mandate, and check that it signed that."""
    asked = node.wait(ApprovalWanted, lambda m: m.mandate == sha256(frame.body).hexdigest())
    delivery = node.delivery_of(asked)
    signer = verify(Frame(delivery.headers, delivery.body), load_allowed_signers(node.signers), utc_now())
    assert signer.is_principal(str(NODE))
    return asked


def live(node: Node) -> str:
    page = node.site / "current" / "index.html"
    return page.read_text().strip() if page.exists() else ""


def test_a_mandate_on_the_broadcast_topic_lets_the_commands_on_the_nodes_topic_pass(node: Node) -> None:
    first, second = node.origin.push(tag="v1"), node.origin.push(tag="v2")
    approved = mandate(node, "v1", first)
    with node.agent() as agent:
        agent.ready()
        node.bus.publish(node.settings.topics.deploy, approved)
        asked = command(node, approved, "v1", first)
        send(node, asked)
        wait_until(lambda: node.count(DeployReported) or node.count(ApprovalWanted), "the answer")
        if not node.count(DeployReported):
            send(node, asked, 1)  # the command overtook the mandate by more than a node waits
        assert node.report_on(asked).outcome == "success"
        outside = command(node, approved, "v2", second)
        send(node, outside)
        assert "the mandate is for" in node.report_on(outside).detail
    assert live(node) == "v1"


def test_a_node_that_was_off_at_the_broadcast_hears_it_when_it_comes_back(node: Node) -> None:
    commit = node.origin.push(tag="v1")
    with node.agent() as agent:
        agent.ready()
    approved = mandate(node, "v1", commit)
    node.bus.publish(node.settings.topics.deploy, approved)
    with node.agent() as agent:
        wait_until(lambda: len(agent._mandates.store), "the mandate")
        asked = command(node, approved, "v1", commit)
        send(node, asked)
        assert node.report_on(asked).outcome == "success"
    assert node.count(ApprovalWanted) == 0


def test_a_node_that_never_heard_the_broadcast_asks_and_is_given_it_on_its_own_topic(node: Node) -> None:
    commit = node.origin.push(tag="v1")
    approved = mandate(node, "v1", commit)
    node.bus.publish(node.settings.topics.deploy, approved)
    with node.agent() as agent:
        agent.ready()
        asked = command(node, approved, "v1", commit)
        send(node, asked)
        wanted = wants(node, approved)
        assert (wanted.node, wanted.rollout, wanted.request) == (NODE, "r1", asked.id)
        assert node.count(DeployReported) == 0
        give(node, approved, asked)
        assert node.report_on(asked).outcome == "success"


@pytest.mark.parametrize("lost", [False, True])
def test_after_a_restart_the_mandate_is_there_or_asked_for_again(node: Node, lost: bool) -> None:
    commit = node.origin.push(tag="v1")
    approved = mandate(node, "v1", commit)
    with node.agent() as agent:
        agent.ready()
        node.bus.publish(node.settings.topics.deploy, approved)
        wait_until(lambda: len(agent._mandates.store), "the mandate")
    if lost:
        shutil.rmtree(node.settings.state / "mandates")
    with node.agent() as agent:
        agent.ready()
        asked = command(node, approved, "v1", commit)
        send(node, asked)
        if lost:
            wants(node, approved)
            give(node, approved, asked)
        assert node.report_on(asked).outcome == "success"
        assert node.count(ApprovalWanted) == int(lost)


def test_one_signature_of_two_is_refused_with_what_lacks_once_no_other_came(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mandate_asks, "ASK_EVERY", 0.0)
    commit = node.origin.push(tag="v1")
    approved = mandate(node, "v1", commit, PEOPLE[:1])
    with node.agent() as agent:
        agent.ready()
        node.bus.publish(node.settings.topics.deploy, approved)
        wait_until(lambda: len(agent._mandates.store), "the mandate")
        asked = command(node, approved, "v1", commit)
        send(node, asked)
        wants(node, approved)
        give(node, approved, asked)
        report = node.report_on(asked)
    assert report.outcome == "refused"
    assert "needs the approval of 2 different people, and has that of 1: key SHA256:" in report.detail
    assert live(node) == ""


def test_a_mandate_of_ten_thousand_nodes_passes_a_broker(node: Node) -> None:
    commit = node.origin.push(tag="v1")
    names = tuple(NodeName(f"web{n:05}.eu-west-1.example.org") for n in range(9_999))
    approved = mandate(node, "v1", commit, nodes=(*names, NODE))
    with node.agent() as agent:
        agent.ready()
        node.bus.publish(node.settings.topics.deploy, approved)
        wait_until(lambda: len(agent._mandates.store), "the mandate")
        asked = command(node, approved, "v1", commit)
        send(node, asked)
        assert node.report_on(asked).outcome == "success"


def test_an_agent_that_is_killed_during_a_deploy_goes_on_under_the_same_mandate(node: Node) -> None:
    """As a process, with its settings in a file."""
    hold = node.root / "hold"
    script = f"#!/bin/sh\n: > {node.root}/held\nwhile [ -e {hold} ]; do sleep 0.01; done\n"
    commit = node.origin.push(tag="v1", files={"index.html": "v1\n", "deploy/pre-deploy": script})
    approved = mandate(node, "v1", commit)
    file = write_settings(node)
    text = file.read_text().replace(f'repo = "{node.settings.sites[SHOP].repo}"\n', 'repo = "shop"\nsignatures = 2\n')
    lines = ", ".join(f'{{ principal = "{who}", types = ["rollout.approved"] }}' for who in PEOPLE)
    text = text.replace("grants = [{ principal", f"grants = [{lines}, {{ principal").replace(
        '"deploy.requested"', '"rollout.run"'
    )
    assert "signatures = 2" in text
    asked = command(node, approved, "v1", commit)
    hold.touch()
    with Process(node, text) as agent:
        wait_until((node.settings.state / "agent.lock").exists, "the agent", 60)
        wait_until(lambda: "agent on web1" in agent.log.read_text(), "its subscriptions", 60)
        node.bus.publish(node.settings.topics.deploy, approved)
        send(node, asked)
        wait_until((node.root / "held").exists, "the script", 60)
        agent.process.kill()
        agent.process.wait()
        hold.unlink()
    with Process(node, text):
        assert node.report_on(asked).outcome == "success"
    assert (live(node), node.count(ApprovalWanted)) == ("v1", 0)


class Process(RunningDaemon):
    """`deploykit agent` over settings of a test's own."""

    def __init__(self, node: Node, text: str) -> None:
        self._text = text
        super().__init__(node.root, "", "agent")

    def write(self, address: str, more: str = "") -> None:
        self.file.write_text(self._text)
        self.file.chmod(0o600)

    def term(self) -> int:
        return super().term() if self.process.poll() is None else 0


@pytest.mark.rabbitmq
def test_a_rabbitmq_carries_a_mandate_to_a_node_that_was_off(node: Node, rabbitmq: RabbitMQ) -> None:
    at_real_broker(node, rabbitmq)
    node.listen()
    commit = node.origin.push(tag="v1")
    with node.agent() as agent:
        agent.ready()
    names = tuple(NodeName(f"web{n:05}.eu-west-1.example.org") for n in range(9_999))
    approved = mandate(node, "v1", commit, nodes=(*names, NODE))
    node.bus.publish(node.settings.topics.deploy, approved)
    with node.agent() as agent:
        wait_until(lambda: len(agent._mandates.store), "the mandate")
        asked = command(node, approved, "v1", commit)
        send(node, asked)
        assert node.report_on(asked).outcome == "success"
