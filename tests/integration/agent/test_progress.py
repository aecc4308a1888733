"""What a deploy does is seen while it does it: signed by the node, before the report, and capped."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.messages import DeployProgressed
from deploykit.trust.keyfiles import load_allowed_signers
from deploykit.trust.signature import verify
from deploykit.wire import Frame
from tests.support.node import NODE, Node


@pytest.fixture
def node(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> Iterator[Node]:
    with Node(tmp_path, deploykit_broker) as made:
        assert made.bus.subscribe(made.settings.topics.progress, made._hear).wait_active(60)
        yield made


def test_a_script_is_heard_before_it_has_ended_and_each_step_begins_and_ends(node: Node, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    script = f"#!/bin/sh\nprintf 'half \\303'\nprintf '\\244 \\377 \\033[2J\\n'\nread line < {gate}\nexit 0\n"
    with node.agent() as agent:
        agent.ready()
        commit = node.origin.push(tag="v1", files={"index.html": "one\n", "deploy/post-deploy": script})
        request = node.request("v1", commit, rollout="ro-1")
        node.send(request)
        heard = node.wait(DeployProgressed, lambda m: m.state == "output" and "[2J" in m.output)
        assert "\x1b[2J" in heard.output  # data; whoever shows it escapes it
        with gate.open("w") as held:
            held.write("go\n")
        report = node.report_on(request)
        assert report.outcome == "success"
        node.wait(DeployProgressed, lambda m: (m.step, m.state) == ("post-deploy", "done"))
        last = [step.name for step in report.steps if step.outcome == "done"][-1]
        node.wait(DeployProgressed, lambda m: (m.step, m.state) == (last, "done"))
    events = [m for m, _ in node.heard if isinstance(m, DeployProgressed)]
    numbers = [m.number for m in events]
    assert numbers == list(range(len(numbers)))
    assert {(m.request, m.rollout, m.node, m.phase) for m in events} == {(request.id, "ro-1", NODE, "deploy")}
    states = {(m.step, m.state) for m in events}
    # Preflight is over before the deploy begins: its step is in the report alone.
    ran = [step.name for step in report.steps if step.outcome == "done" and step.name != "preflight"]
    assert {(name, state) for name in ran for state in ("began", "done")} <= states
    assert {("fetch", "began"), ("fetch", "done")} <= states
    printed = "".join(m.output for m in events if m.step == "post-deploy")
    assert printed == next(step.output for step in report.steps if step.name == "post-deploy")
    allowed = load_allowed_signers(node.signers)
    for message, delivery in node.heard:
        if isinstance(message, DeployProgressed):
            signer = verify(Frame(delivery.headers, delivery.body), allowed, datetime.now(UTC))
            assert signer.is_principal(str(NODE))
