"""A node's mirrors: handlers that wait for their fetch, but not for ever; reports that cost the mirror nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from deploykit.bus import Ack, Delivery, Retry, Verdict
from deploykit.checkouts import CheckoutResult, Checkouts
from deploykit.daemons.agent import mirrors
from deploykit.daemons.agent.mirrors import MirrorHandler, mirror_path
from deploykit.daemons.agent.reports import Reporter
from deploykit.daemons.service.metrics import Metrics
from deploykit.errors import OriginError, OutboxError, SettingsError, TreeDamaged, UsageError
from deploykit.messages import Message, MirrorUpdated, RefUpdated, utc_now
from deploykit.mirror import FetchResult, Mirror, RefChange
from deploykit.mirror.model import LfsFetched, LfsGap
from deploykit.mirror.pool import MirrorPool
from deploykit.names import ZERO_ID, NodeName, ObjectId, RefName, RepoName
from deploykit.settings import CheckoutSettings, RepositorySettings, Settings
from deploykit.wire import encode
from tests.support.wait import wait_until

SHOP, BLOG = RepoName("shop"), RepoName("blog")
MAIN = RefName("refs/heads/main")
A = ObjectId("ab" * 20)


class FakeReporter(Reporter):
    """Keeps what was said, or has no room for it."""

    def __init__(self) -> None:
        self.said: list[MirrorUpdated] = []
        self.full = False
        self.asked = 0

    def report(self, *messages: Message, announced: bool = True) -> tuple[Any, ...]:
        self.asked += 1
        if self.full:
            raise OutboxError("no space left on device")
        self.said += [message for message in messages if isinstance(message, MirrorUpdated)]
        return ()


class Origins:
    """What fetches do, instead of git: wait for a gate, then fail or move the main branch."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.error: Exception | None = None
        self.gaps: tuple[LfsGap, ...] = ()
        self.fetches: list[tuple[str, RefChange | None]] = []

    def fetch(self, mirror: Mirror, expected: RefChange | None = None) -> FetchResult:
        self.fetches.append((mirror.path.stem, expected))
        assert self.gate.wait(120)
        if self.error is not None:
            raise self.error
        return FetchResult(changes=(RefChange(MAIN, ZERO_ID, A),), lfs=LfsFetched(gaps=self.gaps))


@pytest.fixture
def origins(monkeypatch: pytest.MonkeyPatch) -> Origins:
    made = Origins()
    monkeypatch.setattr(Mirror, "fetch", lambda mirror, expected=None: made.fetch(mirror, expected))
    return made


@pytest.fixture
def reporter() -> FakeReporter:
    return FakeReporter()


@pytest.fixture
def metrics() -> Metrics:
    made = Metrics()
    made.expect("agent", repositories=[SHOP, BLOG])
    return made


@pytest.fixture
def node(tmp_path: Path, origins: Origins, reporter: FakeReporter, metrics: Metrics) -> Iterator[MirrorHandler]:
    settings = Settings(
        node=NodeName("web1"),
        state=tmp_path,
        repositories={SHOP: RepositorySettings(url="/none"), BLOG: RepositorySettings(url="/other")},
        fetch_spread=0.0,
    )
    made = MirrorHandler(settings, reporter, metrics=metrics)
    made.start()
    try:
        wait_until(lambda: len(reporter.said) == 2)
        origins.fetches.clear()
        reporter.said.clear()
        yield made
    finally:
        origins.gate.set()
        made.stop()


def push(repo: RepoName = SHOP, *, ref: str = MAIN, attempt: int = 1, pushed: datetime | None = None) -> Delivery:
    """The delivery of a push's message."""
    message = RefUpdated(source="git", repo=repo, ref=RefName(ref), old=ZERO_ID, new=A, time=pushed or utc_now())
    frame = encode(message)
    return Delivery(
        destination="/topic/source",
        headers=frame.headers,
        body=frame.body,
        message_id="1",
        id="1",
        attempt=attempt,
        redelivered=False,
        epoch=1,
    )


def test_a_message_is_acknowledged_after_its_report(node: MirrorHandler, reporter: FakeReporter) -> None:
    assert isinstance(node.handle(push()), Ack)
    assert [(line.repo, line.ref, line.outcome) for line in reporter.said] == [(SHOP, MAIN, "updated")]


def test_a_message_for_a_repository_we_do_not_have_is_none_of_our_business(
    node: MirrorHandler, origins: Origins
) -> None:
    assert isinstance(node.handle(push(RepoName("elsewhere"))), Ack)
    assert origins.fetches == []


def test_a_fetch_that_fails_is_reported_and_its_message_acknowledged(
    node: MirrorHandler, origins: Origins, reporter: FakeReporter
) -> None:
    origins.error = OriginError("the origin is away")
    assert isinstance(node.handle(push()), Ack)
    assert [(line.outcome, line.detail) for line in reporter.said] == [("failed", "the origin is away")]


def test_objects_that_are_missing_are_a_failure_in_report_and_count(
    node: MirrorHandler, origins: Origins, reporter: FakeReporter, metrics: Metrics
) -> None:
    origins.gaps = (LfsGap(MAIN, "Git LFS: an object is missing: a.bin: the server does not have it"),)
    assert isinstance(node.handle(push()), Ack)
    assert [(line.ref, line.outcome, line.detail) for line in reporter.said] == [
        (MAIN, "failed", origins.gaps[0].reason)
    ]
    assert metrics.series("mirror_fetches_total")[SHOP, "failed"] == 1
    origins.gaps = ()
    assert isinstance(node.handle(push()), Ack)
    assert [line.outcome for line in reporter.said] == ["failed", "updated"]


def test_fetches_are_counted_by_outcome_and_lag_is_from_the_push(
    node: MirrorHandler, origins: Origins, metrics: Metrics
) -> None:
    begun = metrics.series("mirror_fetches_total")
    assert begun == {(SHOP, "updated"): 1, (BLOG, "updated"): 1}
    assert metrics.series("mirror_lag_seconds") == {}, "nobody has pushed"
    node.handle(push(pushed=utc_now() - timedelta(minutes=5)))
    lag = metrics.series("mirror_lag_seconds")[(SHOP,)]
    assert isinstance(lag, float)
    assert 300 <= lag < 420
    origins.error = OriginError("the origin is away")
    node.handle(push(pushed=utc_now() - timedelta(minutes=60)))
    found = metrics.series("mirror_fetches_total")
    assert (found[SHOP, "updated"], found[SHOP, "failed"]) == (2, 1)
    lag = metrics.series("mirror_lag_seconds")[(SHOP,)]
    assert isinstance(lag, float)
    assert lag >= 3600, "that push still waits for its origin"


def test_a_fetch_that_takes_long_keeps_its_message_only_for_a_while(
    node: MirrorHandler, origins: Origins, reporter: FakeReporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirrors, "_PATIENCE", 0.05)
    origins.gate.clear()
    assert isinstance(node.handle(push()), Ack)
    assert reporter.said == []
    origins.gate.set()
    wait_until(lambda: len(reporter.said) == 1)


def test_messages_that_wait_leave_room_for_others(
    node: MirrorHandler, origins: Origins, reporter: FakeReporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many handlers as run at a time, all for one silent origin: there is one left for another repository."""
    monkeypatch.setattr(mirrors, "_PATIENCE", 100.0)  # those that wait go on waiting while this looks
    origins.gate.clear()
    with ThreadPoolExecutor(mirrors.WORKERS) as workers:
        verdicts = [workers.submit(node.handle, push(ref=f"refs/heads/b{n}")) for n in range(mirrors.WORKERS)]
        wait_until(lambda: sum(verdict.done() for verdict in verdicts) == mirrors.WORKERS - mirrors._SEATS)
        assert isinstance(workers.submit(node.handle, push(BLOG)).result(60), Ack)
        origins.gate.set()


def test_threat_21_a_flood_for_one_silent_origin_is_bounded_and_then_looks_at_every_ref(
    node: MirrorHandler, origins: Origins, reporter: FakeReporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirrors, "_PATIENCE", 0.0)
    monkeypatch.setattr(mirrors, "_MOST_WAITING", 50)
    origins.gate.clear()
    node.handle(push())
    wait_until(lambda: len(origins.fetches) == 1)
    for _ in range(500):
        assert isinstance(node.handle(push()), Ack)
    assert node._pool.waiting(SHOP) == 51
    origins.gate.set()
    wait_until(lambda: len(reporter.said) >= 51)
    assert origins.fetches == [("shop", RefChange(MAIN, ZERO_ID, A)), ("shop", None)]


def test_threat_21_a_push_beyond_the_most_that_may_wait_is_never_lost(
    node: MirrorHandler, origins: Origins, reporter: FakeReporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirrors, "_PATIENCE", 0.0)
    monkeypatch.setattr(mirrors, "_MOST_WAITING", 50)
    origins.gate.clear()
    node.handle(push())
    wait_until(lambda: len(origins.fetches) == 1)
    for _ in range(52):  # as handlers do that look at the same moment
        node._pool.request(SHOP, RefChange(MAIN, ZERO_ID, A))
    for _ in range(3):
        assert isinstance(node.handle(push(ref="refs/heads/x")), Ack)
    assert node._pool.waiting(SHOP) == 53
    origins.gate.set()
    wait_until(lambda: len(origins.fetches) == 2)
    assert origins.fetches[1] == ("shop", None)


def test_an_agent_that_ends_hands_back_what_was_not_begun(
    node: MirrorHandler, origins: Origins, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirrors, "_PATIENCE", 100.0)
    origins.gate.clear()
    verdicts: list[Verdict] = []
    first = threading.Thread(target=lambda: verdicts.append(node.handle(push())))
    first.start()
    wait_until(lambda: len(origins.fetches) == 1)
    second = threading.Thread(target=lambda: verdicts.append(node.handle(push(ref="refs/heads/x"))))
    second.start()
    wait_until(lambda: node._seats._value == mirrors._SEATS - 2)
    node.stop()
    second.join(60)
    assert [type(verdict) for verdict in verdicts] == [Retry]
    origins.gate.set()
    first.join(60)
    assert [type(verdict) for verdict in verdicts] == [Retry, Ack]
    assert isinstance(node.handle(push()), Retry)
    assert node.sync(SHOP) is False


def test_a_report_that_finds_no_room_costs_the_report_and_nothing_else(
    node: MirrorHandler, origins: Origins, reporter: FakeReporter
) -> None:
    reporter.full = True
    assert node.sync(SHOP) is True
    origins.error = OriginError("away")
    assert isinstance(node.handle(push()), Ack)
    assert reporter.asked >= 2
    reporter.full, origins.error = False, None
    assert node.sync(SHOP, correlation_id="deploy") is True
    assert reporter.said[-1].correlation_id == "deploy"


def test_a_report_that_finds_no_room_is_said_when_there_is_room(
    node: MirrorHandler, reporter: FakeReporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node._pending, "_retry_after", 0.01)
    reporter.full = True
    assert isinstance(node.handle(push()), Ack)
    assert node._pending.waiting == 1
    reporter.full = False
    wait_until(lambda: [(line.repo, line.ref, line.new) for line in reporter.said] == [(SHOP, MAIN, A)])


#: Every call on the way from a message to its report that may fail: where it stands.
CALLS: dict[str, tuple[Any, str]] = {
    "waiting": (MirrorPool, "waiting"),
    "request": (MirrorPool, "request"),
    "mirror": (MirrorPool, "mirror"),
    "reclone": (MirrorPool, "reclone"),
    "fetch": (Mirror, "fetch"),
    "update": (Checkouts, "update"),
    "refs of a checkout": (Checkouts, "refs"),
    "report": (FakeReporter, "report"),
}


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("error", [OriginError("planned"), OSError(28, "No space left on device"), RuntimeError("bug")])
@pytest.mark.parametrize("call", CALLS)
def test_whatever_fails_on_the_way_each_message_is_reported_and_none_is_a_dead_letter(
    call: str,
    error: Exception,
    times: int,
    tmp_path: Path,
    origins: Origins,
    reporter: FakeReporter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checkout = CheckoutSettings(mode="trusting", target=tmp_path / "site")
    repositories = {SHOP: RepositorySettings(url="/none", checkouts=(checkout,))}
    node = MirrorHandler(
        Settings(node=NodeName("web1"), state=tmp_path, repositories=repositories, fetch_spread=0.0), reporter
    )
    monkeypatch.setattr(node._pending, "_retry_after", 0.01)
    monkeypatch.setattr(Checkouts, "update", lambda *_: CheckoutResult())
    monkeypatch.setattr(Checkouts, "refs", lambda *_: (MAIN,))
    monkeypatch.setattr(Mirror, "refs", {MAIN: A})
    node.start()
    try:
        wait_until(lambda: len(reporter.said) == 1)
        reporter.said.clear()
        if call == "refs of a checkout":  # it is asked for where an update failed
            failing(monkeypatch, Checkouts, "update", RuntimeError("broken"), times)
        if call == "reclone":  # and this where the mirror is damaged
            failing(monkeypatch, Checkouts, "update", TreeDamaged("an object is missing"), times)
        calls = failing(monkeypatch, *CALLS[call], error, times)
        verdict: Verdict | None = None
        for attempt in range(1, 6):  # as a bus would
            verdict = node.handle(push(attempt=attempt))
            if isinstance(verdict, Ack):
                break
        assert isinstance(verdict, Ack)
        wait_until(lambda: any(line.ref == MAIN for line in reporter.said))
        assert len(calls) >= 1
        if call in ("update", "refs of a checkout", "reclone"):
            assert reporter.said[0].outcome == "failed", "the directory is not right"
    finally:
        node.stop()


@pytest.mark.parametrize("error", [OSError(2, "No such file or directory"), RuntimeError("a bug")])
def test_a_mirror_that_cannot_be_read_after_its_fetch_costs_no_report_of_what_moved(
    node: MirrorHandler, reporter: FakeReporter, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(_: Mirror) -> None:
        raise error.with_traceback(None)

    monkeypatch.setattr(Mirror, "refs", property(unreadable))
    node.reconcile_soon()
    wait_until(
        lambda: sorted((line.repo, line.ref, line.new) for line in reporter.said) == [(BLOG, MAIN, A), (SHOP, MAIN, A)]
    )


def failing(patch: pytest.MonkeyPatch, owner: Any, name: str, error: Exception, times: int) -> list[int]:
    """Let a function fail the first so many times; returns a list that gets longer with each call."""
    real = getattr(owner, name)
    calls: list[int] = []

    def wrong(*args: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) <= times:
            raise error.with_traceback(None)
        return real(*args, **options)

    patch.setattr(owner, name, wrong)
    return calls


def test_a_message_that_the_pool_never_takes_is_left_to_the_comparisons(
    node: MirrorHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, MirrorPool, "request", RuntimeError("can't start new thread"), 100)
    verdicts = [type(node.handle(push(attempt=attempt))) for attempt in (1, 2, 3)]
    assert verdicts == [Retry, Retry, Ack], "before a bus gives it up"


def test_a_bug_in_one_comparison_does_not_end_the_comparing(
    node: MirrorHandler, origins: Origins, reporter: FakeReporter
) -> None:
    origins.error = RuntimeError("a bug")
    assert node.sync(SHOP) is False
    origins.error = None
    assert node.sync(SHOP) is True


@pytest.mark.parametrize(
    ("error", "says"),
    [(UsageError("state.json is of format 9"), "format 9"), (RuntimeError("secret"), "RuntimeError")],
)
def test_whatever_a_checkout_runs_into_the_fetch_is_reported(
    error: Exception,
    says: str,
    tmp_path: Path,
    origins: Origins,
    reporter: FakeReporter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object) -> None:
        raise error

    monkeypatch.setattr(Checkouts, "update", broken)
    monkeypatch.setattr(Checkouts, "refs", lambda *_: (MAIN,))
    checkout = CheckoutSettings(mode="trusting", target=tmp_path / "site")
    repositories = {SHOP: RepositorySettings(url="/none", checkouts=(checkout,))}
    node = MirrorHandler(
        Settings(node=NodeName("web1"), state=tmp_path, repositories=repositories, fetch_spread=0.0), reporter
    )
    node.start()
    try:
        assert node.sync(SHOP) is True
        wait_until(lambda: reporter.said)
        (line,) = reporter.said
        assert (line.ref, line.new, line.outcome) == (MAIN, A, "failed")
        assert says in line.detail
        assert "secret" not in line.detail
    finally:
        node.stop()


def test_after_a_reconnect_every_origin_is_asked(node: MirrorHandler, origins: Origins) -> None:
    node.reconcile_soon()
    wait_until(lambda: sorted(origins.fetches) == [("blog", None), ("shop", None)])


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (RepositorySettings(url="ext::sh -c id"), UsageError),
        (RepositorySettings(url="/x", checkouts=(CheckoutSettings(mode="tags", target=Path("here")),)), SettingsError),
        (
            RepositorySettings(
                url="/x", checkouts=(CheckoutSettings(mode="tags", target=Path("/a/b"), owner="no-one"),)
            ),
            SettingsError,
        ),
    ],
)
def test_settings_that_cannot_work_are_refused_before_anything_runs(
    wrong: RepositorySettings, error: type[Exception], tmp_path: Path
) -> None:
    settings = Settings(node=NodeName("web1"), state=tmp_path, repositories={SHOP: wrong})
    with pytest.raises(error):
        MirrorHandler(settings, FakeReporter())
    assert list(tmp_path.iterdir()) == []


def test_repositories_whose_names_look_alike_have_mirrors_of_their_own(tmp_path: Path) -> None:
    settings = Settings(node=NodeName("web1"), state=tmp_path)
    names = ("a/b", "a_b", "a-b", "a.b")
    assert len({mirror_path(settings, RepoName(name)) for name in names}) == len(names)
