"""The build queue: written once, kept over a restart, and found again at whatever point it stood."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from deploykit.daemons.jenkins.model import FOLLOWED, UNSETTLED, answer_of, answer_text, wanted_of, wanted_text
from deploykit.daemons.jenkins.ports import BuildAnswer
from deploykit.daemons.jenkins.queue import BuildQueue
from deploykit.daemons.jenkins.rules import BuildRules, WantedBuild, event_key
from deploykit.errors import BuildQueueError
from deploykit.messages import RefUpdated
from deploykit.wire import Frame
from tests.support.buildorders import jenkins, job, push

FRAME = Frame({"content-type": "text/plain"}, b"body")
TOPIC = "/topic/source"
ANSWER = BuildAnswer(kind="queued", queue_item=7, url="https://ci/q/7", detail="queued as 7")


def wanted(message: RefUpdated | None = None, *jobs: str) -> tuple[WantedBuild, ...]:
    message = message or push()
    rules = BuildRules(jenkins(*(job(name) for name in jobs or ("shop-tests",))))
    return rules.plan(message, event_key(message, legacy=False)).builds


@pytest.fixture
def queue(tmp_path: Path) -> BuildQueue:
    return BuildQueue(tmp_path / "state" / "jenkins.sqlite")


def test_a_build_is_the_same_after_a_restart(queue: BuildQueue) -> None:
    builds = wanted(push(correlation_id="c"), "a", "b")
    assert queue.add(builds, FRAME, TOPIC, 10.0) == 2
    queue.close()
    with BuildQueue(queue.path) as again:
        found = again.builds()
        assert [each.wanted for each in found] == list(builds)
        assert {each.state for each in found} == {"waiting"}
        assert again.frame_of(builds[0].key) == (TOPIC, FRAME)
    queue.close()


def test_a_copy_of_an_event_adds_nothing_in_any_state(queue: BuildQueue) -> None:
    (build,) = wanted()
    assert queue.add([build], FRAME, TOPIC, 10.0) == 1
    assert queue.add([build], FRAME, TOPIC, 11.0) == 0
    queue.asking(build.key, 12.0, doubtful=False)
    assert queue.add([build], FRAME, TOPIC, 13.0) == 0
    queue.answered(build.key, "answered", ANSWER, 14.0)
    queue.reported(build.key, "done")
    assert queue.add([build], FRAME, TOPIC, 15.0) == 0
    queue.close()


def test_a_refused_build_is_asked_for_again_when_its_event_comes_again(queue: BuildQueue) -> None:
    (build,) = wanted()
    queue.add([build], FRAME, TOPIC, 10.0)
    queue.answered(build.key, "answered", ANSWER, 14.0)
    queue.reported(build.key, "refused")
    assert queue.next("ci", UNSETTLED, 20.0) is None
    assert queue.add([build], FRAME, TOPIC, 15.0) == 1
    assert queue.next("ci", UNSETTLED, 20.0) is not None
    queue.close()


def test_events_are_kept_while_a_build_may_need_them(queue: BuildQueue) -> None:
    first, second = wanted(push(), "a", "b")
    queue.add([first, second], FRAME, TOPIC, 10.0)
    queue.reported(first.key, "done")
    assert queue.frame_of(first.key) is None
    assert queue.frame_of(second.key) == (TOPIC, FRAME)
    queue.reported(second.key, "done")
    with sqlite3.connect(queue.path) as db:
        assert db.execute("SELECT count(*) FROM events").fetchone() == (0,)
    db.close()
    queue.close()


def test_builds_come_in_their_order_and_only_when_due(queue: BuildQueue) -> None:
    first, second = wanted(push(), "a", "b")
    (behind,) = wanted(push("refs/heads/later"), "a")
    queue.add([first, second], FRAME, TOPIC, 10.0)
    queue.add([behind], FRAME, TOPIC, 10.0)
    queue.postpone(first.key, "waiting", 100.0, "busy", unanswered=0)
    found = queue.next("ci", UNSETTLED, 50.0)
    assert found is not None
    assert found.wanted == second
    queue.reported(second.key, "done")
    assert queue.next("ci", UNSETTLED, 50.0) is None  # what is left is of the job whose first build waits
    assert queue.next_due("ci", UNSETTLED, 50.0) == 100.0
    found = queue.next("ci", UNSETTLED, 100.0)
    assert found is not None
    assert (found.wanted, found.tries, found.problem) == (first, 1, "busy")
    assert queue.next("other", UNSETTLED, 100.0) is None
    assert queue.next("ci", FOLLOWED, 100.0) is None
    queue.close()


def test_a_clock_that_was_set_back_holds_up_no_build(queue: BuildQueue) -> None:
    (build,) = wanted()
    queue.add([build], FRAME, TOPIC, 10.0)
    queue.postpone(build.key, "waiting", 1_000_000.0, "busy", unanswered=0)
    assert queue.next("ci", UNSETTLED, 500.0) is not None
    queue.close()


def test_it_is_full_at_its_limit(queue: BuildQueue) -> None:
    builds = wanted(push(), "a", "b")
    assert not queue.is_full(1)
    queue.add(builds, FRAME, TOPIC, 10.0)
    assert queue.is_full(2)
    assert not queue.is_full(3)
    queue.reported(builds[0].key, "done")
    assert not queue.is_full(2)
    assert queue.backlog()["ci"].waiting == 1
    queue.close()


def test_old_keys_are_forgotten_and_waiting_builds_are_not(queue: BuildQueue) -> None:
    old, waits = wanted(push(), "a", "b")
    queue.add([old, waits], FRAME, TOPIC, 10.0)
    queue.reported(old.key, "done")
    assert queue.prune(11.0) == 1
    assert queue.get(old.key) is None
    assert queue.get(waits.key) is not None
    queue.close()


def test_nothing_is_written_where_a_build_cannot_be(queue: BuildQueue) -> None:
    first, second = wanted(push(), "a", "b")
    with sqlite3.connect(queue.path) as db:
        db.execute(
            "CREATE TRIGGER no BEFORE INSERT ON builds WHEN (SELECT count(*) FROM builds) = 1"
            " BEGIN SELECT raise(ABORT, 'full'); END"
        )
    db.close()
    with pytest.raises(BuildQueueError, match="full"):
        queue.add([first, second], FRAME, TOPIC, 10.0)
    assert queue.builds() == []
    queue.close()


def test_it_is_private_and_nobody_elses(tmp_path: Path, queue: BuildQueue) -> None:
    assert queue.path.stat().st_mode & 0o777 == 0o600
    queue.close()
    queue.path.chmod(0o644)
    with pytest.raises(BuildQueueError, match="0600"):
        BuildQueue(queue.path)
    other = tmp_path / "other.sqlite"
    other.touch(0o600)
    with sqlite3.connect(other) as db:
        db.execute("CREATE TABLE x (y)")
    db.close()
    with pytest.raises(BuildQueueError, match="another program"):
        BuildQueue(other)


def test_a_build_and_an_answer_are_read_as_they_were_written() -> None:
    (build,) = wanted(push("refs/heads/ü{ref}\U0001f600"))
    assert wanted_of(wanted_text(build)) == build
    assert answer_of(answer_text(ANSWER)) == ANSWER
    assert answer_of(answer_text(None)) is None
