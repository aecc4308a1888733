"""When a node looks at its origins: at once after a push or a reconnect, with growing pauses while one is away."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from deploykit.daemons.mirroring import Mirroring, mirror_path
from deploykit.daemons.reporting import Reporter
from deploykit.errors import OriginError, OutboxError
from deploykit.messages import Message
from deploykit.mirror import FetchResult, RefChange
from deploykit.names import NodeName, ObjectId, RefName, RepoName
from deploykit.settings import RepositorySettings, Settings

SHOP, BLOG = RepoName("shop"), RepoName("blog")
EVERY = 100.0


class Clock:
    """Monotonic time that moves when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class FakeReporter(Reporter):
    """Keeps what was said, or has no room for it."""

    def __init__(self) -> None:
        self.said: list[Message] = []
        self.full = False

    def say(self, *messages: Message) -> tuple[Any, ...]:
        if self.full:
            raise OutboxError("no space left on device")
        self.said += messages
        return ()


class FakeMirror:
    """A mirror whose fetch does what a test says."""

    def __init__(self, fetch: Callable[[RefChange | None], FetchResult]) -> None:
        self.fetch = fetch

    def __enter__(self) -> FakeMirror:
        return self

    def __exit__(self, *_: object) -> None: ...


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("deploykit.daemons.mirroring.time.monotonic", made.monotonic)
    monkeypatch.setattr("deploykit.daemons.mirroring.random.uniform", lambda low, high: (low + high) / 2)
    return made


def mirrors(tmp_path: Path, fetch: Callable[[RefChange | None], FetchResult]) -> tuple[Mirroring, FakeReporter]:
    settings = Settings(
        node=NodeName("web1"),
        state=tmp_path,
        repositories={SHOP: RepositorySettings(url="/none"), BLOG: RepositorySettings(url="/none")},
        reconcile_every=EVERY,
    )
    reporter = FakeReporter()
    made = Mirroring(settings, reporter)
    made.mirror = lambda _: FakeMirror(fetch)  # type: ignore[method-assign,assignment,return-value]
    return made, reporter


def away(_: RefChange | None) -> FetchResult:
    raise OriginError("the origin is away")


def pause(made: Mirroring, clock: Clock) -> float:
    return made._due[SHOP] - clock.now


def test_an_origin_that_is_away_is_asked_with_growing_pauses_up_to_the_usual_one(tmp_path: Path, clock: Clock) -> None:
    made, _ = mirrors(tmp_path, away)
    pauses = []
    for _ in range(9):
        assert made.sync(SHOP) is False
        pauses.append(pause(made, clock))
    assert pauses == [2, 4, 8, 16, 32, 64, EVERY, EVERY, EVERY]


def test_an_origin_that_is_back_is_asked_as_usual(tmp_path: Path, clock: Clock) -> None:
    answers: list[Callable[[RefChange | None], FetchResult]] = [away, nothing_new, away]
    made, _ = mirrors(tmp_path, lambda expected: answers.pop(0)(expected))  # noqa: PLW0108 -- one answer a call
    made.sync(SHOP)
    assert made.sync(SHOP) is True
    assert pause(made, clock) == EVERY
    made.sync(SHOP)
    assert pause(made, clock) == 2


def test_after_a_reconnect_every_origin_is_asked_at_once(tmp_path: Path, clock: Clock) -> None:
    made, _ = mirrors(tmp_path, nothing_new)
    made.sync(SHOP)
    made.sync(BLOG)
    assert min(made._due.values()) > clock.now
    made.reconcile_soon()
    assert set(made._due.values()) == {clock.now}


def test_a_report_that_finds_no_room_costs_the_report_and_nothing_else(tmp_path: Path, clock: Clock) -> None:
    change = RefChange(ref=RefName("refs/heads/main"), old=ObjectId("0" * 40), new=ObjectId("ab" * 20))
    made, reporter = mirrors(tmp_path, lambda _: attrs.evolve(nothing_new(None), changes=(change,)))
    reporter.full = True
    assert made.sync(SHOP) is True
    assert pause(made, clock) == EVERY
    made, reporter = mirrors(tmp_path, away)
    reporter.full = True
    assert made.sync(SHOP, change) is False


def test_a_bug_in_one_comparison_does_not_end_the_comparing(tmp_path: Path) -> None:
    asked = threading.Event()

    def fetch(_: RefChange | None) -> FetchResult:
        if not broken:
            broken.append(1)
            raise RuntimeError("a bug")
        asked.set()
        return nothing_new(None)

    broken: list[int] = []
    made, _ = mirrors(tmp_path, fetch)
    stop = threading.Event()
    thread = threading.Thread(target=made.run, args=(stop,))
    thread.start()
    try:
        assert asked.wait(10)
    finally:
        stop.set()
        made.wake()
        began = time.monotonic()
        thread.join(10)
    assert not thread.is_alive()
    assert time.monotonic() - began < 2


def test_repositories_whose_names_look_alike_have_mirrors_of_their_own(tmp_path: Path) -> None:
    settings = Settings(node=NodeName("web1"), state=tmp_path)
    names = ("a/b", "a_b", "a-b", "a.b")
    assert len({mirror_path(settings, RepoName(name)) for name in names}) == len(names)


def nothing_new(_: RefChange | None) -> FetchResult:
    return FetchResult(changes=(), refused=(), seconds=0.0, gap=False)
