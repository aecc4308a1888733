"""SIGKILL at every call of a drain, a full disk, a broken disk: nothing is lost, swapped or stuck."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploykit.broker.server import EmbeddedBroker
from tests.brokers.server import BrokerServer
from tests.support.killsweep import NEEDS_DISK, NEEDS_SPACE, Run, error_sweep, kill_sweep, sample_size
from tests.support.relaybooks import Books


class Drain:
    """A spool with something of each kind before every run; a relay that finishes after it."""

    def __init__(self, books: Books) -> None:
        self.books = books

    def prepare(self) -> None:
        self.books.drain()
        for path in (self.books.spool / "dead").iterdir():
            path.unlink()
        self.books.poison.clear()
        self.books.queue(singles=3, batch=4, poison=1)

    def check(self, run: Run) -> None:
        assert "Traceback" not in run.stderr, run.stderr
        self.books.drain()
        self.books.balance()


def sweep(books: Books, number: int, capsys: pytest.CaptureFixture[str]) -> None:
    drain = Drain(books)
    with books.consuming():
        report = kill_sweep(
            books.worker(),
            roots=[books.spool],
            network=True,
            prepare=drain.prepare,
            check=drain.check,
            sample=sample_size(number),
            allow_missed=0.15,  # the bus's thread writes as it comes: two messages may share a call
        )
    with capsys.disabled():
        print(f"\nrelay killed, {books.address.split('@')[-1]}: {report}")
    if report.ran == report.points:  # a sample need not have drawn it
        assert {"unlink", "unlinkat"} & {p.call for p in report.hit}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_relay_killed_at_any_call_loses_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with EmbeddedBroker() as broker:
        sweep(Books(tmp_path / "spool", broker.address), 25, capsys)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_relay_killed_at_any_call_loses_nothing_on_real_brokers(
    tmp_path: Path, real_broker: BrokerServer, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep(Books(tmp_path / "spool", real_broker.address), 8, capsys)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("error", "calls"), [("ENOSPC", NEEDS_SPACE), ("EIO", NEEDS_DISK), ("EIO", ("unlink", "unlinkat"))]
)
def test_a_disk_that_fails_under_the_relay_costs_no_message(tmp_path: Path, error: str, calls: tuple[str, ...]) -> None:
    with EmbeddedBroker() as broker:
        books = Books(tmp_path / "spool", broker.address)
        drain = Drain(books)
        with books.consuming():
            error_sweep(
                books.worker(deadline=10.0),
                roots=[books.spool],
                prepare=drain.prepare,
                check=drain.check,
                calls=calls,
                error=error,
                sample=sample_size(8),
                allow_missed=0.2,
            )
