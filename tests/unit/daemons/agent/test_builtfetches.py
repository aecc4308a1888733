"""Fetches after builds: only what was built moves, directories follow these alone, and a crash loses none."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import attrs
import pytest

from deploykit.audit import open_audit
from deploykit.builds import BuildStore
from deploykit.builds.store import builds_of
from deploykit.bus import Ack, Delivery, Reject, Retry
from deploykit.checkouts import CheckoutResult, Checkouts
from deploykit.daemons.agent import mirrors
from deploykit.daemons.agent.buildresults import BuildResultHandler, wants_builds
from deploykit.daemons.agent.builtfetches import Refs
from deploykit.daemons.agent.mirrors import MirrorHandler, mirror_path
from deploykit.daemons.agent.reports import Reporter
from deploykit.errors import BuildStoreError, KeyFileError, OriginError
from deploykit.messages import BuildFinished, Message, Notice, RefUpdated
from deploykit.mirror import FetchResult, Mirror, RefChange
from deploykit.names import ZERO_ID, NodeName, RefName, RepoName, SiteName
from deploykit.settings import CheckoutSettings, NodeSiteSettings, RepositorySettings, Settings
from deploykit.trust.allowed_signers import AllowedSigners
from deploykit.trust.check import Trust
from deploykit.trust.signature import sign
from deploykit.wire import Frame, encode
from tests.support.builds import COMMIT, JENKINS, NOW, OTHER, SHOP, STRANGER, result, trust
from tests.support.resultaudit import result_audit
from tests.support.wait import wait_until

MAIN, DEV = RefName("refs/heads/main"), RefName("refs/heads/dev")


class QuietReporter(Reporter):
    """Takes every report and queues none."""

    def __init__(self) -> None:
        pass

    def report(self, *messages: Message, announced: bool = True) -> tuple[Frame, ...]:
        return ()


class GatedFetches:
    """What fetches do, instead of git: wait, then fail or move nothing; and which directories followed."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.then_wait = False
        self.error: Exception | None = None
        self.fetched: list[RefName | None] = []
        self.followed = 0
        self.shown: list[Refs] = []
        self.failed: dict[str, str] = {}

    def fetch(self, _: Mirror, expected: RefChange | None = None) -> FetchResult:
        self.fetched.append(expected.ref if expected else None)
        assert self.gate.wait(120)
        if self.then_wait:
            self.then_wait = False
            self.gate.clear()  # the next one waits again
        if self.error is not None:
            raise self.error
        return FetchResult(confirmed=None if expected is None else True)

    def update(self, only: Refs) -> CheckoutResult:
        self.shown.append(only)
        self.followed += 1
        return CheckoutResult(failed=self.failed)


@pytest.fixture
def origin(monkeypatch: pytest.MonkeyPatch) -> GatedFetches:
    made = GatedFetches()
    monkeypatch.setattr(mirrors, "_PATIENCE", 0.01)
    monkeypatch.setattr(Mirror, "fetch", lambda mirror, expected=None: made.fetch(mirror, expected))
    monkeypatch.setattr(Checkouts, "update", lambda _checkouts, _mirror, only: made.update(only))
    return made


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    live = CheckoutSettings(mode="branch", branch="main", target=tmp_path / "live")
    return Settings(
        node=NodeName("web1"),
        state=tmp_path,
        repositories={SHOP: RepositorySettings(url="/none", fetch_on="build", checkouts=(live,))},
        fetch_spread=0.0,
    )


@pytest.fixture
def store(settings: Settings) -> BuildStore:
    return builds_of(settings.state)


class Running:
    """A node's mirrors, started, and its handler of results."""

    def __init__(self, settings: Settings, believes: Trust | None = None) -> None:
        self.mirrors = MirrorHandler(settings, QuietReporter())
        self.store = builds_of(settings.state)
        audit = result_audit(open_audit(settings), self.store, settings.node)
        self.handler = BuildResultHandler(
            settings, believes or trust(), self.store, self.mirrors, audit, now=lambda: NOW
        )

    def __enter__(self) -> Running:
        self.mirrors.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.mirrors.stop()
        self.mirrors._pool.close(wait=kind is None)  # what still runs would count in the next test

    def handle(self, message: Message, key: Any = None, **changes: Any) -> object:
        frame = encode(message)
        return self.handler.handle(delivery(sign(frame, key) if key else frame, **changes))


def delivery(frame: Frame, attempt: int = 1) -> Delivery:
    return Delivery(
        destination="/topic/build",
        headers=frame.headers,
        body=frame.body,
        message_id="1",
        id="1",
        attempt=attempt,
        redelivered=False,
        epoch=1,
    )


def with_mirror(settings: Settings) -> None:
    Mirror.open(mirror_path(settings, SHOP), "/none").close()


def built(ref: RefName | None = MAIN, **changes: Any) -> BuildFinished:
    return result(ref=ref, **changes)


def test_a_mirror_is_made_once_and_then_only_builds_fetch(settings: Settings, origin: GatedFetches) -> None:
    with Running(settings) as node:
        wait_until(lambda: origin.followed == 1)
        assert origin.fetched == [None]
        assert node.store.owed() == set()
        node.mirrors.reconcile_soon()
        pushed = RefUpdated(source="git", repo=SHOP, ref=MAIN, old=ZERO_ID, new=COMMIT)
        assert isinstance(node.mirrors.handle(delivery(encode(pushed))), Ack)
        assert isinstance(node.handle(built(outcome="failure")), Ack)
        assert isinstance(node.handle(built(repo=RepoName("blog"))), Ack)
        assert isinstance(node.handle(built(repo=None)), Ack)
        assert isinstance(node.handle(Notice(text="x")), Ack)
        assert isinstance(node.handle(built()), Ack)
        wait_until(lambda: origin.followed == 2)
        assert origin.fetched == [None, MAIN]
    with_mirror(settings)
    with Running(settings) as node:
        node.handle(built(DEV))
        wait_until(lambda: origin.followed == 3)
        assert origin.fetched == [None, MAIN, DEV], "a restart fetches nothing of itself"


def test_successes_that_come_together_fetch_each_ref_once(settings: Settings, origin: GatedFetches) -> None:
    with_mirror(settings)
    with Running(settings) as node:
        origin.gate.clear()
        node.handle(built())
        wait_until(lambda: origin.fetched == [MAIN])
        origin.then_wait = True
        for message in (built(), built(DEV), built(commit=OTHER), built(DEV)):
            node.handle(message)
        origin.gate.set()
        wait_until(lambda: len(origin.fetched) == 2)
        assert origin.followed == 1
        assert node.store.owed() == {SHOP}, "the first fetch was not for all of them"
        origin.gate.set()
        wait_until(lambda: origin.followed == 2)
        assert sorted(map(str, origin.fetched)) == [DEV, MAIN, MAIN]
        wait_until(lambda: node.store.owed() == set())


def test_a_fetch_that_fails_is_owed_until_one_succeeds(settings: Settings, origin: GatedFetches) -> None:
    with_mirror(settings)
    origin.error = OriginError("away")
    with Running(settings) as node:
        node.handle(built(DEV))
        wait_until(lambda: origin.fetched == [DEV])
        wait_until(lambda: origin.followed == 1)  # directories show what the mirror holds, whatever the fetch did
    assert builds_of(settings.state).owed() == {SHOP}
    origin.error = None
    with Running(settings) as node:
        wait_until(lambda: origin.followed == 2)
        assert node.store.owed() == set()


def test_a_retry_fetches_what_the_failed_fetch_was_for(
    settings: Settings, origin: GatedFetches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploykit.mirror.schedule._FIRST_PAUSE", 0.01)
    with_mirror(settings)
    origin.error = OriginError("away")
    with Running(settings) as node:
        node.handle(built(DEV))
        wait_until(lambda: len(origin.fetched) >= 1)
        origin.error = None
        wait_until(lambda: origin.followed >= 2)
        assert set(origin.fetched) == {DEV}


def test_no_directory_follows_the_fetch_of_a_deploy(settings: Settings, origin: GatedFetches) -> None:
    with_mirror(settings)
    with Running(settings) as node:
        assert node.mirrors.sync(SHOP, ref=DEV, commit=COMMIT)
        assert (origin.fetched, origin.followed) == ([DEV], 0)
        node.handle(built())
        wait_until(lambda: origin.followed == 1)


def test_results_are_kept_before_they_are_acknowledged(settings: Settings, origin: GatedFetches) -> None:
    with_mirror(settings)
    with Running(settings) as node:
        node.handle(built(), JENKINS)
        node.handle(built(), STRANGER)
        node.handle(built())
        node.handle(built(job="deploy-all"), JENKINS)
        assert [each.number for each in node.store.find()] == [41]
        broken = sign(Frame(encode(built()).headers, b"{"), JENKINS)
        assert isinstance(node.handler.handle(delivery(broken)), Ack)
        assert node.store.count() == 1


def test_what_cannot_be_verified_or_kept_now_comes_again(
    settings: Settings, origin: GatedFetches, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable() -> AllowedSigners:
        raise KeyFileError("cannot read")

    with_mirror(settings)
    unsure = Trust(unreadable, trust().policy, NodeName("web1"))
    with Running(settings, unsure) as node:
        assert isinstance(node.handle(built(), JENKINS), Retry)
        assert origin.fetched == []
    with Running(settings) as node, monkeypatch.context() as patched:

        def full(*_: object) -> None:
            raise BuildStoreError("no space")

        patched.setattr(BuildStore, "put", full)
        assert isinstance(node.handle(built(), JENKINS), Retry)
        patched.setattr(BuildStore, "owe_fetch", full)
        assert isinstance(node.handle(built()), Retry)
        assert origin.fetched == []


def test_threat_22_a_result_that_meets_a_bug_is_a_dead_letter_after_three_tries(
    settings: Settings, origin: GatedFetches, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    with_mirror(settings)
    monkeypatch.setattr(BuildStore, "put", broken)
    with Running(settings) as node:
        verdicts = [node.handle(built(), JENKINS, attempt=attempt) for attempt in (1, 2, 3)]
    assert [type(each) for each in verdicts] == [Retry, Retry, Reject]


def test_an_ending_agent_leaves_a_success_to_the_next(settings: Settings, origin: GatedFetches) -> None:
    with_mirror(settings)
    with Running(settings) as node:
        pass
    assert isinstance(node.handle(built()), Retry)


def test_a_flood_of_successes_is_one_fetch_more(
    settings: Settings, origin: GatedFetches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirrors, "_MOST_WAITING", 5)
    with_mirror(settings)
    with Running(settings) as node:
        origin.gate.clear()
        node.handle(built())
        wait_until(lambda: origin.fetched == [MAIN])
        for _ in range(50):
            assert isinstance(node.handle(built()), Ack)
        assert node.mirrors._pool.waiting(SHOP) == 5
        origin.gate.set()
        wait_until(lambda: node.store.owed() == set())
        assert origin.fetched == [MAIN, MAIN]


def test_old_results_are_pruned(settings: Settings, origin: GatedFetches) -> None:
    with Running(settings) as node:
        from tests.support.builds import DAY, signed

        for days in (89, 91):
            message = built(time=NOW - days * DAY)
            node.store.put(signed(message), message, "k", NOW)
        node.handler.prune()
        assert node.store.count() == 1


def test_a_node_listens_to_builds_only_where_something_depends_on_them(settings: Settings, tmp_path: Path) -> None:
    plain = Settings(node=NodeName("web1"), repositories={SHOP: RepositorySettings(url="/none")})
    assert not wants_builds(plain)
    assert wants_builds(settings)
    site = NodeSiteSettings(path=tmp_path, repo=SHOP, require_build=("x",))
    assert wants_builds(Settings(node=NodeName("web1"), sites={SiteName("shop"): site}))


def test_only_directories_of_refs_that_were_built_follow(settings: Settings, origin: GatedFetches) -> None:
    with_mirror(settings)
    with Running(settings) as node:
        assert node.mirrors.sync(SHOP, ref=MAIN, commit=COMMIT)  # a deploy may move what was not built
        node.handle(built(DEV))
        wait_until(lambda: origin.shown == [frozenset({DEV})])
        node.handle(built(None))
        wait_until(lambda: origin.shown[1:] == [None])


def test_what_a_crash_cut_off_is_made_up_for_and_no_more(settings: Settings, origin: GatedFetches) -> None:
    with_mirror(settings)
    origin.error = OriginError("away")
    with Running(settings) as node:
        node.handle(built(DEV))
        wait_until(lambda: origin.fetched == [DEV])
        wait_until(lambda: origin.followed == 1)
    origin.error = None
    with Running(settings) as node:
        wait_until(lambda: origin.followed == 2)
        assert origin.fetched == [DEV, DEV]
        assert origin.shown == [frozenset({DEV})] * 2
        wait_until(lambda: node.store.owed() == set())


def test_a_success_at_the_start_does_not_take_the_place_of_what_is_owed(
    settings: Settings, origin: GatedFetches
) -> None:
    with_mirror(settings)
    builds_of(settings.state).owe_fetch(SHOP)
    origin.gate.clear()
    with Running(attrs.evolve(settings, fetch_spread=3600.0)) as node:
        node.handle(built(DEV))
        node.mirrors._pool._schedule._entries[SHOP].due = 0.0
        node.handle(built(DEV))
        origin.gate.set()
        wait_until(lambda: origin.followed == 1)
        assert (origin.fetched, origin.shown) == ([None], [None])
        wait_until(lambda: node.store.owed() == set())


@pytest.mark.parametrize("other", [DEV, None])
def test_threat_21_a_flood_of_one_ref_keeps_no_other_from_being_fetched(
    settings: Settings, origin: GatedFetches, monkeypatch: pytest.MonkeyPatch, other: RefName | None
) -> None:
    monkeypatch.setattr(mirrors, "_MOST_WAITING", 5)
    with_mirror(settings)
    with Running(settings) as node:
        origin.gate.clear()
        node.handle(built())
        wait_until(lambda: origin.fetched == [MAIN])
        for _ in range(20):
            node.handle(built())
        for _ in range(20):
            assert isinstance(node.handle(built(other)), Ack)
        assert node.mirrors._pool.waiting(SHOP) == 6
        origin.gate.set()
        wait_until(lambda: node.store.owed() == set())
        assert origin.fetched == [MAIN, None]


def test_threat_21_notes_of_what_is_owed_are_bounded(settings: Settings, origin: GatedFetches) -> None:
    with_mirror(settings)
    origin.gate.clear()
    with Running(settings) as node:
        for number in range(60):
            node.handle(built(RefName(f"refs/heads/{number}")))
        assert len(node.store.owed_refs(SHOP)) == 21
        assert None in node.store.owed_refs(SHOP)
        origin.gate.set()
        wait_until(lambda: node.store.owed() == set())


def test_a_directory_that_could_not_follow_is_tried_again(settings: Settings, origin: GatedFetches) -> None:
    with_mirror(settings)
    mirror = Mirror.open(mirror_path(settings, SHOP), "/none")
    (mirror.path / "packed-refs").write_text(f"# pack-refs with: peeled fully-peeled sorted \n{COMMIT} {MAIN}\n")
    with Running(settings) as node:
        origin.failed = {MAIN: "the disk is full"}
        node.handle(built())
        wait_until(lambda: node.store.owed_refs(SHOP) == {MAIN: COMMIT})
        origin.failed = {}
        node.mirrors.retry_directories()
        wait_until(lambda: origin.shown == [frozenset({MAIN})] * 2)
        wait_until(lambda: node.store.owed() == set())
        node.mirrors.retry_directories()
        assert node.mirrors._pool.waiting(SHOP) == 0


def test_a_run_without_the_bus_fetches_only_what_is_owed(settings: Settings, origin: GatedFetches) -> None:
    with_mirror(settings)
    with Running(settings) as node:
        assert node.mirrors.sync_all(float("inf")) == {}
        assert origin.fetched == []
    builds_of(settings.state).owe_fetch(SHOP, DEV, COMMIT)
    with Running(settings) as node:
        assert node.mirrors.sync_all(time.monotonic() + 60) == {}
        assert (origin.fetched, origin.shown) == ([DEV], [frozenset({DEV})])
