"""Asking a node under test what it holds, as an operator would; and everything that it says of itself."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs

from deploykit.bus import Delivery
from deploykit.messages import NodeDescribed, NodeQueried
from deploykit.settings import FactsSettings, GrantSettings
from deploykit.trust.keyfiles import load_allowed_signers
from deploykit.trust.signature import copy_digest, sign, verify
from deploykit.wire import Frame, decode, encode
from tests.support.node import NODE, Node

#: May deploy and ask.
GRANTS = (GrantSettings(principal="ops@example.org", types=("deploy.requested", "node.queried")),)


def let_ask(node: Node, facts: FactsSettings | None = None, *grants: GrantSettings) -> Node:
    """Return the node, where the operator may ask."""
    trust = attrs.evolve(node.settings.trust, grants=grants or GRANTS)
    node.settings = attrs.evolve(node.settings, trust=trust, facts=facts or node.settings.facts)
    return node


class Asker:
    """Asks one node, and hears all that is said on the topic of descriptions."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.heard: list[tuple[NodeDescribed, Frame]] = []
        self._changed = threading.Condition()
        assert node.bus.subscribe(node.settings.topics.inventory, self._hear, prefetch=1000).wait_active(60)

    def _hear(self, delivery: Delivery) -> None:
        message = decode(delivery.headers, delivery.body, delivery.destination)
        assert isinstance(message, NodeDescribed)
        with self._changed:
            self.heard.append((message, Frame(delivery.headers, delivery.body)))
            self._changed.notify_all()

    def question(self, *details: str, **changes: Any) -> NodeQueried:
        """A question as an operator would ask it."""
        now = datetime.now(UTC)
        question = NodeQueried(source="operator/test", time=now, expires=now + timedelta(minutes=5))
        if details:
            changes["details"] = details
        return attrs.evolve(question, **changes)

    def send(self, question: NodeQueried, *, key: str | None = "operator", frame: Frame | None = None) -> Frame:
        """Sign (unless `key` is None) and send a question."""
        frame = frame or encode(question)
        if key is not None:
            frame = sign(frame, self.node.keys[key])
        self.node.bus.publish(self.node.settings.topics.node, frame, persistent=False)
        return frame

    def wait(self, check: Callable[[NodeDescribed], bool], *, timeout: float = 60) -> NodeDescribed:
        """Wait for a description that `check` accepts; the node must have signed it."""

        def found() -> tuple[NodeDescribed, Frame] | None:
            return next((each for each in self.heard if check(each[0])), None)

        with self._changed:
            assert self._changed.wait_for(lambda: found() is not None, timeout), self.heard
            pair = found()
        assert pair is not None
        described, frame = pair
        signer = verify(frame, load_allowed_signers(self.node.signers), datetime.now(UTC))
        assert signer.is_principal(str(NODE))
        return described

    def ask(self, *details: str, **changes: Any) -> NodeDescribed:
        """Ask, and return the answer."""
        question = self.question(*details, **changes)
        sent = self.send(question)
        answer = self.wait(lambda d: d.request == question.id)
        assert answer.answers == copy_digest(sent)
        return answer

    def answers(self, *questions: NodeQueried) -> int:
        """How many answers came to these questions."""
        ids = {question.id for question in questions}
        with self._changed:
            return sum(described.request in ids for described, _ in self.heard)

    def unasked(self) -> int:
        """How many descriptions came that nobody asked for."""
        with self._changed:
            return sum(described.request is None for described, _ in self.heard)
