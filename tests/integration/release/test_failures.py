"""Full disks, read-only disks, things in the way, foreign files: a clear error each, and an untouched site."""

from __future__ import annotations

import contextlib
import os
import pwd
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploykit.errors import DeploykitError
from deploykit.git.repository import Repository
from deploykit.release import Runner, Site
from deploykit.settings import SiteSettings
from tests.support.cli import run
from tests.support.disks import caseless_disk
from tests.support.gitrepo import contents
from tests.support.needs import in_ci, needs_root
from tests.support.releasing import Shop, script


@contextlib.contextmanager
def _mounted(where: Path, *words: str) -> Iterator[None]:
    """Mount something, or say why that is not possible here."""
    if os.geteuid() != 0:
        (pytest.fail if in_ci() else pytest.skip)("needs root, to mount a small file system")
    where.mkdir()
    done = subprocess.run(["mount", *words, str(where)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        (pytest.fail if in_ci() else pytest.skip)(f"mount {' '.join(words)}: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(where)], check=True)


def _small(tmp_path: Path, options: str) -> contextlib.AbstractContextManager[None]:
    return _mounted(tmp_path / "small", "-t", "tmpfs", "-o", options, "tmpfs")


class SmallShop(Shop):
    """A site on a file system of its own."""

    def __init__(self, base: Path, where: Path, settings: SiteSettings | None = None) -> None:
        super().__init__(base, settings)
        self.path = where / "site"


def _state(shop: Shop) -> object:
    """All of a site that a failed deploy must leave as it was."""
    return {p: c for p, c in contents(shop.path).items() if not p.startswith((b".deploykit", b"releases/00002"))}


def test_a_disk_too_full_for_one_more_release_is_refused_before_anything_is_touched(tmp_path: Path) -> None:
    with _small(tmp_path, "size=30m"):
        shop = SmallShop(tmp_path, tmp_path / "small")
        shop.put({"a": os.urandom(10_000_000)})
        before = _state(shop)
        result = shop.put({"a": os.urandom(10_000_000)})
        assert result.outcome == "refused"
        assert "bytes free, a release needs about" in result.detail
        assert _state(shop) == before
        shop.whole()


def test_a_first_deploy_to_a_disk_that_is_full_makes_no_site(tmp_path: Path) -> None:
    with _small(tmp_path, "size=4m"):
        shop = SmallShop(tmp_path, tmp_path / "small")
        result = shop.put({"a": b"1"})
        assert (result.outcome, "bytes free" in result.detail) == ("refused", True)
        assert not shop.path.exists()


def test_enospc_in_the_middle_is_a_clear_error_an_untouched_site_and_no_leftovers(tmp_path: Path) -> None:
    with _small(tmp_path, "size=30m"):
        shop = SmallShop(tmp_path, tmp_path / "small")
        shop.put({"a": b"1"})
        before = _state(shop)
        result = shop.put({f"f{n}": os.urandom(1_000_000) for n in range(50)})
        assert result.outcome == "failure"
        assert "export failed: No space left on device" in result.detail
        assert "free some space" in result.detail
        assert _state(shop) == before
        assert len(shop.names()) == 1
        assert list((shop.path / ".deploykit" / "building").iterdir()) == []
        shop.whole()
        assert shop.put({"a": b"3"}).outcome == "success", "what was half written is gone again"


def test_inode_exhaustion_is_a_clear_error_and_an_untouched_site(tmp_path: Path) -> None:
    with _small(tmp_path, "size=30m,nr_inodes=1000"):
        shop = SmallShop(tmp_path, tmp_path / "small")
        shop.put({"a": b"1"})
        before = _state(shop)
        result = shop.put({f"f{n}": b"" for n in range(2000)})
        assert result.outcome == "failure"
        assert "export failed: No space left on device" in result.detail
        assert "inodes" in result.detail
        assert _state(shop) == before
        shop.whole()
        assert shop.put({"a": b"3"}).outcome == "success"
        few = shop.put({f"f{n}": b"" for n in range(600)})
        assert few.outcome == "success"
        refused = shop.put({"a": b"4"})
        assert "inodes free, a release needs about" in refused.detail


def test_a_disk_that_a_script_fills_leaves_the_old_release_live_and_recovers(tmp_path: Path) -> None:
    with _small(tmp_path, "size=30m"):
        shop = SmallShop(tmp_path, tmp_path / "small")
        shop.put({"a": b"1"})
        fill = script("cat /dev/zero > $DEPLOYKIT_SHARED/fill 2>/dev/null", "exit 0")
        result = shop.put({"a": b"2", "deploy/pre-deploy": fill})
        assert result.outcome == "failure"
        assert "No space left" in result.detail
        assert shop.read("a") == "1"
        (shop.path / "shared" / "fill").unlink()
        assert shop.put({"a": b"3"}).outcome == "success"
        shop.whole()


def test_a_read_only_target_is_refused(tmp_path: Path) -> None:
    with _small(tmp_path, "size=30m"):
        shop = SmallShop(tmp_path, tmp_path / "small")
        shop.put({"a": b"1"})
        before = contents(shop.path)
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path / "small")], check=True)
        result = shop.put({"a": b"2"})
        assert result.outcome in ("refused", "failure")
        assert "Read-only file system" in result.detail
        assert contents(shop.path) == before
        (tmp_path / "other").mkdir()
        new = SmallShop(tmp_path / "other", tmp_path / "small" / "new")
        assert "Read-only file system" in new.put({"a": b"1"}).detail


def test_current_as_a_real_directory_is_refused_and_kept(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    (shop.path / "current").mkdir(parents=True)
    (shop.path / "current" / "precious").write_text("mine")
    result = shop.put({"a": b"1"})
    assert result.outcome == "refused"
    assert "current is a real directory, not a symlink" in result.detail
    assert contents(shop.path) == {b"current": ("directory", 0o755, b""), b"current/precious": ("file", 0o644, b"mine")}


def test_current_turned_into_a_real_directory_meanwhile_is_not_removed(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.put({"a": b"1"})
    evil = script("rm ../../current; mkdir ../../current; touch ../../current/precious")
    result = shop.put({"a": b"2", "deploy/pre-link": evil})
    assert result.outcome == "failure"
    assert "current is a real directory" in result.detail
    assert (shop.path / "current" / "precious").exists()


@pytest.mark.parametrize("name", ["releases", "shared", ".deploykit"])
def test_a_file_in_the_way_is_refused_and_kept(tmp_path: Path, name: str) -> None:
    shop = Shop(tmp_path)
    shop.path.mkdir()
    (shop.path / name).write_text("mine")
    result = shop.put({"a": b"1"})
    assert result.outcome == "refused"
    assert name in result.detail
    assert (shop.path / name).read_text() == "mine"


@pytest.mark.parametrize("name", ["releases", ".deploykit"])
def test_a_symlink_in_place_of_a_directory_of_ours_is_refused(tmp_path: Path, name: str) -> None:
    shop = Shop(tmp_path)
    shop.path.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (shop.path / name).symlink_to(tmp_path / "elsewhere")
    result = shop.put({"a": b"1"})
    assert result.outcome == "refused"
    assert "is a symlink" in result.detail


@needs_root("to make files of another user")
@pytest.mark.parametrize("settings", [SiteSettings(), SiteSettings(owner="nobody"), SiteSettings(run_as="nobody")])
def test_a_site_that_belongs_to_somebody_else_is_refused_to_root(tmp_path: Path, settings: SiteSettings) -> None:
    """Also where the settings name who that is: root would write and remove where their symlinks lead."""
    shop = Shop(tmp_path, settings)
    shop.path.mkdir()
    nobody = pwd.getpwnam("nobody").pw_uid
    os.chown(shop.path, nobody, -1)
    result = shop.put({"a": b"1"})
    assert result.outcome == "refused"
    assert f"others can change {shop.path}: it belongs to uid {nobody} (nobody) (chown root {shop.path})" in (
        result.detail
    )
    os.chown(shop.path, 0, -1)
    assert shop.put({"a": b"2"}).outcome == "success"


def test_a_directory_of_ours_that_everybody_can_write_is_refused(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.put({"a": b"1"})
    (shop.path / "releases").chmod(0o777)
    result = shop.put({"a": b"2"})
    assert f"releases: everybody can write it (chmod o-w {shop.path}/releases)" in result.detail
    assert shop.read("a") == "1"


@needs_root("to make files of another user")
def test_foreign_files_in_an_old_release_do_not_stop_a_deploy_by_another_user(tmp_path: Path) -> None:
    """The application wrote a cache as its own user, in a directory the deploying user cannot empty."""
    for parent in (tmp_path, *tmp_path.parents):
        if str(parent).startswith("/tmp/"):
            parent.chmod(0o755)
    mine = tmp_path / "mine"
    mine.mkdir()
    os.chown(mine, 65534, -1)
    shop = Shop(tmp_path)
    for n in range(1, 5):
        shop.commit({"a": b"%d" % n})
    site = mine / "site"

    def as_nobody(tag: str) -> str:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
                runner = Runner(Site(site, SiteSettings(keep=1, grace=0)))
                with Repository(shop.repo.path) as source:
                    result = runner.deploy(source, f"refs/tags/{tag}")
                os.write(writing, f"{result.outcome} {result.detail}".encode())
                code = 0
            finally:
                os._exit(code)
        os.close(writing)
        with os.fdopen(reading) as said:
            text = said.read()
        assert os.waitpid(child, 0)[1] == 0
        return text

    subprocess.run(["chmod", "-R", "a+rX", str(shop.repo.path)], check=True)
    assert as_nobody("v1") == "success "
    foreign = site / "current" / "cache"
    foreign.mkdir()
    (foreign / "x").write_text("root's")
    foreign.chmod(0o755)
    assert as_nobody("v2").startswith("success")
    assert as_nobody("v3").startswith("success")
    assert as_nobody("v4").startswith("success")
    assert (site / "current" / "a").read_text() == "4"
    assert not (site / "current" / "cache").exists()


def test_a_damaged_manifest_of_a_spare_only_costs_a_fresh_export(tmp_path: Path) -> None:
    shop = Shop(tmp_path, SiteSettings(keep=1, grace=0))
    for n in range(3):
        shop.put({"a": b"%d" % n})
    spare = next(r for r in shop.runner.releases() if r.spare)
    path = shop.site.manifest_file(spare.name)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    result = shop.put({"a": b"9"})
    assert result.outcome == "success"
    assert "written" in next(s.output for s in result.steps if s.name == "export")
    shop.whole()


def test_a_hostile_tree_is_a_failure_that_names_it_and_leaves_the_site(tmp_path: Path) -> None:
    shop = Shop(tmp_path, SiteSettings(keep=1, grace=0))
    for n in range(3):
        shop.put({"a": b"%d" % n})
    blob = shop.repo.blob(b"x")
    tree = shop.repo.tree([("100644", b"a", blob), ("40000", b".GIT", shop.repo.tree([("100644", b"config", blob)]))])
    shop.repo.git("update-ref", "refs/tags/evil", shop.repo.commit_tree(tree, parent=shop.repo.head()))
    result = shop.deploy("evil")
    assert result.outcome in ("failure", "refused")
    assert "refused the file name .GIT" in result.detail
    assert shop.read("a") == "2"
    shop.whole()


def test_threat_11_releases_of_refs_that_look_alike_never_share_a_directory(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    tags = ["a/b", "a_b", "a%2Fb", "A/B", "x" * 250]
    commit = shop.commit({"a": b"1"}, tag="seed")
    names = set()
    for tag in tags:
        shop.repo.git("update-ref", f"refs/tags/{tag}", commit)
        result = shop.deploy(tag, commit)
        assert result.outcome == "success"
        assert "/" not in result.release
        assert (shop.path / "current").resolve() == shop.path / "releases" / result.release
        names.add(result.release)
    assert len(names) == len(tags)


@pytest.mark.parametrize("step", ["export", "activate", "state"])
def test_an_error_of_the_disk_at_fsync_is_never_reported_as_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    shop = Shop(tmp_path)
    shop.put({"a": b"1"})

    def broken(*_: object) -> None:
        raise OSError(5, "Input/output error")

    where = {
        "export": "deploykit.release.build.sync_filesystem",
        "activate": "deploykit.trees.activate.sync_directory",
        "state": "deploykit.system.durable.sync_directory",
    }[step]
    with monkeypatch.context() as patch:
        patch.setattr(where, broken)
        result = shop.put({"a": b"2"})
    assert result.outcome != "success"
    assert "Input/output error" in result.detail
    shop.whole()
    assert shop.put({"a": b"3"}).outcome == "success"
    shop.whole()


def test_a_site_on_a_case_insensitive_file_system_refuses_what_it_cannot_hold(tmp_path: Path) -> None:
    with caseless_disk(tmp_path / "mounted") as where:
        shop = SmallShop(tmp_path, where, SiteSettings(owner="", durable=False))
        result = shop.put({"readme": b"1", "README": b"2"})
        assert result.outcome != "success"
        assert "collides with another name on this file system" in result.detail
        assert not (shop.path / "current").is_symlink()


def test_an_unreadable_site_state_is_an_error_and_no_traceback(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.put({"a": b"1"})
    (shop.path / ".deploykit" / "state.json").write_text("{broken")
    with pytest.raises(DeploykitError, match=r"state\.json is damaged"):
        shop.put({"a": b"2"})
    assert shop.read("a") == "1"


@pytest.mark.parametrize("what", ["v2", "v2^{tree}", "v2:a", "tag"])
@pytest.mark.parametrize("content", [b"", b"x\x9c", b"junk", None], ids=["empty", "cut", "junk", "half"])
def test_a_damaged_object_of_an_ordinary_clone_is_named_and_leaves_the_site(
    tmp_path: Path, what: str, content: bytes | None
) -> None:
    shop = Shop(tmp_path)
    shop.put({"a": b"1"})
    shop.commit({"a": os.urandom(500)})
    who = {"GIT_COMMITTER_NAME": "A", "GIT_COMMITTER_EMAIL": "a@example.net"}
    shop.repo.git("tag", "-a", "-m", "t", "tag", "v2", env=who)
    oid = shop.repo.git("rev-parse", what).decode().strip()
    file = shop.repo.path / "objects" / oid[:2] / oid[2:]
    half = file.read_bytes()[: file.stat().st_size // 2]
    file.chmod(0o644)
    file.write_bytes(half if content is None else content)
    result = shop.deploy("tag" if what == "tag" else "v2")
    assert result.outcome in ("refused", "failure")
    assert f"object {oid} is damaged" in result.detail
    assert shop.read("a") == "1"
    shop.whole()


@pytest.mark.parametrize("name", ["config", "packed-refs"])
def test_a_clone_that_cannot_be_read_is_an_error_and_no_traceback(tmp_path: Path, name: str) -> None:
    shop = Shop(tmp_path)
    shop.commit({"a": b"1"})
    shop.repo.git("pack-refs", "--all")
    (shop.repo.path / name).write_text("[broken\n")
    done = run("release", "deploy", str(shop.path), "--mirror", str(shop.repo.path), "--ref", "v1")
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.returncode in (1, 2)
    assert not shop.path.exists()
