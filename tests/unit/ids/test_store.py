"""The store of handled ids: no message is acted on twice, and no disk means no action."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from deploykit.errors import IdStoreError, LockBusy, UsageError
from deploykit.ids import Claim, IdStore

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
EXPIRY = NOW + timedelta(minutes=10)
DAY = timedelta(days=1)
KEY = "SHA256:ops"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "ids.sqlite"


@pytest.fixture
def store(path: Path) -> Iterator[IdStore]:
    with IdStore(path) as opened:
        yield opened


# -- the life of an id -----------------------------------------------------------------------------------------------


def test_an_id_is_fresh_once_then_resumed_until_done_then_answered(store: IdStore) -> None:
    assert store.claim(KEY, "1", b"digest", NOW) is Claim.FRESH
    assert store.claim(KEY, "1", b"digest", NOW) is Claim.RESUME
    assert store.reply(KEY, "1") is None
    store.done(KEY, "1", b"the reply", NOW)
    assert store.claim(KEY, "1", b"digest", NOW) is Claim.DONE
    assert store.reply(KEY, "1") == b"the reply"


def test_threat_2_the_same_id_with_other_bytes_is_a_conflict_and_is_reported(
    store: IdStore, caplog: pytest.LogCaptureFixture
) -> None:
    store.claim(KEY, "1\x1b[2J", b"digest", NOW)
    assert store.claim(KEY, "1\x1b[2J", b"other", NOW) is Claim.CONFLICT
    assert "came again with other bytes" in caplog.text
    assert "\x1b" not in caplog.text
    assert store.claim(KEY, "1\x1b[2J", b"digest", NOW) is Claim.RESUME, "the true one is not harmed"
    store.done(KEY, "1\x1b[2J", b"", NOW)
    assert store.claim(KEY, "1\x1b[2J", b"other", NOW) is Claim.CONFLICT


def test_two_senders_may_use_the_same_id(store: IdStore) -> None:
    assert store.claim("one", "1", b"a", NOW) is Claim.FRESH
    assert store.claim("two", "1", b"b", NOW) is Claim.FRESH
    store.done("one", "1", b"r", NOW)
    assert store.claim("two", "1", b"b", NOW) is Claim.RESUME


def test_an_id_that_was_never_claimed_cannot_be_done(store: IdStore) -> None:
    with pytest.raises(IdStoreError, match="never claimed"):
        store.done(KEY, "1", b"", NOW)
    assert store.claim(KEY, "1", b"d", NOW) is Claim.FRESH


def test_times_without_a_zone_are_refused(store: IdStore) -> None:
    with pytest.raises(UsageError, match="aware"):
        store.claim(KEY, "1", b"d", NOW.replace(tzinfo=None))


# -- threat 2: replay ------------------------------------------------------------------------------------------------


def test_threat_2_a_replay_after_a_restart_is_not_fresh(path: Path) -> None:
    with IdStore(path) as before:
        before.claim(KEY, "1", b"d", NOW, keep_until=EXPIRY)
        before.done(KEY, "1", b"r", NOW)
    with IdStore(path) as after:
        assert after.claim(KEY, "1", b"d", NOW, keep_until=EXPIRY) is Claim.DONE


def test_threat_2_a_replay_after_a_crash_between_claim_and_done_is_resumed_not_fresh(path: Path) -> None:
    code = (
        "import os, sys\nfrom datetime import datetime, UTC\nfrom deploykit.ids import IdStore\n"
        "IdStore(sys.argv[1]).claim('k', '1', b'd', datetime.now(UTC))\n"
        "os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    with IdStore(path) as store:
        assert store.claim("k", "1", b"d", NOW) is Claim.RESUME


def test_threat_2_a_claim_is_on_the_disk_before_it_is_answered(path: Path, tmp_path: Path) -> None:
    # What a power cut leaves is what was synced: the files as they are now, without the process that wrote them.
    store = IdStore(path)
    store.claim(KEY, "1", b"d", NOW)
    copy = tmp_path / "copy"
    copy.mkdir(mode=0o700)
    for file in path.parent.glob("ids.sqlite*"):
        if not file.name.endswith("-shm"):
            (copy / file.name).write_bytes(file.read_bytes())
            (copy / file.name).chmod(0o600)
    store.close()
    with IdStore(copy / path.name) as survived:
        assert survived.claim(KEY, "1", b"d", NOW) is Claim.RESUME


def test_threat_2_ids_are_kept_past_expiry_and_a_day_of_wrong_clock(store: IdStore) -> None:
    store.claim(KEY, "1", b"d", NOW, keep_until=EXPIRY)
    store.claim(KEY, "2", b"d", NOW)
    assert store.prune(EXPIRY + DAY - timedelta(seconds=1)) == 0
    assert store.claim(KEY, "1", b"d", NOW, keep_until=EXPIRY) is Claim.RESUME
    assert store.prune(EXPIRY + DAY + timedelta(seconds=1)) == 1
    assert store.claim(KEY, "2", b"d", NOW) is Claim.RESUME


def test_threat_2_an_id_that_may_have_been_forgotten_is_refused_when_the_clock_goes_back(store: IdStore) -> None:
    store.claim(KEY, "1", b"d", NOW, keep_until=EXPIRY)
    store.prune(NOW + 30 * DAY)  # the clock was a month ahead
    with pytest.raises(IdStoreError, match="cannot be told from a replay"):
        store.claim(KEY, "1", b"d", NOW, keep_until=EXPIRY)
    later = NOW + timedelta(minutes=20)
    assert store.claim(KEY, "new", b"d", later, keep_until=later + timedelta(minutes=10)) is Claim.FRESH


def test_a_longer_keep_until_is_taken_over(store: IdStore) -> None:
    store.claim(KEY, "1", b"d", NOW, keep_until=EXPIRY)
    store.claim(KEY, "1", b"d", NOW, keep_until=EXPIRY + 5 * DAY)
    assert store.prune(EXPIRY + 2 * DAY) == 0


def test_prune_forgets_many_in_steps(store: IdStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploykit.ids._CHUNK", 3)
    for n in range(10):
        store.claim(KEY, str(n), b"d", NOW, keep_until=EXPIRY)
    assert store.prune(EXPIRY + 2 * DAY) == 10
    assert store.prune(EXPIRY + 2 * DAY) == 0


# -- several at once -------------------------------------------------------------------------------------------------


def _claim_all(path: Path, start: float, answers: multiprocessing.Queue[tuple[int, str]]) -> None:
    while time.monotonic() < start:
        pass
    with IdStore(path) as store:
        for n in range(30):
            answers.put((n, store.claim("k", str(n), b"d", NOW).name))


def test_of_many_processes_exactly_one_gets_an_id_fresh(path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    start = time.monotonic() + 1.5
    processes = [context.Process(target=_claim_all, args=(path, start, answers)) for _ in range(4)]
    for process in processes:
        process.start()
    found = [answers.get(timeout=60) for _ in range(120)]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    for n in range(30):
        assert sorted(claim for number, claim in found if number == n) == ["FRESH", "RESUME", "RESUME", "RESUME"]


@pytest.mark.parametrize("lock", ["DEFERRED", "IMMEDIATE", "EXCLUSIVE"])
def test_a_store_that_another_process_is_making_is_waited_for(path: Path, lock: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(0o600)
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute(f"BEGIN {lock}")
    other.execute("SELECT count(*) FROM sqlite_master").fetchone()
    ended = threading.Timer(0.3, other.execute, ["ROLLBACK"])
    ended.start()
    try:
        with IdStore(path) as store:
            assert store.claim(KEY, "1", b"d", NOW) is Claim.FRESH
    finally:
        ended.join()
        other.close()


def test_a_store_that_stays_locked_is_given_up_in_time(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(0o600)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(IdStoreError, match="locked"):
        IdStore(path, busy=0.2)
    other.close()


def _open_all(paths: list[Path], start: float) -> None:
    while time.monotonic() < start:
        pass
    for path in paths:
        IdStore(path).close()


def test_stores_that_many_processes_make_at_once_open_in_each(path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    paths = [path.parent / str(n) / path.name for n in range(50)]
    start = time.monotonic() + 1.5
    processes = [context.Process(target=_open_all, args=(paths, start)) for _ in range(5)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 5


@pytest.mark.parametrize("shared", [True, False], ids=["one store", "a store each"])
def test_of_many_threads_exactly_one_gets_an_id_fresh(path: Path, shared: bool) -> None:
    one = IdStore(path)
    found: list[Claim] = []
    gate = threading.Barrier(6)

    def work() -> None:
        store = one if shared else IdStore(path)
        gate.wait()
        found.extend(store.claim(KEY, str(n), b"d", NOW) for n in range(20))
        if not shared:
            store.close()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    one.close()
    assert found.count(Claim.FRESH) == 20
    assert found.count(Claim.RESUME) == 100


def test_a_forked_child_uses_the_store_without_harming_the_parents(store: IdStore, path: Path) -> None:
    store.claim(KEY, "1", b"d", NOW)
    pid = os.fork()
    if not pid:
        ok = store.claim(KEY, "1", b"d", NOW) is Claim.RESUME and store.claim(KEY, "2", b"d", NOW) is Claim.FRESH
        os._exit(0 if ok else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert store.claim(KEY, "2", b"d", NOW) is Claim.RESUME


def test_a_second_store_in_the_process_does_not_drop_the_locks_of_the_first(path: Path) -> None:
    # SQLite's locks are the process's: closing any descriptor of the file would drop them all.
    with IdStore(path) as store, store._transaction("write to"):
        store._prepare_file()  # what a second one does first when it opens
        code = f"import sqlite3; sqlite3.connect({str(path)!r}, timeout=0.1).execute('BEGIN IMMEDIATE')"
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "database is locked" in other.stderr


def test_a_turn_keeps_others_from_the_same_id_and_only_from_it(store: IdStore, path: Path) -> None:
    with store.locked(KEY, "1"), IdStore(path) as other:
        with pytest.raises(LockBusy, match="being handled"), other.locked(KEY, "1", timeout=0.05):
            pass
        with other.locked(KEY, "2"), other.locked("another", "1"):
            pass
    with store.locked(KEY, "1"):
        pass


def test_a_turn_waits_for_the_other_thread(store: IdStore) -> None:
    order: list[str] = []
    inside = threading.Event()

    def first() -> None:
        with store.locked(KEY, "1"):
            inside.set()
            time.sleep(0.1)
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    assert inside.wait(60)
    with store.locked(KEY, "1", timeout=60):
        order.append("second")
    thread.join()
    assert order == ["first", "second"]


def test_a_turn_ends_with_its_process(store: IdStore, path: Path) -> None:
    code = (
        "import sys, time\nfrom deploykit.ids import IdStore\n"
        "with IdStore(sys.argv[1]).locked('k', '1'):\n print('in', flush=True)\n time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"in\n"
        with pytest.raises(LockBusy), store.locked("k", "1"):
            pass
        process.kill()
        process.wait()
    with store.locked("k", "1", timeout=60):
        pass


# -- no disk, no action ----------------------------------------------------------------------------------------------


def test_the_file_is_for_its_owner_alone(store: IdStore, path: Path) -> None:
    store.claim(KEY, "1", b"d", NOW)
    with store.locked(KEY, "1"):
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert set(modes.values()) == {0o600}, modes


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666])
def test_a_file_open_to_others_is_refused(path: Path, mode: int) -> None:
    IdStore(path).close()
    path.chmod(mode)
    with pytest.raises(IdStoreError, match=f"mode {mode:04o}.*chmod 600"):
        IdStore(path)


def test_what_is_no_id_store_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    junk = tmp_path / "junk"
    junk.write_bytes(b"this is no database, but it is long enough to look like one" * 100)
    other = tmp_path / "other"
    with sqlite3.connect(other) as database:
        database.execute("CREATE TABLE mine (x)")
    database.close()
    newer = tmp_path / "newer"
    IdStore(newer).close()
    with sqlite3.connect(newer) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    (tmp_path / "link").symlink_to(newer)
    (tmp_path / "directory").mkdir()
    for name, says in {
        "junk": "not a database",
        "other": "database of another program",
        "newer": "format 99, newer than 1",
        "link": "not a plain file",
        "directory": "not a plain file",
    }.items():
        if not (tmp_path / name).is_dir():
            (tmp_path / name).chmod(0o600)
        with pytest.raises(IdStoreError, match=says):
            IdStore(tmp_path / name)
    assert junk.read_bytes().startswith(b"this is no database")


def test_a_claim_that_cannot_be_written_is_an_error_and_not_an_answer(path: Path) -> None:
    store = IdStore(path, busy=0.05)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for act in (
        lambda: store.claim(KEY, "1", b"d", NOW),
        lambda: store.done(KEY, "1", b"", NOW),
        lambda: store.prune(NOW),
    ):
        with pytest.raises(IdStoreError, match=r"locked .*no command is obeyed"):
            act()
    other.execute("ROLLBACK")
    other.close()
    assert store.claim(KEY, "1", b"d", NOW) is Claim.FRESH
    store.close()


def test_a_full_disk_is_an_error_and_not_an_answer(path: Path) -> None:
    with IdStore(path) as store:
        store.claim(KEY, "1", b"d", NOW)
        # SQLite itself says "full" at this limit, as it does for ENOSPC.
        with store._transaction("write to") as db:
            pages = db.execute("PRAGMA page_count").fetchone()[0]
        db.execute(f"PRAGMA max_page_count = {pages}")

        def fill() -> None:
            for n in range(10_000):
                store.claim(KEY, f"more {n}", b"d" * 100, NOW)

        with pytest.raises(IdStoreError, match="full"):
            fill()
        assert store.claim(KEY, "1", b"d", NOW) is Claim.RESUME


def test_an_id_that_sqlite_cannot_hold_is_an_error_and_not_an_answer(store: IdStore) -> None:
    with pytest.raises(IdStoreError):
        store.claim(KEY, "\ud800", b"d", NOW)
    assert store.claim(KEY, "nul \0 and \N{PARTY POPPER}", b"d", NOW) is Claim.FRESH
    assert store.claim(KEY, "nul \0 and \N{PARTY POPPER}", b"d", NOW) is Claim.RESUME
