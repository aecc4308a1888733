"""When all nodes are asked, who counts as silent then, and what a question that fails leads to."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import cast

import attrs
import pytest

from deploykit.bus import Bus
from deploykit.bus.events import BusState
from deploykit.errors import ConnectError, DeploykitError, PolicyRefused
from deploykit.messages import NodeDescribed
from deploykit.names import NodeName
from deploykit.operations.nodes import FoundNodes
from deploykit.settings import Settings
from deploykit.settings.web import WebSettings
from deploykit.web.feedhealth import FeedHealth
from deploykit.web.rebuild import NodesRebuilder
from tests.support.wait import wait_until

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
SETTINGS = Settings(node=NodeName("desk"), web=WebSettings(ask_every=3600.0))


@attrs.define
class Fleet:
    """Nodes that answer, or an error; a bus that is connected or not; and who was said to have answered."""

    is_connected: bool = True
    looks: int = 0
    error: DeploykitError | None = None
    missing: int = 0
    asked: int = 0
    answers: list[set[str]] = attrs.Factory(list)

    @property
    def state(self) -> BusState:
        self.looks += 1
        return BusState.CONNECTED if self.is_connected else BusState.WAITING

    def ask(self, _settings: Settings, _bus: Bus) -> FoundNodes:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return FoundNodes(nodes=(NodeDescribed(node=NodeName("web1"), instance="i"),), answered=1)

    def answered(self, nodes: Collection[NodeName], asked_at: datetime) -> int:
        assert asked_at == NOW
        self.answers.append({str(node) for node in nodes})
        return self.missing


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


@pytest.fixture
def health() -> FeedHealth:
    made = FeedHealth(lambda: NOW)
    made.connected()
    return made


def rebuilder(fleet: Fleet, health: FeedHealth) -> NodesRebuilder:
    return NodesRebuilder(SETTINGS, cast(Bus, fleet), fleet, health, ask=fleet.ask, now=lambda: NOW)


@contextmanager
def running(made: NodesRebuilder) -> Iterator[None]:
    ending = threading.Event()
    thread = threading.Thread(target=made.run, args=(ending,))
    thread.start()
    try:
        yield
    finally:
        ending.set()
        made.end()
        thread.join(30)
        assert not thread.is_alive()


def test_who_answered_is_noted_and_pages_say_when(fleet: Fleet, health: FeedHealth) -> None:
    rebuilder(fleet, health).step()
    assert fleet.answers == [{"web1"}]
    assert (health.shown.asked, health.shown.answered, health.shown.rebuilding) == (NOW, 1, False)


def test_nodes_are_asked_at_the_start_and_whenever_there_is_a_reason(fleet: Fleet, health: FeedHealth) -> None:
    made = rebuilder(fleet, health)
    with running(made):
        wait_until(lambda: fleet.asked == 1)
        made.soon("connected")
        wait_until(lambda: fleet.asked == 2)


def test_nobody_is_asked_without_a_connection(fleet: Fleet, health: FeedHealth) -> None:
    fleet.is_connected = False
    made = rebuilder(fleet, health)
    with running(made):
        made.soon("the database was lost")
        wait_until(lambda: fleet.looks > 1)
        assert fleet.asked == 0
        fleet.is_connected = True
        wait_until(lambda: fleet.asked == 1)


def test_a_question_that_the_connection_cut_off_is_asked_again(
    fleet: Fleet, health: FeedHealth, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploykit.web.rebuild._AGAIN", 0.01)
    fleet.error = ConnectError("the connection was lost while nodes answered")
    with running(rebuilder(fleet, health)):
        wait_until(lambda: fleet.asked > 1)
        assert health.shown.rebuilding
        assert not fleet.answers, "a question without an answer makes nobody silent"
        fleet.error = None
        wait_until(lambda: not health.shown.rebuilding)


def test_nodes_that_did_not_answer_are_asked_again_soon_and_ever_more_seldom(
    fleet: Fleet, health: FeedHealth, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploykit.web.rebuild._AGAIN", 200.0)  # long beside what a step takes
    monkeypatch.setattr("deploykit.web.rebuild._NEWCOMERS", 3600.0)
    fleet.missing = 1
    made = rebuilder(fleet, health)
    waits = []
    for _ in range(4):
        begun = time.monotonic()
        made.step()
        waits.append(made._due - begun)
    assert waits == pytest.approx([200, 400, 800, 1600], abs=100)
    fleet.missing = 0
    made.step()
    assert made._due > time.monotonic() + 3000
    monkeypatch.setattr("deploykit.web.rebuild._AGAIN", 0.01)
    fleet.missing = 1
    with running(made):
        made.soon("connected to a broker")
        wait_until(lambda: fleet.asked > 7, "asked again without a reason")


def test_where_there_is_no_key_pages_go_on_without_asking(fleet: Fleet, health: FeedHealth) -> None:
    fleet.error = PolicyRefused("an unsigned deploy is refused", "give --key, or set signing_key")
    rebuilder(fleet, health).step()
    assert "signing_key" in health.cannot_ask
    assert not health.shown.rebuilding
    assert not fleet.answers


def test_who_answers_for_the_first_time_is_asked_again_soon(
    fleet: Fleet, health: FeedHealth, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploykit.web.rebuild._NEWCOMERS", 0.0)
    made = rebuilder(fleet, health)
    with running(made):
        wait_until(lambda: fleet.asked == 2, "its mirrors may not have been whole yet")
        made.soon("connected")
        wait_until(lambda: fleet.answers == [{"web1"}] * 3)
        assert fleet.asked == 3
