"""A command goes to the topic of each node; a node whose topic the broker refuses does not cost the others."""

from __future__ import annotations

from concurrent.futures import Future
from datetime import timedelta
from typing import Any, cast

from deploykit.errors import PublishRefused
from deploykit.fleet.sender import CommandSender
from deploykit.messages.topics import TopicMap
from deploykit.wire import Frame
from tests.unit.fleet.test_journal import MAKER, NOW, PLAN

TOPICS = TopicMap()


class RefusingBus:
    """A bus whose broker refuses some topics."""

    def __init__(self, *refused: str) -> None:
        self.sent: list[str] = []
        self._refused = refused

    def publish_nowait(self, topic: str, frame: Frame) -> Future[None]:
        self.sent.append(topic)
        receipt = Future[None]()
        if topic in self._refused:
            receipt.set_exception(PublishRefused("access refused"))
        else:
            receipt.set_result(None)
        return receipt


def test_after_a_refusal_a_lost_connection_brings_no_copy_to_that_node_for_a_minute() -> None:
    refused, *others = (TOPICS.deploy_to(node) for node in PLAN.nodes)
    bus = RefusingBus(refused)
    problems: list[str] = []
    sender = CommandSender(cast("Any", bus), TOPICS, problems.append)
    target = PLAN.targets[PLAN.nodes[0]]
    [command] = MAKER.deploys("prepare", target, PLAN.nodes, NOW)
    wall = NOW + timedelta(seconds=1)
    sender.send(command, PLAN.nodes, 0.0)
    sender.step(0.0, wall, lambda node, command: True)
    assert sorted(bus.sent) == sorted([refused, *others])
    sender.step(0.1, wall, lambda node, command: True)
    assert problems == ["access refused"]
    for at in (1.0, 5.0, 9.0):  # a broker that ends the connection over it
        bus.sent.clear()
        sender.hurry(at)
        sender.step(at + 1.0, wall, lambda node, command: True)
        assert sorted(bus.sent) == sorted(others)
    bus.sent.clear()
    sender.hurry(70.0)
    sender.step(71.0, wall, lambda node, command: True)
    assert refused in bus.sent
