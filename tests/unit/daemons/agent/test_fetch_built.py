"""A build's success asks for a fetch, and its message waits for the report: killed in between, it asks again."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from deploykit.daemons.agent import mirrors
from deploykit.daemons.agent.mirrors import MirrorHandler
from deploykit.daemons.agent.reports import Reporter
from deploykit.messages import Message, MirrorUpdated
from deploykit.mirror import FetchResult, Mirror, RefChange
from deploykit.names import ZERO_ID, NodeName, ObjectId, RefName, RepoName
from deploykit.settings import RepositorySettings, Settings
from tests.support.wait import wait_until

SHOP, TAG, COMMIT = RepoName("shop"), RefName("refs/tags/v1"), ObjectId("ab" * 20)


class ToldReporter(Reporter):
    """Keeps what was reported."""

    def __init__(self) -> None:
        self.reports: list[MirrorUpdated] = []

    def report(self, *messages: Message, announced: bool = True) -> tuple[Any, ...]:
        self.reports += [message for message in messages if isinstance(message, MirrorUpdated)]
        return ()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Closed, no fetch comes to its end."""
    made = threading.Event()
    made.set()

    def fetch(_mirror: Mirror, _expected: RefChange | None = None) -> FetchResult:
        assert made.wait(120)
        return FetchResult(changes=(RefChange(TAG, ZERO_ID, COMMIT),))

    monkeypatch.setattr(Mirror, "fetch", fetch)
    return made


@pytest.fixture
def reporter() -> ToldReporter:
    return ToldReporter()


@pytest.fixture
def node(tmp_path: Path, gate: threading.Event, reporter: ToldReporter) -> Iterator[MirrorHandler]:
    repository = RepositorySettings(url="/none", fetch_on="build")
    settings = Settings(node=NodeName("web1"), state=tmp_path, repositories={SHOP: repository}, fetch_spread=0.0)
    made = MirrorHandler(settings, reporter)
    made.start()
    try:
        wait_until(lambda: len(reporter.reports) == 1)  # the fetch that makes the mirror
        reporter.reports.clear()
        yield made
    finally:
        gate.set()
        made.stop()


def test_a_success_is_handled_when_its_fetch_was_reported(node: MirrorHandler, reporter: ToldReporter) -> None:
    for number in range(20):
        assert node.fetch_built(SHOP, TAG, COMMIT, reason=f"push {number}")
        assert [one.correlation_id for one in reporter.reports] == [f"push {n}" for n in range(number + 1)]


def test_a_silent_origin_keeps_a_success_for_a_while_and_never_all_handlers(
    node: MirrorHandler, gate: threading.Event, reporter: ToldReporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirrors, "_PATIENCE", 100.0)  # those that wait go on waiting while this looks
    gate.clear()
    with ThreadPoolExecutor(mirrors.BUILT_WORKERS) as workers:
        waiting = [workers.submit(node.fetch_built, SHOP, TAG, COMMIT, reason=f"{n}") for n in range(20)]
        wait_until(lambda: sum(one.done() for one in waiting) == 20 - (mirrors.BUILT_WORKERS - 1))
        gate.set()
        assert all(one.result(60) for one in waiting)
    wait_until(lambda: len(reporter.reports) == 20)
    monkeypatch.setattr(mirrors, "_PATIENCE", 0.01)
    gate.clear()
    assert node.fetch_built(SHOP, TAG, COMMIT, reason="late")
    assert len(reporter.reports) == 20


def test_an_agent_that_ends_hands_a_success_back(node: MirrorHandler, gate: threading.Event) -> None:
    gate.clear()
    with ThreadPoolExecutor(2) as workers:
        begun = workers.submit(node.fetch_built, SHOP, TAG, COMMIT, reason="one")
        wait_until(lambda: node._pool.waiting(SHOP) >= 0 and begun.running())
        node._pool.close(wait=False)
        gate.set()
        begun.result(60)
    assert not node.fetch_built(SHOP, TAG, COMMIT, reason="two")
