"""The outbox on disks that are full, broken, read-only or lose their power, and under SIGKILL while it writes."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploykit.errors import LockBusy, OutboxError
from deploykit.outbox import Outbox, Outgoing
from deploykit.outbox.relay import Relay
from deploykit.testing.fakes import FakeBus
from deploykit.wire.frame import Frame
from tests.support.killsweep import NEEDS_DISK, NEEDS_SPACE, Run, error_sweep, kill_sweep
from tests.support.needs import missing, needs
from tests.support.wait import wait_until

TOPIC = "/topic/a"
PUT = """
import sys
from deploykit.errors import OutboxError
from deploykit.outbox import Outbox, Outgoing
from deploykit.wire.frame import Frame
try:
    Outbox(sys.argv[1]).put_many(Outgoing("/topic/a", Frame({}, b"new %d" % n)) for n in range(3))
    print("queued", flush=True)
except OutboxError as error:
    print("refused:", error, flush=True)
"""


class Place:
    def __init__(self, root: Path, *, exists: bool) -> None:
        self.root, self.exists = root, exists
        self.spool = root / "spool"
        self.argv = [sys.executable, "-c", PUT, str(self.spool)]

    def prepare(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir()
        if self.exists:
            Outbox(self.spool).put(TOPIC, Frame({}, b"old"))

    def check(self, run: Run) -> None:
        """All of the push or none; what was reported queued is there; the spool can be used on."""
        assert "Traceback" not in run.stderr, run.stderr
        box = Outbox(self.spool)
        bodies = [r.frame.body for r in box.pending()]
        old = [b"old"] if self.exists else []
        new = [b"new 0", b"new 1", b"new 2"]
        assert bodies in (old, old + new), bodies
        if "queued" in run.stdout:
            assert bodies == old + new
        if "refused" in run.stdout:
            assert bodies == old, "reported lost, but it would be sent"
        assert list(box.set_aside()) == []
        box.put(TOPIC, Frame({}, b"later"))
        assert [r.frame.body for r in box.pending()][-1] == b"later"


@pytest.fixture(params=[True, False], ids=["a spool", "no spool yet"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return Place(tmp_path / "place", exists=request.param)


def test_killed_at_any_call_a_push_is_queued_whole_or_not_at_all(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    report = kill_sweep(place.argv, roots=[place.root], prepare=place.prepare, check=place.check)
    with capsys.disabled():
        print(f"\nput killed: {report}")


def test_a_full_disk_at_any_call_is_a_refusal_with_nothing_queued(place: Place) -> None:
    def check(run: Run) -> None:
        place.check(run)
        if run.injected:
            assert "refused:" in run.stdout
            assert "df -i" in run.stdout

    error_sweep(place.argv, roots=[place.root], prepare=place.prepare, check=check, calls=NEEDS_SPACE)


def test_a_disk_that_will_not_sync_is_no_success(place: Place) -> None:
    def check(run: Run) -> None:
        place.check(run)
        if run.injected:
            assert "refused:" in run.stdout
            assert "queued" not in run.stdout

    error_sweep(place.argv, roots=[place.root], prepare=place.prepare, check=check, calls=NEEDS_DISK, error="EIO")


# -- real file systems -----------------------------------------------------------------------------------------------


@contextmanager
def mounted(what: str, where: Path, *options: str) -> Iterator[Path]:
    if os.geteuid() != 0:
        missing("root, to mount file systems")
    where.mkdir()
    done = subprocess.run(["mount", *options, what, str(where)], capture_output=True, text=True, check=False)
    if done.returncode:
        missing(f"mount {what}: {done.stderr.strip()}")
    try:
        yield where
    finally:
        subprocess.run(["umount", str(where)], check=True)


def fill(directory: Path) -> None:
    with (directory / "ballast").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            return


def test_a_full_file_system_is_a_clear_refusal_and_works_again_when_there_is_room(tmp_path: Path) -> None:
    with mounted("tmpfs", tmp_path / "small", "-t", "tmpfs", "-o", "size=1m") as small:
        box = Outbox(small / "spool")
        box.put(TOPIC, Frame({}, b"before"))
        fill(small)
        with pytest.raises(OutboxError, match=rf"cannot write to spool {small}/spool: No space left.*df -h"):
            box.put_many(Outgoing(TOPIC, Frame({}, b"x" * 1000)) for _ in range(100))
        assert [r.frame.body for r in box.pending()] == [b"before"]
        assert not list(Path(box.path).glob(".tmp-*")), "what was half written goes, the disk is full enough"
        (small / "ballast").unlink()
        box.put(TOPIC, Frame({}, b"after"))
        assert [r.frame.body for r in box.pending()] == [b"before", b"after"]


def test_a_file_system_without_inodes_is_a_clear_refusal(tmp_path: Path) -> None:
    with mounted("tmpfs", tmp_path / "small", "-t", "tmpfs", "-o", "size=1m,nr_inodes=16") as small:
        box = Outbox(small / "spool")
        queued: list[bytes] = []

        def put_many_files() -> None:
            for n in range(20):
                box.put(TOPIC, Frame({}, b"%d" % n))
                queued.append(b"%d" % n)

        with pytest.raises(OutboxError, match=r"No space left.*df -i"):
            put_many_files()
        assert [r.frame.body for r in box.pending()] == queued
        for record in list(box.pending()):
            box.ack(record)
        box.put(TOPIC, Frame({}, b"after"))


def test_a_read_only_file_system_is_a_clear_refusal(tmp_path: Path) -> None:
    with mounted("tmpfs", tmp_path / "small", "-t", "tmpfs", "-o", "size=1m") as small:
        box = Outbox(small / "spool")
        box.put(TOPIC, Frame({}, b"1"))
        subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
        with pytest.raises(OutboxError, match="read-only"):
            box.put(TOPIC, Frame({}, b"2"))
        with pytest.raises(OutboxError, match="read-only"):
            Outbox(small / "another")
        assert [r.frame.body for r in box.pending()] == [b"1"]


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_what_put_returned_for_survives_a_power_cut(tmp_path: Path, kind: str) -> None:
    make = needs(f"mkfs.{kind}", package="e2fsprogs" if kind == "ext4" else "xfsprogs")
    cut = needs("xfs_io", package="xfsprogs")
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(320 * 1024 * 1024)
    subprocess.run([str(make), *(["-F"] if kind == "ext4" else ["-f"]), "-q", str(image)], check=True)
    with mounted(str(image), tmp_path / "before", "-o", "loop") as disk:
        box = Outbox(disk / "spool")
        for n in range(5):
            box.put_many(Outgoing(TOPIC, Frame({}, b"%d %d" % (n, m))) for m in range(3))
        (disk / "unsynced").write_text("shows that the cut is one")
        subprocess.run([str(cut), "-x", "-c", "shutdown", str(disk)], check=True)
    with mounted(str(image), tmp_path / "after", "-o", "loop") as disk:
        assert not (disk / "unsynced").exists() or not (disk / "unsynced").read_text()
        box = Outbox(disk / "spool")
        assert [r.frame.body for r in box.pending()] == [b"%d %d" % (n, m) for n in range(5) for m in range(3)]
        box.put(TOPIC, Frame({}, b"after"))
        assert [r.frame.body for r in box.pending()][-1] == b"after"


FULL = {
    "no bytes": "size=1m",
    "no inodes": "size=8m,nr_inodes=120",
}


@pytest.mark.parametrize("kind", FULL)
@pytest.mark.parametrize("fresh", [True, False], ids=["first relay", "relay that was here before"])
def test_a_full_disk_keeps_nothing_from_being_sent(
    tmp_path: Path, kind: str, fresh: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with mounted("tmpfs", tmp_path / "small", "-t", "tmpfs", "-o", FULL[kind]) as small:
        box = Outbox(small / "spool")
        if not fresh:
            Relay(Outbox(box.path), FakeBus()).drain_once(5)
        for n in range(100):
            box.put_many([Outgoing(f"/topic/{k}", Frame({}, b"%d-%d" % (n, k))) for k in range(3)])
        fill(small)
        with contextlib.suppress(OSError):
            for n in range(200):
                (small / f"inode{n}").touch()
        bus = FakeBus()
        report = Relay(Outbox(box.path), bus).drain_once(60)
        assert report.complete
        assert report.sent == 300
        for k in range(3):
            mine = [sent.frame.body for sent in bus.sent if sent.destination == f"/topic/{k}"]
            assert mine == [b"%d-%d" % (n, k) for n in range(100)]
        assert list(box.pending()) == []
        assert len([r for r in caplog.records if r.levelno >= logging.WARNING]) <= 1


def test_a_relay_without_an_inode_for_its_lock_keeps_others_out_and_hears_writers_as_soon_as_there_is_room(
    tmp_path: Path,
) -> None:
    with mounted("tmpfs", tmp_path / "small", "-t", "tmpfs", "-o", "size=8m,nr_inodes=40") as small:
        box = Outbox(small / "spool")
        box.put(TOPIC, Frame({}, b"1"))
        with contextlib.suppress(OSError):
            for n in range(40):
                (small / f"inode{n}").touch()
        bus = FakeBus(lambda _: FakeBus.SILENCE)
        relay, stop = Relay(Outbox(box.path), bus, rescan=3600.0), threading.Event()
        thread = threading.Thread(target=relay.run, args=(stop,))
        thread.start()
        try:
            bus.wait_sent(1)
            with pytest.raises(LockBusy):
                Relay(Outbox(box.path), FakeBus()).drain_once(1)
            assert not box.relay_listens()
            for n in range(20):
                (small / f"inode{n}").unlink()
            wait_until(box.relay_listens)
            wait_until((Path(box.path) / ".relay.lock").exists)
            with pytest.raises(LockBusy):
                Relay(Outbox(box.path), FakeBus()).drain_once(1)
            bus.respond(lambda _: None)
            bus.confirm()
            box.put(TOPIC, Frame({}, b"2"))
            wait_until(lambda: not list(box.pending()))
        finally:
            stop.set()
            thread.join(30)
        assert not thread.is_alive()
