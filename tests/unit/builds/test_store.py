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
from deploykit.names import RefName, RepoName
from tests.support.builds import COMMIT, DAY, JENKINS, JOB, NOW, OTHER, SHOP, STRANGER, result, signed

MAIN = RefName("refs/heads/main")


@pytest.fixture
def store(tmp_path: Path) -> BuildStore:
    return BuildStore(tmp_path / "state" / "builds.sqlite")


def put(store: BuildStore, message: BuildFinished, signer: str = JENKINS.fingerprint) -> SignedResult:
    made = signed(message)
    store.put(made, message, signer, NOW)
    return made


def of(store: BuildStore, *jobs: str) -> tuple[SignedResult, ...]:
    """What a gate would be told of the commit."""
    return store.of(SHOP, COMMIT, jobs or (JOB,), since=NOW - 90 * DAY, until=NOW)


def test_a_result_is_kept_byte_for_byte_and_once(store: BuildStore) -> None:
    message = result()
    made = signed(message)
    assert not store.has(made)
    assert [store.put(made, message, "SHA256:x", NOW) for _ in range(2)] == [True, False]
    assert store.has(made)
    assert of(store) == (made,)
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
    assert [of(store), store.find(), store.owed()] == [(), (), frozenset()]
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
    assert len(of(store, JOB, "lint")) == 2


def test_of_many_builds_the_highest_numbers_are_read_of_each_key(store: BuildStore) -> None:
    for number in range(1, 12):
        put(store, result(number=number))
    put(store, result(number=3, outcome="failure"), STRANGER.fingerprint)
    numbers = [each.unverified().number for each in of(store)]
    assert sorted(numbers) == [3, 7, 8, 9, 10, 11]


def test_the_worse_result_of_one_number_is_among_those_that_are_read(store: BuildStore) -> None:
    for at in range(8):
        put(store, result(url=f"https://ci/{at}"))
    failed = result(outcome="failure")
    store.put(signed(failed), failed, JENKINS.fingerprint, NOW + DAY)  # it came last
    assert "failure" in {each.unverified().outcome for each in of(store)}


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


@pytest.mark.parametrize("large", [False, True])
def test_threat_21_no_key_pushes_out_the_results_of_another(tmp_path: Path, large: bool) -> None:
    store = BuildStore(tmp_path / "few.sqlite", most=10_000 if large else 20, most_bytes=200_000)
    for number in range(1, 9):
        put(store, result(number=number, time=NOW - DAY))
    for number in range(1, 80):
        url = "x" * 20_000 if large else ""
        flood = result(job="other", number=number, url=url, time=NOW - DAY + number * (DAY / 100))
        put(store, flood, STRANGER.fingerprint)
    assert len(store.find(job=JOB)) == 8
    assert 2 <= len(store.find(job="other")) <= 12
    assert store.find(job="other", number=79)


def test_what_no_result_can_have_is_not_found(store: BuildStore) -> None:
    put(store, result())
    assert store.find(number=2**70) == store.find(job="\udcff") == ()
    assert len(store.find(limit=2**70)) == 1


def test_of_other_jobs_nothing_is_read(store: BuildStore) -> None:
    put(store, result(job="lint"))
    kept = put(store, result())
    assert of(store) == (kept,)
    assert len(of(store, JOB, "lint")) == 2
    assert of(store, "'); --") == ()


def test_a_repository_owes_a_fetch_until_it_was_fetched(store: BuildStore) -> None:
    for ref, commit in ((None, None), (MAIN, OTHER), (MAIN, COMMIT)):
        store.owe_fetch(SHOP, ref, commit)
    assert BuildStore(store.path).owed() == {"shop"}
    assert store.owed_refs(SHOP) == {None: None, MAIN: COMMIT}
    assert store.owed_refs(RepoName("blog")) == {}
    store.fetched(SHOP, [None])
    assert store.owed_refs(SHOP) == {MAIN: COMMIT}
    store.fetched(SHOP, [MAIN])
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
    assert put(store, result(number=20_000)) in of(store)


def test_what_a_kill_left_of_a_transaction_is_undone_by_who_only_reads(store: BuildStore) -> None:
    kept = put(store, result())
    code = (
        "import os, sqlite3, sys; db = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "db.execute('PRAGMA cache_size = 1'); db.execute('BEGIN IMMEDIATE')\n"
        "db.execute('DELETE FROM results')\n"
        "db.executemany('INSERT INTO owed VALUES (?, 1, 1)', [('x' * 500 + str(n),) for n in range(2000)])\n"
        "os._exit(0)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(store.path)], check=True)
    assert store.path.with_name("builds.sqlite-journal").stat().st_size > 0, "nothing to undo: the test proves nothing"
    assert (of(store), store.owed()) == ((kept,), frozenset())


@pytest.mark.parametrize("damage", ["text", "middle"])
def test_a_damaged_file_is_named_with_the_way_out(store: BuildStore, damage: str) -> None:
    for number in range(1, 30):
        put(store, result(number=number))
    content = store.path.read_bytes()
    store.path.write_bytes(b"nonsense" * 1000 if damage == "text" else content[:4096] + b"\xff" * (len(content) - 4096))
    for act in (lambda: of(store), lambda: put(store, result())):
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
        of(store)
    store.path.unlink()
    store.path.symlink_to(store.path.with_name("elsewhere"))
    with pytest.raises(BuildStoreError, match="not a plain file"):
        of(store)
