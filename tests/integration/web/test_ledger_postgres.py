"""The ledger in a real PostgreSQL: the same as in SQLite, two consoles at once, a server that takes nobody."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from deploykit.errors import LedgerError, RolloutBusy
from deploykit.settings.web import WebSettings
from deploykit.web.ledger.database import is_away
from deploykit.web.ledger.ledger import Ledger
from deploykit.web.projection.store import Store
from tests.support.hosting import closed_to_all, emptied
from tests.support.ledgerchecks import CHECKS, LedgerClock
from tests.support.postgres import running_postgres
from tests.unit.web.ledger.test_rollouts import DOUBT, END, EVENT, head_of, never


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The URL of a running server."""
    with running_postgres() as url:
        yield url


@pytest.fixture
def settings(server: str) -> WebSettings:
    """Settings with an empty database."""
    return WebSettings(database=emptied(server))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_on_postgresql(check: Callable[[Ledger, LedgerClock], None], settings: WebSettings, tmp_path: Path) -> None:
    clock = LedgerClock()
    ledger = Ledger.open(settings, tmp_path, clock=clock)
    check(ledger, clock)
    ledger.close()


def test_projection_and_ledger_share_a_database_and_neither_touches_the_other(
    settings: WebSettings, tmp_path: Path
) -> None:
    opened: list[object] = []

    def open_both() -> None:
        opened.append(Store.open(settings, tmp_path))
        opened.append(Ledger.open(settings, tmp_path))

    threads = [threading.Thread(target=open_both) for _ in range(3)]  # three consoles start at once
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(opened) == 6
    ledger = next(each for each in opened if isinstance(each, Ledger))
    made = ledger.once.put("p", "v", 60)
    assert ledger.once.take(made, "p") == "v", "by the server's own clock"
    for each in opened:
        assert isinstance(each, Ledger | Store)
        each.close()


def test_leases_journals_and_one_rollout_of_a_site(settings: WebSettings, tmp_path: Path) -> None:
    one, two = Ledger.open(settings, tmp_path), Ledger.open(settings, tmp_path)
    lease = one.rollouts.start(head_of(), "ann", "one", 1000)
    with pytest.raises(RolloutBusy, match="rollout r1 of shop runs, begun by ann"):
        two.rollouts.start(head_of("r2"), "bob", "two", 10)
    journal = one.journal(lease, never)
    journal.append([EVENT, DOUBT])
    (taken,) = two.leases.take_over("two", 10, gone={"one"})
    with pytest.raises(RolloutBusy, match="another console"):
        journal.append([EVENT])
    two.journal(taken, never).append([END])
    assert one.rollouts.contents("r1").records == (EVENT, DOUBT, END)
    assert one.rollouts.running("shop") is None
    one.close()
    two.close()


def test_a_server_that_takes_nobody_is_away_and_comes_back(settings: WebSettings, server: str, tmp_path: Path) -> None:
    ledger = Ledger.open(settings, tmp_path)
    lease = ledger.rollouts.start(head_of(), "ann", "one", 1000)
    failures: list[int] = []
    with closed_to_all(server) as let_in:

        def wait(error: LedgerError, number: int) -> None:
            assert is_away(error), error
            failures.append(number)
            if number == 2:
                let_in()

        with pytest.raises(LedgerError, match="cannot be used") as raised:
            ledger.once.put("p", "v", 60)
        assert is_away(raised.value)
        let_in()
        journal = ledger.journal(lease, wait)
    with closed_to_all(server) as let_in:
        journal.append([EVENT, DOUBT])
    assert failures == [1, 2]
    assert ledger.rollouts.contents("r1").records == (EVENT, DOUBT)
    ledger.close()


def test_the_server_ends_a_transaction_of_a_console_that_was_stopped_in_it(
    settings: WebSettings, tmp_path: Path
) -> None:
    ledger = Ledger.open(settings, tmp_path)
    with ledger._database.reading() as connection:
        assert connection.execute(text("SHOW idle_in_transaction_session_timeout")).scalar() == "10s"
    ledger.close()
