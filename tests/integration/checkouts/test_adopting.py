"""What readers use already becomes a checkout, and comes back: no reader ever finds nothing, and nothing is lost."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploykit.checkouts import Checkouts
from deploykit.checkouts.adopting import CheckoutAdopter
from deploykit.checkouts.copies import TreeCopies
from deploykit.errors import CheckoutError, DeploykitError, PolicyRefused, PreflightRefused
from deploykit.mirror import Mirror
from deploykit.settings import CheckoutSettings
from deploykit.system.lock import FileLock
from tests.support.adopting import read_all_the_time
from tests.support.checkouts import Scene
from tests.support.cli import command, run_here
from tests.support.disks import small_disk
from tests.support.killsweep import Run, kill_sweep, sample_size
from tests.support.needs import needs_root
from tests.support.strangers import NOBODY, common_directory, in_child_of
from tests.support.submodules import files_of
from tests.support.wait import wait_until

FILES: dict[str, bytes | str] = {
    "index.html": b"old",
    "lib/a.php": b"<?php",
    "uploads/one.jpg": b"1" * 9000,
    "link": "lib/a.php",
}
KINDS = ("directory", "clone", "symlink", "relative symlink")


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """One whose way belongs to root alone, where root runs this."""
    with common_directory() as path:
        yield path


class Old:
    """A directory that readers use, where a checkout is to be."""

    def __init__(self, base: Path, how: str = "directory", *, tag: str = "v1", **settings: object) -> None:
        self.scene = Scene(base, "tags", **settings)
        self.base, self.tag = base, tag
        self.place = self.scene.target / tag
        self.scene.repo.commit(FILES)
        self.scene.repo.git("tag", tag)
        self.scene.mirror.fetch()
        self.place.parent.mkdir(parents=True)
        old = self.place if how in ("directory", "clone") else base / "elsewhere" / "old"
        subprocess.run(["git", "clone", "-q", str(self.scene.repo.path), str(old)], check=True)
        if how != "clone":
            shutil.rmtree(old / ".git")
        if old != self.place:
            self.place.symlink_to(old if how == "symlink" else os.path.relpath(old, self.place.parent))

    @property
    def adopter(self) -> CheckoutAdopter:
        return CheckoutAdopter(Checkouts(self.scene.settings), self.tag)

    @property
    def kept(self) -> Path:
        return self.scene.target / ".deploykit" / "adopted" / "tags-site" / self.tag.replace("/", ",")

    def adopt(self, *, allow_differences: bool = False) -> None:
        self.adopter.adopt(self.scene.mirror, allow_differences=allow_differences)


@pytest.mark.parametrize("how", KINDS)
def test_what_readers_use_becomes_a_checkout_and_comes_back(tmp_path: Path, how: str) -> None:
    old = Old(tmp_path, how)
    was, link = files_of(old.place.resolve()), old.place.readlink() if old.place.is_symlink() else None
    for readers in (read_all_the_time(old.base, old.place), contextlib.nullcontext()):
        with readers:
            old.adopt()
            old.scene.expect(old.place, "v1")
            assert files_of(old.kept if link is None else old.base / "elsewhere" / "old") == was
            assert old.adopter.undo() == old.place
        assert files_of(old.place.resolve()) == was
        assert (old.place.readlink() if old.place.is_symlink() else None) == link
        assert not old.kept.parent.exists()
    old.adopt()
    assert old.scene.update().changed == (), "the agent finds it as it would have made it"
    old.scene.repo.commit({**FILES, "index.html": b"new"})
    old.scene.repo.git("tag", "-f", "v1", "main")
    assert [change.written for change in old.scene.update().changed] == [1]
    old.scene.expect(old.place, "v1")
    old.adopter.undo()
    assert files_of(old.place.resolve()) == was
    assert "deploykit checkout adopt" in old.scene.update().refused["refs/tags/v1"]


def test_what_readers_would_lose_is_named_and_needs_consent(tmp_path: Path) -> None:
    old = Old(tmp_path, "clone")
    (old.place / "index.html").write_text("edited by hand")
    (old.place / "lib" / "a.php").unlink()
    (old.place / "extra").write_text("precious")
    (old.place / "cache" / "empty").mkdir(parents=True)
    (old.place / "uploads" / "one.jpg").chmod(0o755)
    before = files_of(tmp_path)
    seen = old.adopter.preview(old.scene.mirror)
    assert files_of(tmp_path) == before
    assert seen.files.added == ("cache/empty/", "extra")
    assert (seen.files.modified, seen.files.missing) == (("index.html", "uploads/one.jpg"), ("lib/a.php",))
    with pytest.raises(PolicyRefused, match=r"holds what v1 has not: 'cache/empty/', 'extra', 'index.html'"):
        old.adopt()
    assert not old.place.is_symlink()
    assert old.adopter.adopt(old.scene.mirror, allow_differences=True).files == seen.files
    old.scene.expect(old.place, "v1")
    assert (old.kept / "extra").read_text() == "precious"
    assert (old.kept / ".git").is_dir()


def test_files_that_only_the_commit_has_need_no_consent(tmp_path: Path) -> None:
    old = Old(tmp_path)
    (old.place / "lib" / "a.php").unlink()
    old.adopt()
    old.scene.expect(old.place, "v1")


def test_a_symlink_that_leads_nowhere_is_replaced(tmp_path: Path) -> None:
    old = Old(tmp_path, "symlink")
    shutil.rmtree(tmp_path / "elsewhere")
    old.adopt()
    old.scene.expect(old.place, "v1")
    old.adopter.undo()
    assert old.place.readlink() == tmp_path / "elsewhere" / "old"


def test_whoever_writes_meanwhile_writes_into_what_is_kept_and_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = Old(tmp_path)
    build = TreeCopies.build

    def write_and_build(self: TreeCopies, *words: object, **options: object) -> object:
        (old.place / "uploads" / "two.jpg").write_text("late")
        return build(self, *words, **options)  # type: ignore[arg-type]

    with (old.place / "index.html").open("a") as file, monkeypatch.context() as patch:
        patch.setattr(TreeCopies, "build", write_and_build)
        done = old.adopter.adopt(old.scene.mirror)
        file.write(", and written to by who has it open")
    assert done.late == ("uploads/two.jpg",)
    old.scene.expect(old.place, "v1")
    assert (old.kept / "index.html").read_text() == "old, and written to by who has it open"
    assert (old.kept / "uploads" / "two.jpg").read_text() == "late"


def test_a_nested_one_and_one_that_is_called_as_our_own_directory(tmp_path: Path) -> None:
    for tag in ("topic/z", "adopted"):
        old = Old(tmp_path / tag, tag=tag, nested=True)
        old.adopt()
        old.scene.expect(old.place, tag)
        old.scene.update()
        assert old.kept.is_dir(), "no update takes it for a copy of its own"
        old.adopter.undo()
        assert not old.place.is_symlink()


def test_what_was_adopted_comes_back_also_when_its_ref_is_gone(tmp_path: Path) -> None:
    old = Old(tmp_path)
    was = files_of(old.place)
    old.adopt()
    old.scene.repo.git("tag", "-d", "v1")
    old.scene.update()
    assert not os.path.lexists(old.place)
    assert files_of(old.kept) == was
    old.adopter.undo()
    assert files_of(old.place) == was


def test_what_cannot_be_adopted_is_refused_and_stays(tmp_path: Path) -> None:
    old = Old(tmp_path)

    def refusal() -> str:
        before = files_of(old.scene.target)
        with pytest.raises(PreflightRefused) as refused:
            old.adopt(allow_differences=True)
        assert files_of(old.scene.target) == before
        return str(refused.value)

    old.adopt()
    old.place.unlink()
    old.place.mkdir()
    with pytest.raises(PreflightRefused, match="no checkout by now: directory"):
        old.adopter.undo()
    assert "was kept by an earlier adoption" in refusal()
    old.place.rmdir()
    assert "there is nothing at" in refusal()
    old.place.write_text("a file")
    assert f"mv {old.place} {old.place}.before" in refusal()
    old.place.unlink()
    old.adopter.undo()
    with pytest.raises(PreflightRefused, match="was not adopted"):
        old.adopter.undo()
    shutil.rmtree(old.place)
    old.scene.update()
    assert "is a checkout already" in refusal()
    other = CheckoutAdopter(Checkouts(old.scene.settings), "v2")
    with pytest.raises(PreflightRefused, match="no ref is to be there"):
        other.adopt(old.scene.mirror)


@needs_root("to mount a directory")
def test_a_mount_point_and_another_file_system_are_refused(tmp_path: Path) -> None:
    old = Old(tmp_path)
    subprocess.run(["mount", "--bind", old.place, old.place], check=True)
    try:
        with pytest.raises(PreflightRefused, match="is a mount point"):
            old.adopter.preview(old.scene.mirror)
    finally:
        subprocess.run(["umount", old.place], check=True)
    ours = small_disk(old.scene.target / ".deploykit", "size=1m,mode=755")
    with ours, pytest.raises(PreflightRefused, match="another file system"):
        old.adopt()
    assert not old.place.is_symlink()


@needs_root("to become somebody else")
def test_somebody_elses_directory_is_refused_and_root_moves_nothing_in_one(tmp_path: Path) -> None:
    old = Old(tmp_path)
    for path in (old.place.parent, old.place.parent.parent):
        os.chown(path, NOBODY.pw_uid, NOBODY.pw_gid)
    with pytest.raises(PreflightRefused, match="others can change"):
        old.adopt()

    def adopt() -> str:
        try:
            old.adopt()
        except DeploykitError as error:
            return str(error)
        return "adopted"

    assert "may not be written to" in in_child_of("nobody", adopt)
    assert not old.place.is_symlink()


def test_where_two_names_cannot_be_exchanged_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = Old(tmp_path)
    was = files_of(old.place)

    def cannot(*_: object, **__: object) -> None:
        raise OSError(22, "Invalid argument")

    with monkeypatch.context() as patch:
        patch.setattr("deploykit.checkouts.links.exchange", cannot)
        with pytest.raises(CheckoutError, match="cannot be adopted without a gap"):
            old.adopt()
    assert files_of(old.place) == was
    assert not os.path.lexists(old.kept)
    old.adopt()


def test_it_waits_for_an_update_that_is_under_way(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    old = Old(tmp_path)
    old.scene.update()
    caplog.set_level(logging.INFO, "deploykit.system.lock")
    (lock,) = old.scene.target.glob(".deploykit/*/lock")
    with FileLock(lock):
        thread = threading.Thread(target=old.adopt)
        thread.start()
        wait_until(lambda: caplog.records, "that it says it waits")
        assert not old.place.is_symlink()
    thread.join(60)
    old.scene.expect(old.place, "v1")


# -- the command -------------------------------------------------------------------------------------------------------


def node_of(old: Old) -> Path:
    """Write the settings of a node that keeps the checkout, and have its mirror fetched."""
    with Mirror.open(old.base / "state" / "mirrors" / "site.git", str(old.scene.repo.path)) as mirror:
        mirror.fetch()
    settings = old.base / "deploykit.toml"
    settings.write_text(
        f'node = "web1"\nstate = "{old.base}/state"\n[repositories.site]\nurl = "{old.scene.repo.path}"\n'
        f'checkouts = [{{ mode = "tags", target = "{old.scene.target}", grace = 0, durable = false }}]\n'
    )
    return settings


def test_the_command(tmp_path: Path) -> None:
    old = Old(tmp_path)
    settings = node_of(old)
    refusal = old.scene.update().refused["refs/tags/v1"]
    words = refusal.partition("deploykit ")[2].partition(";")[0].split()
    assert words == ["checkout", "adopt", str(old.place), "--dry-run"], "the refusal names the command"
    (old.place / "extra").write_text("x")
    config = ("--config", str(settings))
    shown = run_here(*words, *config)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert f"would adopt {old.place} as a checkout of refs/tags/v1" in shown.stdout
    assert "  + extra\n" in shown.stdout
    assert f"what was there would be kept: {old.kept}" in shown.stdout
    words.pop()
    assert run_here(*words, *config).returncode == 3
    other = old.place.with_name("v9")
    done = run_here(*words, str(other), *config, "--allow-differences", "--json")
    assert done.returncode == 2
    assert f"no repository of the settings has a checkout at {other}" in done.stderr
    (adopted,) = json.loads(done.stdout)
    assert (adopted["kept"], adopted["files"]["added"]) == (str(old.kept), ["extra"])
    old.scene.expect(old.place, "v1")
    back = run_here(*words, *config, "--undo")
    assert (back.returncode, back.stdout) == (0, f"{old.place} is what it was\n")
    assert (old.place / "extra").read_text() == "x"


def test_a_mirror_that_is_not_there_yet_is_named(tmp_path: Path) -> None:
    old = Old(tmp_path)
    settings = node_of(old)
    shutil.rmtree(tmp_path / "state")
    done = run_here("checkout", "adopt", str(old.place), "--config", str(settings))
    assert done.returncode == 1
    assert "the mirror of site is not there yet" in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("way", ["there", "back"])
def test_killed_at_any_call_readers_find_all_and_both_ways_are_open(tmp_path: Path, way: str) -> None:
    old = Old(tmp_path)
    (old.place / "extra").write_text("x")
    settings, saved, was = node_of(old), tmp_path / "saved", files_of(old.place)
    shutil.copytree(old.scene.target, saved, symlinks=True)
    words = ["checkout", "adopt", str(old.place), "--config", str(settings), "--allow-differences"]

    def prepare() -> None:
        shutil.rmtree(old.scene.target)
        shutil.copytree(saved, old.scene.target, symlinks=True)
        if way == "back":
            old.adopt(allow_differences=True)

    def check(run: Run) -> None:
        assert "Traceback" not in run.stderr, run.stderr
        if old.place.is_symlink():
            old.scene.expect(old.place, "v1")
            assert files_of(old.kept) == was
        else:
            assert files_of(old.place) == was
        if old.adopter.is_known:  # as both ways end
            old.adopter.undo()
            assert files_of(old.place) == was
        old.adopt(allow_differences=True)
        old.scene.expect(old.place, "v1")
        assert files_of(old.kept) == was
        assert old.scene.update().refused == {}

    words += ["--undo"] if way == "back" else []
    print(kill_sweep(command(*words), roots=[tmp_path / "root"], prepare=prepare, check=check, sample=sample_size(1)))


def test_trusting_and_atomic_checkouts_beside_each_other_are_told_apart(tmp_path: Path) -> None:
    """Two kinds in one root: each has its own place for what it adopted."""
    old = Old(tmp_path)
    for mode, name, directory in (("trusting", "site", "site"), ("atomic", "app", "app_main")):
        target = tmp_path / "root" / "two" / name
        settings = CheckoutSettings(mode=mode, target=target, durable=False)  # type: ignore[arg-type]
        place = tmp_path / "root" / "two" / directory
        place.mkdir(parents=True)
        CheckoutAdopter(Checkouts(settings), directory).adopt(old.scene.mirror)
        old.scene.expect(place, "main")
    kept = tmp_path / "root" / "two" / ".deploykit" / "adopted"
    assert sorted(str(path.relative_to(kept)) for path in kept.glob("*/*")) == [
        "atomic-app/app_main",
        "trusting-site/site",
    ]
