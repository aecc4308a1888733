"""Reports that are owed: in order, all of them, as soon as there is room; a bad one costs only itself."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from deploykit.daemons.agent import owed as module
from deploykit.daemons.agent.owed import PendingReports
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

    def say(self, *messages: Message) -> tuple[Any, ...]:
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
def owed(spool: Spool) -> PendingReports:
    return PendingReports(spool, again=0.01)


def notices(first: int, last: int) -> list[Notice]:
    return [Notice(text=str(n)) for n in range(first, last)]


def test_what_finds_no_room_comes_in_order_when_there_is_room(spool: Spool, owed: PendingReports) -> None:
    spool.error = OutboxError("no space left on device")
    owed.say(notices(0, 3))
    owed.say(notices(3, 6))
    assert (spool.said, owed.waiting) == ([], 6)
    spool.error = None
    wait_until(lambda: owed.waiting == 0, "room", 60)
    owed.say(notices(6, 7))
    assert spool.said == [str(n) for n in range(7)]


def test_one_report_that_cannot_be_written_costs_only_itself(
    spool: Spool, owed: PendingReports, caplog: pytest.LogCaptureFixture
) -> None:
    spool.bad = {"500": MessageError("old: expected 40 or 64 lower-case hex digits")}
    owed.say(notices(0, 2000))
    assert spool.said == [str(n) for n in range(2000) if n != 500]
    assert spool.steps < 50, "found by halves, not one by one"
    assert "given up: 500: old: expected" in caplog.text


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), OSError(5, "I/O error"), MemoryError()])
def test_what_fails_once_in_an_unforeseen_way_costs_no_report(
    spool: Spool, owed: PendingReports, error: Exception
) -> None:
    spool.error = error
    owed.say(notices(0, 1))
    assert owed.waiting == 1
    spool.error = None
    wait_until(lambda: spool.said == ["0"], "the second try", 60)


def test_what_always_fails_in_an_unforeseen_way_holds_nothing_up_for_ever(spool: Spool, owed: PendingReports) -> None:
    spool.bad = {"1": RuntimeError("a bug")}
    owed.say(notices(0, 3))
    wait_until(lambda: owed.waiting == 0, "the end of the tries", 60)
    assert spool.said == ["0", "2"]


def test_a_full_disk_is_one_line_in_the_log(
    spool: Spool, owed: PendingReports, caplog: pytest.LogCaptureFixture
) -> None:
    spool.error = OutboxError("no space left on device")
    for n in range(50):
        owed.say(notices(n, n + 1))
    assert caplog.text.count("no space left on device") == 1


def test_so_many_wait_and_no_more(spool: Spool, owed: PendingReports, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST", 10)
    spool.error = OutboxError("no space left on device")
    owed.say(notices(0, 25))
    owed.say(notices(25, 30))
    spool.error = None
    owed.say([])
    wait_until(lambda: owed.waiting == 0, "room", 60)
    assert spool.said == [str(n) for n in range(20, 30)]


def test_an_agent_that_ends_tries_once_more(spool: Spool) -> None:
    owed = PendingReports(spool, again=3600)
    spool.error = OutboxError("no space left on device")
    owed.say(notices(0, 2))
    spool.error = None
    owed.stop()
    assert spool.said == ["0", "1"]
    spool.error = OutboxError("no space left on device")
    owed.say(notices(2, 3))
    owed.stop()
    assert owed.waiting == 1


def test_many_threads_lose_and_repeat_nothing(spool: Spool, owed: PendingReports) -> None:
    threads = [threading.Thread(target=owed.say, args=(notices(100 * n, 100 * n + 100),)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(map(int, spool.said)) == list(range(800))
