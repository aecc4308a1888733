"""One answer for each key and second: the next question waits, copies are dropped, few wait."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploykit.daemons.agent.questionqueue import INTERVAL, MAX_OF_KEY, MAX_WAITING, AcceptedQuestion, QuestionQueue
from deploykit.messages import NodeQueried
from deploykit.names import NodeName
from deploykit.trust.allowed_signers import AllowedSigners
from deploykit.trust.check import Trust
from deploykit.trust.policy import Policy
from deploykit.trust.signature import sign
from deploykit.wire import encode
from tests.support.keys import fixed_key

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
KEYS = [fixed_key(number) for number in range(1, 5)]
SIGNERS = AllowedSigners.parse("".join(f"op{at} {key.public_openssh}\n" for at, key in enumerate(KEYS)))
TRUST = Trust(lambda: SIGNERS, Policy(), NodeName("web1"))


def asked(id_: str = "q", key: int = 0) -> AcceptedQuestion:
    """A question with a real signature."""
    question = NodeQueried(id=id_, time=NOW, source="operator/test")
    verified = TRUST.check(sign(encode(question), KEYS[key]), NOW)
    assert isinstance(verified.message, NodeQueried)
    return AcceptedQuestion(question=verified.message, asked=verified)


def names(queue: QuestionQueue, now: float) -> list[str]:
    """All that may be answered now."""
    found = []
    while (accepted := queue.take(now)) is not None:
        found.append(accepted.question.id)
    return found


def test_a_question_is_answered_at_once_and_the_next_of_its_key_a_second_later() -> None:
    queue = QuestionQueue()
    assert queue.wait(0.0) == float("inf")
    assert queue.offer(asked("a"), 0.0) == queue.offer(asked("b"), 0.1) == "waits"
    assert names(queue, 0.2) == ["a"]
    assert queue.wait(0.2) == INTERVAL
    assert names(queue, 0.1 + INTERVAL) == []
    assert names(queue, 0.2 + INTERVAL) == ["b"]


def test_another_key_does_not_wait_for_it() -> None:
    queue = QuestionQueue()
    for at, key in (("a", 0), ("b", 0), ("c", 1)):
        queue.offer(asked(at, key), 0.0)
    assert names(queue, 0.0) == ["a", "c"]


def test_a_copy_of_what_waits_or_was_just_answered_is_dropped_and_later_it_is_a_question_again() -> None:
    queue = QuestionQueue()
    queue.offer(asked("a"), 0.0)
    assert queue.offer(asked("a"), 0.0) == "repeated"
    assert names(queue, 0.0) == ["a"]
    assert queue.knows(asked("a").asked.copy, 0.5)
    assert queue.offer(asked("a"), INTERVAL / 2) == "repeated"
    assert not queue.knows(asked("a").asked.copy, INTERVAL)
    assert queue.offer(asked("a"), INTERVAL) == "waits"


def test_few_questions_wait() -> None:
    queue = QuestionQueue()
    outcomes = [queue.offer(asked(f"q{at}"), 0.0) for at in range(10)]
    assert outcomes == ["waits"] * MAX_OF_KEY + ["full"] * (10 - MAX_OF_KEY)
    assert queue.offer(asked("other", 1), 0.0) == "waits"


def test_in_all_few_wait_whoever_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploykit.daemons.agent.questionqueue.MAX_WAITING", 6)
    queue = QuestionQueue()
    outcomes = [queue.offer(asked(f"{key}{at}", key), 0.0) for key in range(4) for at in range(3)]
    assert outcomes.count("waits") == 6
    assert MAX_WAITING == 64


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.floats(0, 0.6)), max_size=40))
def test_whatever_comes_no_key_gets_two_answers_within_a_second(events: list[tuple[int, int, float]]) -> None:
    queue, now = QuestionQueue(), 0.0
    answered: dict[str, list[float]] = {}
    for key, number, pause in events:
        now += pause
        queue.offer(MADE[key, number], now)
        while (accepted := queue.take(now)) is not None:
            answered.setdefault(accepted.asked.key, []).append(now)
    for times in answered.values():
        assert all(later - earlier >= INTERVAL for earlier, later in itertools.pairwise(times))


MADE = {(key, number): asked(f"{key}-{number}", key) for key in range(4) for number in range(6)}
