"""The books of chaos runs find each violation there is, and none that a broker's death explains."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos import __main__ as chaos
from tests.chaos import report
from tests.chaos.accounts import Accounts, Verdict
from tests.chaos.options import Options, come_to_rest
from tests.chaos.schedule import steps

QUEUE = "/queue/a"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[itertools.count[int]]:
    """A clock that goes on by a second each time it is read."""
    ticks = itertools.count(1)
    with monkeypatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: float(next(ticks)))
        yield ticks


@pytest.fixture
def books(clock: itertools.count[int]) -> Accounts:
    accounts = Accounts()
    accounts.expect("observer", QUEUE, ordered=True)
    return accounts


def send(books: Accounts, *identities: str, writer: str = "w") -> None:
    """Send and confirm one after the other."""
    for identity in identities:
        books.begin(identity, writer, int(identity), QUEUE)
        books.end(identity, "confirmed")


def receive(books: Accounts, *identities: str) -> None:
    for identity in identities:
        books.receive("observer", identity, intact=True)


def counts(verdict: Verdict) -> dict[str, int]:
    return {
        name: len(lines)
        for name in ("lost", "invented", "altered", "out_of_order", "handled_twice")
        if (lines := getattr(verdict, name))
    }


def test_a_run_without_faults_has_no_violations(books: Accounts) -> None:
    send(books, "1", "2", "3")
    receive(books, "1", "2", "2", "3", "1")
    verdict = books.judge()
    assert counts(verdict) == {}
    assert verdict.violations == ()
    assert verdict.duplicates == 2
    assert books.backlog() == 0


def test_what_was_confirmed_and_never_came_is_lost(books: Accounts) -> None:
    send(books, "1", "2", "3")
    receive(books, "1", "3")
    assert books.backlog() == 1
    (line,) = books.judge().lost
    assert line.startswith("observer never got 2:")


def test_what_came_before_its_receipt_is_not_lost(books: Accounts) -> None:
    books.begin("1", "w", 1, QUEUE)
    receive(books, "1")
    books.end("1", "confirmed")
    assert books.backlog() == 0
    assert counts(books.judge()) == {}


def test_each_receiver_of_a_destination_must_get_all_of_it(books: Accounts) -> None:
    books.expect("other", QUEUE, ordered=False)
    books.expect("elsewhere", "/queue/b", ordered=False)
    send(books, "1")
    receive(books, "1")
    (line,) = books.judge().lost
    assert line.startswith("other never got 1:")


def test_what_nobody_knows_the_fate_of_may_come_or_not_and_what_was_refused_may_not(books: Accounts) -> None:
    for identity, outcome in (("1", "unknown"), ("2", "unknown"), ("3", "refused"), ("4", "refused")):
        books.begin(identity, "w", int(identity), QUEUE)
        books.end(identity, outcome)  # type: ignore[arg-type]  # the literals are written above
    receive(books, "2", "4")
    assert counts(books.judge()) == {"invented": 1}


def test_what_nobody_sent_and_what_was_altered_is_found(books: Accounts) -> None:
    send(books, "1")
    receive(books, "1", "ghost")
    books.receive("observer", "1", intact=False)
    assert counts(books.judge()) == {"invented": 1, "altered": 1}


def test_messages_of_one_writer_that_change_places_are_found_however_they_were_sent(books: Accounts) -> None:
    for identity in ("1", "2"):
        books.begin(identity, "w", int(identity), QUEUE)
    for identity in ("1", "2"):
        books.end(identity, "confirmed")
    receive(books, "2", "1")
    assert counts(books.judge()) == {"out_of_order": 1}


def test_a_message_begun_after_another_writers_was_confirmed_must_not_come_before_it(books: Accounts) -> None:
    send(books, "1", writer="a")
    send(books, "1000", writer="b")
    receive(books, "1000", "1")
    assert counts(books.judge()) == {"out_of_order": 1}


def test_messages_of_two_writers_that_were_under_way_together_have_no_order(books: Accounts) -> None:
    books.begin("1", "a", 1, QUEUE)
    books.begin("2", "b", 2, QUEUE)
    for identity in ("1", "2"):
        books.end(identity, "confirmed")
    receive(books, "2", "1")
    assert counts(books.judge()) == {}


def test_a_killed_broker_explains_a_swap_only_of_what_was_under_way_with_it(books: Accounts) -> None:
    for identity in ("1", "2"):
        books.begin(identity, "w", int(identity), QUEUE)
    killed = time.monotonic()
    for identity in ("1", "2"):
        books.end(identity, "confirmed")
    send(books, "3", "4")
    receive(books, "2", "1", "4", "3")
    books.kills.append((killed, killed))
    verdict = books.judge()
    assert verdict.swapped_by_kill == 1
    (line,) = verdict.out_of_order
    assert line.startswith("observer got 4 before 3:")


def test_where_the_outbox_confirms_a_message_is_under_way_until_it_came(books: Accounts) -> None:
    send(books, "1", "2")
    killed = time.monotonic()
    receive(books, "2", "1")
    books.kills.append((killed, killed))
    assert counts(books.judge()) == {"out_of_order": 1}
    assert counts(books.judge(confirmed_at_arrival=True)) == {}


def test_a_handler_that_is_asked_about_what_was_done_is_found(books: Accounts) -> None:
    books.handle("1")
    books.handle("1")  # not done yet: a process died, say
    books.done("1")
    assert counts(books.judge()) == {}
    books.handle("1")
    assert counts(books.judge()) == {"handled_twice": 1}


def test_every_entry_is_a_line_of_history(tmp_path: Path) -> None:
    with Accounts(tmp_path / "history") as books:
        books.expect("observer", QUEUE, ordered=True)
        send(books, "1")
        receive(books, "1")
        books.note("driver", "kill")
    lines = [json.loads(line)[1:] for line in (tmp_path / "history").read_text().splitlines()]
    assert lines == [["send", "1", QUEUE], ["confirmed", "1"], ["receive", "observer", "1"], ["driver", "kill"]]


def test_waiting_for_the_rest_ends_when_nothing_comes_any_more() -> None:
    assert come_to_rest(iter([2, 1, 0]).__next__, 10)
    assert not come_to_rest(lambda: 1, 0.1)


def test_a_schedule_is_the_seeds_and_has_every_kind_before_one_comes_again() -> None:
    kinds = ("a", "b", "c")
    first = list(itertools.islice(steps("1", kinds), 30))
    assert first == list(itertools.islice(steps("1", kinds), 30))
    assert first != list(itertools.islice(steps("2", kinds), 30))
    for start in range(0, 30, 3):
        assert {step.kind for step in first[start : start + 3]} == set(kinds)


def test_the_command_that_repeats_a_run_says_all_that_was_asked_for() -> None:
    options = Options(seconds=5, seed=7, rate=20, settle=9, features=frozenset({"handlers"}), sabotage="lose")
    assert report.repeat("bus-embedded", options) == (
        "nox -s chaos -- bus-embedded --seconds 5 --seed 7 --rate 20 --settle 9 --without addresses"
        " --without certificates --without full-disk --without stranger --sabotage lose"
    )


def test_a_run_that_does_not_exist_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        chaos.main(["bus-nowhere"])
    assert ended.value.code == 2
    assert "no such run: bus-nowhere" in capsys.readouterr().err
