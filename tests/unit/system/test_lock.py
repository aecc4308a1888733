"""One lock for everything that two processes must not do at once."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from deploykit.errors import LockBusy
from deploykit.system.lock import FileLock, lock_descriptor
from tests.support.wait import wait_until

_HOLD = "import sys, time\nfrom deploykit.system.lock import FileLock\n"


class Holder:
    """Another process that holds a lock until it is killed, or its input ends."""

    def __init__(self, path: Path) -> None:
        code = f"{_HOLD}with FileLock(sys.argv[1]):\n    print('held', flush=True)\n    sys.stdin.read()\n"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"held\n"

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


def test_who_does_not_wait_is_refused_and_reads_who_holds_it_and_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with FileLock(path), pytest.raises(LockBusy) as refused, FileLock(path):
        pass
    assert str(refused.value) == (
        f"{path} is locked by another process (pid {os.getpid()}) (wait for it; it needs no unlock)"
    )
    shop = FileLock(path, busy="another deploy of /srv/shop is running", remedy="stop it")
    with (
        FileLock(path),
        pytest.raises(LockBusy, match=r"deploy of /srv/shop is running \(pid \d+\) \(stop it\)"),
        shop,
    ):
        pass
    with shop:
        assert shop.fd >= 0
    assert shop.fd == -1


@pytest.mark.parametrize("wait", [30.0, None])
def test_who_waits_gets_it_and_says_once_for_whom(
    wait: float | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "deploykit.system.lock")
    path = tmp_path / "lock"
    holder = Holder(path)

    def end_once_it_is_said() -> None:
        try:
            wait_until(lambda: caplog.records, "that it says it waits")
            time.sleep(0.3)  # it looks again several times meanwhile, and may not say it again
        finally:
            holder.kill()

    end = threading.Thread(target=end_once_it_is_said)
    end.start()
    with FileLock(path, wait=wait):
        pass
    end.join()
    line = f"waiting for the lock {path}: {path} is locked by another process (pid {holder.process.pid})"
    assert [record.getMessage() for record in caplog.records] == [line]


def test_who_waited_for_nothing_is_refused_in_time(tmp_path: Path) -> None:
    now = [100.0]
    path = tmp_path / "lock"

    def clock() -> float:
        now[0] += 1.0
        return now[0]

    with FileLock(path), pytest.raises(LockBusy), FileLock(path, wait=5.0, clock=clock):
        pass
    assert now[0] < 110


@pytest.mark.parametrize(("wait", "lines"), [(2.0, 0), (9.0, 1)])
def test_a_short_wait_for_a_lock_that_is_held_often_is_no_line_of_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, wait: float, lines: int
) -> None:
    caplog.set_level(logging.INFO, "deploykit.system.lock")
    now = [100.0]

    def clock() -> float:
        now[0] += 0.5
        return now[0]

    path = tmp_path / "lock"
    with FileLock(path), pytest.raises(LockBusy), FileLock(path, wait=wait, quiet=4.0, clock=clock):
        pass
    assert len(caplog.messages) == lines


def test_nothing_is_logged_where_nobody_waits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with FileLock(tmp_path / "lock", wait=None), pytest.raises(LockBusy), FileLock(tmp_path / "lock"):
        pass
    assert caplog.records == []


def test_it_ends_with_its_process_however_that_ends(tmp_path: Path) -> None:
    holder = Holder(tmp_path / "lock")
    with pytest.raises(LockBusy), FileLock(tmp_path / "lock"):
        pass
    holder.kill()
    with FileLock(tmp_path / "lock"):
        pass


def test_a_program_that_is_started_meanwhile_does_not_keep_it(tmp_path: Path) -> None:
    with FileLock(tmp_path / "lock"):
        child = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        with FileLock(tmp_path / "lock"):
            pass
    finally:
        child.kill()
        child.wait()


def test_a_child_that_is_handed_the_descriptor_keeps_it(tmp_path: Path) -> None:
    with FileLock(tmp_path / "lock") as lock:
        child = subprocess.Popen(["sleep", "60"], pass_fds=[lock.fd])
    try:
        with pytest.raises(LockBusy), FileLock(tmp_path / "lock"):
            pass
    finally:
        child.kill()
        child.wait()


def test_a_file_that_was_replaced_while_we_waited_is_not_the_lock(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "deploykit.system.lock")
    path = tmp_path / "lock"
    got = threading.Event()

    def wait() -> None:
        with FileLock(path, wait=60):
            got.set()

    with FileLock(path):
        thread = threading.Thread(target=wait)
        thread.start()
        wait_until(lambda: caplog.records, "that it waits, and so has the old file open")
        assert not got.wait(0.1)
        path.unlink()
        fresh = FileLock(path)
        fresh.__enter__()
    assert not got.wait(0.5)
    fresh.__exit__(None, None, None)
    thread.join(60)
    assert got.is_set()


def test_a_link_in_the_place_of_the_lock_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("kept")
    (tmp_path / "lock").symlink_to(target)
    with pytest.raises(OSError, match="symbolic links"), FileLock(tmp_path / "lock"):
        pass
    assert target.read_text() == "kept"


def test_what_somebody_wrote_into_the_lock_is_no_process(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with FileLock(path):
        path.write_text("12 \x1b[31m")
        with pytest.raises(LockBusy, match=r"by another process \(wait"), FileLock(path):
            pass


def test_a_directory_can_be_locked_too(tmp_path: Path) -> None:
    first, second = (os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) for _ in "ab")
    try:
        lock_descriptor(first, tmp_path)
        with pytest.raises(LockBusy, match=f"{tmp_path} is locked by another process"):
            lock_descriptor(second, tmp_path)
    finally:
        os.close(first)
    lock_descriptor(second, tmp_path)
    os.close(second)
