"""What systemd hears of a real daemon, in which order, from its start to its end."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from deploykit.broker.server import EmbeddedBroker
from tests.support.cli import command
from tests.support.daemon import RunningDaemon
from tests.support.manager import FakeManager
from tests.support.node import Node, write_settings
from tests.support.wait import wait_until

KEEPALIVE = 'keepalive = ["/topic/alive"]\n'


@pytest.mark.parametrize("words", [("agent",), ("relay",), ("keepalive",), ("run", "agent", "keepalive")])
def test_ready_status_watchdog_reload_and_stopping_come_in_order(
    tmp_path: Path, deploykit_broker: EmbeddedBroker, words: tuple[str, ...]
) -> None:
    with FakeManager(tmp_path) as manager:
        env = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "500000"}
        daemon = RunningDaemon(tmp_path, deploykit_broker.address, *words, env=env)
        daemon.write(deploykit_broker.address, KEEPALIVE)
        with daemon:
            at = manager.wait("READY=1\nSTATUS=")
            assert at == 1
            daemon.wait("ready: ")
            at = manager.wait("WATCHDOG=1", after=at)
            at = manager.wait("WATCHDOG=1", after=at)
            manager.wait_status("connected")  # the pings may be older than the connection
            daemon.file.write_text("node = [")
            daemon.hup()
            at = manager.wait("RELOADING=1\nMONOTONIC_USEC=", after=at)
            at = manager.wait("READY=1\n", after=at)
            daemon.wait("the old ones stay")
            daemon.write(deploykit_broker.address, KEEPALIVE)
            daemon.hup()
            at = manager.wait("RELOADING=1\nMONOTONIC_USEC=", after=at)
            at = manager.wait("READY=1\n", after=at)
            at = manager.wait("WATCHDOG=1", after=at)
            assert daemon.term() == 0
        heard = manager.all()
        at = manager.wait("STOPPING=1\n", after=at)
    assert not any(text.startswith(("READY", "RELOADING")) for text in heard[at:])
    assert sum(text.startswith("STOPPING=1") for text in heard) == 1


def test_a_daemon_without_a_broker_is_started_and_says_what_it_waits_for(tmp_path: Path) -> None:
    with (
        FakeManager(tmp_path) as manager,
        RunningDaemon(tmp_path, "stomp://127.0.0.1:9", "agent", env={"NOTIFY_SOCKET": manager.address}),
    ):
        manager.wait("READY=1\nSTATUS=waiting for a broker")


def test_term_while_a_script_runs_asks_for_time_and_a_second_one_ends_at_once(
    tmp_path: Path, deploykit_broker: EmbeddedBroker
) -> None:
    once = f"[ -e {tmp_path}/env ] && exit 0"  # it runs again when the deploy is finished
    script = f"#!/bin/sh\n{once}\nenv > {tmp_path}/env.new\nmv {tmp_path}/env.new {tmp_path}/env\nexec sleep 600\n"
    with FakeManager(tmp_path) as manager, Node(tmp_path, deploykit_broker) as node:
        env = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "500000"}
        daemon = RunningDaemon(tmp_path, deploykit_broker.address, "agent", env=env)
        write_settings(node)
        commit = node.origin.push(tag="v1", files={"index.html": "one\n", "deploy/post-deploy": script})
        with daemon:
            daemon.wait("ready: agent on web1")
            node.send(node.request("v1", commit))
            wait_until((tmp_path / "env").exists, "the script", 60)
            daemon.process.send_signal(signal.SIGTERM)
            at = manager.wait("STOPPING=1\nSTATUS=ending: waits for 1 deploy")
            manager.wait("EXTEND_TIMEOUT_USEC=30000000", after=at)
            manager.wait("WATCHDOG=1", after=at)
            for _ in range(600):  # within half a second both are one request
                daemon.process.send_signal(signal.SIGTERM)
                try:
                    # A third one may meet a process that has put the handlers of before back.
                    assert daemon.process.wait(0.1) in (130, -signal.SIGTERM)
                    break
                except subprocess.TimeoutExpired:
                    continue
            assert daemon.process.poll() is not None
        subprocess.run(command("agent", "--once", "-c", str(daemon.file)), check=True)  # ends the script, too
    names = {line.partition("=")[0] for line in (tmp_path / "env").read_text().splitlines()}
    assert "PATH" in names
    assert not names & {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}
