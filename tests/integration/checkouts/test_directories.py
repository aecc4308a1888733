"""Directories of refs, from real repositories through real mirrors."""

from __future__ import annotations

import logging
import os
import pwd
import subprocess
import threading
from pathlib import Path
from typing import Any

import attrs
import pytest

from deploykit.checkouts import CheckoutResult, Checkouts
from deploykit.errors import PreflightRefused
from deploykit.names import RefName
from deploykit.system.lock import FileLock
from tests.support.checkouts import CheckoutSweep, Scene
from tests.support.disks import caseless_disk, small_disk
from tests.support.killsweep import NEEDS_SPACE, Run, error_sweep, kill_sweep, sample_size
from tests.support.needs import needs_root
from tests.support.origins import GitRepo, run_git
from tests.support.strangers import NOBODY, as_nobody, common_directory
from tests.support.wait import wait_until


def test_puppetmaster_follows_every_branch_and_removes_what_is_gone(tmp_path: Path) -> None:
    scene = Scene(tmp_path, "puppetmaster")
    repo, root = scene.repo, scene.target
    repo.commit({"manifests/site.pp": b"1", "link": "manifests/site.pp"})
    repo.git("branch", "feature/X-1", "main")
    scene.update()
    assert sorted(p.name for p in root.iterdir() if p.name != ".deploykit") == ["feature_x_1", "main"]
    scene.expect(root / "main", "main")
    repo.commit({"manifests/site.pp": b"2", "modules/a": b"x"}, branch="feature/X-1")
    result = scene.update()
    assert [change.ref for change in result.changed] == ["refs/heads/feature/X-1"]
    scene.expect(root / "feature_x_1", "feature/X-1")
    scene.expect(root / "main", "main")
    repo.git("branch", "-D", "feature/X-1")
    result = scene.update()
    assert result.removed == (root / "feature_x_1",)
    assert not os.path.lexists(root / "feature_x_1")
    assert scene.update() == CheckoutResult()


def test_only_the_refs_that_are_named_are_shown_anew(tmp_path: Path) -> None:
    scene = Scene(tmp_path, "puppetmaster")
    repo, root = scene.repo, scene.target
    repo.commit({"site.pp": b"1"})
    repo.git("branch", "dev", "main")
    scene.update()
    for branch in ("main", "dev"):
        repo.commit({"site.pp": b"2"}, branch=branch)
    repo.git("branch", "new", "main")
    scene.mirror.fetch()
    result = scene.checkouts.update(scene.mirror, {RefName("refs/heads/dev")})
    assert [change.ref for change in result.changed] == ["refs/heads/dev"]
    assert (root / "main" / "site.pp").read_bytes() == b"1"
    assert not (root / "new").exists()
    assert scene.checkouts.update(scene.mirror, ()) == CheckoutResult()
    assert len(scene.checkouts.update(scene.mirror).changed) == 2


def test_tags_keep_a_directory_each(tmp_path: Path) -> None:
    scene = Scene(tmp_path, "tags")
    for n in (1, 2):
        scene.repo.commit({"version": b"%d" % n})
        scene.repo.git("tag", "-a", "-m", "t", f"v{n}")
    scene.update()
    scene.expect(scene.target / "v1", "v1")
    scene.expect(scene.target / "v2", "v2")
    scene.repo.git("tag", "-d", "v1")
    scene.repo.git("tag", "-f", "v2", "main~1")
    scene.update()
    assert not (scene.target / "v1").exists()
    scene.expect(scene.target / "v2", "main~1")


@pytest.mark.parametrize("mode", ["trusting", "branch"])
def test_one_branch_in_the_target_itself(mode: str, tmp_path: Path) -> None:
    scene = Scene(tmp_path, mode, branch="live" if mode == "branch" else "")
    scene.repo.commit({"a": b"1"})
    scene.repo.git("branch", "live", "main")
    scene.update()
    scene.expect(scene.target, "main")
    scene.repo.commit({"a": b"2"})
    assert bool(scene.update().changed) is (mode == "trusting")
    scene.repo.commit({"a": b"3"}, branch="live")
    assert bool(scene.update().changed) is (mode == "branch")
    scene.expect(scene.target, "main" if mode == "trusting" else "live")
    scene.repo.git("update-ref", "-d", "refs/heads/live")
    scene.repo.git("update-ref", "-d", "refs/heads/main")
    scene.update()
    assert scene.target.exists(), "the site of a deleted branch stays"


def test_mode_dangerous_leaves_a_clone_alone_and_may_be_called_trusting_later(tmp_path: Path) -> None:
    """Inside the clone is where the original checked out."""
    scene = Scene(tmp_path, "dangerous")
    scene.repo.commit({"a": b"1"})
    scene.target.parent.mkdir()
    subprocess.run(["git", "clone", "-q", str(scene.repo.path), str(scene.target)], check=True)
    (scene.target / "a").write_text("edited")
    before = {p: p.lstat() for p in (scene.target, *scene.target.rglob("*"))}
    scene.repo.commit({"a": b"2"})
    why = scene.update().refused["refs/heads/main"]
    assert f"{scene.target} is not a checkout: a real directory (see what it holds that no repository has: " in why
    assert f"deploykit checkout adopt {scene.target} --dry-run; without --dry-run the checkout takes its place" in why
    assert {p: p.lstat() for p in (scene.target, *scene.target.rglob("*"))} == before
    subprocess.run(["mv", str(scene.target), f"{scene.target}.before"], check=True)
    scene.update()
    scene.expect(scene.target, "main")
    scene.checkouts = Checkouts(attrs.evolve(scene.settings, mode="trusting"))
    scene.repo.commit({"a": b"3"})
    assert [change.written for change in scene.update().changed] == [1]
    scene.expect(scene.target, "main")


@pytest.mark.parametrize("what", ["a b", "a'$(id)"])
def test_the_way_to_move_a_file_away_can_be_pasted_into_a_shell(what: str, tmp_path: Path) -> None:
    scene = Scene(tmp_path, "trusting")
    scene.target = tmp_path / "root" / what
    scene.checkouts = Checkouts(attrs.evolve(scene.settings, target=scene.target))
    scene.repo.commit({"a": b"1"})
    scene.target.parent.mkdir()
    scene.target.write_text("keep")
    why = scene.update().refused["refs/heads/main"]
    command = why.partition(": a file (")[2].partition("; the next")[0]
    subprocess.run(["sh", "-c", command], check=True)
    assert (tmp_path / "root" / f"{what}.before").read_text() == "keep"
    assert scene.update().refused == {}
    scene.expect(scene.target, "main")


def test_atomic_puts_each_branch_beside_the_target(tmp_path: Path) -> None:
    scene = Scene(tmp_path, "atomic")
    scene.repo.commit({"a": b"1"})
    scene.repo.git("branch", "topic/x", "main")
    scene.update()
    scene.expect(tmp_path / "root" / "site_main", "main")
    scene.expect(tmp_path / "root" / "site_topic%2Fx", "main")


def test_only_changed_files_are_written_and_deleted_ones_go(tmp_path: Path) -> None:
    scene = Scene(tmp_path, "trusting")
    files: dict[str, bytes | str] = {f"d{n % 7}/f{n}": os.urandom(100) for n in range(100)}
    for n in range(3):
        files = {**files, "d0/f0": b"%d" % n}
        scene.repo.commit(files)
        scene.update()
    del files["d1/f1"]
    files["d2/f2"] = b"new"
    scene.repo.commit(files)
    change = scene.update().changed[0]
    assert change.written <= 3, "the spare is two commits behind"
    assert change.removed == 1
    scene.expect(scene.target, "main")


def test_hand_made_changes_do_not_survive_in_the_next_copy(tmp_path: Path) -> None:
    scene = Scene(tmp_path, "trusting")
    scene.repo.commit({"a": b"1", "b": b"1"})
    scene.update()
    (scene.target / "a").write_bytes(b"edited")
    (scene.target / "stray").touch()
    assert [d.lines() for d in scene.checkouts.verify().values()] == [["modified a", "added stray"]]
    for n in (2, 3):
        scene.repo.commit({"a": b"1", "b": b"%d" % n})
        scene.update()
        scene.expect(scene.target, "main")
    assert scene.checkouts.verify() == {}


def test_a_reader_sees_one_tree_or_the_other(tmp_path: Path) -> None:
    """Read all files through one open directory again and again while the tree changes under it."""
    scene = Scene(tmp_path, "trusting", grace=60)
    names = [f"f{n}" for n in range(30)]
    scene.repo.commit(dict.fromkeys(names, b"0"))
    scene.update()
    stop = threading.Event()
    mixed: list[set[bytes]] = []
    reads = 0

    def read() -> None:
        nonlocal reads
        while not stop.is_set():
            fd = os.open(scene.target, os.O_RDONLY | os.O_DIRECTORY)
            seen = set()
            for name in names:
                file = os.open(name, os.O_RDONLY, dir_fd=fd)
                seen.add(os.read(file, 100))
                os.close(file)
            os.close(fd)
            reads += 1
            if len(seen) != 1:
                mixed.append(seen)

    reader = threading.Thread(target=read)
    reader.start()
    for n in range(1, 6):
        scene.repo.commit(dict.fromkeys(names, b"%d" % n))
        scene.update()
    stop.set()
    reader.join()
    assert reads > 10
    assert mixed == []
    copies = [p for p in (tmp_path / "root" / ".deploykit").rglob("*") if p.is_dir() and len(p.name) == 1]
    assert len(copies) <= 8


@pytest.mark.parametrize("what", ["directory", "file", "symlink"])
def test_what_is_not_ours_is_never_replaced_or_removed(what: str, tmp_path: Path) -> None:
    scene = Scene(tmp_path, "puppetmaster")
    scene.repo.commit({"a": b"1"})
    scene.repo.git("branch", "other", "main")
    scene.target.mkdir(parents=True)
    precious = scene.target / "main"
    if what == "directory":
        precious.mkdir()
        (precious / "keep").touch()
    elif what == "file":
        precious.touch()
    else:
        precious.symlink_to("/etc")
    before = precious.lstat()
    result = scene.update()
    assert "is not a checkout" in result.refused["refs/heads/main"] or "is a real" in result.refused["refs/heads/main"]
    assert [change.ref for change in result.changed] == ["refs/heads/other"]
    scene.repo.git("update-ref", "-d", "refs/heads/main")
    scene.update()
    assert precious.lstat().st_ino == before.st_ino


CONFUSING = [".git", ".GIT", ".Git", "git~1", ".git ", ".git.", ".g\u200cit", ".git::$INDEX_ALLOCATION", "..", "."]


@pytest.mark.parametrize("name", CONFUSING)
def test_a_tree_with_a_confusing_name_is_refused_and_the_rest_goes_on(name: str, tmp_path: Path) -> None:
    scene = Scene(tmp_path, "puppetmaster")
    repo = scene.repo
    repo.commit({"a": b"1"})
    blob = repo.blob(b"owned")
    inner = repo.git("mktree", data=f"100644 blob {blob}\tconfig\n".encode())
    evil = hash_tree(repo, b"40000", name, inner)
    repo.commit(tree=evil, branch="evil", parents=())
    before = snapshot(tmp_path, but=scene.target)
    result = scene.update()
    assert set(result.refused) == {"refs/heads/evil"}
    assert [change.ref for change in result.changed] == ["refs/heads/main"]
    assert not os.path.lexists(scene.target / "evil")
    assert snapshot(tmp_path, but=scene.target) == before


def hash_tree(repo: GitRepo, mode: bytes, name: str, oid: str) -> str:
    """A tree that git's own porcelain would not make."""
    data = mode + b" " + name.encode() + b"\0" + bytes.fromhex(oid)
    return repo.git("hash-object", "-t", "tree", "--literally", "-w", "--stdin", data=data)


def snapshot(home: Path, *, but: Path) -> set[str]:
    """Every path outside the checkout's root, the mirror and the origin."""
    return {str(p) for p in home.rglob("*") if not p.is_relative_to(but.parent) and ".git" not in str(p)}


@pytest.mark.parametrize("target", ["/etc/passwd", "../../outside", "a/../../../x"])
def test_a_symlink_out_of_the_tree_is_refused(target: str, tmp_path: Path) -> None:
    scene = Scene(tmp_path, "trusting")
    scene.repo.commit({"a": b"1"})
    scene.update()
    scene.repo.commit({"a": b"2", "link": target})
    result = scene.update()
    assert "leads out of the tree" in result.refused["refs/heads/main"]
    assert (scene.target / "a").read_bytes() == b"1"


def test_a_file_below_a_symlink_writes_nothing_through_it(tmp_path: Path) -> None:
    scene = Scene(tmp_path, "trusting", symlinks="any")
    repo = scene.repo
    link = repo.blob(str(tmp_path).encode())
    inner = repo.git("mktree", data=f"100644 blob {repo.blob(b'pwned')}\tpwned\n".encode())
    both = b"120000 dir\0" + bytes.fromhex(link) + b"40000 dir\0" + bytes.fromhex(inner)
    tree = repo.git("hash-object", "-t", "tree", "--literally", "-w", "--stdin", data=both)
    repo.commit(tree=tree)
    result = scene.update()
    assert result.refused
    assert not list(tmp_path.glob("pwned"))


def test_a_tree_bomb_is_refused_at_the_cap(tmp_path: Path) -> None:
    scene = Scene(tmp_path, "trusting", max_entries=10_000)
    repo = scene.repo
    repo.commit({"a": b"1"})
    scene.update()
    tree = repo.git("mktree", data=f"100644 blob {repo.blob(b'x')}\tf\n".encode())
    for _ in range(10):
        tree = repo.git("mktree", data="".join(f"040000 tree {tree}\td{n}\n" for n in range(10)).encode())
    repo.commit(tree=tree)
    result = scene.update()
    assert "refs/heads/main" in result.refused
    assert (scene.target / "a").read_bytes() == b"1"


def puppet_sweep(home: Path) -> CheckoutSweep:
    """Branches that moved, were deleted and came."""
    scene = Scene(home, "puppetmaster")
    repo = scene.repo
    files: dict[str, bytes | str] = {f"d{n % 3}/f{n}": b"%d" % n for n in range(12)}
    repo.commit(files)
    repo.git("branch", "gone", "main")
    scene.update()
    repo.commit({**files, "d0/f0": b"second"})
    scene.update()
    sweep = CheckoutSweep(scene, old={"main": "main", "gone": "gone"})
    del files["d1/f1"]
    repo.commit({**files, "d2/f2": b"third", "new/file": b"n", "link": "d0/f0"})
    repo.git("branch", "-D", "gone")
    repo.git("branch", "came", "main")
    sweep.expect({"main": "main", "came": "came"})
    return sweep


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_checkout_killed_at_any_call_leaves_whole_trees_and_converges(tmp_path: Path) -> None:
    sweep = puppet_sweep(tmp_path)
    # Which file is written first depends on the object ids; a kind of call or two may so go by another name.
    options: dict[str, Any] = {"roots": [sweep.root], "prepare": sweep.prepare, "sample": sample_size(4)}
    print(kill_sweep(sweep.argv, check=sweep.check, allow_missed=0.05, **options))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_checkout_on_a_full_disk_keeps_the_old_trees_and_says_so(tmp_path: Path) -> None:
    sweep = puppet_sweep(tmp_path)

    def check(run: Run) -> None:
        assert "Traceback" not in run.stderr, run.stderr
        assert run.returncode == 0 or "No space left on device" in run.stderr, run.stderr
        sweep.check(run)

    options: dict[str, Any] = {"roots": [sweep.root], "prepare": sweep.prepare, "sample": sample_size(4)}
    print(error_sweep(sweep.argv, check=check, calls=NEEDS_SPACE, allow_missed=0.05, **options))  # as above


@pytest.mark.parametrize("options", ["size=900k", "size=16m,nr_inodes=60"], ids=["bytes", "inodes"])
def test_a_full_disk_keeps_each_directory_as_it_was_and_is_named(options: str, tmp_path: Path) -> None:
    scene = Scene(tmp_path, "puppetmaster")
    with small_disk(tmp_path / "disk", options) as disk:
        where = disk / "site"
        scene.checkouts = Checkouts(attrs.evolve(scene.settings, target=where))
        scene.repo.commit({"a": b"first"})
        scene.repo.git("branch", "small", "main")
        scene.update()
        files: dict[str, bytes | str] = {f"f{n}": os.urandom(20_000) for n in range(50)}
        scene.repo.commit(files)
        scene.repo.commit({"a": b"second"}, branch="small")
        result = scene.update()
        assert set(result.failed) == {"refs/heads/main"}
        assert "No space left on device" in result.failed["refs/heads/main"]
        assert (where / "main" / "a").read_bytes() == b"first"
        assert (where / "small" / "a").read_bytes() == b"second", "what fits is done"
        subprocess.run(["mount", "-o", "remount,size=16m,nr_inodes=1000", str(disk)], check=True)
        assert scene.update().failed == {}
        scene.expect(where / "main", "main")


@needs_root("to make files of another user")
@pytest.mark.parametrize("place", ["root", "root/.deploykit"])
def test_whoever_owns_the_directory_they_are_in_cannot_send_root_elsewhere(place: str) -> None:
    with common_directory() as base:
        _swap_and_update(base, place)


def _swap_and_update(base: Path, place: str) -> None:
    scene = Scene(base, "branch", branch="main", owner="nobody")
    scene.repo.commit({"a": b"1"})
    scene.update()
    os.chown(base / place, NOBODY.pw_uid, -1)
    (base / "victim").mkdir()
    swapped = ".deploykit" if place == "root" else "branch-site"
    as_nobody(f"cd {base / place} && mv {swapped} away && ln -s {base}/victim {swapped}")
    scene.repo.commit({"a": b"2"})
    with pytest.raises(PreflightRefused, match=r"belongs to uid .* \(chown root "):
        scene.update()
    assert not list((base / "victim").iterdir())


@pytest.mark.parametrize(
    "change",
    [
        {"umask": 0o027},
        pytest.param({"owner": "nobody"}, marks=needs_root("to give files away")),
    ],
    ids=["umask", "owner"],
)
def test_other_modes_and_owners_in_the_settings_hold_at_once_and_for_every_file(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    scene = Scene(tmp_path, "trusting", umask=0o022)

    def told() -> set[tuple[int, int]]:
        base = scene.target.resolve()
        return {(p.stat().st_mode & 0o777, p.stat().st_uid) for p in (base, *base.rglob("*"))}

    for n in range(3):
        scene.repo.commit({"d/same": b"same", "d/changes": b"%d" % n})
        scene.update()
    assert told() == {(0o755, os.geteuid()), (0o644, os.geteuid())}
    scene.checkouts = Checkouts(attrs.evolve(scene.settings, **change))
    uid = scene.target.stat().st_uid if "owner" not in change else pwd.getpwnam("nobody").pw_uid
    wanted = {(0o750, uid), (0o640, uid)} if "umask" in change else {(0o755, uid), (0o644, uid)}
    assert scene.update().refused == {}
    assert told() == wanted
    assert scene.update().changed == ()
    for n in range(3):
        scene.repo.commit({"d/same": b"same", "d/changes": b"again %d" % n})
        scene.update()
        assert told() == wanted


def test_the_mirror_is_not_changed_by_a_checkout(tmp_path: Path) -> None:
    scene = Scene(tmp_path, "trusting")
    scene.repo.commit({"a": b"1"})
    scene.update()
    assert run_git(scene.mirror.path, "fsck", "--strict") == ""
    assert scene.mirror.check().sound


def test_a_file_system_that_ignores_case_loses_no_directory_and_mixes_no_two(tmp_path: Path) -> None:
    with caseless_disk(tmp_path / "mounted") as where:
        scene = Scene(tmp_path, "tags")
        scene.checkouts = Checkouts(attrs.evolve(scene.settings, target=where / "tags"))
        scene.repo.commit({"a": b"upper", "B": b"x"})
        scene.repo.git("tag", "V1")
        for _ in range(2):
            result = scene.update()
            assert not result.refused, "its directory is listed as v1, which is no other tag's"
            assert not result.removed
            assert (where / "tags" / "V1" / "a").read_bytes() == b"upper"
        scene.repo.commit({"a": b"lower"})
        scene.repo.git("tag", "v1")
        for _ in range(2):
            assert set(scene.update().refused) == {"refs/tags/v1"}
            assert (where / "tags" / "V1" / "a").read_bytes() == b"upper"
        scene.repo.commit({"readme": b"1", "README": b"2"})
        scene.repo.git("tag", "v2")
        assert "collides with another name" in scene.update().refused["refs/tags/v2"]
        scene.repo.git("tag", "-d", "V1")
        scene.update()
        assert (where / "tags" / "v1" / "a").read_bytes() == b"lower"
        scene.repo.git("tag", "-d", "v1")
        scene.update()
        assert not os.path.lexists(where / "tags" / "v1")


def test_an_update_that_waits_for_another_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene(tmp_path, "tags")
    scene.update()
    caplog.set_level(logging.INFO, "deploykit.system.lock")
    (lock,) = scene.target.glob(".deploykit/*/lock")
    with FileLock(lock):
        thread = threading.Thread(target=scene.update)
        thread.start()
        wait_until(lambda: caplog.records, "that it says it waits")
        assert thread.is_alive()
    thread.join(60)
    assert [r.getMessage() for r in caplog.records] == [
        f"waiting for the lock {lock}: {scene.target} is being updated by another process (pid {os.getpid()})"
    ]
