"""One build at its server: every answer, every silence, and a process that is killed at every point."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from deploykit.daemons.jenkins import worker
from deploykit.daemons.jenkins.model import FOLLOWED, UNSETTLED, QueuedBuild
from deploykit.daemons.jenkins.ports import BuildAnswer, BuildOrder, QueueState
from deploykit.daemons.jenkins.queue import BuildQueue
from deploykit.daemons.jenkins.reports import request_of
from deploykit.daemons.jenkins.rules import BuildRules, event_key
from deploykit.daemons.jenkins.worker import BuildWorker
from deploykit.errors import BuildServerError, MayNotLook, OutboxError, SettingsError
from deploykit.messages import BuildRequested, Message, Notice
from deploykit.names import NodeName
from deploykit.outbox import Outbox
from deploykit.settings import JobSettings, Settings
from deploykit.wire import decode, encode
from tests.support.buildorders import (
    Cut,
    FakeJenkins,
    busy,
    jenkins,
    job,
    node_settings,
    push,
    refused,
    unanswered,
    unreachable,
)


class Place:
    """A queue, an outbox, a fake server, and a worker whose clock the test moves."""

    def __init__(self, root: Path) -> None:
        self.settings = node_settings(root, "stomp://127.0.0.1:1", jenkins(ask_again_after=30.0, pause_max=60.0))
        self.server = FakeJenkins()
        self.now = 1_000_000.0
        #: By how much the clock was set since the start.
        self.set = 0.0
        self.outbox = Outbox(self.settings.outbox.path)
        self.queue = BuildQueue(root / "state" / "jenkins.sqlite")
        self.worker = self.restarted()

    def restarted(self, settings: Settings | None = None) -> BuildWorker:
        """A worker as after a restart of the process."""
        self.queue.close()
        self.worker = BuildWorker(
            "ci",
            self.server,
            self.queue,
            self.outbox,
            settings or self.settings,
            wall=lambda: self.now + self.set,
            clock=lambda: self.now,
            chance=lambda: 1.0,
        )
        return self.worker

    def add(self, *jobs: JobSettings, **changes: Any) -> str:
        """A push of now; the key of its first build."""
        message = push(**changes)
        plan = BuildRules(jenkins(*jobs)).plan(message, event_key(message, legacy=False))
        self.queue.add(plan.builds, encode(message), self.settings.topics.source, self.now)
        return plan.builds[0].key

    def retry(self, key: str) -> bool:
        """What `deploykit jenkins retry` does."""
        build = self.queue.get(key)
        return build is not None and self.queue.retry(build.wanted, self.now)

    def work(self, seconds: float = 0.0) -> None:
        """Do what is due until so many seconds from now, each step when it is due."""
        end = self.now + seconds
        while True:
            rest = min(self.worker.step(UNSETTLED), self.worker.step(FOLLOWED))
            if rest and self.now + rest > end:
                self.now = end
                return
            self.now += rest

    def out(self) -> list[Message]:
        """What is in the outbox, in order, each id once: a reader drops a second copy."""
        found: dict[str, Message] = {}
        bodies: dict[str, bytes] = {}
        for record in self.outbox.pending():
            if record.destination != self.settings.broker.dead_letter:
                message = decode(record.frame.headers, record.frame.body)
                assert message is not None
                assert bodies.setdefault(message.id, record.frame.body) == record.frame.body
                found[message.id] = message
        return list(found.values())

    def events(self) -> list[tuple[str, bool]]:
        return [(m.outcome, m.perhaps_twice) for m in self.out() if isinstance(m, BuildRequested)]

    def last(self) -> BuildRequested:
        return [m for m in self.out() if isinstance(m, BuildRequested)][-1]

    def dead(self) -> list[str]:
        letters = (r for r in self.outbox.pending() if r.destination == self.settings.broker.dead_letter)
        return [record.frame.headers["dead-letter-reason"] for record in letters]

    def state(self, key: str) -> str:
        build = self.queue.get(key)
        assert build is not None
        return build.state


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.queue.close()


def answers(*found: Any) -> Callable[[BuildOrder], BuildAnswer | None]:
    """What the server does, request by request; after that the usual."""
    left = list(found)

    def answer(order: BuildOrder) -> BuildAnswer | None:
        if not left:
            return None
        made: BuildAnswer | Callable[[BuildOrder], BuildAnswer] = left.pop(0)
        return made(order) if callable(made) else made

    return answer


def test_a_build_is_asked_for_reported_and_followed_to_its_number(place: Place) -> None:
    key = place.add()
    place.work(10)
    assert place.events() == [("queued", False), ("started", False)]
    assert place.last().number == 101
    assert place.state(key) == "done"
    assert sum(isinstance(m, Notice) for m in place.out()) == 1


def test_a_refusal_is_final_and_a_dead_letter_says_what_to_change(place: Place) -> None:
    place.server.answers = answers(refused, refused)
    key = place.add()
    place.work(3600)
    assert len(place.server.asked) == 1
    assert place.events() == [("refused", False)]
    assert place.last().detail == "shop-tests: 403 (give the user Item.Build)"
    assert place.dead() == ["ci - shop-tests - shop-tests - 403 (give the user Item.Build)"]
    assert place.state(key) == "refused"
    assert place.retry(key)
    place.server.answers = answers()
    place.work(10)
    assert place.events() == [("refused", False), ("queued", False), ("started", False)]


@pytest.mark.parametrize("fault", [busy, unreachable])
def test_what_the_server_did_not_take_is_asked_for_again_with_pauses_without_a_look(place: Place, fault: Any) -> None:
    place.server.answers = answers(*[fault] * 6)
    place.add()
    place.work(600)
    assert len(place.server.asked) == 7
    assert place.server.looks == 0
    assert place.events() == [("queued", False), ("started", False)]


def test_what_the_server_never_takes_is_given_up_and_said(place: Place) -> None:
    place.server.answers = unreachable
    place.add()
    place.work(86400 + 100)
    assert place.events() == [("failed", False)]
    assert "connection refused" in place.last().detail
    assert "given up: it has waited for 24 hours" in place.last().detail
    assert len(place.dead()) == 1
    assert len(place.server.asked) < 2000


def test_the_server_says_how_long_to_wait(place: Place) -> None:
    wait = BuildAnswer(kind="busy", detail="503", retry=True, retry_after=120.0)
    place.server.answers = answers(wait)
    place.add()
    place.work(119)
    assert len(place.server.asked) == 1
    place.work(2)
    assert len(place.server.asked) == 2


def test_a_server_that_is_down_is_tried_with_one_build_at_a_time(place: Place) -> None:
    place.server.answers = unreachable
    for number in range(50):
        place.add(ref=f"refs/heads/b{number}")
    place.work(59)
    assert len(place.server.asked) < 12
    assert place.worker.problem(50) == ""
    place.work(62)
    assert place.worker.problem(50) == "ci: not reachable for 2 minutes, 50 builds wait: ci: connection refused"
    place.server.answers = answers()
    place.work(120)
    assert len(place.server.started) == 50
    refs = [order.parameters["DEPLOYKIT_REF"] for order in place.server.started.values()]
    assert refs == [f"refs/heads/b{number}" for number in range(50)]
    assert place.worker.problem(0) == ""


def test_a_server_that_takes_nothing_now_is_tried_with_one_build_at_a_time(place: Place) -> None:
    wait = BuildAnswer(kind="busy", detail="503", retry=True, retry_after=300.0)
    place.server.answers = answers(wait, busy, busy)
    for number in range(50):
        place.add(ref=f"refs/heads/b{number}")
    place.work(299)
    assert len(place.server.asked) == 1
    assert place.worker.problem(50) == "ci: takes no builds for 5 minutes, 50 builds wait: 503"
    place.work(120)
    assert [order.parameters["DEPLOYKIT_REF"] for order in place.server.started.values()] == [
        f"refs/heads/b{number}" for number in range(50)
    ]
    assert len(place.server.asked) == 53


@pytest.mark.parametrize("fault", [busy, unreachable, unanswered])
def test_the_builds_of_a_job_keep_the_order_of_their_pushes(place: Place, fault: Any) -> None:
    place.server.answers = answers(fault, fault)
    for number in range(9):
        place.add(ref=f"refs/heads/b{number}")
        place.work(1)
    place.work(600)
    refs = [order.parameters["DEPLOYKIT_REF"] for order in place.server.started.values()]
    assert refs == [f"refs/heads/b{number}" for number in range(9)]


@pytest.mark.parametrize("seconds", [-90000.0, -3600.0, 3600.0, 90000.0])
@pytest.mark.parametrize("fault", [busy, unreachable, unanswered])
def test_a_clock_that_is_set_changes_no_pause(place: Place, fault: Any, seconds: float) -> None:
    place.server.answers = answers(fault, fault)
    place.add()
    place.work(1)
    place.set = seconds
    asked = len(place.server.asked)
    place.work(0)
    assert len(place.server.asked) == asked
    place.work(120)
    assert place.events() == [("queued", False), ("started", False)]


@pytest.mark.parametrize("seconds", [-3600.0, 3600.0])
def test_a_build_is_followed_over_a_clock_that_is_set(place: Place, seconds: float) -> None:
    started = place.server.state
    place.server.state = lambda _: QueueState(kind="waiting")
    place.add()
    place.work(5)
    place.set = seconds
    place.work(60)
    place.server.state = started
    place.work(60)
    assert place.events() == [("queued", False), ("started", False)]


# -- answers that are lost ---------------------------------------------------------------------------------------------


def test_a_lost_answer_is_looked_for_and_found(place: Place) -> None:
    def lost(order: BuildOrder) -> BuildAnswer:
        place.server.accept(order)
        return unanswered(order)

    place.server.answers = answers(lost)
    place.add()
    place.work(60)
    assert (len(place.server.asked), len(place.server.started)) == (1, 1)
    assert place.events() == [("queued", False), ("started", False)]


def test_a_request_that_never_arrived_is_made_again_but_not_at_once(place: Place) -> None:
    place.server.answers = answers(unanswered)
    place.add()
    place.work(29)
    assert len(place.server.asked) == 1
    assert place.server.looks > 0
    place.work(30)
    assert len(place.server.started) == 1
    assert place.events()[0] == ("queued", False)


def test_where_it_may_not_look_it_asks_again_and_says_perhaps_twice(place: Place) -> None:
    place.server.blind = MayNotLook("no permission")
    place.server.answers = answers(unanswered)
    place.add()
    place.work(60)
    assert len(place.server.asked) == 2
    assert place.events() == [("queued", True), ("started", True)]
    line = next(m.text for m in place.out() if isinstance(m, Notice))
    assert line.endswith("/ shop-tests (perhaps twice)")


def test_a_server_that_cannot_be_searched_now_is_not_asked_again_yet(place: Place) -> None:
    place.server.blind = BuildServerError("503")
    place.server.answers = answers(unanswered)
    place.add()
    place.work(600)
    assert len(place.server.asked) == 1
    place.server.blind = None
    place.work(120)
    assert len(place.server.asked) == 2
    assert place.events()[0] == ("queued", False)


def test_requests_without_an_answer_are_limited(place: Place) -> None:
    place.server.answers = unanswered
    place.add()
    place.work(86400)
    assert len(place.server.asked) == 5
    assert place.events() == [("failed", False)]
    assert "asked 5 times without an answer; the server may have started it all the same" in place.last().detail


def test_a_build_that_was_given_up_is_looked_for_before_it_is_asked_for_again(place: Place) -> None:
    def lost(order: BuildOrder) -> BuildAnswer:
        place.server.accept(order)
        return unanswered(order)

    place.server.answers = lost
    place.server.blind = BuildServerError("no answer")
    key = place.add()
    place.work(86400 + 100)
    assert place.events() == [("failed", False)]
    place.server.blind, place.server.answers = None, answers()
    assert place.retry(key)
    place.work(60)
    assert (len(place.server.asked), len(place.server.started)) == (1, 1)
    assert place.events() == [("failed", False), ("queued", False), ("started", False)]


def test_a_build_that_was_refused_is_asked_for_again_without_a_look(place: Place) -> None:
    place.server.answers = answers(refused)
    key = place.add()
    place.work(10)
    assert place.retry(key)
    place.work(10)
    assert place.server.looks == 0
    assert place.events()[1] == ("queued", False)


def test_a_server_that_never_answers_is_asked_for_one_build_at_a_time_and_reported(place: Place) -> None:
    place.server.answers = unanswered
    place.server.blind = BuildServerError("no answer in 30 seconds")
    for number in range(20):
        place.add(ref=f"refs/heads/b{number}")
    place.work(120)
    assert len(place.server.asked) < 8
    assert place.worker.problem(20) == "ci: not reachable for 2 minutes, 20 builds wait: no answer in 30 seconds"


def test_a_server_that_stays_away_is_a_line_of_the_log_now_and_then(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="deploykit.daemons.jenkins.worker")
    place.server.answers = unreachable
    place.add()
    place.work(3 * 3600 + 120)
    lines = [line for line in caplog.messages if "not reachable for" in line]
    assert 3 <= len(lines) <= 4
    assert lines[0].startswith("ci: not reachable for ")
    assert "minute, 1 build waits: ci: connection refused" in lines[0]
    assert "not reachable for 3 hours" in lines[-1]


def test_a_job_that_always_fails_holds_up_no_other_job_of_its_server(place: Place) -> None:
    place.server.answers = lambda order: unanswered(order) if order.job == "bad" else None
    place.add(job("bad"))
    place.work(1)
    for number in range(20):
        place.add(job("good"), ref=f"refs/heads/b{number}")
    place.work(10)
    assert len(place.server.started) == 20


def test_a_secret_that_cannot_be_read_costs_time_only(place: Place) -> None:
    def unreadable(order: BuildOrder) -> BuildAnswer:
        raise SettingsError("token_file: no such file")

    place.server.answers = answers(unreadable, unreadable)
    place.add()
    place.work(60)
    assert place.events()[0] == ("queued", False)


def test_a_bug_with_one_build_holds_up_no_other(place: Place) -> None:
    def bug(order: BuildOrder) -> BuildAnswer | None:
        if order.parameters["DEPLOYKIT_REF"].endswith("bad"):
            raise ZeroDivisionError
        return None

    place.server.answers = bug
    place.add(ref="refs/heads/bad")
    place.add()
    place.work(3600)
    assert sorted(outcome for outcome, _ in place.events()) == ["failed", "queued", "started"]


def test_a_bug_in_looking_for_a_build_is_as_if_it_could_not_be_seen(place: Place) -> None:
    place.server.answers = answers(unanswered)
    place.server.blind = ZeroDivisionError()
    place.add(ref="refs/heads/bad")
    place.add(job("other"))
    place.work(60)
    assert [order.job for order in place.server.asked] == ["shop-tests", "other", "shop-tests"]
    assert ("queued", True) in place.events()


def test_a_bug_in_a_report_holds_up_no_other_build(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(build: QueuedBuild, node: NodeName) -> BuildRequested:
        if build.wanted.ref == "refs/heads/bad":
            raise ZeroDivisionError
        return request_of(build, node)

    monkeypatch.setattr(worker, "request_of", bug)
    place.add(ref="refs/heads/bad")
    place.add()
    place.work(60)
    assert len(place.server.started) == 2
    assert [m.ref for m in place.out() if isinstance(m, BuildRequested) and m.outcome == "started"] == [
        "refs/heads/main"
    ]


def test_a_bug_in_following_a_build_ends_with_the_following(place: Place) -> None:
    def bug(item: int) -> QueueState:
        raise ZeroDivisionError

    place.server.state = bug
    key = place.add()
    place.work(1000)
    assert place.state(key) == "done"


def test_what_the_server_decided_of_a_build_that_is_tried_again_is_recorded_too(place: Place) -> None:
    recorded = []
    place.worker._on_answer = lambda build: recorded.append(build.answer and build.answer.kind)
    place.server.answers = answers(refused)
    key = place.add()
    place.work(1)
    assert place.retry(key)
    place.work(1)
    assert recorded == ["refused", "queued"]


# -- the queue item ----------------------------------------------------------------------------------------------------


def test_a_build_that_somebody_takes_out_of_the_queue_is_reported(place: Place) -> None:
    place.server.state = lambda item: QueueState(kind="cancelled", why="somebody took it out")
    place.add()
    place.work(60)
    assert place.events() == [("queued", False), ("cancelled", False)]
    assert place.last().detail == "somebody took it out"
    assert place.dead() == []


@pytest.mark.parametrize("kind", ["gone", "hidden"])
def test_an_item_that_cannot_be_seen_is_followed_no_further(place: Place, kind: Any) -> None:
    place.server.state = lambda item: QueueState(kind=kind)
    key = place.add()
    place.work(60)
    assert place.events() == [("queued", False)]
    assert place.state(key) == "done"


def test_an_item_is_followed_for_a_bounded_time(place: Place) -> None:
    looks: list[int] = []

    def look(item: int) -> QueueState:
        looks.append(item)
        return QueueState(kind="waiting")

    place.server.state = look
    key = place.add()
    place.work(5000)
    assert place.state(key) == "done"
    assert 10 < len(looks) < 60


def test_an_unknown_branch_makes_the_project_look_for_branches(place: Place) -> None:
    def missing(order: BuildOrder) -> BuildAnswer | None:
        if "/" in order.job:
            return BuildAnswer(kind="missing", detail="404")
        return BuildAnswer(kind="scanned", detail="looks for branches")

    place.server.answers = missing
    place.add(job("shop", multibranch=True), ref="refs/heads/new/one")
    place.work(60)
    assert [(order.job, bool(order.parameters)) for order in place.server.asked] == [
        ("shop/new%2Fone", True),
        ("shop", False),
    ]
    assert place.events() == [("scanned", False)]


def test_the_jobs_own_token_goes_with_the_order_and_not_into_the_file(place: Place, tmp_path: Path) -> None:
    token = tmp_path / "job.token"
    one = job(token_file=token)
    place.worker = BuildWorker(
        "ci",
        place.server,
        place.queue,
        place.outbox,
        place.settings,
        tokens={(one.repo, one.job): token},
        wall=lambda: place.now,
    )
    place.add(one)
    place.worker.step()
    assert place.server.asked[0].token_file == token
    assert b"job.token" not in place.queue.path.read_bytes()


# -- a process that is killed ------------------------------------------------------------------------------------------

POINTS = ("asking", "start before", "start after", "answered", "put before", "put after", "reported", "followed")


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("may_look", [True, False])
def test_killed_at_any_point_the_next_process_goes_on(
    place: Place, monkeypatch: pytest.MonkeyPatch, point: str, may_look: bool
) -> None:
    """Nothing is lost; a build is started twice only where it may not look, and then the event says so."""

    def before(owner: Any, name: str, number: int = 1) -> None:
        real, calls = getattr(owner, name), [0]

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            calls[0] += 1
            if calls[0] == number:
                raise Cut
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, name, wrapped)

    def after(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            real(*args, **kwargs)
            raise Cut

        monkeypatch.setattr(owner, name, wrapped)

    match point:
        case "asking" | "answered" | "reported":
            before(BuildQueue, point)
        case "followed":
            before(BuildQueue, "reported", 2)
        case "start before":
            before(place.server, "start")
        case "start after":
            after(place.server, "start")
        case "put before":
            before(Outbox, "put_many")
        case "put after":
            after(Outbox, "put_many")
    key = place.add()
    with pytest.raises(Cut):
        place.work(600)
    monkeypatch.undo()
    place.server.blind = None if may_look else MayNotLook("no permission")
    place.restarted()
    place.work(600)
    assert place.state(key) == "done"
    outcomes = place.events()
    assert [outcome for outcome, _ in outcomes] == ["queued", "started"]
    twice = len(place.server.started) == 2
    assert len(place.server.started) == 1 or (twice and outcomes[0][1] and not may_look)
    if point in ("start after", "answered") and not may_look:
        assert twice
    if may_look:
        assert not outcomes[0][1]


def test_a_full_disk_delays_a_report_and_starts_no_second_build(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OutboxError("no space")

    monkeypatch.setattr(Outbox, "put_many", full)
    key = place.add()
    with pytest.raises(OutboxError):
        place.work(10)
    with pytest.raises(OutboxError):
        place.work(10)
    assert place.state(key) == "answered"
    monkeypatch.undo()
    place.work(10)
    assert place.events() == [("queued", False), ("started", False)]
    assert len(place.server.asked) == 1


def test_a_report_that_is_due_needs_no_server(place: Place) -> None:
    key = place.add()
    place.queue.answered(key, "answered", BuildAnswer(kind="queued", detail="x"), place.now)
    place.worker.health = attrs.evolve(place.worker.health, failures=1, paused_until=place.now + 1e6)
    place.worker.step()
    assert place.events() == [("queued", False)]
