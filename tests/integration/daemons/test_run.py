"""`deploykit run`: several daemons, one process, one connection, one life."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.bus import Bus
from deploykit.daemons.agent.agent import Agent
from deploykit.daemons.agent.statelock import StateLock
from deploykit.outbox import Outbox
from deploykit.wire import Frame
from tests.brokers.server import BrokerServer
from tests.support.cli import run
from tests.support.daemon import RunningDaemon
from tests.support.node import Node, at_real_broker
from tests.support.wait import wait_until

TOPIC = "/topic/deploykit.notice"
KEEPALIVE = 'keepalive = ["/topic/alive"]\nkeepalive_every = 1\n'
JENKINS = """
[jenkins.servers.ci]
url = "http://127.0.0.1:9/"
[[jenkins.jobs]]
repo = "shop"
job = "shop-tests"
"""


def test_services_share_one_connection_and_live_and_end_together(
    tmp_path: Path, deploykit_broker: EmbeddedBroker
) -> None:
    broker = deploykit_broker
    daemon = RunningDaemon(tmp_path, broker.address, "run", "jenkins", "keepalive", "agent")
    daemon.write(broker.address, KEEPALIVE + JENKINS)
    with daemon:
        for name in ("agent on web1", "jenkins on web1", "keepalive to /topic/alive"):
            daemon.wait(f"ready: {name}\n")
        assert broker.stats().connections == 1
        daemon.file.write_text("node = [")
        daemon.hup()
        daemon.wait("the old ones stay")
        daemon.write(broker.address, KEEPALIVE.replace("topic/alive", "topic/awake") + JENKINS)
        daemon.hup()
        daemon.wait("settings read again: broker.keepalive\n")
        daemon.wait("ready: keepalive to /topic/awake\n")
        daemon.wait("ready: agent on web1\n", 2)
        assert broker.stats().connections == 1
        Outbox(tmp_path / "spool").put(TOPIC, Frame({}, b"a record"))
        wait_until(lambda: not list(Outbox(tmp_path / "spool").pending()))
    assert daemon.count("ready: ") == 6
    wait_until(lambda: broker.stats().connections == 0)


def test_hup_reads_new_files_of_conf_d_and_says_which_or_which_is_wrong(
    tmp_path: Path, deploykit_broker: EmbeddedBroker
) -> None:
    extra = tmp_path / "conf.d" / "10-alive.toml"
    with RunningDaemon(tmp_path, deploykit_broker.address, "relay") as daemon:
        daemon.wait("ready: relay of ")
        extra.parent.mkdir()
        extra.write_text("[broker]\nkeepalive_every = 7\nwindow = 0\n")
        daemon.hup()
        daemon.wait(f"settings not reloaded, the old ones stay: {extra}: broker.window: expected at least 1, not 0\n")
        extra.write_text("[broker]\nkeepalive_every = 7\n")
        daemon.hup()
        daemon.wait("settings read again: broker.keepalive_every\n")
        daemon.wait(f"settings read from {daemon.file}, {extra}\n", 2)
        daemon.wait("ready: relay of ", 2)


def test_the_service_that_cannot_start_is_named(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> None:
    daemon = RunningDaemon(tmp_path, deploykit_broker.address, "run")
    daemon.write(deploykit_broker.address, KEEPALIVE)
    (tmp_path / "state").mkdir()
    with StateLock(tmp_path / "state"):
        done = run("run", "agent", "keepalive", "-c", str(daemon.file))
    assert done.returncode == 1
    assert "deploykit: agent on web1: another agent works on state directory" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_the_service_whose_settings_are_missing_is_named(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> None:
    daemon = RunningDaemon(tmp_path, deploykit_broker.address, "run")
    done = run("run", "agent", "keepalive", "-c", str(daemon.file))
    assert (done.returncode, done.stdout) == (2, "")
    assert "deploykit: keepalive: no destinations" in done.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [(("nothing",), "no service 'nothing'"), (("agent", "relay"), "leave out relay"), ((), "SERVICES")],
)
def test_names_that_make_no_sense_are_one_line(words: tuple[str, ...], says: str) -> None:
    done = run("run", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.fixture
def node(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> Node:
    return Node(tmp_path, deploykit_broker)


def test_an_agent_on_a_shared_bus_deploys_and_leaves_the_bus_as_it_was(node: Node) -> None:
    lives_twice_on_one_bus(node)


@pytest.mark.slow
def test_real_brokers_keep_what_comes_between_two_agents_on_a_shared_bus(
    tmp_path: Path, new_real_broker: Callable[..., BrokerServer], deploykit_broker: EmbeddedBroker
) -> None:
    with new_real_broker() as server:
        lives_twice_on_one_bus(at_real_broker(Node(tmp_path, deploykit_broker), server))


def lives_twice_on_one_bus(node: Node) -> None:
    """Have two agents after each other on one bus: what is sent between them waits, and the bus goes on."""
    with node, Bus(node.settings.broker, client_id="mine") as bus:
        heard: list[bytes] = []
        bus.subscribe("/queue/mine", lambda delivery: heard.append(delivery.body))
        for tag in ("v1", "v2"):
            with Agent(node.settings, bus=bus) as agent:
                assert agent.wait_connected(60)
                request = node.request(tag, node.origin.push(tag=tag))
                node.send(request)
                assert node.report_on(request).outcome == "success"
        assert bus.wait_connected(60)
        bus.publish("/queue/mine", Frame({}, b"still there"))
        wait_until(lambda: heard == [b"still there"])
        # What comes now waits at the broker for the next agent: its durable subscriptions were ended, not forgotten.
        request = node.request("v3", node.origin.push(tag="v3"))
        node.send(request)
        with Agent(node.settings, bus=bus):
            assert node.report_on(request).outcome == "success"
        assert bus.counters.losses == 0
