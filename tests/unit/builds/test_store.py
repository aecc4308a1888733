"""The store of build results: durable, bounded, shared by processes, and clear about what is wrong with its file."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from deploykit.builds import BuildStore, SignedResult
from deploykit.errors import BuildStoreError
from deploykit.messages import BuildFinished
from tests.support.builds import COMMIT, DAY, JENKINS, JOB, NOW, OTHER, SHOP, STRANGER, result, signed


@pytest.fixture
def store(tmp_path: Path) -> BuildStore:
    return BuildStore(tmp_path / "state" / "builds.sqlite")


def put(store: BuildStore, message: BuildFinished, signer: str = JENKINS.fingerprint) -> SignedResult:
    made = signed(message)
    store.put(made, message, signer, NOW)
    return made


def test_a_result_is_kept_byte_for_byte_and_once(store: BuildStore) -> None:
    message = result()
    made = signed(message)
    assert [store.put(made, message, "SHA256:x", NOW) for _ in range(2)] == [True, False]
    assert store.of(SHOP, COMMIT) == (made,)
    (found,) = store.find()
    assert (found.signed, found.repo, found.commit, found.job, found.number, found.outcome) == (
        made,
        SHOP,
        COMMIT,
        JOB,
        41,
        "success",
    )
    assert (found.time, found.received, found.signer) == (message.time, NOW, "SHA256:x")


def test_nothing_is_made_by_reading(store: BuildStore) -> None:
    assert [store.of(SHOP, COMMIT), store.find(), store.owed()] == [(), (), frozenset()]
    assert [store.count(), store.prune(NOW)] == [0, 0]
    assert not store.path.exists()


def test_results_are_found_by_what_they_are_of(store: BuildStore) -> None:
    put(store, result())
    put(store, result(number=42, outcome="failure", time=NOW))
    put(store, result(commit=OTHER, job="lint"))
    assert [each.number for each in store.find(repo="shop", commit="1a2b")] == [42, 41]
    assert [each.job for each in store.find(job="lint")] == ["lint"]
    assert [each.number for each in store.find(number=42)] == [42]
    assert len(store.find(limit=1)) == 1
    assert store.find(repo="blog") == store.find(commit="%") == ()
    assert len(store.of(SHOP, COMMIT)) == 2


def test_of_many_builds_the_highest_numbers_are_read_of_each_key(store: BuildStore) -> None:
    for number in range(1, 12):
        put(store, result(number=number))
    put(store, result(number=3, outcome="failure"), STRANGER.fingerprint)
    numbers = [each.unverified().number for each in store.of(SHOP, COMMIT)]
    assert sorted(numbers) == [3, 7, 8, 9, 10, 11]


def test_the_worse_result_of_one_number_is_among_those_that_are_read(store: BuildStore) -> None:
    for at in range(8):
        put(store, result(url=f"https://ci/{at}"))
    failed = result(outcome="failure")
    store.put(signed(failed), failed, JENKINS.fingerprint, NOW + DAY)  # it came last
    assert "failure" in {each.unverified().outcome for each in store.of(SHOP, COMMIT)}


def test_old_results_are_dropped(store: BuildStore) -> None:
    put(store, result(time=NOW - 91 * DAY))
    put(store, result(time=NOW - 89 * DAY))
    assert store.prune(NOW - 90 * DAY) == 1
    assert store.count() == 1


def test_of_too_many_or_too_large_ones_the_oldest_are_dropped(tmp_path: Path) -> None:
    few = BuildStore(tmp_path / "few.sqlite", most=20)
    for number in range(1, 60):
        put(few, result(number=number, time=NOW - DAY + number * (DAY / 100)))
        assert few.count() <= 20
    assert few.find(limit=1)[0].number == 59
    assert few.count() >= 17
    small = BuildStore(tmp_path / "small.sqlite", most_bytes=100_000)
    for number in range(1, 12):
        put(small, result(number=number, url="x" * 20_000, time=NOW - DAY + number * (DAY / 100)))
    assert 2 <= small.count() <= 4
    assert small.find(limit=1)[0].number == 11


def test_a_repository_owes_a_fetch_until_it_was_fetched(store: BuildStore) -> None:
    store.owe_fetch(SHOP)
    store.owe_fetch(SHOP)
    assert BuildStore(store.path).owed() == {"shop"}
    store.fetched(SHOP)
    assert store.owed() == set()


def test_many_threads_write_at_once(store: BuildStore) -> None:
    threads = [
        threading.Thread(target=lambda at=at: [put(store, result(number=at * 10 + n)) for n in range(1, 6)])
        for at in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.count() == 20


def test_what_put_returned_for_survives_a_kill(store: BuildStore) -> None:
    code = (
        "import sys; from pathlib import Path; from deploykit.builds import BuildStore\n"
        "from tests.support.builds import *\n"
        "store = BuildStore(Path(sys.argv[1]))\n"
        "for number in range(1, 10000):\n"
        "    store.put(signed(result(number=number)), result(number=number), 'k', NOW)\n"
        "    print(number, flush=True)\n"
    )
    root = str(Path(__file__).parents[3])
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(store.path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": root},
    )
    assert child.stdout is not None
    with child, child.stdout:
        kept = [next(child.stdout) for _ in range(5)]
        child.send_signal(signal.SIGKILL)
        kept += child.stdout.readlines()
    numbers = {each.number for each in store.find()}
    assert {int(line) for line in kept if line.strip()} <= numbers
    assert len(numbers) - len(kept) in (0, 1)
    assert put(store, result(number=20_000)) in store.of(SHOP, COMMIT)


def test_what_a_kill_left_of_a_transaction_is_undone_by_who_only_reads(store: BuildStore) -> None:
    kept = put(store, result())
    code = (
        "import os, sqlite3, sys; db = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "db.execute('PRAGMA cache_size = 1'); db.execute('BEGIN IMMEDIATE')\n"
        "db.execute('DELETE FROM results')\n"
        "db.executemany('INSERT INTO owed VALUES (?)', [('x' * 500 + str(n),) for n in range(2000)])\n"
        "os._exit(0)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(store.path)], check=True)
    assert store.path.with_name("builds.sqlite-journal").stat().st_size > 0, "nothing to undo: the test proves nothing"
    assert (store.of(SHOP, COMMIT), store.owed()) == ((kept,), frozenset())


@pytest.mark.parametrize("damage", ["text", "middle"])
def test_a_damaged_file_is_named_with_the_way_out(store: BuildStore, damage: str) -> None:
    for number in range(1, 30):
        put(store, result(number=number))
    content = store.path.read_bytes()
    store.path.write_bytes(b"nonsense" * 1000 if damage == "text" else content[:4096] + b"\xff" * (len(content) - 4096))
    for act in (lambda: store.of(SHOP, COMMIT), lambda: put(store, result())):
        with pytest.raises(BuildStoreError, match=r"builds\.sqlite.*move it away"):
            act()


def test_a_file_of_another_program_or_a_newer_version_is_refused(tmp_path: Path) -> None:
    for name, sql, text in (
        ("other", "CREATE TABLE x (y)", "another program"),
        ("newer", "PRAGMA application_id = 1685086820; PRAGMA user_version = 9", "newer than 1"),
    ):
        path = tmp_path / name
        db = sqlite3.connect(path)
        db.executescript(sql)
        db.close()
        path.chmod(0o640)
        with pytest.raises(BuildStoreError, match=text):
            put(BuildStore(path), result())


def test_a_file_that_others_can_write_to_is_refused(store: BuildStore) -> None:
    put(store, result())
    assert store.path.stat().st_mode & 0o777 == 0o640
    store.path.chmod(0o660)
    with pytest.raises(BuildStoreError, match="chmod 640"):
        store.of(SHOP, COMMIT)
    store.path.unlink()
    store.path.symlink_to(store.path.with_name("elsewhere"))
    with pytest.raises(BuildStoreError, match="not a plain file"):
        store.of(SHOP, COMMIT)
