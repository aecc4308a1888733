"""An agent that is killed, told to end, or told to read its settings again in the middle of a deploy.

Each accepted request ends in exactly one final report, and the site in a whole release.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.messages import DeployReported, DeployRequested
from tests.support.cli import command
from tests.support.node import NODE, SHOP, Node
from tests.support.wait import wait_until


class Process:
    """`deploykit agent` as a process of its own, started as often as a test likes; one log."""

    def __init__(self, node: Node, *, address: str = "", more: str = "") -> None:
        self.node, self.log = node, node.root / "agent.log"
        self.config = node.root / "deploykit.toml"
        self.write(address=address, more=more)
        self._running: subprocess.Popen[bytes] | None = None

    def write(self, *, address: str = "", more: str = "", key: str = "node.key") -> None:
        """Write the settings file."""
        node = self.node
        self.config.touch(mode=0o600)
        self.config.write_text(
            f'node = "{NODE}"\nstate = "{node.root}/state"\nsigning_key = "{node.root}/{key}"\n'
            f'[broker]\naddress = "{address or node.settings.broker.address}"\nbackoff_max = 0.2\n{more}\n'
            f'[outbox]\npath = "{node.root}/spool"\n'
            f'[trust]\nallowed_signers = "{node.signers}"\n'
            'grants = [{ principal = "ops@example.org", types = ["deploy.requested"] }]\n'
            f'[repositories.{SHOP}]\nurl = "{node.origin.path}"\n'
            f'[sites.shop]\npath = "{node.site}"\nrepo = "{SHOP}"\n'
        )

    def start(self, *, ready: bool = True) -> subprocess.Popen[bytes]:
        """Start it; a command sent before it is ready for the first time would reach nobody."""
        before = self.said("ready: agent") if self.log.exists() else 0
        with self.log.open("ab") as log:
            self._running = subprocess.Popen(command("agent", "-c", str(self.config)), stdout=log, stderr=log)
        if ready:
            wait_until(lambda: self.said("ready: agent") > before, "for the agent")
        return self._running

    def said(self, text: str) -> int:
        return self.log.read_text().count(text)

    def kill(self) -> None:
        if self._running is not None and self._running.poll() is None:
            self._running.kill()
            assert self._running.wait(60) == -signal.SIGKILL


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker(data=tmp_path / "broker") as started:
        yield started


@pytest.fixture
def node(tmp_path: Path, broker: EmbeddedBroker) -> Iterator[Node]:
    with Node(tmp_path, broker) as made:
        yield made


@pytest.fixture
def agent(node: Node) -> Iterator[Process]:
    made = Process(node)
    yield made
    made.kill()


def waits(node: Node, name: str, *, code: int = 0) -> str:
    """A script that says that it runs, and waits until it is let go."""
    return (
        f"#!/bin/sh\necho {name} >> {node.root}/ran\n"
        f"while [ ! -e {node.root}/gate ]; do sleep 0.02; done\necho went on\nexit {code}\n"
    )


def ran(node: Node) -> list[str]:
    file = node.root / "ran"
    return file.read_text().split() if file.exists() else []


def only_report_on(node: Node, request: DeployRequested) -> DeployReported:
    """The report on a request: the only one, also after the node has answered another request since."""
    report = node.report_on(request, timeout=60)
    after = node.request("after", node.origin.push(tag="after"))
    node.send(after)
    node.report_on(after, timeout=60)
    ids = {m.id for m, _ in node.heard if isinstance(m, DeployReported) and m.request == request.id}
    assert ids == {report.id}
    return report


@pytest.mark.parametrize(
    ("script", "code", "outcome"),
    [
        ("pre-deploy", 0, "success"),
        ("post-deploy", 0, "success"),
        ("post-deploy", 3, "rolled-back"),
    ],
)
def test_an_agent_killed_while_a_script_runs_reports_once_when_it_is_back(
    node: Node, agent: Process, script: str, code: int, outcome: str
) -> None:
    first = node.request("v0", node.origin.push(tag="v0", files={"index.html": "zero\n"}))
    agent.start()
    node.send(first)
    assert node.report_on(first).outcome == "success"
    files = {"index.html": "one\n", f"deploy/{script}": waits(node, script, code=code)}
    request = node.request("v1", node.origin.push(tag="v1", files=files))
    node.send(request)
    wait_until(lambda: ran(node) == [script], "for the script")
    agent.kill()
    (node.root / "gate").touch()  # lets the script of the killed agent end, too
    agent.start()
    report = node.report_on(request, timeout=60)
    assert report.outcome == outcome, report
    live = "one\n" if outcome == "success" else "zero\n"
    assert (node.site / "current" / "index.html").read_text() == live
    assert only_report_on(node, request).outcome == outcome


def test_an_agent_killed_with_its_report_unsent_reports_once_when_both_are_back(
    node: Node, agent: Process, broker: EmbeddedBroker
) -> None:
    files = {"index.html": "one\n", "deploy/post-deploy": waits(node, "post-deploy")}
    agent.start()
    request = node.request("v1", node.origin.push(tag="v1", files=files))
    node.send(request)
    wait_until(lambda: ran(node) == ["post-deploy"])
    broker.stop()
    (node.root / "gate").touch()
    # Its mirror's report may be there long before: an agent killed then would run the script again, and rightly.
    wait_until(lambda: node.waits(DeployReported), "for the report in the spool")
    agent.kill()
    broker.start()
    agent.start()
    assert node.report_on(request, timeout=60).outcome == "success"
    assert ran(node) == ["post-deploy"], "what was done is not done again"
    assert only_report_on(node, request).outcome == "success"


def test_term_in_the_middle_of_a_deploy_waits_for_its_end_and_its_report(node: Node, agent: Process) -> None:
    files = {"index.html": "one\n", "deploy/post-deploy": waits(node, "post-deploy")}
    process = agent.start()
    request = node.request("v1", node.origin.push(tag="v1", files=files))
    node.send(request)
    wait_until(lambda: ran(node) == ["post-deploy"])
    process.send_signal(signal.SIGTERM)
    wait_until(lambda: agent.said("waiting for 1 deploy") == 1)
    assert process.poll() is None
    (node.root / "gate").touch()
    assert process.wait(60) == 0
    # Out, and so on its way to us, or in the spool.
    wait_until(lambda: node.count(DeployReported) > 0 or node.waits(DeployReported), "for the report")
    agent.start()
    assert node.report_on(request, timeout=60).outcome == "success"
    assert ran(node) == ["post-deploy"]
    only_report_on(node, request)


def test_a_second_term_ends_at_once_and_the_next_start_goes_on(node: Node, agent: Process) -> None:
    files = {"index.html": "one\n", "deploy/post-deploy": waits(node, "post-deploy")}
    process = agent.start()
    request = node.request("v1", node.origin.push(tag="v1", files=files))
    node.send(request)
    wait_until(lambda: ran(node) == ["post-deploy"])
    process.send_signal(signal.SIGTERM)
    wait_until(lambda: agent.said("waiting for 1 deploy") == 1)

    def gone() -> bool:
        process.send_signal(signal.SIGTERM)
        return process.poll() is not None

    wait_until(gone, "for the agent to end")
    assert agent.said("Traceback") == 0
    (node.root / "gate").touch()
    agent.start()
    assert only_report_on(node, request).outcome == "success"


def test_hup_in_a_burst_and_in_the_middle_of_a_deploy_loses_nothing(node: Node, agent: Process) -> None:
    files = {"index.html": "one\n", "deploy/post-deploy": waits(node, "post-deploy")}
    process = agent.start()
    request = node.request("v1", node.origin.push(tag="v1", files=files))
    node.send(request)
    wait_until(lambda: ran(node) == ["post-deploy"])
    process.send_signal(signal.SIGHUP)
    wait_until(lambda: agent.said("waiting for 1 deploy") == 1)
    for _ in range(50):
        process.send_signal(signal.SIGHUP)
        time.sleep(0.002)
    (node.root / "gate").touch()
    assert node.report_on(request, timeout=60).outcome == "success"
    assert ran(node) == ["post-deploy"]
    only_report_on(node, request)
    assert process.poll() is None


def test_hup_with_a_key_that_is_not_there_leaves_the_agent_as_it_was(node: Node, agent: Process) -> None:
    process = agent.start()
    wait_until(lambda: agent.said("ready: agent") == 1)
    agent.write(key="no-such.key")
    process.send_signal(signal.SIGHUP)
    wait_until(lambda: agent.said("the old ones stay") == 1)
    request = node.request("v1", node.origin.push(tag="v1"))
    node.send(request)
    assert node.report_on(request).outcome == "success"
    assert agent.said("ready: agent") == 1


def test_hup_with_a_wrong_password_goes_back_to_the_right_one(tmp_path: Path) -> None:
    with EmbeddedBroker(users={"ada": "right-pass"}, data=tmp_path / "broker") as broker:
        node = Node(tmp_path, broker)
        plain = f"stomp://127.0.0.1:{broker.port}"
        agent = Process(node, address=plain, more='login = "ada"\npasscode = "right-pass"')
        try:
            process = agent.start()
            wait_until(lambda: agent.said("ready: agent") == 1)
            agent.write(address=plain, more='login = "ada"\npasscode = "wrong-pass"')
            process.send_signal(signal.SIGHUP)
            wait_until(lambda: agent.said("the old ones are back") == 1)
            wait_until(lambda: agent.said("ready: agent") == 2)
            assert process.poll() is None
            assert "-pass" not in agent.log.read_text()
        finally:
            agent.kill()
            node.bus.stop()


def test_hup_corrects_a_broker_address_that_never_answered(node: Node, agent: Process) -> None:
    agent.write(address="stomp://127.0.0.1:9")
    process = agent.start(ready=False)
    wait_until(lambda: agent.said("Connection refused") > 0)
    agent.write()
    process.send_signal(signal.SIGHUP)
    wait_until(lambda: agent.said("ready: agent") == 1)
