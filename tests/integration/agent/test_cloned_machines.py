"""Cloned machines: two agents with one name, key and broker, on embedded and real brokers; and two on one state."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import attrs
import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.bus import Bus, Delivery
from deploykit.daemons.agent import presence
from deploykit.errors import LockBusy
from deploykit.messages import NodeDescribed, utc_now
from deploykit.settings import OutboxSettings
from deploykit.trust.signature import sign
from deploykit.wire import decode, encode
from tests.brokers.server import BrokerServer
from tests.support.cli import command, run
from tests.support.node import NODE, Node, NodeAgent, at_real_broker, write_settings
from tests.support.wait import wait_until


@pytest.fixture
def node(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> Iterator[Node]:
    with Node(tmp_path, deploykit_broker) as made:
        yield made


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Announce often: what takes two minutes in life takes a second."""
    monkeypatch.setattr(presence, "EVERY", 0.2)
    monkeypatch.setattr(presence, "EVERY_WITH_TWIN", 0.2)
    monkeypatch.setattr(presence, "_AT_LEAST", 0.05)


def clone(node: Node, name: str = "clone") -> NodeAgent:
    """An agent on a copy of the node's disk: the same name, key and settings, another state and spool."""
    root = node.root / name
    return node.agent(state=root / "state", outbox=OutboxSettings(path=root / "spool"))


def instance(agent: NodeAgent) -> str:
    return agent._presence.me.instance


def know_each_other(*agents: NodeAgent) -> None:
    for agent in agents:
        others = {instance(other) for other in agents} - {instance(agent)}
        wait_until(lambda: {twin.instance for twin in agent._presence.twins} == others, "the twins", 60)  # noqa: B023 - at once


def test_two_agents_of_one_name_name_each_other_everywhere(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    """Once both are there, at the usual pace: nobody waits for the next announcement."""
    commit = node.origin.push(tag="v1", files={"index.html": "one\n"})
    file = write_settings(node)
    with (
        caplog.at_level(logging.ERROR, "deploykit.daemons.agent.presence"),
        node.agent() as first,
        clone(node) as second,
    ):
        know_each_other(first, second)
        for agent, other in ((first, second), (second, first)):
            assert any(instance(other) in line and "another agent" in line for line in agent.problems)
        for agent in (first, second):
            wait_until(lambda: f"web1: {instance(agent)} on" in caplog.text, "its line in the log", 60)  # noqa: B023 - at once

        first.ready()
        second.ready()
        request = node.request("v1", commit)
        node.send(request)
        report = node.report_on(request)
        assert {report.instance, *(twin.instance for twin in report.twins)} == {instance(first), instance(second)}
        assert str(os.getpid()) in report.host
        assert "2 agents answer under this name" in report.summary

        key = ("--key", str(node.root / "operator.key"), "-c", str(file))
        asked = run("deploy", "shop", "--ref", "v1", "--node", "web1", *key)
        assert asked.returncode == 0, asked.stderr
        assert "node web1: 2 agents answer under this name" in asked.stderr
        for agent in (first, second):
            assert instance(agent) in asked.stderr

        status = run("status", "-c", str(file))
        assert status.returncode == 1
        assert f"twin    {instance(second)} on " in status.stdout
        (shown,) = json.loads(run("status", "--json", "-c", str(file)).stdout)["twins"]
        assert shown["instance"] == instance(second)
        assert 0 <= shown["seconds_ago"] < 300
    assert json.loads(run("status", "--json", "-c", str(file)).stdout)["twins"] == []


@pytest.mark.usefixtures("quick")
def test_a_twin_that_ends_is_forgotten_and_three_know_each_other(node: Node) -> None:
    file = write_settings(node)
    with node.agent() as first:
        with clone(node) as second, clone(node, "another") as third:
            know_each_other(first, second, third)
        know_each_other(first)
        assert first.problems == ()

        def shown() -> list[object]:
            found: list[object] = json.loads(run("status", "--json", "-c", str(file)).stdout)["twins"]
            return found

        wait_until(lambda: shown() == [], "no twin in the file, which is written after", every=0.2)


@pytest.mark.usefixtures("quick")
def test_an_agent_that_was_killed_and_started_anew_is_no_twin(node: Node) -> None:
    """Its last words may still be on their way, or somebody may play all of them back."""
    said: list[NodeDescribed] = []
    with node.agent() as first:
        first.ready()
        described = first._presence._described(None)
        said += [described, attrs.evolve(described, request="its twin's"), attrs.evolve(described, time=utc_now())]
    with node.agent() as second:
        second.ready()
        heard: list[str] = []
        topic = node.settings.topics.of_node(NODE)

        def hear(delivery: object) -> None:
            heard.append(str(delivery))

        assert node.bus.subscribe(topic, hear).wait_active(60)
        for message in said:
            node.bus.publish(topic, sign(encode(message), node.keys["node"]))
        wait_until(lambda: len(heard) >= 10, "many announcements and answers", 60)
        assert second._presence.twins == ()
        assert second.problems == ()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("key", [None, "stranger", "operator"])
def test_who_is_not_the_node_makes_no_twin(node: Node, key: str | None) -> None:
    with node.agent() as agent:
        agent.ready()
        topic = node.settings.topics.of_node(NODE)
        answered: list[str] = []

        def answer(delivery: Delivery) -> None:
            message = decode(delivery.headers, delivery.body, topic)
            if isinstance(message, NodeDescribed) and message.instance == instance(agent):
                forged = NodeDescribed(node=NODE, instance="forged", request=message.id)
                frame = encode(forged)
                node.bus.publish_nowait(topic, sign(frame, node.keys[key]) if key else frame)
                answered.append(message.id)

        assert node.bus.subscribe(topic, answer).wait_active(60)
        wait_until(lambda: len(answered) > 5, "answers", 60)
        assert agent._presence.twins == ()


def test_on_real_brokers_each_names_the_other_though_only_one_may_have_the_client_id(
    tmp_path: Path, deploykit_broker: EmbeddedBroker, new_real_broker: Callable[..., BrokerServer]
) -> None:
    server = new_real_broker()
    with ExitStack() as stack:
        stack.enter_context(server)
        node = at_real_broker(Node(tmp_path, deploykit_broker), server)
        stack.enter_context(node)
        first = stack.enter_context(node.agent())
        assert first.wait_connected(60)
        second = stack.enter_context(clone(node))
        know_each_other(first, second)
        commit = node.origin.push(tag="v1", files={"index.html": "one\n"})
        request = node.request("v1", commit)
        node.send(request)
        report = node.report_on(request)
        assert {report.instance, *(twin.instance for twin in report.twins)} == {instance(first), instance(second)}


@pytest.mark.activemq
@pytest.mark.usefixtures("quick")
def test_where_the_broker_refuses_the_client_id_the_agent_says_whose_it_may_be_and_goes_on_when_it_is_free(
    tmp_path: Path,
    deploykit_broker: EmbeddedBroker,
    new_activemq: Callable[..., BrokerServer],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with new_activemq() as server, at_real_broker(Node(tmp_path, deploykit_broker), server) as node:
        # A connection of this node's before a crash: nobody answers over it.
        stale = Bus(node.settings.broker, client_id=f"deploykit-{NODE}").start()
        try:
            assert stale.wait_connected(60)
            with caplog.at_level(logging.WARNING, "deploykit.daemons.agent.presence"), node.agent() as agent:
                wait_until(lambda: agent.problems, "what the broker said", 60)
                (problem,) = agent.problems
                assert "another connection of node web1" in problem
                assert agent._presence.twins == ()
                stale.stop()
                assert agent.wait_connected(60)
                wait_until(lambda: agent.problems == (), "the end of it", 60)
                wait_until(lambda: agent._presence._second_bus is None, "the end of the second connection", 60)
        finally:
            stale.stop()


def test_a_second_agent_on_one_state_directory_is_refused_and_the_first_goes_on(node: Node) -> None:
    with node.agent() as first:
        first.ready()
        with pytest.raises(LockBusy, match=f"another agent works on .*pid {os.getpid()}"), node.agent():
            pass
        done = run("agent", "-c", str(write_settings(node)))
        assert done.returncode == 1
        assert f"another agent works on state directory {node.root}/state (pid {os.getpid()})" in done.stderr
        assert "ready" not in done.stdout
        forgotten = run("agent", "--forget", "-c", str(write_settings(node)))
        assert (forgotten.returncode, "another agent works on" in forgotten.stderr) == (1, True)
        assert run("status", "-c", str(write_settings(node))).returncode == 0
        request = node.request("v1", node.origin.push(tag="v1", files={"index.html": "one\n"}))
        node.send(request)
        assert node.report_on(request).outcome == "success"
    with node.agent() as again:
        again.ready()


def test_an_agent_that_reads_its_settings_again_keeps_its_state_directory(node: Node) -> None:
    file = write_settings(node)
    log = node.root / "agent.log"
    with log.open("wb") as out:
        process = subprocess.Popen(command("agent", "-c", str(file)), stdout=out, stderr=out)
    try:
        for count in (1, 2):
            wait_until(lambda: log.read_text().count("ready: agent") == count, "the agent", 60)  # noqa: B023 - at once
            refused = run("agent", "-c", str(file))
            assert (refused.returncode, f"(pid {process.pid})" in refused.stderr) == (1, True)
            if count == 1:
                process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGKILL)
        process.wait(60)
        with node.agent() as agent:  # no lock is left behind
            agent.ready()
            assert agent.problems == ()
    finally:
        process.kill()
        process.wait()
