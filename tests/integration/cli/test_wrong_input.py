"""Wrong input gets one clear line and the right exit code, never a traceback."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploykit.broker.server import EmbeddedBroker
from tests.support.cli import run, run_here


def refused(done: subprocess.CompletedProcess[str], code: int, *says: str, lines: int = 1) -> None:
    """Assert one clear line (or as many as there are mistakes), the exit code, and no traceback."""
    assert "Traceback" not in done.stderr + done.stdout
    assert done.returncode == code, done.stderr
    found = done.stderr.strip().splitlines()
    assert len(found) == lines, found
    for text in says:
        assert text in done.stderr


def settings(path: Path, address: str, *, patience: int = 50, **broker: str) -> Path:
    """Write a settings file that only says how to reach a broker."""
    lines = [f'{key} = "{value}"' for key, value in {"address": address, **broker}.items()]
    file = path / "deploykit.toml"
    file.write_text(
        f'node = "n1"\nstate = "{path}/state"\n[broker]\nconnect_timeout = {patience}\n' + "\n".join(lines)
        + f'\n[outbox]\npath = "{path}/spool"\n'
    )  # fmt: skip
    file.chmod(0o600)
    return file


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker(users={"ada": "right"}) as started:
        yield started


def test_an_unknown_setting_is_named_with_the_one_that_was_meant(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text('[broker]\nadress = "stomp://h:1"\n')
    refused(run("config", "check", "-c", str(file)), 2, "broker.adress: unknown setting (did you mean address?)")


def test_every_mistake_of_a_settings_file_gets_a_line(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text('colour = 1\n[broker]\nheartbeat = "x"\n')
    refused(run("agent", "-c", str(file)), 2, "has 2 problems", "colour", "broker.heartbeat", lines=3)


@pytest.mark.parametrize(
    "address", ["nonsense", "http://h:1", "stomp://h:notaport", "failover:(stomp://a:1,stomp+ssl://b:2)"]
)
@pytest.mark.parametrize("words", [("watch",), ("agent",), ("relay",), ("publish", "--now", "hello")])
def test_a_bad_address_is_wrong_settings(tmp_path: Path, words: tuple[str, ...], address: str) -> None:
    refused(run(*words, "-c", str(settings(tmp_path, address)), cwd=tmp_path), 2)


@pytest.mark.parametrize("words", [("publish", "--now", "hello")])
def test_a_wrong_password_is_named_and_never_shown(
    tmp_path: Path, broker: EmbeddedBroker, words: tuple[str, ...]
) -> None:
    file = settings(tmp_path, f"stomp://127.0.0.1:{broker.port}", login="ada", passcode="canary-13")
    done = run(*words, "-c", str(file), cwd=tmp_path)
    refused(done, 1, "login")
    assert "canary" not in done.stderr + done.stdout


def test_a_broker_that_is_not_there_fails_in_time(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: nobody answers there
        port = taken.getsockname()[1]
        file = settings(tmp_path, f"stomp://127.0.0.1:{port}", patience=2)
        done = run("publish", "--now", "hello", "-c", str(file), cwd=tmp_path)
    refused(done, 1, str(port))


def test_a_port_in_use_names_the_port(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        refused(run("broker", "--port", port, cwd=tmp_path), 2, port, "in use")


def test_the_demo_refuses_what_is_no_repository(tmp_path: Path) -> None:
    refused(run("demo", "--repo", str(tmp_path), cwd=tmp_path), 2, "not a git repository")


def test_the_demo_refuses_a_broker_address_it_cannot_use(tmp_path: Path) -> None:
    refused(run("demo", "--broker", "nonsense", cwd=tmp_path), 2, "address", "stomp://host:port")


def test_an_unsigned_deploy_is_refused_by_policy(tmp_path: Path, broker: EmbeddedBroker) -> None:
    file = settings(tmp_path, f"stomp://127.0.0.1:{broker.port}", login="ada", passcode="right")
    done = run("deploy", "shop", "--ref", "v1", "--node", "n1", "-c", str(file), cwd=tmp_path)
    refused(done, 3, "unsigned", "--key")


@pytest.mark.parametrize("kind", ["git", "svn"])
def test_a_hook_is_not_installed_where_there_is_no_repository(tmp_path: Path, kind: str) -> None:
    done = run("hooks", "install", str(tmp_path), "--kind", kind, cwd=tmp_path)
    assert done.returncode in (1, 2)
    refused(done, done.returncode, str(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("time", ["nan", "inf", "-1", "soon"])
def test_a_time_that_nobody_can_wait_for_is_wrong_usage(tmp_path: Path, time: str) -> None:
    for words in (
        ("hooks", "check", ".", "--timeout", time),
        ("deploy", "shop", "--ref", "v1", "--node", "n1", "--timeout", time),
        ("keepalive", "--every", time),
        ("mirror", "sync", "https://git.example.org/shop.git", "mirror", "--deadline", time),
        ("relay", "--deadline", time),
    ):
        refused(run_here(*words, cwd=tmp_path), 2, f"Invalid value for '{words[-2]}'", time)


def test_an_unknown_command_or_option_is_wrong_usage(tmp_path: Path) -> None:
    for words in (("frobnicate",), ("watch", "--frobnicate")):
        done = run_here(*words, cwd=tmp_path)
        refused(done, 2, "frobnicate", "--help")


def test_every_command_has_help_with_an_example(tmp_path: Path) -> None:
    from deploykit.cli import COMMANDS

    asked = {name: run_here(name, "--help", cwd=tmp_path) for name in COMMANDS}
    assert [name for name, done in asked.items() if done.returncode != 0 or "Example" not in done.stdout] == []


def test_a_demo_on_a_broker_that_is_not_there_says_so(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"stomp://127.0.0.1:{taken.getsockname()[1]}"
        done = run("demo", "--broker", address, cwd=tmp_path, env={"TMPDIR": str(tmp_path)})
    refused(done, 1, f"no broker answers at {address}")
    assert list(tmp_path.iterdir()) == []


def test_a_demo_with_a_wrong_password_says_so_and_shows_none(tmp_path: Path, broker: EmbeddedBroker) -> None:
    done = run("demo", "--broker", f"stomp://ada:canary-17@127.0.0.1:{broker.port}", cwd=tmp_path)
    refused(done, 1, "refused the login")
    assert "canary" not in done.stdout + done.stderr
