"""Reports that wait: in order, all of them, as soon as there is room; a bad one costs only itself."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from deploykit.daemons.agent import pending_reports as module
from deploykit.daemons.agent.pending_reports import PendingReports
from deploykit.daemons.agent.reports import Reporter
from deploykit.errors import MessageError, OutboxError
from deploykit.messages import Message, Notice
from tests.support.wait import wait_until


class Spool(Reporter):
    """An outbox that has room or not, and takes no text that is `bad`."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.said: list[str] = []
        self.steps = 0
        self.bad: dict[str, Exception] = {}

    def report(self, *messages: Message, announced: bool = True) -> tuple[Any, ...]:
        if self.error is not None:
            raise self.error
        texts = [getattr(message, "text", "") for message in messages]
        for text in texts:
            if text in self.bad:
                raise self.bad[text]
        self.said += texts
        self.steps += 1
        return ()


@pytest.fixture
def spool() -> Spool:
    return Spool()


@pytest.fixture
def pending(spool: Spool) -> PendingReports:
    return PendingReports(spool, retry_after=0.01)


def notices(first: int, last: int) -> list[Notice]:
    return [Notice(text=str(n)) for n in range(first, last)]


def test_what_finds_no_room_comes_in_order_when_there_is_room(spool: Spool, pending: PendingReports) -> None:
    spool.error = OutboxError("no space left on device")
    pending.add(notices(0, 3))
    pending.add(notices(3, 6))
    assert (spool.said, pending.waiting) == ([], 6)
    spool.error = None
    wait_until(lambda: pending.waiting == 0, "room", 60)
    pending.add(notices(6, 7))
    assert spool.said == [str(n) for n in range(7)]


def test_one_report_that_cannot_be_written_costs_only_itself(
    spool: Spool, pending: PendingReports, caplog: pytest.LogCaptureFixture
) -> None:
    spool.bad = {"500": MessageError("old: expected 40 or 64 lower-case hex digits")}
    pending.add(notices(0, 2000))
    assert spool.said == [str(n) for n in range(2000) if n != 500]
    assert spool.steps < 50, "found by halves, not one by one"
    assert "given up: 500: old: expected" in caplog.text


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), OSError(5, "I/O error"), MemoryError()])
def test_what_fails_once_in_an_unforeseen_way_costs_no_report(
    spool: Spool, pending: PendingReports, error: Exception
) -> None:
    spool.error = error
    pending.add(notices(0, 1))
    assert pending.waiting == 1
    spool.error = None
    wait_until(lambda: spool.said == ["0"], "the second try", 60)


def test_what_always_fails_in_an_unforeseen_way_holds_nothing_up_for_ever(
    spool: Spool, pending: PendingReports
) -> None:
    spool.bad = {"1": RuntimeError("a bug")}
    pending.add(notices(0, 3))
    wait_until(lambda: pending.waiting == 0, "the end of the tries", 60)
    assert spool.said == ["0", "2"]


def test_a_full_disk_is_one_line_in_the_log(
    spool: Spool, pending: PendingReports, caplog: pytest.LogCaptureFixture
) -> None:
    spool.error = OutboxError("no space left on device")
    for n in range(50):
        pending.add(notices(n, n + 1))
    assert caplog.text.count("no space left on device") == 1


def test_so_many_wait_and_no_more(spool: Spool, pending: PendingReports, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST", 10)
    spool.error = OutboxError("no space left on device")
    pending.add(notices(0, 25))
    pending.add(notices(25, 30))
    spool.error = None
    pending.add([])
    wait_until(lambda: pending.waiting == 0, "room", 60)
    assert spool.said == [str(n) for n in range(20, 30)]


def test_an_agent_that_ends_tries_once_more(spool: Spool) -> None:
    pending = PendingReports(spool, retry_after=3600)
    spool.error = OutboxError("no space left on device")
    pending.add(notices(0, 2))
    spool.error = None
    pending.stop()
    assert spool.said == ["0", "1"]
    spool.error = OutboxError("no space left on device")
    pending.add(notices(2, 3))
    pending.stop()
    assert pending.waiting == 1


def test_many_threads_lose_and_repeat_nothing(spool: Spool, pending: PendingReports) -> None:
    threads = [threading.Thread(target=pending.add, args=(notices(100 * n, 100 * n + 100),)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(map(int, spool.said)) == list(range(800))


def test_what_is_given_up_while_a_batch_is_queued_costs_no_other_report(
    spool: Spool, pending: PendingReports, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST", 10)
    queue, more = spool.report, iter([notices(10, 15)])

    def meanwhile(*messages: Message) -> tuple[Any, ...]:
        for batch in more:
            threading.Thread(target=pending.add, args=(batch,)).start()
            wait_until(lambda: pending.waiting == 10 and pending._given_up == 5, "the five that were given up")
        return queue(*messages)

    monkeypatch.setattr(spool, "report", meanwhile)
    pending.add(notices(0, 10))
    wait_until(lambda: pending.waiting == 0, "the end of the queue", 60)
    assert spool.said == [str(n) for n in range(15)]
