"""`deploykit agent --once`: the node is brought up to date, and the exit code says whether all of it worked."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.daemons.agent.mirrors import mirror_path
from deploykit.daemons.agent.statelock import StateLock
from deploykit.messages import MirrorUpdated
from tests.support.cli import command, run
from tests.support.node import SHOP, Node, git, write_settings
from tests.support.wait import wait_until


@pytest.fixture
def node(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> Iterator[Node]:
    with Node(tmp_path, deploykit_broker) as made:
        yield made


def once(node: Node, *words: str) -> subprocess.CompletedProcess[str]:
    return run("agent", "--once", "-c", str(node.root / "deploykit.toml"), *words)


def test_mirrors_are_compared_and_what_moved_is_reported_before_it_ends(node: Node) -> None:
    write_settings(node)
    commit = node.origin.push(tag="v1")
    done = once(node)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("mirrors compared: 1, messages sent: ")
    assert git("rev-parse", "v1^{commit}", cwd=mirror_path(node.settings, SHOP)) == commit
    assert not node.waits(MirrorUpdated)
    assert node.wait(MirrorUpdated, lambda m: m.ref == "refs/tags/v1").new == commit
    again = json.loads(once(node, "--json").stdout)
    assert again == {"mirrors": 1, "sent": 0, "problems": []}


def test_what_fails_is_said_and_costs_the_rest_nothing(node: Node) -> None:
    write_settings(node, more=f'[repositories.gone]\nurl = "{node.root}/gone.git"\n')
    commit = node.origin.push(tag="v1")
    done = once(node)
    assert done.returncode == 1
    assert "deploykit: mirror gone: " in done.stderr
    assert node.wait(MirrorUpdated, lambda m: m.ref == "refs/tags/v1").new == commit


def test_without_a_broker_the_reports_stay_and_it_says_so(node: Node, deploykit_broker: EmbeddedBroker) -> None:
    write_settings(node)
    node.origin.push(tag="v1")
    deploykit_broker.stop()
    done = once(node, "--deadline", "8")  # the fetch must be over by then
    assert done.returncode == 1
    assert "deploykit: messages are left in the outbox: no broker reachable" in done.stderr
    assert node.waits(MirrorUpdated)


def test_beside_an_agent_it_does_nothing(node: Node) -> None:
    write_settings(node)
    with StateLock(node.settings.state):
        done = once(node)
    assert (done.returncode, done.stdout) == (1, "")
    assert "another agent works on state directory" in done.stderr


def test_an_interrupted_deploy_is_finished(node: Node) -> None:
    write_settings(node)
    script = f"#!/bin/sh\ntouch {node.root}/ran\nwhile [ ! -e {node.root}/gate ]; do sleep 0.02; done\n"
    commit = node.origin.push(tag="v1", files={"index.html": "one\n", "deploy/post-deploy": script})
    log = node.root / "agent.log"
    with log.open("wb") as out:
        process = subprocess.Popen(command("agent", "-c", str(node.root / "deploykit.toml")), stdout=out, stderr=out)
    try:
        wait_until(lambda: "ready: agent" in log.read_text(), "the agent", 60)
        node.send(node.request("v1", commit))
        wait_until((node.root / "ran").exists, "the script", 60)
    finally:
        process.kill()
        process.wait()
    (node.root / "gate").touch()
    done = once(node)
    assert done.returncode == 0, done.stderr
    assert "site shop: finished an interrupted deploy: success" in done.stderr
    assert (node.site / "current" / "index.html").read_text() == "one\n"
