"""Relays that are killed and brokers that are killed while many records wait: every one arrives."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.wire.frame import Frame
from tests.brokers.server import BrokerServer
from tests.support.relaybooks import Books
from tests.support.wait import wait_until


@contextmanager
def daemon(books: Books) -> Iterator[Callable[[], None]]:
    """A relay in a process of its own; what is yielded kills it and starts another."""
    processes: list[subprocess.Popen[bytes]] = []

    def again() -> None:
        for process in processes:
            process.kill()
            process.wait()
        processes[:] = [subprocess.Popen(books.daemon())]

    again()
    try:
        yield again
    finally:
        for process in processes:
            process.kill()
            process.wait()


def wait_empty(books: Books, timeout: float) -> None:
    wait_until(lambda: next(books.outbox.pending(), None) is None, "an empty outbox", timeout)


def test_a_relay_that_is_killed_again_and_again_loses_and_swaps_nothing(tmp_path: Path) -> None:
    dice = random.Random(7)
    with EmbeddedBroker() as broker:
        books = Books(tmp_path / "spool", broker.address)
        with books.consuming(), daemon(books) as kill_and_restart:
            for _ in range(6):
                books.queue(singles=20, batch=20)
                time.sleep(dice.uniform(0.0, 0.6))
                kill_and_restart()
            wait_empty(books, 120)
            books.balance()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_broker_and_relay_killed_in_turn_lose_nothing(
    tmp_path: Path, new_real_broker: Callable[..., BrokerServer]
) -> None:
    dice = random.Random(11)
    with new_real_broker() as broker:
        books = Books(tmp_path / "spool", broker.address)
        with books.consuming(), daemon(books) as kill_and_restart:
            broker.sync_declared()
            for what in ("broker", "relay", "broker"):
                books.queue(singles=30, batch=30)
                time.sleep(dice.uniform(0.1, 0.5))
                if what == "relay":
                    kill_and_restart()
                    continue
                broker.kill9()
                books.queue(singles=10, batch=10)
                broker.start()
            wait_empty(books, 300)
            books.balance(120, in_order=False)


@pytest.mark.rabbitmq
def test_a_record_for_which_rabbitmq_ends_the_connection_is_buried_and_the_others_arrive(
    tmp_path: Path, rabbitmq: BrokerServer
) -> None:
    # No dialect rule stops it: the broker says ERROR and closes, on every attempt.
    books = Books(tmp_path / "spool", rabbitmq.address)
    books.queue(singles=3, batch=2)
    books.outbox.put("/exchange/no-such-exchange/key", Frame({}, b"poison"))
    books.poison.add(b"poison")
    books.queue(singles=3, batch=2)
    with books.consuming():
        books.drain(60)
        books.balance()


def test_a_record_that_the_real_broker_refuses_is_buried_and_the_others_arrive(
    tmp_path: Path, real_broker: BrokerServer
) -> None:
    books = Books(tmp_path / "spool", real_broker.address)
    books.queue(singles=2, batch=2, poison=1)
    books.queue(singles=2, batch=2)
    with books.consuming():
        books.drain()
        books.balance()
    (dead,) = books.outbox.dead()
    assert "does not know the destination" in dead.reason
