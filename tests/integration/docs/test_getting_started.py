"""The commands of docs/getting-started.md do what the page says, from the first key to the way back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.support import docmachine
from tests.support.docmachine import Machine
from tests.support.node import git
from tests.support.ports import free_port

blocks = partial(docmachine.blocks, "getting-started.md")
SCRIPT = "#!/bin/sh\necho hello\n"


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path, free_port())
    try:
        yield made
    finally:
        made.stop()


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
