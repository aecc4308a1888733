"""What systemd hears of a real daemon, in which order, from its start to its end."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploykit.broker.server import EmbeddedBroker
from tests.support.daemon import RunningDaemon
from tests.support.manager import FakeManager

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
            assert "connected" in [t for t in manager.heard if "STATUS=" in t][-1]
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
