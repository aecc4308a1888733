"""A mandate goes out once, and again to whoever lacks it; nobody can make the coordinator send it without end."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from datetime import timedelta
from typing import Any, cast

import attrs
import pytest

from deploykit.bus import Delivery
from deploykit.fleet.commandbook import CommandBook
from deploykit.fleet.commands import SentCommand
from deploykit.fleet.mandatedesk import MOST_SINGLE, MandateDesk
from deploykit.fleet.sender import CommandSender
from deploykit.messages import ApprovalWanted
from deploykit.messages.topics import TopicMap
from deploykit.names import NodeName
from deploykit.settings import TrustSettings
from deploykit.trust.allowed_signers import AllowedSigners
from deploykit.trust.check import Trust
from deploykit.trust.signature import HEADER, SigningKey, sign
from deploykit.wire import Frame, decode, encode
from tests.unit.fleet.test_journal import NOW
from tests.unit.fleet.test_mandates import OTHER, held, maker

TOPICS = TopicMap()
NODES = tuple(NodeName(f"web{number}") for number in range(1, 31))
KEYS = {node: SigningKey.generate() for node in NODES}
SIGNERS = AllowedSigners.parse("".join(f"{node} {key.public_openssh}\n" for node, key in KEYS.items()))
WALL = NOW + timedelta(seconds=1)


class NotingBus:
    """A bus that notes what it is handed."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Frame]] = []

    def publish_nowait(self, topic: str, frame: Frame) -> Future[None]:
        self.sent.append((topic, frame))
        receipt = Future[None]()
        receipt.set_result(None)
        return receipt


class Desk:
    """A desk with one command to all nodes, which has gone out."""

    def __init__(self) -> None:
        self.bus = NotingBus()
        self.mandate = held()
        self.sender = CommandSender(cast("Any", self.bus), TOPICS, print)
        trust = Trust.from_settings(TrustSettings(), NodeName("desk"), trusted=lambda: SIGNERS)
        book = CommandBook()
        self.desk = MandateDesk(self.mandate, self.sender, trust, book, lambda: WALL)
        self.commands = list(maker(self.mandate).deploys("prepare", OTHER, NODES, NOW))
        for command in self.commands:
            book.add(command)
            self.sender.send(command, command.request.audience, 0.0)
        self.step(0.0)
        self.bus.sent.clear()

    def step(self, now: float, silent: Callable[[NodeName, SentCommand], bool] = lambda node, command: True) -> None:
        self.desk.step(now, WALL, silent)
        self.sender.step(now, WALL, silent)

    def wanted(self, asking: NodeName, **changes: Any) -> ApprovalWanted:
        made = ApprovalWanted(
            node=asking,
            site=self.mandate.message.site,
            rollout="shop-1",
            mandate=self.mandate.digest,
            request=self.commands[0].request.id,
            time=WALL,
        )
        return attrs.evolve(made, **changes)

    def hear(self, wanted: ApprovalWanted, now: float, *, key: SigningKey | None = None) -> None:
        delivery = heard(sign(encode(wanted), key or KEYS[wanted.node]))
        if self.desk.concerns(delivery):
            self.desk.hear(delivery, now)

    def sent(self) -> list[tuple[str, bytes]]:
        found = [(topic, frame.body) for topic, frame in self.bus.sent]
        self.bus.sent.clear()
        return found


@attrs.frozen
class HeardFrame:
    """A delivery, as far as it is looked at."""

    headers: dict[str, str]
    body: bytes
    message: Any
    destination: str = TOPICS.report


def heard(frame: Frame) -> Delivery:
    return cast("Delivery", HeardFrame(dict(frame.headers), frame.body, decode(frame.headers, frame.body)))


def test_it_is_broadcast_and_a_node_that_lacks_it_gets_it_before_its_command() -> None:
    desk = Desk()
    desk.desk.publish(0.0)
    desk.step(0.1)
    assert desk.sent() == [(TOPICS.deploy, desk.mandate.frame.body)]
    desk.hear(desk.wanted(NODES[0]), 1.0)
    desk.step(1.0)
    own = TOPICS.deploy_to(NODES[0])
    assert desk.sent() == [(own, desk.mandate.frame.body), (own, desk.commands[0].frame.body)]


def test_each_copy_has_the_signatures_and_a_transport_id_of_its_own() -> None:
    desk = Desk()
    for now in (0.0, 5.0):
        desk.desk.publish(now)
        desk.step(now)
    frames = [frame for _, frame in desk.bus.sent]
    assert len({frame.headers["deploykit-id"] for frame in frames}) == 2
    assert {frame.headers[HEADER] for frame in frames} == {desk.mandate.frame.headers[HEADER]}


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({}, KEYS[NODES[1]]),
        ({"mandate": "0" * 64}, None),
        ({"request": "another"}, None),
        ({"node": "db1"}, KEYS[NODES[0]]),
    ],
    ids=["another node's key", "another mandate", "another request", "a node that was not asked"],
)
def test_a_question_that_does_not_count_is_passed_over(changes: dict[str, Any], key: SigningKey | None) -> None:
    desk = Desk()
    desk.hear(desk.wanted(NODES[0], **changes), 1.0, key=key)
    desk.step(1.0)
    assert desk.sent() == []


def test_a_node_is_served_once_a_second_and_not_once_it_has_answered() -> None:
    desk = Desk()
    for now in (1.0, 1.1, 1.5, 1.9):
        desk.hear(desk.wanted(NODES[0]), now)
        desk.step(now)
    assert len(desk.sent()) == 2
    desk.hear(desk.wanted(NODES[0]), 2.5)
    desk.step(2.5, lambda node, command: False)
    assert desk.sent() == []


def test_many_that_ask_at_once_are_served_by_one_broadcast() -> None:
    desk = Desk()
    desk.desk.publish(0.0)
    desk.step(0.0)
    desk.sent()
    asking = NODES[: MOST_SINGLE + 5]
    for node in asking:
        desk.hear(desk.wanted(node), 0.5)
    desk.step(0.5)
    assert desk.sent() == []  # the last broadcast may still be on its way
    desk.step(1.5)
    assert desk.sent() == [(TOPICS.deploy, desk.mandate.frame.body)]
    desk.step(3.0)
    assert sorted(desk.sent()) == sorted((TOPICS.deploy_to(node), desk.commands[0].frame.body) for node in asking)


def test_that_it_has_ended_is_said_once() -> None:
    desk = Desk()
    end = desk.mandate.message.not_after
    assert desk.desk.news(end) == ""
    assert "ended at" in desk.desk.news(end + timedelta(seconds=1))
    assert desk.desk.news(end + timedelta(seconds=2)) == ""


def test_without_a_mandate_nothing_is_sent() -> None:
    desk = Desk()
    empty = MandateDesk(None, desk.sender, cast("Any", None), CommandBook(), lambda: WALL)
    empty.publish(0.0)
    assert not empty.concerns(heard(sign(encode(desk.wanted(NODES[0])), KEYS[NODES[0]])))
    desk.step(0.1)
    assert desk.sent() == []
