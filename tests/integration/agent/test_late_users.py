"""An agent that starts before its broker knows it: a broker that has just come up may still be loading its users."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.brokers.rabbitmq import RabbitMQ
from tests.support.cli import command
from tests.support.node import NODE
from tests.support.wait import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.rabbitmq]

REFUSED = "it refused the login: Bad CONNECT: Access refused for user 'late'"


def test_an_agent_whose_user_comes_later_than_itself_comes_up(
    new_rabbitmq: Callable[..., RabbitMQ], tmp_path: Path
) -> None:
    broker, config, log = new_rabbitmq().start(), tmp_path / "deploykit.toml", tmp_path / "agent.log"
    config.touch(mode=0o600)
    config.write_text(
        f'node = "{NODE}"\nstate = "{tmp_path}/state"\n[outbox]\npath = "{tmp_path}/spool"\n'
        f'[broker]\naddress = "stomp://127.0.0.1:{broker.port}"\nlogin = "late"\npasscode = "canary"\n'
        "login_retry = 120\nbackoff_max = 0.5\n"
    )
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(str(tmp_path / "notify"))
    manager.settimeout(60)
    env = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")}
    with log.open("ab") as file:
        agent = subprocess.Popen(command("agent", "-c", str(config)), stdout=file, stderr=file, env=env)
    try:
        with manager:
            wait_until(lambda: REFUSED in manager.recv(4096).decode(), "the service manager is told why")
        wait_until(lambda: log.read_text().count(REFUSED) >= 3, "the agent is refused again and again")
        broker.evaluate('rabbit_auth_backend_internal:add_user(<<"late">>, <<"canary">>, <<"test">>)')
        wait_until(lambda: "Virtual host '/' access denied" in log.read_text(), "the user may not use the vhost yet")
        everything = ", ".join(['<<".*">>'] * 3)
        broker.evaluate(f'rabbit_auth_backend_internal:set_permissions(<<"late">>, <<"/">>, {everything}, <<"test">>)')
        wait_until(lambda: "ready: agent" in log.read_text(), "the agent comes up")
        assert agent.poll() is None
        agent.terminate()
        assert agent.wait(30) == 0
    finally:
        agent.kill()
        agent.wait()
    assert "canary" not in log.read_text()


def test_without_login_retry_a_refused_login_ends_the_agent_and_it_says_why(rabbitmq: RabbitMQ, tmp_path: Path) -> None:
    config = tmp_path / "deploykit.toml"
    config.touch(mode=0o600)
    config.write_text(
        f'node = "{NODE}"\nstate = "{tmp_path}/state"\n[outbox]\npath = "{tmp_path}/spool"\n'
        f'[broker]\naddress = "stomp://late:canary@127.0.0.1:{rabbitmq.port}"\n'
    )
    done = subprocess.run(command("agent", "-c", str(config)), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert REFUSED in done.stderr.splitlines()[-1]
    assert "canary" not in done.stderr
