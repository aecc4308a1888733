"""The relay on disks that have no bytes or no inodes left, or that nobody may write to: what can be sent is sent."""

from __future__ import annotations

import logging
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.bus import Bus
from deploykit.errors import OutboxError, PublishRefused
from deploykit.outbox import Outbox, Outgoing
from deploykit.outbox.relay import Relay
from deploykit.settings import BusSettings
from deploykit.testing.fakes import FakeBus, Sent
from deploykit.wire.frame import Frame
from tests.brokers.server import BrokerServer
from tests.support.disks import small_disk
from tests.support.relaybooks import Books
from tests.support.wait import wait_until

A = "/topic/a"


def use_up_bytes(disk: Path) -> None:
    """Leave no page free; inodes there are."""
    with (disk / "filler").open("wb", buffering=0) as file:
        try:
            while file.write(b"x" * 4096):
                pass
        except OSError:
            return


def use_up_inodes(disk: Path) -> None:
    """Leave no inode free; bytes there are."""
    try:
        for number in range(10_000):
            (disk / f"filler-{number}").touch()
    except OSError:
        return


FULL = pytest.mark.parametrize("use_up", [use_up_bytes, use_up_inodes])


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", "size=2m,nr_inodes=500") as where:
        yield where


@pytest.fixture
def spool(disk: Path) -> Path:
    """A spool as docs/outbox.md has it made, which no relay ever worked on."""
    path = disk / "spool"
    path.mkdir()
    path.chmod(0o3770)
    return path


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What the relay and the outbox have logged, at level info and above."""
    caplog.set_level(logging.INFO, "deploykit")

    def lines() -> list[str]:
        ours = ("deploykit.outbox", "deploykit.outbox.relay")
        return [record.getMessage() for record in caplog.records if record.name.startswith(ours)]

    return lines


@contextmanager
def running(relay: Relay) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=relay.run, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(60)
        assert not thread.is_alive()


def three(outbox: Outbox, text: bytes, to: str = A) -> None:
    outbox.put_many(Outgoing(to, Frame({}, b"%s %d" % (text, n))) for n in range(3))


def drain_all(books: Books, told: Callable[[], list[str]]) -> None:
    with books.consuming(), Bus(BusSettings(address=books.address, backoff_max=0.2)) as bus:
        report = Relay(books.outbox, bus).drain_once(60)
        assert report.complete, report
        assert report.sent == 300
        books.balance()
    trouble = [line for line in told() if "No space left" in line]
    assert len(trouble) == 1, trouble


@FULL
def test_all_that_waits_on_a_full_disk_is_sent_with_one_line_in_the_log(
    disk: Path, spool: Path, use_up: Callable[[Path], None], told: Callable[[], list[str]]
) -> None:
    with EmbeddedBroker() as broker:
        books = Books(spool, broker.address)
        for _ in range(100):
            books.queue(singles=0, batch=3)
        use_up(disk)
        drain_all(books, told)


@pytest.mark.slow
@FULL
def test_all_that_waits_on_a_full_disk_is_sent_over_a_real_broker(
    disk: Path,
    spool: Path,
    use_up: Callable[[Path], None],
    told: Callable[[], list[str]],
    real_broker: BrokerServer,
) -> None:
    books = Books(spool, real_broker.address)
    for _ in range(100):
        books.queue(singles=0, batch=3)
    use_up(disk)
    drain_all(books, told)


@FULL
def test_a_relay_on_a_full_disk_goes_on_with_what_its_predecessor_had_not_finished(
    disk: Path, spool: Path, use_up: Callable[[Path], None]
) -> None:
    outbox = Outbox(spool)
    three(outbox, b"one")
    three(outbox, b"two")
    use_up(disk)
    cut_off = FakeBus(lambda sent: None if sent.frame.body in (b"one 0", b"one 1", b"two 0") else FakeBus.SILENCE)
    report = Relay(outbox, cut_off).drain_once(3.0)  # it ends no sooner, and what is confirmed must be by then
    assert (report.sent, report.complete) == (3, False)
    after = FakeBus()
    assert Relay(Outbox(spool), after).drain_once(10).complete
    assert after.bodies == [b"one 0", b"one 1", b"one 2", b"two 0", b"two 1", b"two 2"], "a record is sent whole"
    assert not list(spool.glob("*-*.*"))


@FULL
def test_one_destination_that_waits_holds_up_no_other_on_a_full_disk(
    disk: Path, spool: Path, use_up: Callable[[Path], None]
) -> None:
    outbox = Outbox(spool)
    for n in range(50):
        outbox.put_many([Outgoing("/topic/silent", Frame({}, b"no %d" % n)), Outgoing(A, Frame({}, b"%d" % n))])
    use_up(disk)
    bus = FakeBus(lambda sent: FakeBus.SILENCE if sent.destination != A else None)
    with running(Relay(outbox, bus, pause=0.01, pause_max=0.05, rescan=0.05)):
        wait_until(lambda: sum(sent.destination == A for sent in bus.sent) == 50, "everything for the other one")
        wait_until(lambda: len(bus.waiting) == 50)
        bus.answer = lambda _: None
        bus.confirm()
        wait_until(lambda: not list(spool.glob("*.rec")), "the empty spool")
    assert len(bus.sent) == 100, "nothing is sent twice while the relay lives"


@FULL
def test_what_cannot_be_buried_on_a_full_disk_is_passed_over_until_it_can(
    disk: Path,
    spool: Path,
    use_up: Callable[[Path], None],
    told: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("deploykit.outbox.settled._AGAIN", 0.05)
    outbox = Outbox(spool)
    outbox.put_many([Outgoing(A, Frame({"destination": "/elsewhere"}, b"never")), Outgoing(A, Frame({}, b"beside it"))])
    three(outbox, b"refused")
    three(outbox, b"good")
    use_up(disk)

    def answer(sent: Sent) -> object:
        return PublishRefused("no") if sent.frame.body.startswith(b"refused") else None

    bus = FakeBus(answer)
    with running(Relay(outbox, bus, max_attempts=1, pause=0.01, pause_max=0.05, rescan=0.05)):
        wait_until(lambda: b"good 2" in bus.bodies, "what is behind it")
        time.sleep(0.5)  # ten attempts
        trouble = [line for line in told() if "cannot write a dead letter" in line]
        assert len(trouble) == 1, trouble
        assert [body for body in bus.bodies if bus.bodies.count(body) > 1] == []
        for filler in disk.glob("filler*"):
            filler.unlink()
        wait_until(lambda: not list(spool.glob("*.rec")), "the empty spool")
    dead = list(outbox.dead())
    assert sorted(record.frame.body for record in dead) == [b"never", b"refused 0", b"refused 1", b"refused 2"]
    assert all(record.reason for record in dead)


def test_on_a_read_only_disk_each_record_is_sent_once_and_not_all_of_a_long_backlog(
    tmp_path: Path, told: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploykit.outbox.settled._MOST_OWED", 100)
    monkeypatch.setattr("deploykit.outbox.settled._AGAIN", 0.05)
    with small_disk(tmp_path / "disk", "size=20m") as disk:
        outbox = Outbox(disk / "spool")
        for n in range(1000):
            outbox.put(A, Frame({}, b"%d" % n))
        bus = FakeBus()
        bus.disconnect()
        with running(Relay(outbox, bus, pause=0.01, pause_max=0.05, rescan=0.05, window=8)):
            wait_until(outbox.relay_listens, "the relay")
            subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
            bus.connect()
            wait_until(lambda: len(bus.sent) >= 100, "some")
            time.sleep(0.5)  # ten attempts
            assert len(bus.sent) <= 100 + 8, "every start of a relay sends these again"
            trouble = [line for line in told() if "ead-only" in line]
            assert len(trouble) == 1, trouble
            subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
            wait_until(lambda: not list((disk / "spool").glob("*.rec")), "the empty spool")
        assert bus.bodies == [b"%d" % n for n in range(1000)]


def test_a_writer_on_a_full_disk_is_told_so_while_the_relay_makes_room(disk: Path, spool: Path) -> None:
    outbox = Outbox(spool)
    for n in range(20):
        three(outbox, b"%d" % n)
    use_up_inodes(disk)
    with pytest.raises(OutboxError, match=r"No space left.*df -i"):
        outbox.put(A, Frame({}, b"refused"))
    bus = FakeBus()
    with running(Relay(Outbox(spool), bus)):

        def queued() -> bool:
            try:
                outbox.put(A, Frame({}, b"last"))
            except OutboxError:
                return False
            return True

        wait_until(queued, "room")
        wait_until(lambda: b"last" in bus.bodies, "the last one")
    assert bus.bodies.count(b"last") == 1
    assert b"refused" not in bus.bodies
