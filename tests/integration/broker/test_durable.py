"""What the embedded broker keeps in its data directory, over stop, in-process kill and a real SIGKILL."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from deploykit.broker.frames import VERSIONS
from deploykit.broker.server import EmbeddedBroker
from deploykit.broker.store import BrokerStore
from deploykit.errors import BrokerError, UsageError
from tests.brokers.process import PortLease
from tests.support.needs import needs
from tests.support.raw_stomp import RawStomp
from tests.support.wait import wait_until

_SCRIPT = """
import ctypes, os, signal, sys
from pathlib import Path
ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG: a test run that is killed leaves no broker behind
from deploykit.broker.server import EmbeddedBroker
broker = EmbeddedBroker(port=int(sys.argv[1]), data=Path(sys.argv[2]))
broker.run_forever(lambda broker: print(broker.port, flush=True))
"""


class _BrokerProcess:
    """A broker in a process of its own, to be killed; it keeps its port over restarts."""

    def __init__(self, data: Path, *before: str) -> None:
        self._lease = PortLease()  # the kernel gives a port of its own to somebody else while the process is dead
        self.port = self._lease.port
        self._data = data
        self._before = before
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> Self:
        command = [*self._before, sys.executable, "-c", _SCRIPT, str(self.port), str(self._data)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert int(self._process.stdout.readline()) == self.port
        return self

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def end(self, number: signal.Signals = signal.SIGKILL) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        assert self._process is not None
        code = self._process.wait(60)
        assert self._process.stdout is not None
        self._process.stdout.close()
        return code

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process is not None and self._process.poll() is None:
            self.end()
        self._lease.release()


_DURABLE = {"durable": "true", "auto-delete": "false", "x-queue-name": "node-1", "ack": "client-individual"}


@pytest.mark.parametrize("version", VERSIONS)
def test_durable_subscriptions_and_persistent_messages_outlive_a_sigkill(tmp_path: Path, version: str) -> None:
    with _BrokerProcess(tmp_path / "data") as process:
        with RawStomp.connected(process.port, version) as client:
            client.ask("SUBSCRIBE", id="1", destination="/topic/t", **_DURABLE)
            client.ask("UNSUBSCRIBE", id="1")
            for destination in ("/topic/t", "/queue/a"):
                for number in range(3):
                    client.ask("SEND", f"{number}\0".encode(), destination=destination, persistent="true", x="a:\\b")
            client.ask("SEND", b"transient", destination="/queue/a")
        assert process.end() == -signal.SIGKILL
        process.start()
        with RawStomp.connected(process.port, version) as client:
            client.ask("SUBSCRIBE", id="2", destination="/topic/t", **_DURABLE)
            kept = [client.message() for _ in range(3)]
            client.ask("SUBSCRIBE", id="3", destination="/queue/a", ack="client-individual")
            kept += [client.message() for _ in range(3)]
            assert client.silent(), "the transient message was not promised to stay"
    assert [one.body for one in kept] == [b"0\0", b"1\0", b"2\0"] * 2
    assert {one.headers["x"] for one in kept} == {"a:\\b"}


def test_what_was_settled_before_a_sigkill_stays_settled_and_deliveries_are_counted_on(tmp_path: Path) -> None:
    with _BrokerProcess(tmp_path / "data") as process:
        with RawStomp.connected(process.port) as client:
            for number in range(3):
                client.ask("SEND", str(number).encode(), destination="/queue/a", persistent="true")
            client.ask("SUBSCRIBE", id="1", destination="/queue/a", ack="client-individual")
            first, second, third = (client.message() for _ in range(3))
            client.ack(first)
            client.ack(second, "NACK", reason="bad")
            process.end()
        process.start()
        with RawStomp.connected(process.port) as client:
            client.ask("SUBSCRIBE", id="1", destination="/queue/a", ack="client-individual")
            again = client.message()
            assert (again.body, again.headers["delivery-count"]) == (b"2", "2")
            assert again.headers["message-id"] == third.headers["message-id"]
            client.ask("SUBSCRIBE", id="2", destination="/queue/DLQ.a")
            assert client.message().headers["dead-letter-reason"] == "bad"
            client.ask("SEND", destination="/queue/b", persistent="true")
            client.ask("SUBSCRIBE", id="3", destination="/queue/b")
            ids = {one.headers["message-id"] for one in (first, second, third)}
            assert client.message().headers["message-id"] not in ids, "ids do not begin anew"


def test_nothing_confirmed_is_lost_over_many_sigkills(tmp_path: Path) -> None:
    confirmed: list[str] = []
    random_pauses = random.Random(7)
    stop = threading.Event()
    with _BrokerProcess(tmp_path / "data") as process:

        def publish() -> None:
            number = 0
            while not stop.is_set():
                with contextlib.suppress(OSError, AssertionError), RawStomp.connected(process.port) as client:
                    while not stop.is_set():
                        number += 1
                        client.ask("SEND", str(number).encode(), destination="/queue/a", persistent="true")
                        confirmed.append(str(number))
                time.sleep(0.01)

        publisher = threading.Thread(target=publish)
        publisher.start()
        try:
            for _ in range(6):
                before = len(confirmed)
                wait_until(lambda n=before: len(confirmed) > n + 20)  # type: ignore[misc]
                time.sleep(random_pauses.uniform(0, 0.05))
                process.end()
                process.start()
        finally:
            stop.set()
            publisher.join(60)
        received = []
        with RawStomp.connected(process.port) as client:
            client.ask("SUBSCRIBE", id="1", destination="/queue/a")
            client.ask("SEND", b"end", destination="/queue/a")
            while (body := client.message().body) != b"end":
                received.append(body.decode())
    assert len(confirmed) > 120
    assert set(confirmed) - set(received) == set()
    assert received == sorted(received, key=int), "in order"


def test_a_receipt_is_sent_only_after_the_message_is_on_the_disk(tmp_path: Path) -> None:
    strace = needs("strace", package="strace")
    log = tmp_path / "trace"
    before = (str(strace), "-f", "-qq", "-o", str(log), "-e", "trace=fsync,fdatasync,sendto", "-s", "40")
    with _BrokerProcess(tmp_path / "data", *before) as process, RawStomp.connected(process.port) as client:
        for _ in range(3):
            client.ask("SEND", b"x", destination="/queue/a", persistent="true")
        client.ask("DISCONNECT")
    calls = [
        line.split(" ", 1)[1].strip() for line in log.read_text().splitlines() if "RECEIPT" in line or "sync(" in line
    ]
    receipts = [index for index, call in enumerate(calls) if "RECEIPT" in call][:3]
    assert len(receipts) == 3
    for index in receipts:
        assert "sync(" in calls[index - 1], calls


def test_term_ends_a_foreground_broker_at_once_and_its_data_can_be_used_again(tmp_path: Path) -> None:
    with _BrokerProcess(tmp_path / "data") as process:
        with RawStomp.connected(process.port) as client:
            client.ask("SEND", destination="/queue/a", persistent="true")
        assert process.end(signal.SIGTERM) == -signal.SIGTERM
    with EmbeddedBroker(data=tmp_path / "data") as broker:
        assert broker.stats().queues == {"/queue/a": 1}


def test_kill_and_restart_in_the_process_keep_what_is_on_disk_and_nothing_else(tmp_path: Path) -> None:
    with EmbeddedBroker(data=tmp_path / "data") as broker:
        port = broker.port
        with RawStomp.connected(port) as client:
            client.ask("SEND", b"kept", destination="/queue/a", persistent="true")
            client.ask("SEND", b"lost", destination="/queue/a")
            broker.restart()
            assert client.ended()
        assert broker.port == port
        assert [frame.body for frame in broker.peek("/queue/a")] == [b"kept"]


def test_the_activemq_spelling_of_a_durable_subscription_works_too(tmp_path: Path) -> None:
    with EmbeddedBroker(data=tmp_path / "data") as broker:
        durable = {"activemq.subscriptionName": "site", "id": "1", "destination": "/topic/t"}
        with RawStomp.connected(broker.port, client_id="node") as client:
            client.ask("SUBSCRIBE", **durable)
        with RawStomp.connected(broker.port) as client:
            client.ask("SEND", b"missed", destination="/topic/t", persistent="true")
        broker.restart()
        assert broker.stats().durable == {("node/site", "/topic/t"): 1}
        with RawStomp.connected(broker.port, client_id="node") as client:
            client.ask("SUBSCRIBE", **durable)
            assert client.message().body == b"missed"
            client.ask("UNSUBSCRIBE", **durable)
        assert broker.stats().durable == {}


def test_deleting_a_durable_subscription_deletes_what_it_held_and_tells_who_else_used_it(tmp_path: Path) -> None:
    with EmbeddedBroker(data=tmp_path / "data") as broker:
        with RawStomp.connected(broker.port) as one, RawStomp.connected(broker.port) as two:
            for client in (one, two):
                client.ask("SUBSCRIBE", id="1", destination="/topic/t", prefetch_count="1", **_DURABLE)
            for _ in range(3):
                one.ask("SEND", destination="/topic/t", persistent="true")
            one.ask("UNSUBSCRIBE", id="1", durable="true")
            two.message()
            assert two.error().headers["message"] == "subscription gone"
        broker.restart()
        assert broker.stats().durable == {}


def test_one_data_directory_serves_one_broker(tmp_path: Path) -> None:
    second = EmbeddedBroker(data=tmp_path / "data")
    with EmbeddedBroker(data=tmp_path / "data"), pytest.raises(UsageError, match=r"is in use \(stop the other broker"):
        second.start()


def test_another_process_is_refused_too_after_one_in_this_process_was(tmp_path: Path) -> None:
    """Closing any descriptor of a file drops all locks that this process has on it."""
    code = "from pathlib import Path; from deploykit.broker.store import BrokerStore; BrokerStore(Path(sys.argv[1]))"
    with EmbeddedBroker(data=tmp_path / "data"):
        with pytest.raises(UsageError, match="is in use"), EmbeddedBroker(data=tmp_path / "data"):
            pass
        tried = subprocess.run(
            [sys.executable, "-c", f"import sys; {code}", str(tmp_path / "data")], capture_output=True, text=True
        )
    assert "is in use" in tried.stderr


def test_the_data_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        with EmbeddedBroker(data=tmp_path / "data") as broker, RawStomp.connected(broker.port) as client:
            client.ask("SEND", destination="/queue/a", persistent="true")
            files = list((tmp_path / "data").iterdir())
            assert files
            assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    finally:
        os.umask(old)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[BrokerStore]:
    store = BrokerStore(tmp_path / "data")
    yield store
    store.close()


def test_a_data_directory_of_another_format_is_left_alone(tmp_path: Path, store: BrokerStore) -> None:
    store.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "data" / "broker.sqlite3")) as database, database:
        database.execute("UPDATE meta SET value = '2' WHERE name = 'format'")
    with pytest.raises(UsageError, match="format 2, this broker writes 1"):
        BrokerStore(tmp_path / "data")


def test_a_file_that_is_no_data_of_ours_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broker.sqlite3").write_text("not a database, but long enough to be looked at as one" * 10)
    with pytest.raises(UsageError, match="is not a broker's data"):
        BrokerStore(tmp_path)


def test_a_disk_that_takes_no_more_ends_the_broker_and_nothing_is_confirmed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = EmbeddedBroker(data=tmp_path / "data").start()
    with RawStomp.connected(broker.port) as client:
        client.ask("SEND", b"kept", destination="/queue/a", persistent="true")

        def full(self: BrokerStore, journal: object) -> None:
            raise BrokerError("the disk is full")

        with monkeypatch.context() as patch:
            patch.setattr(BrokerStore, "write", full)
            client.send("SEND", b"lost", destination="/queue/a", persistent="true", receipt="r")
            with pytest.raises(ConnectionError):
                client.frame()
    with pytest.raises(BrokerError, match="disk is full"):
        broker.stop()
    with EmbeddedBroker(data=tmp_path / "data") as broker:
        assert [frame.body for frame in broker.peek("/queue/a")] == [b"kept"]


def test_a_process_whose_disk_fails_ends_and_keeps_what_it_confirmed(tmp_path: Path) -> None:
    with _BrokerProcess(tmp_path / "data") as process:
        with RawStomp.connected(process.port) as client:
            client.ask("SEND", b"kept", destination="/queue/a", persistent="true")
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (4096, 4096))
            client.send("SEND", b"x" * 100_000, destination="/queue/a", persistent="true", receipt="r")
            with pytest.raises(ConnectionError):
                client.frame()
        assert process.wait() == 1
        process.start()
        with RawStomp.connected(process.port) as client:
            client.ask("SUBSCRIBE", id="1", destination="/queue/a")
            assert client.message().body == b"kept"
            assert client.silent()


def test_sqlite_s_own_refusal_is_an_error_of_ours_and_changes_nothing(tmp_path: Path) -> None:
    from deploykit.broker.state import Add, QueueEntry, StoredMessage

    store = BrokerStore(tmp_path / "data")
    message = StoredMessage(destination="/queue/a", headers={}, body=b"x" * 100_000, persistent=True)
    store.write([Add(queue="/queue/a", entry=QueueEntry(seq=1, message=message))])
    size = (tmp_path / "data" / "broker.sqlite3").stat().st_size
    store._db.execute(f"PRAGMA max_page_count = {max(1, size // 4096)}")
    with pytest.raises(BrokerError, match="cannot write to the broker"):
        store.write([Add(queue="/queue/a", entry=QueueEntry(seq=n, message=message)) for n in range(2, 9)])
    assert [entry.seq for _, entry in store.entries()] == [1]
    store.close()
