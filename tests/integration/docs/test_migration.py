"""The commands of docs/migration.md, one step after the other and back, beside the original's programs."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner

from deploykit.bus import Bus
from deploykit.cli import group
from deploykit.hooking import installer
from deploykit.trust.keyfiles import generate_key, trust
from tests.brokers.rabbitmq import RabbitMQ
from tests.support import docmachine
from tests.support.docmachine import Machine
from tests.support.needs import needs_file
from tests.support.node import git
from tests.support.originals.hookprogram import install
from tests.support.originals.oldstomp import OldFrame
from tests.support.originals.publishers import OldBus
from tests.support.originals.readers import OldDaemon, OldEventbot
from tests.support.originals.updater import OldRepository, OldUpdater, clone
from tests.support.ports import free_port
from tests.support.wait import wait_until

PAGE = "migration.md"
STEP1, STEP2 = "Step 1: hooks", "Step 2: mirrors"
STEP4, END = "Step 4: deploys, one site at a time", "The end: `legacy` off"
blocks = partial(docmachine.blocks, PAGE)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path, free_port())
    try:
        yield made
    finally:
        made.stop()


def test_every_command_that_the_page_names_exists() -> None:
    """Those of the tables and of the text are run by tests of their own."""
    page = (Path(__file__).parents[3] / "docs" / PAGE).read_text(encoding="utf-8")
    named = set(re.findall(r"\bdeploykit ([a-z]+(?: [a-z]+)?)", "\n".join(re.findall(r"`(deploykit [^`]+)`", page))))
    assert len(named) > 5
    asked = {words: CliRunner().invoke(group, [*words.split(" "), "--help"]) for words in sorted(named)}
    assert [words for words, done in asked.items() if done.exit_code != 0] == []


class OldFleet:
    """What is there before: a repository with the original's hook, its updater's directory, a deployed site."""

    def __init__(self, machine: Machine, bus: OldBus) -> None:
        srv = machine.root / "srv"
        self.origin, self.work = srv / "git/shop.git", machine.root / "work"
        self.shown = {whose: srv / f"{whose}checkouts/shop/index.html" for whose in ("original/", "")}
        git("init", "--quiet", "--bare", "--initial-branch=main", str(self.origin), cwd=srv)
        git("clone", "--quiet", str(self.origin), str(self.work), cwd=srv)
        self.push("v1.0")
        for where in ("original/checkouts", "checkouts", "www"):
            (srv / where).mkdir(parents=True)
        git("clone", "--quiet", "--branch", "v1.0", str(self.origin), str(srv / "original/shop"), cwd=srv)
        (srv / "original/shop/TAG").write_text("Tag: v1.0\n")
        (srv / "www/shop").symlink_to(srv / "original/shop")
        install(bus, "git", "shop", self.origin)
        there = clone(self.origin, srv / "clone")
        found = OldRepository(there, "branch", self.shown["original/"].parent, "main")
        self.updater = OldUpdater(bus, {"shop": found})

    def push(self, text: str) -> None:
        """Push a commit and a tag of that name."""
        (self.work / "index.html").write_text(text)
        git("add", "--all", cwd=self.work)
        git("commit", "--quiet", "--message", text, cwd=self.work)
        git("tag", text, cwd=self.work)
        git("push", "--quiet", "origin", "HEAD:main", text, cwd=self.work)

    def shows(self, whose: str, text: str) -> None:
        """Wait until a directory of branch main holds a text."""
        file = self.shown[whose]
        wait_until(lambda: file.exists() and file.read_text() == text, f"{text} in {file}")


class Announced(OldDaemon):
    """Somebody who hears pushes: the subjects, with whether there is a line for the updater."""

    def __init__(self, bus: OldBus) -> None:
        self.pushes: list[tuple[str, bool]] = []
        super().__init__(bus, ["git.commits"])

    def handle(self, frame: OldFrame) -> None:
        self.pushes.append((frame.headers["subject"].split(" ")[1], "\nJSON:" in frame.text))

    def wait(self, count: int) -> list[tuple[str, bool]]:
        """Wait for so many, and return them; forget them."""
        wait_until(lambda: len(self.pushes) >= count, f"{count} pushes, not {self.pushes}")
        found, self.pushes = self.pushes, []
        return found


def test_one_step_after_the_other_and_back(machine: Machine) -> None:
    port = machine.here("61613")
    machine.start("deploykit broker --port 61613", "ready")
    bus = OldBus(f"stomp://127.0.0.1:{port}")
    old = OldFleet(machine, bus)
    etc, srv = machine.root / "etc/deploykit", machine.root / "srv"
    for principal, name in (("ops@example.org", "ops"), ("web1", "node")):
        trust(etc / "allowed_signers", principal, generate_key(etc / f"{name}.key").public_blob)
    daemons, hook = blocks(STEP1, "toml")
    (etc / "deploykit.toml").write_text(machine.here(daemons))
    both = [("refs/heads/main", True), ("refs/tags/v1.1", True)]
    with Announced(bus) as heard, old.updater as updater, OldEventbot(bus) as bot:
        # Step 1, and back: each push is announced once, by one of the two.
        relay, there, back = blocks(STEP1, "sh")
        machine.start(relay.strip(), "ready")
        (srv / "git/shop.git/deploykit.toml").write_text(machine.here(hook))
        machine.must(there)
        old.push("v1.1")
        old.shows("original/", "v1.1")
        assert sorted(heard.wait(2)) == both
        machine.must(back)
        git("push", "--quiet", "origin", "HEAD:refs/heads/other", cwd=old.work)
        assert heard.wait(1) == [("refs/heads/other", False)]
        wait_until(lambda: not updater.runs, "what ends the updater: its own hook")
        (old.origin / "hooks/post-receive").chmod(0o644)
        installer.install(old.origin, chain=True)
        # Step 2: both keep the branch, each in a directory of its own.
        agent, look = blocks(STEP2, "sh")
        machine.start(agent.strip(), "ready")
        old.shows("", "v1.1")
        again = OldUpdater(bus, {"shop": OldRepository(srv / "clone", "branch", old.shown["original/"].parent, "main")})
        with again:
            old.push("v1.2")
            old.shows("original/", "v1.2")
            old.shows("", "v1.2")
            machine.must(look)
        assert [kind for _, kind in heard.wait(2)] == [True, True]
        # Step 4: locked, handed over, and back.
        mine, over, returned = blocks(STEP4, "sh")
        deploy = over.splitlines()[1]
        page = srv / "www/shop/index.html"
        machine.must(mine)
        refused = machine.run(deploy)
        assert refused.returncode == 3, refused.stdout + refused.stderr
        assert "the original deploys it" in refused.stdout + refused.stderr
        machine.must(over)
        assert (page.read_text(), page.resolve().is_relative_to(srv / "shop")) == ("v1.0", True)
        machine.must(returned)
        assert (page.read_text(), page.resolve().is_relative_to(srv / "original")) == ("v1.0", True)
        assert not [text for _, text in bot.lines if text.lstrip().startswith("{")]
        # The end: our hook writes the native form, and what still comes in the old one is an old publisher's.
        (srv / "git/shop.git/deploykit.toml").write_text(machine.here(hook.replace("legacy = true", "legacy = false")))
        watched = machine.start(blocks(END, "sh")[1].strip(), "ready")
        old.push("v1.3")
        seen = sources(watched, 2)
        machine.must(back)
        old.push("v1.4")
        seen += sources(watched, 4)[2:]
        assert [source.partition("/")[0] for source in seen] == ["git", "git", "legacy", "legacy"]
        old.shows("", "v1.4")


def sources(log: Path, count: int) -> list[str]:
    """Wait until `watch --json` has shown so many messages; return who sent them."""

    def lines() -> list[str]:
        return log.read_text().rpartition("\n")[0].splitlines()[1:]  # whole ones: the last may be under way

    wait_until(lambda: len(lines()) >= count, f"{count} messages in {lines()}")
    return [str(json.loads(line)["message"]["source"]) for line in lines()]


@pytest.mark.rabbitmq
def test_the_connections_show_who_is_left(rabbitmq: RabbitMQ) -> None:
    program = needs_file("/usr/lib/rabbitmq/bin/rabbitmqctl", package="rabbitmq-server")  # root's changes the user
    words = [str(program), "-n", rabbitmq.node, *blocks(END, "sh")[0].split()[1:]]
    with Announced(OldBus(rabbitmq.address, "left")), Bus(rabbitmq.address, client_id="left") as ours:
        assert ours.wait_connected(60)
        env = {**os.environ, **rabbitmq._environment()}
        done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    versions = [line.split("\t")[-1] for line in done.stdout.splitlines()[1:]]
    assert {'"1.0"', '"1.2"'} <= set(versions), done.stdout
