"""The relay's decisions, as a table of what happened and what follows."""

from __future__ import annotations

import pytest

from deploykit.outbox import Record, RecordId
from deploykit.outbox.ordering import DestinationQueues
from deploykit.wire.frame import Frame


def record(name: str, destination: str = "/topic/a") -> Record:
    return Record(id=RecordId(name), destination=destination, frame=Frame({}, b""), uid=0, queued=0.0)


def queues(max_attempts: int = 3) -> DestinationQueues:
    return DestinationQueues(max_attempts=max_attempts, pause=1.0, pause_max=4.0)


R1, R2, R3 = record("1"), record("2"), record("3")
OTHER = record("o", "/topic/b")


def test_many_of_a_queue_may_be_in_flight() -> None:
    it = queues()
    it.begin_pass()
    for one in (R1, R2, R3):
        assert it.may_send(one, 0.0)
        it.sent(one)


def test_a_failure_holds_its_queue_and_no_other() -> None:
    it = queues()
    it.begin_pass()
    order = it.sent(R1)
    it.failed(R1, order, "x", 0.0, refused=False)
    assert not it.may_send(R2, 99.0), "not in this pass"
    assert it.may_send(OTHER, 0.0)


def test_a_queue_stays_closed_until_all_of_it_came_back() -> None:
    it = queues()
    it.begin_pass()
    first, second = it.sent(R1), it.sent(R2)
    it.failed(R1, first, "x", 0.0, refused=False)
    it.begin_pass()
    assert not it.may_send(R3, 99.0)
    it.failed(R2, second, "x", 0.0, refused=False)
    it.begin_pass()
    assert it.may_send(R1, 99.0)


def test_after_a_failure_one_goes_alone_and_opens_the_queue() -> None:
    it = queues()
    it.begin_pass()
    it.failed(R1, it.sent(R1), "x", 0.0, refused=False)
    it.begin_pass()
    assert it.may_send(R1, 2.0)
    order = it.sent(R1)
    assert not it.may_send(R2, 2.0)
    it.confirmed(R1, order, 2.0)
    assert not it.may_send(R3, 2.0), "R2 was held back, so R3 waits behind it"
    it.begin_pass()
    assert it.may_send(R2, 2.0)
    it.sent(R2)
    assert it.may_send(R3, 2.0)


def test_pauses_grow_to_their_limit_and_are_forgotten_on_success() -> None:
    it = queues(max_attempts=99)
    now, pauses = 0.0, []
    for _ in range(5):
        it.begin_pass()
        assert it.may_send(R1, now)
        it.failed(R1, it.sent(R1), "no", now, refused=True)
        next_time = it.next_time(now)
        assert next_time is not None
        pauses.append(next_time - now)
        it.begin_pass()
        assert not it.may_send(R1, next_time - 0.01)
        now = next_time
    assert pauses == [1.0, 2.0, 4.0, 4.0, 4.0]
    it.begin_pass()
    it.confirmed(R1, it.sent(R1), now)
    it.failed(R2, it.sent(R2), "no", now, refused=True)
    assert it.next_time(now) == now + 1.0


@pytest.mark.parametrize("attempts", [1, 2, 5])
def test_a_refused_record_is_buried_after_exactly_so_many_attempts(attempts: int) -> None:
    it = queues(max_attempts=attempts)
    verdicts = []
    for _ in range(attempts):
        it.begin_pass()
        verdicts.append(it.failed(R1, it.sent(R1), "no", 0.0, refused=True))
    assert [len(v) for v in verdicts] == [0] * (attempts - 1) + [1]
    assert verdicts[-1][0].record is R1
    assert verdicts[-1][0].reason == f"no; refused {attempts} times"
    it.begin_pass()
    assert it.may_send(R2, 0.0), "the next one need not wait for it"


def test_attempts_are_counted_for_one_record_not_for_the_queue() -> None:
    it = queues(max_attempts=2)
    for one in (R1, R2):
        it.begin_pass()
        assert it.failed(one, it.sent(one), "no", 0.0, refused=True) == []


def test_a_refused_record_that_was_overtaken_is_buried_when_the_queue_is_quiet() -> None:
    it = queues()
    it.begin_pass()
    orders = [it.sent(one) for one in (R1, R2, R3)]
    assert it.confirmed(R2, orders[1], 0.0) == []
    assert it.failed(R1, orders[0], "no", 0.0, refused=True) == []
    (verdict,) = it.confirmed(R3, orders[2], 0.0)
    assert verdict.record is R1


def test_a_refused_record_that_nothing_overtook_is_tried_again() -> None:
    it = queues()
    it.begin_pass()
    orders = [it.sent(one) for one in (R1, R2)]
    it.confirmed(R1, orders[0], 0.0)
    assert it.failed(R2, orders[1], "no", 0.0, refused=True) == []


def test_an_old_confirmation_overtakes_nothing_that_is_sent_after_it() -> None:
    it = queues()
    it.begin_pass()
    it.confirmed(R1, it.sent(R1), 0.0)
    assert it.failed(R2, it.sent(R2), "no", 0.0, refused=True) == []


def test_a_record_of_unknown_fate_is_never_to_be_buried_even_when_overtaken() -> None:
    it = queues(max_attempts=1)
    it.begin_pass()
    orders = [it.sent(one) for one in (R1, R2)]
    it.failed(R1, orders[0], "no receipt", 0.0, refused=False)
    assert it.confirmed(R2, orders[1], 0.0) == []


def test_queues_that_have_nothing_to_remember_are_forgotten() -> None:
    it = queues()
    for n in range(1000):
        one = record(str(n), f"/topic/{n}")
        it.begin_pass()
        it.confirmed(one, it.sent(one), 0.0)
    it.begin_pass()
    assert not it._queues
