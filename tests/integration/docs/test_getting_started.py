"""The commands of docs/getting-started.md do what the page says, from the first key to the way back."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.node import git
from tests.support.wait import wait_until

PAGE = (Path(__file__).parents[3] / "docs" / "getting-started.md").read_text()
SCRIPT = "#!/bin/sh\necho hello\n"


def blocks(section: str, language: str) -> list[str]:
    """The code of a section."""
    text = PAGE.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    found = re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert found, section
    return found


class Machine:
    """A machine whose directories are below one of ours."""

    def __init__(self, root: Path, port: int) -> None:
        self.root = root
        self._port = port
        self._running: list[subprocess.Popen[bytes]] = []
        for name in ("etc/deploykit", "var/lib", "var/spool", "srv/git", "bin"):
            (root / name).mkdir(parents=True)
        wrapper = root / "bin" / "deploykit"
        wrapper.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m deploykit "$@"\n')
        wrapper.chmod(0o755)
        self._env = {
            "PATH": f"{root / 'bin'}:{os.environ['PATH']}",
            "HOME": str(root),
            "LANG": "C.UTF-8",
            "DEPLOYKIT_CONFIG": str(root / "etc/deploykit/deploykit.toml"),
        }

    def here(self, text: str) -> str:
        """The text, with our directories and our port."""
        moved = re.sub(
            r"(?<![\w.])/(etc/deploykit|var/lib/deploykit|var/spool/deploykit|srv)\b", rf"{self.root}/\1", text
        )
        return moved.replace("61613", str(self._port))

    def run(self, text: str) -> subprocess.CompletedProcess[str]:
        """Run a block of the page to its end."""
        return subprocess.run(
            ["sh", "-e", "-c", self.here(text)],
            cwd=self.root, env=self._env, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def must(self, text: str) -> str:
        """Run a block that has to succeed; return what it printed."""
        done = self.run(text)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self, text: str, until: str) -> None:
        """Start a daemon, and wait until it says something."""
        log = self.root / f"log{len(self._running)}"
        with log.open("wb") as file:
            process = subprocess.Popen(
                ["sh", "-c", f"exec {self.here(text)}"],
                cwd=self.root, env=self._env, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
            )  # fmt: skip
        self._running.append(process)
        wait_until(lambda: until in log.read_text() or process.poll() is not None, f"{until} from {text}", 60)
        assert process.poll() is None, log.read_text()

    def stop(self) -> None:
        for process in reversed(self._running):
            process.terminate()
            process.wait(60)


@pytest.fixture
def machine(tmp_path: Path, free_port: int) -> Iterator[Machine]:
    made = Machine(tmp_path, free_port)
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture
def free_port() -> int:
    import socket

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def tag(work: Path, name: str) -> None:
    """Push a tag whose tree has the scripts that the settings require."""
    (work / "deploy").mkdir(exist_ok=True)
    (work / "index.html").write_text(f"{name}\n")
    for script in ("pre-deploy", "post-deploy"):
        (work / "deploy" / script).write_text(SCRIPT)
        (work / "deploy" / script).chmod(0o755)
    git("add", "--all", cwd=work)
    git("commit", "--quiet", "--message", name, cwd=work)
    git("tag", name, cwd=work)
    git("push", "--quiet", "--tags", "origin", "HEAD:refs/heads/main", cwd=work)


def test_the_page_leads_from_the_first_key_to_the_way_back(machine: Machine) -> None:
    root, work = machine.root, machine.root / "work"
    (broker,) = blocks("A broker", "sh")
    machine.start(broker.strip(), "ready")
    machine.must(blocks("Keys", "sh")[0])
    (root / "etc/deploykit/deploykit.toml").write_text(machine.here(blocks("A node", "toml")[0]))
    check, agent = blocks("A node", "sh")[0].splitlines()
    machine.must("git init --quiet --bare /srv/git/shop.git")
    git("clone", "--quiet", str(root / "srv/git/shop.git"), str(work), cwd=root)
    tag(work, "v1.0")
    tag(work, "v1.1")
    machine.run(check)  # before the agent has made its directories it has something to say
    machine.start(agent, "ready")
    machine.must(check)
    install, relay = blocks("The repository's side", "sh")[0].splitlines()
    assert relay.startswith("deploykit relay")  # not here: an agent runs
    machine.must(install)

    deploy, back, many = blocks("A deploy", "sh")
    page = root / "srv/shop/current/index.html"
    shown = machine.must(deploy)
    assert page.read_text() == "v1.0\n"
    assert re.search(r"^\S+ web1 pre-deploy \| hello$", shown, re.MULTILINE), shown
    machine.must(deploy.replace("v1.0", "v1.1"))
    assert page.read_text() == "v1.1\n"
    listed = machine.must(back)
    assert page.read_text() == "v1.0\n"
    assert [line.split()[1] for line in listed.splitlines()[-4:]] == ["KIND", "rollback", "deploy", "deploy"]
    plan = machine.must(many)
    assert "shop gets v1.0" in plan
    assert plan.endswith("nothing was sent\n")
