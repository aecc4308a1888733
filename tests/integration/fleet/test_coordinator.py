"""Asking a node over the bus: only what the node itself signed, about this very request, is believed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.bus import Delivery
from deploykit.fleet import Answer, Coordinator
from deploykit.fleet import asking as coordinator
from deploykit.messages import DeployReported, DeployRequested
from deploykit.names import NodeName, ObjectId, RefName
from deploykit.trust.check import Trust
from deploykit.trust.signature import copy_digest, sign
from deploykit.wire import Frame, decode, encode
from tests.support.node import NODE, Node

COMMIT = ObjectId("ab" * 20)


@pytest.fixture
def node(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> Iterator[Node]:
    with Node(tmp_path, deploykit_broker) as made:
        yield made


def asking(node: Node) -> Coordinator:
    settings = node.settings
    trust = Trust.from_settings(settings.trust, settings.node)
    return Coordinator(node.bus, settings.topics, node.keys["operator"], trust)


def answered_by(node: Node, *replies: tuple[str | None, dict[str, Any]]) -> None:
    """Stand in for a node: answer each command with these reports, each signed by the key named."""

    def answer(delivery: Delivery) -> None:
        request = decode(delivery.headers, delivery.body, delivery.destination)
        assert isinstance(request, DeployRequested)
        for key, changes in replies:
            report = DeployReported(
                node=NODE,
                site=request.site,
                request=request.id,
                phase=request.phase,
                outcome="success",
                ref=request.ref,
                commit=request.commit,
                answers=copy_digest(Frame(delivery.headers, delivery.body)),
            )
            frame = encode(attrs.evolve(report, **changes))
            node.bus.publish_nowait(node.settings.topics.report, sign(frame, node.keys[key]) if key else frame)

    assert node.bus.subscribe(node.settings.topics.deploy, answer).wait_active(60)


def ask(node: Node, *, timeout: float = 60.0) -> Answer:
    (answer,) = asking(node).ask(node.request("v1", COMMIT), timeout=timeout)
    return answer


def test_a_report_signed_by_the_node_is_believed(node: Node) -> None:
    answered_by(node, ("node", {}))
    answer = ask(node)
    assert answer.report is not None
    assert answer.report.outcome == "success"
    assert answer.doubts == ()


@pytest.mark.parametrize(
    ("key", "changes", "says"),
    [
        (None, {}, "not signed"),
        ("stranger", {}, "not among the allowed signers"),
        ("operator", {}, "may not report for node"),
        (
            "node",
            {"commit": ObjectId("cd" * 20)},
            "another commit than asked for: v1 cdcdcdcdcdcd, not v1 abababababab",
        ),
        ("node", {"ref": RefName("refs/tags/v2")}, "another ref"),
        ("node", {"ref": None, "commit": None}, "another commit"),
        ("node", {"phase": "rollback"}, "asked was"),
        ("node", {"outcome": "refused", "answers": "0" * 64}, "another copy"),
        ("node", {"outcome": "refused", "answers": ""}, "another copy"),
    ],
)
def test_threat_6_a_forged_or_unfitting_report_is_not_believed(
    node: Node, key: str | None, changes: dict[str, Any], says: str
) -> None:
    answered_by(node, (key, changes), ("node", {"outcome": "failure"}))  # the true one ends the wait
    answer = ask(node)
    assert answer.report is not None
    assert answer.report.outcome == "failure"
    (doubt,) = answer.doubts
    assert says in doubt


def test_threat_6_a_forged_success_does_not_hide_the_true_failure(node: Node) -> None:
    answered_by(node, ("stranger", {}), ("node", {"outcome": "failure"}))
    answer = ask(node)
    assert answer.report is not None
    assert answer.report.outcome == "failure"
    assert len(answer.doubts) == 1


def test_a_flood_of_forged_reports_is_a_few_doubts(node: Node) -> None:
    forged: list[tuple[str | None, dict[str, Any]]] = [("stranger", {})] * 50 + [(None, {})] * 50
    answered_by(node, *forged, *[("node", {"answers": "0" * 64})] * 50, ("node", {"outcome": "failure"}))
    answer = ask(node)
    assert answer.report is not None
    assert len(answer.doubts) == len(set(answer.doubts)) == 3


def test_reports_on_other_requests_or_of_other_nodes_are_passed_over(node: Node) -> None:
    answered_by(node, ("node", {"request": "another"}), ("node", {"node": NodeName("web9")}))
    assert ask(node, timeout=2.0) == Answer(node=NODE)


def test_a_node_that_stays_silent_is_answered_for_in_time(node: Node) -> None:
    assert ask(node, timeout=0.5) == Answer(node=NODE)


def test_a_report_that_was_lost_is_asked_for_again(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent is real; its first report is dropped on the way, as when the broker restarts under the asker."""
    monkeypatch.setattr(coordinator, "_ASK_AGAIN", 1.0)
    with node.agent() as agent:
        agent.ready()
        commit = node.origin.push(tag="v1", files={"index.html": "one\n"})
        asker = asking(node)
        believed = asker._report_in
        dropped: list[Delivery] = []

        def lossy(delivery: Delivery, request: DeployRequested) -> DeployReported | None:
            report = believed(delivery, request)
            if report is not None and not dropped:
                dropped.append(delivery)
                return None
            return report

        monkeypatch.setattr(asker, "_report_in", lossy)
        (answer,) = asker.ask(node.request("v1", commit), timeout=60)
        assert answer.report is not None
        assert answer.report.outcome == "success"
    assert len(dropped) == 1
    assert len(list((node.site / "releases").iterdir())) == 1
