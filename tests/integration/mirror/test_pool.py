"""Many mirrors in one process: coalesced, bounded, backed off, repaired, and next to nothing while idle."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from deploykit.errors import DeploykitError, MirrorCorrupt, MirrorError, OriginError, UsageError
from deploykit.mirror import FetchResult, Mirror, RefChange, upkeep
from deploykit.mirror.pool import MirrorPool
from deploykit.names import ObjectId, RefName
from deploykit.settings import MirrorSettings
from tests.support import gitserver as gs
from tests.support.gitserver import BLOB, COMMIT, TREE, FakeGitServer
from tests.support.killsweep import sample_size
from tests.support.origins import GitRepo, git_daemon, run_git
from tests.support.ports import free_port
from tests.support.wait import wait_until

MAIN = RefName("refs/heads/main")


class Results:
    """What the pool reported."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, FetchResult | DeploykitError]] = []

    def __call__(self, name: str, outcome: FetchResult | DeploykitError, asked: object) -> None:
        self.seen.append((name, outcome))


class SlowMirror(Mirror):
    """A mirror whose fetches wait for a gate, and are counted."""

    def __init__(self, path: Path, url: str, settings: MirrorSettings) -> None:
        super().__init__(path, url, settings)
        self.gate = threading.Event()
        self.told: list[RefChange | None] = []

    def fetch(self, expected: RefChange | None = None, *args: object, **kwargs: object) -> FetchResult:
        self.told.append(expected)
        assert self.gate.wait(60)
        return super().fetch(expected)


def test_ten_messages_during_a_fetch_are_one_more_fetch(tmp_path: Path) -> None:
    repo = GitRepo.make(tmp_path / "o.git")
    ids = [repo.commit() for _ in range(3)]
    mirror = SlowMirror.open(tmp_path / "m.git", str(repo.path))
    with MirrorPool(workers=2) as pool:
        pool.add("site", mirror, at_once=False)
        first = pool.request("site")
        wait_until(lambda: len(mirror.told) == 1)
        told = RefChange(MAIN, ObjectId(ids[1]), ObjectId(ids[2]))
        answers = [pool.request("site", told) for _ in range(10)]
        mirror.gate.set()
        assert first.result(60).changes
        results = [answer.result(60) for answer in answers]
        assert len(mirror.told) == 2
        assert all(result.confirmed for result in results)
    assert mirror.refs == repo.refs()


def test_a_mirror_that_is_moved_away_right_after_its_fetch_costs_no_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = GitRepo.make(tmp_path / "o.git")
    first = repo.commit()
    mirror = Mirror.open(tmp_path / "m.git", str(repo.path))
    is_due = upkeep.is_due

    def moved(path: Path, settings: MirrorSettings) -> bool:
        """`Path.glob` looks whether a directory is there, and then reads it: this is the moment in between."""
        monkeypatch.setattr(upkeep, "is_due", is_due)
        path.rename(tmp_path / "moved.git")
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))

    monkeypatch.setattr(upkeep, "is_due", moved)
    with MirrorPool(workers=1) as pool:
        pool.add("site", mirror, at_once=False)
        pool.request("site", RefChange(MAIN, ObjectId("0" * 40), ObjectId(first))).result(60)
        wait_until((tmp_path / "moved.git").exists)
        assert pool.request("site").result(60).changes, "the only worker goes on, and makes the mirror anew"
    assert mirror.refs == repo.refs()


def test_a_gap_fetches_everything_at_once(tmp_path: Path) -> None:
    repo = GitRepo.make(tmp_path / "o.git")
    repo.commit()
    mirror = SlowMirror.open(tmp_path / "m.git", str(repo.path))
    mirror.gate.set()
    mirror.fetch()
    missed = repo.commit()
    told = repo.commit()
    repo.git("branch", "other")
    with MirrorPool(workers=1) as pool:
        pool.add("site", mirror, at_once=False)
        result = pool.request("site", RefChange(MAIN, ObjectId(missed), ObjectId(told))).result(60)
        assert result.confirmed is True
    assert mirror.told[-1] is None
    assert mirror.refs == repo.refs()


def test_an_origin_that_is_down_fails_the_request_and_is_tried_again(tmp_path: Path) -> None:
    seen = Results()
    # A port of this test's own, on which nobody listens: that of a server which has ended may be another's by now.
    mirror = Mirror.open(tmp_path / "m.git", f"git://127.0.0.1:{free_port()}/o.git")
    with MirrorPool(workers=2, on_result=seen, chance=lambda: 0.0) as pool:
        pool.add("site", mirror, at_once=False)
        with pytest.raises(OriginError):
            pool.request("site").result(60)
        wait_until(lambda: len(seen.seen) >= 2)
        assert all(isinstance(outcome, OriginError) for _, outcome in seen.seen)


def test_closing_answers_or_cancels_every_request(tmp_path: Path) -> None:
    repo = GitRepo.make(tmp_path / "o.git")
    repo.commit()
    mirror = SlowMirror.open(tmp_path / "m.git", str(repo.path))
    pool = MirrorPool(workers=1)
    pool.add("site", mirror, at_once=False)
    running = pool.request("site")
    wait_until(lambda: len(mirror.told) == 1)
    waiting = pool.request("site")
    closer = threading.Thread(target=pool.close)
    closer.start()
    wait_until(waiting.cancelled)  # else the fetch that ends here would be followed by it, and rightly
    mirror.gate.set()
    closer.join(60)
    assert running.result(60).changes
    with pytest.raises(UsageError):
        pool.request("site")


def test_a_request_for_an_unknown_mirror_is_refused() -> None:
    with MirrorPool(workers=1) as pool, pytest.raises(UsageError, match="no mirror"):
        pool.request("nothing")


def test_a_damaged_mirror_is_set_aside_and_cloned_anew(tmp_path: Path) -> None:
    repo = GitRepo.make(tmp_path / "o.git")
    text = os.urandom(20_000)
    repo.commit({"a": text})
    mirror = Mirror.open(tmp_path / "m.git", str(repo.path))
    mirror.fetch()
    (pack,) = (mirror.path / "objects" / "pack").glob("*.pack")
    pack.chmod(0o644)
    pack.write_bytes(pack.read_bytes()[:12] + b"\xff" * (pack.stat().st_size - 12))
    assert not mirror.check().sound
    commit = repo.commit({"a": text + b"more"})
    with MirrorPool(workers=1) as pool:
        pool.add("site", mirror, at_once=False)
        assert pool.request("site").result(60).changes == ()
    assert mirror.refs == {MAIN: commit}
    assert mirror.check().sound
    assert (tmp_path / "m.git.damaged").is_dir()


def test_a_mirror_that_a_reader_found_damaged_is_cloned_anew_but_not_again_and_again(tmp_path: Path) -> None:
    repo = GitRepo.make(tmp_path / "o.git")
    commit = repo.commit()
    mirror = Mirror.open(tmp_path / "m.git", str(repo.path))
    seen = Results()
    with MirrorPool(workers=1, on_result=seen) as pool:
        pool.add("site", mirror, at_once=False)
        pool.reclone("site")
        wait_until(lambda: len(seen.seen) >= 1)
        assert (tmp_path / "m.git.damaged").is_dir()
        assert mirror.refs == {MAIN: commit}
        pool.reclone("site")
        wait_until(lambda: len(seen.seen) >= 2)
        assert isinstance(seen.seen[1][1], MirrorCorrupt)


def test_a_mirror_that_was_removed_is_made_again(tmp_path: Path) -> None:
    repo = GitRepo.make(tmp_path / "o.git")
    commit = repo.commit()
    mirror = Mirror.open(tmp_path / "m.git", str(repo.path))
    mirror.fetch()
    shutil.rmtree(mirror.path)
    assert mirror.fetch().changes
    assert mirror.refs == {MAIN: commit}


def test_an_origin_that_stalls_holds_up_no_other_and_no_thread_is_started_for_nothing(tmp_path: Path) -> None:
    repo = GitRepo.make(tmp_path / "o.git")
    repo.commit()
    fine = Mirror.open(tmp_path / "fine.git", str(repo.path))
    slow = [SlowMirror(tmp_path / f"m{n}.git", f"git://127.0.0.1:1/{n}", MirrorSettings()) for n in range(20)]
    pool = MirrorPool()
    try:
        for n, mirror in enumerate(slow):
            pool.add(f"m{n}", mirror, at_once=False)
        pool.add("fine", fine, at_once=False)
        assert len(pool._threads) == 1
        answers = [pool.request(f"m{n}") for n in range(20)]
        wait_until(lambda: sum(len(mirror.told) for mirror in slow) == 4)
        assert pool.request("fine").result(60).changes
        assert sum(len(mirror.told) for mirror in slow) == 4
        assert len(pool._threads) <= 6
        for mirror in slow:
            mirror.gate.set()
        with pytest.raises(OriginError):
            answers[0].result(60)
    finally:
        for mirror in slow:
            mirror.gate.set()
        pool.close()


def test_packs_are_joined_when_they_pile_up_and_nothing_is_lost(tmp_path: Path) -> None:
    repo = GitRepo.make(tmp_path / "o.git")
    mirror = Mirror.open(tmp_path / "m.git", str(repo.path), MirrorSettings(repack_after=5))
    for n in range(8):
        repo.commit({"a": b"x\n" * n, f"f{n}": os.urandom(50)})
        mirror.fetch()
    assert len(list((mirror.path / "objects/pack").glob("*.pack"))) == 8
    with MirrorPool(workers=1) as pool:
        pool.add("site", mirror, at_once=False)
        pool.request("site").result(60)
        wait_until(lambda: len(list((mirror.path / "objects/pack").glob("*.pack"))) < 5)
    assert mirror.refs == repo.refs()
    assert mirror.check().sound
    assert run_git(mirror.path, "fsck", "--strict") == ""


def test_full_upkeep_drops_what_no_ref_reaches(tmp_path: Path) -> None:
    repo = GitRepo.make(tmp_path / "o.git")
    first = repo.commit()
    mirror = Mirror.open(tmp_path / "m.git", str(repo.path))
    gone = repo.commit({"big": os.urandom(5000)})
    mirror.fetch()
    repo.git("update-ref", "refs/heads/main", first)
    mirror.fetch()
    assert mirror.resolve(gone).commit == gone
    run_git(mirror.path, "update-ref", "refs/heads/by-hand", first)
    (mirror.path / "objects/pack/tmp_pack_left").touch()
    done = mirror.upkeep(full=True)
    assert done.packs_after == 1
    assert mirror.check().objects == 3
    assert not list((mirror.path / "objects/pack").glob("tmp_*"))
    assert set(mirror.refs) == {MAIN, "refs/heads/by-hand"}
    assert not (mirror.path / "refs/heads/by-hand").exists()


def test_a_reader_goes_on_while_upkeep_replaces_the_packs(tmp_path: Path) -> None:
    repo = GitRepo.make(tmp_path / "o.git")
    with Mirror.open(tmp_path / "m.git", str(repo.path)) as mirror:
        commits = []
        for n in range(4):
            commits.append(repo.commit({"a": os.urandom(100), f"f{n}": b"x"}))
            mirror.fetch()
        store = mirror.store
        assert store[commits[0].encode()].id == commits[0].encode()  # type: ignore[index]
        mirror.upkeep(full=True)
        for commit in commits:
            assert store[commit.encode()].id == commit.encode()  # type: ignore[index]


class TestRepositoriesSomebodyElseMade:
    def test_a_whole_one_is_taken_over(self, tmp_path: Path) -> None:
        repo = GitRepo.make(tmp_path / "o.git")
        repo.commit()
        repo.git("tag", "-a", "-m", "t", "v1")
        run_git(tmp_path, "clone", "-q", "--mirror", str(repo.path), str(tmp_path / "m.git"))
        mirror = Mirror.open(tmp_path / "m.git", str(repo.path))
        repo.commit()
        mirror.fetch()
        assert mirror.refs == repo.refs()
        assert mirror.check().sound
        assert run_git(mirror.path, "show-ref", "-d") == repo.git("show-ref", "-d")

    def test_an_old_index_and_what_a_killed_git_left_are_no_damage(self, tmp_path: Path) -> None:
        repo = GitRepo.make(tmp_path / "o.git")
        for n in range(3):
            repo.commit({"a": b"%d" % n, f"d/{n}": os.urandom(99)})
        theirs = tmp_path / "m.git"
        shutil.copytree(repo.path, theirs)
        run_git(theirs, "-c", "pack.indexVersion=1", "repack", "-a", "-d", "-q", "-f")
        (theirs / "objects" / "ab").mkdir(exist_ok=True)
        (theirs / "objects" / "ab" / "tmp_obj_Xy12").write_bytes(b"cut off")
        mirror = Mirror.open(theirs, str(repo.path))
        repo.commit()
        mirror.fetch()
        assert mirror.refs == repo.refs()
        assert mirror.check().problems == ()
        (index,) = (i for i in theirs.glob("objects/pack/*.idx") if not i.read_bytes().startswith(b"\xfftOc"))
        index.chmod(0o644)
        data = index.read_bytes()
        index.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))  # another byte, whatever it was
        assert "does not match its pack" in mirror.check().problems[0]

    def test_one_that_lacks_an_object_is_refused_by_name(self, tmp_path: Path) -> None:
        repo = GitRepo.make(tmp_path / "m.git")
        repo.commit({"a": b"1"})
        blob = repo.git("rev-parse", "main:a")
        (repo.path / "objects" / blob[:2] / blob[2:]).unlink()
        with pytest.raises(MirrorCorrupt, match=f"blob {blob} is missing"):
            Mirror.open(repo.path, str(tmp_path / "o.git")).fetch()

    def test_a_place_where_no_mirror_can_be_made_is_a_mirrors_error(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        for path in (tmp_path / "file" / "m.git", tmp_path / ("x" * 300)):
            with pytest.raises(MirrorError):
                Mirror.open(path, "/somewhere")

    def test_a_directory_that_is_no_repository_is_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / "m.git").mkdir()
        (tmp_path / "m.git" / "precious").touch()
        with pytest.raises(UsageError, match="not empty"):
            Mirror.open(tmp_path / "m.git", "/somewhere")
        assert (tmp_path / "m.git" / "precious").exists()
        assert [p.name for p in tmp_path.iterdir()] == ["m.git"]


BLOB_ID = gs.oid_of(BLOB, b"hello\n")
TREE_DATA = gs.tree_of((b"100644", b"file", BLOB_ID))
COMMIT_DATA = gs.commit_of(gs.oid_of(TREE, TREE_DATA))
COMMIT_ID = gs.oid_of(COMMIT, COMMIT_DATA).hex()
PACK = gs.pack(gs.entry(COMMIT, COMMIT_DATA), gs.entry(TREE, TREE_DATA), gs.entry(BLOB, b"hello\n"))


def test_a_told_ref_takes_one_connection_and_one_round_trip(tmp_path: Path) -> None:
    with FakeGitServer(refs={MAIN: COMMIT_ID}, pack=PACK) as server:
        mirror = Mirror.open(tmp_path / "m.git", server.url)
        mirror.fetch()
        child = gs.commit_of(gs.oid_of(TREE, TREE_DATA), bytes.fromhex(COMMIT_ID), when=1_700_000_100)
        child_id = gs.oid_of(COMMIT, child).hex()
        server.refs = {MAIN: child_id}
        server.pack = gs.pack(gs.entry(COMMIT, child))
        server.connections, server.asked = 0, []
        result = mirror.fetch(RefChange(MAIN, ObjectId(COMMIT_ID), ObjectId(child_id)))
        assert [change.new for change in result.changes] == [child_id]
        assert server.connections == 1
        assert b"ref-prefix refs/heads/main" in server.asked
        assert not any(line.startswith(b"ref-prefix refs/tags") for line in server.asked)
        assert [line for line in server.asked if line.startswith(b"have")] == [b"have " + COMMIT_ID.encode()]


_IDLE = """
import os, resource, sys
from pathlib import Path
from deploykit.mirror import Mirror
from deploykit.mirror.pool import MirrorPool
home, url, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
pool = MirrorPool(every=3600)
names = [f"m{n}" for n in range(count)]
for name in names:
    pool.add(name, Mirror.open(home / name, url), at_once=False)
for answer in [pool.request(name) for name in names]:
    assert answer.result(500).head
status = Path("/proc/self/status").read_text().splitlines()
print(next(line.split()[1] for line in status if line.startswith("VmRSS")), len(os.listdir("/proc/self/fd")))
"""


@pytest.mark.slow
def test_hundreds_of_idle_mirrors_take_little_memory_and_few_files(tmp_path: Path) -> None:
    """Five hundred in `nox -s sweep`; in CI, fewer, but more than the files that may be open."""
    count = 500 if sample_size() is None else 150
    repo = GitRepo.make(tmp_path / "served" / "o.git")
    for n in range(5):
        repo.commit({f"file{n}": os.urandom(3000)})
    for n in range(200):
        repo.git("update-ref", f"refs/tags/v{n}", "main")
    with git_daemon(tmp_path / "served") as server:
        argv = [sys.executable, "-c", _IDLE, str(tmp_path / "mirrors"), server.url("o.git"), str(count)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=550)
    assert done.returncode == 0, done.stderr
    kilobytes, files = map(int, done.stdout.split())
    print(f"{count} mirrors idle: {kilobytes / 1024:.0f} MB resident, {files} open files")
    assert kilobytes < 80 * 1024
    assert files < 100
