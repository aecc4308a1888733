"""Commands that sign, as a person runs them: a passphrase on a terminal, from a file, from nobody; an ssh-agent."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploykit.broker.server import EmbeddedBroker
from tests.support.cli import command
from tests.support.sshagent import SshAgent
from tests.support.sshkeygen import SshKeygen
from tests.support.standins import StandIns, names
from tests.support.terminal import TerminalProgram

PASSPHRASE = "canary-4711"
TARGET = ("--ref", "refs/tags/v1", "--commit", "ab" * 20)


class Desk(StandIns):
    """One node, and settings whose key has a passphrase; `plain` is the same key without one."""

    def __init__(self, root: Path, broker: EmbeddedBroker) -> None:
        super().__init__(root, broker.address, names(1))
        self.root = root
        self.plain = root / "plain"
        self.plain.write_bytes((root / "operator.key").read_bytes())
        self.plain.chmod(0o600)
        done = SshKeygen(root).run("-q", "-p", "-N", PASSPHRASE, "-f", root / "operator.key")
        assert done.returncode == 0, done.stderr
        self.file = root / "deploykit.toml"
        self.file.touch(mode=0o600)
        self.file.write_text(f"""
node = "desk"
state = "{root / "state"}"
signing_key = "{root / "operator.key"}"
broker = {{ address = "{broker.address}" }}
outbox = {{ path = "{root / "spool"}" }}

[trust]
allowed_signers = "{root / "allowed_signers"}"
""")

    def words(self, *more: str) -> list[str]:
        return command("deploy", "shop", *TARGET, "-I", "web1", "--config", str(self.file), *more)

    def without_terminal(self, *more: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a deploy in a session of its own, which has no terminal."""
        return subprocess.run(
            self.words(*more),
            env={"PATH": os.environ["PATH"], "HOME": str(self.root), "LANG": "C.UTF-8", **env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            start_new_session=True,
        )


@pytest.fixture
def desk(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> Iterator[Desk]:
    made = Desk(tmp_path, deploykit_broker)
    with made:
        yield made


def test_a_passphrase_is_asked_for_once_and_again_when_it_is_wrong(desk: Desk) -> None:
    env = {"PATH": os.environ["PATH"], "HOME": str(desk.root)}
    with TerminalProgram(desk.words("--timeout", "60"), env=env, cwd=desk.root, columns=200) as program:
        program.until(lambda text: "Passphrase for" in text, "the question")
        program.press("wrong\n")
        program.until(lambda text: "wrong passphrase, try again" in text, "the second question")
        program.until(lambda text: text.count("Passphrase for") == 2, "the second question")
        program.press(f"{PASSPHRASE}\n")
        assert program.end() == 0
        assert program.screen.text.count("Passphrase for") == 2
        assert PASSPHRASE not in program.raw
    assert desk.acted("web1") == ["deploy"]


def test_three_wrong_passphrases_end_it_and_nothing_is_sent(desk: Desk) -> None:
    env = {"PATH": os.environ["PATH"], "HOME": str(desk.root)}
    with TerminalProgram(desk.words(), env=env, cwd=desk.root, columns=200) as program:
        for count in (1, 2, 3):
            program.until(lambda text, n=count: text.count("Passphrase for") == n, f"question {count}")  # type: ignore[misc]
            program.press("wrong\n")
        assert program.end() == 2
        assert "the passphrase is wrong, or the private key is damaged" in program.screen.text
    assert desk.acted("web1") == []


def test_without_a_terminal_the_error_shows_both_ways_out(desk: Desk) -> None:
    done = desk.without_terminal()
    key = desk.root / "operator.key"
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"deploykit: {key} has a passphrase, and there is no terminal to ask for it "
        f"(give its passphrase with --passphrase-file FILE, or `ssh-add {key}` and name {key}.pub)\n"
    )
    assert desk.acted("web1") == []


def test_a_passphrase_file_takes_the_terminal_s_place(desk: Desk) -> None:
    secret = desk.root / "secret"
    secret.write_text(f"{PASSPHRASE}\n")
    secret.chmod(0o600)
    done = desk.without_terminal("--passphrase-file", str(secret))
    assert done.returncode == 0, done.stderr
    assert PASSPHRASE not in done.stdout + done.stderr
    secret.write_text("wrong\n")
    done = desk.without_terminal("--passphrase-file", str(secret))
    assert done.returncode == 2
    assert done.stderr == (
        f"deploykit: the passphrase in {secret} is not that of {desk.root}/operator.key "
        "(correct the file's first line)\n"
    )


def test_a_key_in_an_ssh_agent_signs_without_any_question(desk: Desk) -> None:
    public = desk.root / "operator.key.pub"
    with SshAgent() as agent:
        agent.add(desk.plain)
        done = desk.without_terminal("--key", str(public), **agent.environment)
        assert done.returncode == 0, done.stderr
    done = desk.without_terminal("--key", str(public), **agent.environment)
    assert done.returncode == 1
    assert f"deploykit: key {public} (SHA256:" in done.stderr
    assert "the ssh-agent is gone" in done.stderr
    assert desk.acted("web1") == ["deploy"]


def test_an_agent_that_is_gone_when_nothing_is_left_to_sign_fails_nothing(desk: Desk) -> None:
    with SshAgent() as agent:
        agent.add(desk.plain)
        desk.before = lambda node, request: agent.end()
        done = desk.without_terminal("--key", str(desk.root / "operator.key.pub"), **agent.environment)
    assert done.returncode == 0, done.stderr
    assert desk.acted("web1") == ["deploy"]
    assert "nobody else is shown how the rollout stands: key " in done.stdout + done.stderr
