"""What waits for a channel: bounded, at a bounded rate, the important first, and everything counted."""

from __future__ import annotations

import attrs
import pytest

from deploykit.daemons.notify.waiting import MOST_DIGEST, MOST_WAITING, PAIR_WAIT, ChannelQueue, NotifyBatch
from tests.support.newsworld import waiting


def queue(*, per_minute: int = 20, keep: float = 3600.0, gather: float = 0.0, pairs: bool = True) -> ChannelQueue:
    return ChannelQueue(per_minute=per_minute, keep=keep, gather=gather, pairs=pairs)


def sent_all(of: ChannelQueue, now: float) -> list[NotifyBatch]:
    """Everything that may be sent at one moment."""
    found = []
    while (batch := of.next(now)) is not None:
        found.append(batch)
        of.sent(now)
    return found


def texts(batches: list[NotifyBatch]) -> list[str]:
    return [line.text for batch in batches for line in batch.lines]


def test_lines_go_out_in_their_order() -> None:
    q = queue()
    for text in "abc":
        assert q.add(waiting(text, "push"))
    assert texts(sent_all(q, 0.0)) == ["a", "b", "c"]
    assert len(q) == 0
    assert q.due(0.0) == float("inf")


def test_a_flood_is_cut_to_the_rate_and_the_last_line_says_how_much_was_left_out() -> None:
    q = queue(per_minute=5)
    for number in range(100):
        q.add(waiting(f"line {number}", "push", added=0.0))
    found = sent_all(q, 0.0)
    assert texts(found) == [f"line {number}" for number in range(5)]
    assert [dict(batch.more) for batch in found] == [{}, {}, {}, {}, {"push": 95}]
    assert q.folded == 95
    assert q.next(59.9) is None


def test_what_comes_while_the_minute_is_full_waits_for_the_next_one() -> None:
    q = queue(per_minute=2)
    for text in "ab":
        q.add(waiting(text, "push"))
    assert texts(sent_all(q, 0.0)) == ["a", "b"]
    q.add(waiting("c", "push", added=1.0))
    assert q.next(1.0) is None
    assert q.due(1.0) == pytest.approx(59.0)
    assert texts(sent_all(q, 60.0)) == ["c"]


def test_an_approval_and_a_failure_are_not_drowned_by_a_flood() -> None:
    q = queue(per_minute=3)
    for number in range(MOST_WAITING):
        q.add(waiting(f"noise {number}"))
    q.add(waiting("it failed", "failure", verified=True))
    q.add(waiting("sign this", "approval", verified=True))
    for number in range(MOST_WAITING):
        q.add(waiting(f"more {number}", "failure"))  # unsigned
    found = texts(sent_all(q, PAIR_WAIT))
    assert {"it failed", "sign this"} <= set(found)
    assert len(found) == 3


def test_the_queue_is_bounded_and_what_it_drops_is_counted() -> None:
    q = queue(per_minute=6000)
    for number in range(MOST_WAITING + 50):
        q.add(waiting(f"line {number}", "push"))
    assert len(q) == MOST_WAITING
    found = sent_all(q, 0.0)
    assert sum(sum(batch.more.values()) for batch in found) == 50


def test_a_letter_that_failed_is_sent_again_as_it_was() -> None:
    q = queue()
    q.add(waiting("a", "push"))
    q.add(waiting("b", "push"))
    first = q.next(0.0)
    q.failed(0.0, chance=1.0)
    assert q.next(0.9) is None
    again = q.next(1.0)
    assert again == first
    q.failed(1.0, wait=30.0)
    assert q.due(1.0) == pytest.approx(30.0)
    q.sent(31.0)
    assert texts(sent_all(q, 31.0)) == ["b"]


def test_pauses_grow_to_two_minutes() -> None:
    q = queue()
    q.add(waiting("a", "push"))
    now, pauses = 0.0, []
    for _ in range(12):
        assert q.next(now) is not None
        q.failed(now, chance=1.0)
        pauses.append(q.due(now))
        now += pauses[-1]
    assert pauses == sorted(pauses)
    assert pauses[0] == 1.0
    assert pauses[-1] == 120.0


def test_what_waited_too_long_is_dropped_and_the_next_letter_says_how_much() -> None:
    q = queue(keep=100.0)
    for number in range(3):
        q.add(waiting(f"old {number}", "push", added=0.0))
    assert q.next(0.0) is not None
    q.failed(0.0)
    q.add(waiting("new", "push", added=90.0))
    (batch,) = sent_all(q, 150.0)
    assert [line.text for line in batch.lines] == ["new"]
    assert batch.late == 3
    assert q.expired == 3


def test_a_refused_letter_holds_up_nothing() -> None:
    q = queue()
    q.add(waiting("a", "push"))
    q.add(waiting("b", "push"))
    assert q.next(0.0) is not None
    q.refused(0.0)
    assert texts(sent_all(q, 0.0)) == ["b"]


def test_a_digest_waits_for_more_and_takes_all_of_it() -> None:
    q = queue(gather=60.0)
    for number in range(MOST_DIGEST + 10):
        q.add(waiting(f"line {number}", "push", added=number * 0.01))
    assert q.next(59.0) is None
    assert q.due(59.0) == pytest.approx(1.0)
    batch = q.next(60.0)
    assert batch is not None
    assert len(batch.lines) == MOST_DIGEST
    assert batch.more == {"push": 10}


def test_the_end_does_not_wait_for_a_digest() -> None:
    q = queue(gather=60.0)
    q.add(waiting("a", "push"))
    assert q.next(0.0) is None
    assert q.next(0.0, at_once=True) is not None


def test_of_an_event_and_its_notice_only_the_event_goes_out() -> None:
    pair = ("c-1", "[shop] v1 created")
    q = queue()
    q.add(waiting("as a notice", pair=pair, is_notice=True))
    assert q.next(0.0) is None  # it waits for its event
    q.add(waiting("as the event", "push", added=0.5, pair=pair))
    assert texts(sent_all(q, 0.5)) == ["as the event"]
    assert not q.add(waiting("once more", added=0.6, pair=pair, is_notice=True))
    assert sent_all(q, 10.0) == []


def test_a_notice_without_its_event_goes_out_soon_and_the_event_still_does() -> None:
    pair = ("c-1", "x")
    q = queue()
    q.add(waiting("notice", pair=pair, is_notice=True))
    assert texts(sent_all(q, PAIR_WAIT)) == ["notice"]
    assert q.add(waiting("failure", "failure", added=2.0, pair=pair))
    assert texts(sent_all(q, 2.0)) == ["failure"]


def test_a_channel_of_notices_alone_does_not_wait_for_events() -> None:
    q = queue(pairs=False)
    q.add(waiting("notice", pair=("c", "x"), is_notice=True))
    assert texts(sent_all(q, 0.0)) == ["notice"]


def test_what_is_left_goes_on_elsewhere() -> None:
    q, following = queue(), queue()
    for text in "abc":
        q.add(waiting(text, "push"))
    assert q.next(0.0) is not None
    q.failed(0.0)
    following.resume(q.leave())
    assert texts(sent_all(following, 0.0)) == ["a", "b", "c"]


def test_old_messages_that_are_sent_again_do_not_hide_a_failure_of_now() -> None:
    q = queue(per_minute=5)
    for number in range(MOST_WAITING + 10):
        q.add(attrs.evolve(waiting(f"old {number}", "failure", verified=True), late=True))
    q.add(waiting("web1 has failed", "failure", verified=True))
    assert "web1 has failed" in texts(sent_all(q, 0.0))
