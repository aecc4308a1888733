"""Stand-ins for agents: they answer questions on a bus with real frames, signed by real keys."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import attrs
import pytest

from deploykit.bus import Ack, Bus, Delivery, Verdict
from deploykit.fleet import discovery
from deploykit.fleet.inventory import DiscoveryWindow
from deploykit.messages import NodeDescribed, NodeQueried
from deploykit.messages.topics import TopicMap
from deploykit.names import NodeName
from deploykit.settings import BusSettings, TrustSettings
from deploykit.trust.allowed_signers import AllowedSigners
from deploykit.trust.check import Trust
from deploykit.trust.policy import addressed_to
from deploykit.trust.signature import SigningKey, copy_digest, sign
from deploykit.wire import Frame, decode, encode
from tests.support.keys import fixed_key

#: Signs for every node: trusted as `*`.
FLEET_KEY = fixed_key(200)
OPERATOR = fixed_key(201)
STRANGER = fixed_key(202)
SIGNERS = f"ops {OPERATOR.public_openssh}\n* {FLEET_KEY.public_openssh}\n"

Reply = Frame | NodeDescribed | tuple[NodeDescribed, SigningKey | None]


def trust_of_asker() -> Trust:
    """Return what an operator believes: the fleet's key speaks for each node."""
    signers = AllowedSigners.parse(SIGNERS)
    return Trust.from_settings(TrustSettings(), NodeName("desk"), trusted=lambda: signers)


def described(node: str, **changes: object) -> NodeDescribed:
    """Return a description that is yet to be made an answer."""
    return attrs.evolve(NodeDescribed(node=NodeName(node), instance=f"run-of-{node}", host=node), **changes)  # type: ignore[arg-type]


class Responders:
    """Answers each question on the bus. Behind the answers it sends a mark, which no node's message has.

    Args:
        address: of the broker.
        replies: called with the question; what it returns is sent in this order. A description that names no request
            becomes an answer to this very question, signed by the fleet's key or the one that comes with it (None: not
            at all). One without a key of its own is not sent for a node that was not asked.
    """

    def __init__(self, address: str, replies: Callable[[NodeQueried], Iterable[Reply]]) -> None:
        self.topics = TopicMap()
        self.asked: list[NodeQueried] = []
        self.answered = threading.Event()
        self.bus = Bus(BusSettings(address=address, backoff_max=0.2), client_id="responders")
        self._replies = replies

    def __enter__(self) -> Self:
        self.bus.start()
        assert self.bus.subscribe(self.topics.node, self._answer).wait_active(60)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bus.stop()

    def _answer(self, delivery: Delivery) -> None:
        question = decode(delivery.headers, delivery.body, delivery.destination)
        assert isinstance(question, NodeQueried)
        self.asked.append(question)
        copy = copy_digest(Frame(delivery.headers, delivery.body))
        for reply in self._replies(question):
            if isinstance(reply, NodeDescribed) and not addressed_to(question, reply.node):
                continue
            self.bus.publish_nowait(self.topics.inventory, _framed(reply, question, copy), persistent=False)
        self.bus.publish_nowait(self.topics.inventory, Frame({}, _last_word(question)), persistent=False)
        self.answered.set()


def _last_word(question: NodeQueried) -> bytes:
    """Return what comes behind the answers to a question; the id itself would make it look like one of them."""
    return b"all have answered " + hashlib.sha256(question.id.encode()).hexdigest().encode()


class _HearingAll(discovery._Hearing):
    """Is complete when the mark behind the answers of stand-ins has come."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._all = False

    def take(self, delivery: Delivery) -> Verdict:
        if delivery.body != _last_word(self._query):
            return super().take(delivery)
        with self._changed:
            self._all = True
            self._changed.notify_all()
        return Ack()

    @property
    def complete(self) -> bool:
        with self._changed:
            return self._all or super().complete

    def next_nodes(self, seconds: float) -> list[NodeDescribed]:
        with self._changed:
            self._changed.wait_for(lambda: self._all or self._new or self._failure is not None, seconds)
            return super().next_nodes(0.0)


def end_with_the_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each question end when all that `Responders` answer was heard: neither before nor later.

    Silence between two answers ends a question, and a time limit does, and a busy machine is silent for as long. So
    neither counts here, but for two minutes without any answer; who is silent is known from what was heard until then.
    """

    def window(*, timeout: float, **others: Any) -> DiscoveryWindow:
        return DiscoveryWindow(timeout=max(timeout, 120.0), **others)

    monkeypatch.setattr(discovery, "HELD_BACK", 120.0)
    monkeypatch.setattr(discovery, "DiscoveryWindow", window)
    monkeypatch.setattr(discovery, "_Hearing", _HearingAll)


def _framed(reply: Reply, question: NodeQueried, copy: str) -> Frame:
    if isinstance(reply, Frame):
        return reply
    message, key = reply if isinstance(reply, tuple) else (reply, FLEET_KEY)
    if message.request is None:
        message = attrs.evolve(message, request=question.id)
    if not message.answers:
        message = attrs.evolve(message, answers=copy)
    return sign(encode(message), key) if key is not None else encode(message)


def asker_settings(root: Path, address: str, *, more: str = "") -> Path:
    """Write the settings of a machine that asks, with its key, and return the file."""
    key, signers, file = root / "operator.key", root / "fleet_signers", root / "asker.toml"
    for path, text in (
        (key, OPERATOR.to_openssh().decode()),
        (signers, SIGNERS),
        (
            file,
            f'node = "desk"\nstate = "{root}/state"\nsigning_key = "{key}"\n[broker]\naddress = "{address}"\n'
            f'connect_timeout = 60\n[trust]\nallowed_signers = "{signers}"\n{more}',
        ),
    ):
        path.touch(mode=0o600)
        path.write_text(text)
    return file
