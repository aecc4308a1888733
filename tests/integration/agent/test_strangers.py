"""Who is not verified costs a node nothing, learns nothing from it, and holds up nobody who is."""

from __future__ import annotations

import logging
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

from deploykit.audit.files import read_records
from deploykit.audit.record import AuditRecord
from deploykit.broker.server import EmbeddedBroker
from deploykit.daemons.agent import deploys
from deploykit.daemons.agent.agent import Agent
from deploykit.daemons.service import lifecycle
from deploykit.daemons.service.group import ServiceGroup
from deploykit.messages import DeployReported
from deploykit.names import ObjectId
from deploykit.settings import TrustSettings
from deploykit.trust import keyfiles
from deploykit.trust.signature import HEADER, sign
from deploykit.wire import Frame, encode
from tests.brokers.server import BrokerServer
from tests.support.node import Node, at_real_broker
from tests.support.wait import wait_until

MANY = 500


@pytest.fixture
def node(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> Iterator[Node]:
    with Node(tmp_path, deploykit_broker) as made:
        yield made


def flood(node: Node, how: str) -> list[tuple[str, Frame]]:
    """Many commands by nobody whom the node obeys, and as many that are no messages at all."""
    commit = ObjectId("ab" * 20)
    frames = [encode(node.request("v1", commit)) for _ in range(MANY)]
    frames += [attrs.evolve(frame, body=b"{" + frame.body) for frame in frames[: MANY // 2]]
    if how == "strange":
        frames = [sign(frame, node.keys["stranger"]) for frame in frames]
    if how == "rubbish":
        frames = [attrs.evolve(frame, headers={**frame.headers, HEADER: "U1NI"}) for frame in frames]
    if how == "forged":  # with the key of somebody who is obeyed, for another body
        good = sign(encode(node.request("v1", commit)), node.keys["operator"]).headers[HEADER]
        frames = [attrs.evolve(frame, headers={**frame.headers, HEADER: good}) for frame in frames]
    return [(node.settings.topics.deploy, frame) for frame in frames]


@pytest.mark.parametrize("how", ["unsigned", "strange", "rubbish", "forged"])
def test_a_flood_by_strangers_is_one_answer_and_one_line_and_delays_nobody(
    node: Node, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    dead: list[object] = []
    assert node.bus.subscribe(node.settings.broker.dead_letter, dead.append).wait_active(60)
    commit = node.origin.push(tag="v1", files={"index.html": "one\n"})
    with caplog.at_level(logging.INFO, "deploykit.daemons"), node.agent() as agent:
        agent.ready()
        node.bus.publish_many(flood(node, how), timeout=60)
        genuine = node.request("v1", commit)
        node.send(genuine)
        assert node.report_on(genuine).outcome == "success"
        lines = [r.getMessage() for r in caplog.records if r.getMessage().startswith("refused")]
        assert len(lines) == 1
        caplog.clear()
        agent._deploys._strangers._count._next = 0.0  # the interval is over
        agent._deploys.flush(time.monotonic())
        lines = [r.getMessage() for r in caplog.records if r.getMessage().startswith("refused")]
        assert [str(MANY + MANY // 2 - 1) in line for line in lines] == [True]
    audited = [r for r in read_records(node.root / "state" / "audit.log") if isinstance(r, AuditRecord)]
    assert [r.details["count"] for r in audited if r.actor == "unverified"] == ["1", str(MANY + MANY // 2 - 1)]
    assert len(audited) == 4, "and two about the genuine command"
    answers = [message for message, _ in node.heard if isinstance(message, DeployReported)]
    assert [answer.outcome for answer in answers if answer.request != genuine.id] == ["refused"]
    assert dead == []


@pytest.mark.parametrize("how", [None, "stranger"])
@pytest.mark.parametrize("trust", ["as it is", "gone", "broken", "open", "unset"])
def test_whoever_is_not_verified_learns_nothing(
    node: Node, how: str | None, trust: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deploys, "_RETRY_AFTER", 0.05)  # a signed one waits for the files to be mended
    node.keys["other"] = keyfiles.generate_key(node.root / "other.key")
    keyfiles.trust(node.signers, "a-secret-principal", node.keys["other"].public_blob)
    commit = node.origin.push(tag="v1", files={"index.html": "one\n"})
    changes = {"trust": TrustSettings()} if trust == "unset" else {}
    with node.agent(**changes) as agent:
        agent.ready()
        if trust == "gone":
            node.signers.unlink()
        elif trust == "broken":
            node.signers.write_text("a-secret-principal rubbish\n")
        elif trust == "open":
            node.signers.chmod(0o666)
        request = node.request("v1", commit)
        node.send(request, key=how)
        report = node.wait(DeployReported, lambda m: m.request == request.id)
    assert (report.outcome, report.steps) == ("refused", ())
    assert report.detail == "this node obeys no command without a signature by a key that it trusts"


def test_what_a_known_signer_may_not_do_is_said_without_principals(node: Node) -> None:
    keyfiles.trust(node.signers, "a-secret-principal", node.keys["stranger"].public_blob)
    commit = node.origin.push(tag="v1")
    with node.agent() as agent:
        agent.ready()
        request = node.request("v1", commit)
        node.send(request, key="stranger")
        detail = node.report_on(request).detail
    assert f"key {node.keys['stranger'].fingerprint} may not send" in detail
    assert "a-secret-principal" not in detail


def test_what_a_known_signer_sends_and_nobody_can_read_is_kept(node: Node) -> None:
    dead: list[object] = []
    assert node.bus.subscribe(node.settings.broker.dead_letter, dead.append).wait_active(60)
    with node.agent() as agent:
        agent.ready()
        frame = Frame({"content-type": "application/cloudevents+json"}, b"{")
        node.bus.publish(node.settings.topics.deploy, sign(frame, node.keys["operator"]))
        wait_until(lambda: dead, "the dead letter", 60)


def test_on_real_brokers_a_genuine_command_behind_a_flood_is_obeyed_at_once(
    tmp_path: Path, deploykit_broker: EmbeddedBroker, new_real_broker: Callable[..., BrokerServer]
) -> None:
    """2,000 took 6 s of fsyncs; how long a busy machine takes says nothing, but one answer to all of them does."""
    with (
        new_real_broker() as server,
        at_real_broker(Node(tmp_path, deploykit_broker), server) as node,
        node.agent() as agent,
    ):
        agent.ready()
        commit = node.origin.push(tag="v1", files={"index.html": "one\n"})
        frames = [(node.settings.topics.deploy, encode(node.request("v1", commit))) for _ in range(2000)]
        node.bus.publish_many(frames, timeout=120)
        genuine = node.request("v1", commit)
        node.send(genuine)
        assert node.report_on(genuine).outcome == "success"
        assert node.count(DeployReported) == 2


def test_an_agent_that_can_obey_nobody_says_so_at_start_and_to_the_service_manager(
    node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(node.root / "notify"))
        manager.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", str(node.root / "notify"))
        settings = attrs.evolve(node.settings, trust=TrustSettings(), signing_key=None)
        with caplog.at_level(logging.ERROR, "deploykit.daemons.agent.agent"):
            lifecycle.serve(
                lambda: settings,
                lambda chosen: ServiceGroup([Agent(chosen)]),
                on_ready=lambda _: signal.raise_signal(signal.SIGTERM),
                set_up=lambda _: None,
            )
        first = manager.recv(1000).decode()
    assert re.match("READY=1\nSTATUS=(waiting for a broker|connected); no signing_key is set: ", first)
    assert "no trust.allowed_signers is set" in first
    assert sum("is set" in record.getMessage() for record in caplog.records) == 2
