"""Directories in several levels, from real repositories: who is in whose way, what goes with what, and the switch."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import attrs
import pytest

from deploykit.checkouts import CheckoutResult, Checkouts
from deploykit.names import RefName
from tests.support.checkouts import CheckoutSweep, Scene, names_below
from tests.support.disks import caseless_disk
from tests.support.killsweep import kill_sweep, sample_size
from tests.support.needs import needs_root
from tests.support.strangers import NOBODY, common_directory
from tests.support.wait import wait_until


class Tags(Scene):
    """An origin with tags, each of a commit of its own, and their directories."""

    def __init__(self, home: Path, *tags: str, mode: str = "tags") -> None:
        super().__init__(home, mode, nested=True)
        self.repo.commit({"a": b"1"})
        self.add(*tags)

    def add(self, *tags: str) -> None:
        for tag in tags:
            self.repo.commit({"a": tag.encode()})
            self.repo.git("tag", "-f", tag)

    def drop(self, *tags: str) -> None:
        self.repo.git("tag", "-d", *tags)

    def nested(self, on: bool) -> None:
        self.settings = attrs.evolve(self.settings, nested=on)
        self.checkouts = Checkouts(self.settings)

    def shown(self) -> dict[str, str]:
        """The tag that each directory has the files of."""
        root = self.target
        return {name: (root / name / "a").read_text() for name in names_below(root) if (root / name / "a").exists()}

    def homes(self) -> set[str]:
        """The names that there are copies under."""
        return {home.name for home in (self.target / ".deploykit/tags-site").iterdir() if home.is_dir()}

    def refusal(self, tag: str) -> str:
        return self.update().refused[f"refs/tags/{tag}"]


def test_tags_stand_where_their_names_say_and_empty_directories_go(tmp_path: Path) -> None:
    scene = Tags(tmp_path, "v1", "topic/z", "topic/y", "a/b/c", "mine/x")
    (scene.target / "mine").mkdir(parents=True)
    result = scene.update()
    assert {change.directory for change in result.changed} == {
        scene.target / name for name in ("v1", "topic/z", "topic/y", "a/b/c", "mine/x")
    }
    for tag in ("v1", "topic/z", "topic/y", "a/b/c", "mine/x"):
        scene.expect(scene.target / tag, tag)
    assert str((scene.target / "a/b/c").readlink()) == "../../.deploykit/tags-site/a,b,c/a"
    assert scene.update() == CheckoutResult()
    assert scene.checkouts.verify() == {}
    (scene.target / "topic/z/a").write_text("edited")
    assert list(scene.checkouts.verify()) == [scene.target / "topic/z"]
    scene.drop("topic/z", "a/b/c", "mine/x")
    assert set(scene.update().removed) == {scene.target / name for name in ("topic/z", "a/b/c", "mine/x")}
    assert names_below(scene.target) == {"v1", "topic", "topic/y", "mine"}, "what was there before stays"
    scene.drop("topic/y")
    scene.update()
    assert names_below(scene.target) == {"v1", "mine"}
    assert scene.homes() == {"v1"}


def test_branches_stand_beside_the_target(tmp_path: Path) -> None:
    scene = Scene(tmp_path, "atomic", nested=True)
    scene.repo.commit({"a": b"1"})
    scene.repo.git("branch", "topic/x", "main")
    scene.update()
    scene.expect(tmp_path / "root/site_main", "main")
    scene.expect(tmp_path / "root/site_topic/x", "main")
    scene.repo.git("branch", "-D", "topic/x")
    scene.update()
    assert names_below(tmp_path / "root") == {"site_main"}


def test_a_tag_may_become_a_directory_and_a_directory_a_tag_within_one_fetch(tmp_path: Path) -> None:
    scene = Tags(tmp_path, "foo", "deep/down/x")
    scene.update()
    scene.drop("foo", "deep/down/x")
    scene.add("foo/bar/baz", "deep")
    assert scene.update().refused == {}
    assert scene.shown() == {"foo/bar/baz": "foo/bar/baz", "deep": "deep"}
    scene.drop("foo/bar/baz", "deep")
    scene.add("foo", "deep/down/x")
    assert scene.update().refused == {}
    assert scene.shown() == {"foo": "foo", "deep/down/x": "deep/down/x"}


def test_a_kept_directory_is_in_the_way_of_a_tag_below_it_until_somebody_removes_it(tmp_path: Path) -> None:
    scene = Tags(tmp_path, "foo")
    scene.checkouts = Checkouts(attrs.evolve(scene.settings, remove=False))
    scene.update()
    scene.drop("foo")
    scene.add("foo/bar")
    assert "its directory foo/bar would be inside foo, that of refs/tags/foo" in scene.refusal("foo/bar")
    assert scene.shown() == {"foo": "foo"}
    (scene.target / "foo").unlink()
    assert scene.update().refused == {}
    assert scene.shown() == {"foo/bar": "foo/bar"}


@pytest.mark.parametrize("what", ["symlink", "file", "directory"])
def test_nothing_is_written_through_or_in_place_of_what_is_in_the_way(what: str, tmp_path: Path) -> None:
    scene = Tags(tmp_path, "topic/z", "v1")
    victim = tmp_path / "victim"
    victim.mkdir()
    root = scene.target
    root.mkdir(parents=True)
    if what == "symlink":
        (root / "topic").symlink_to(victim)
    elif what == "file":
        (root / "topic").touch()
    else:
        (root / "topic/z").mkdir(parents=True)
        (root / "topic/z/keep").touch()
    why = scene.refusal("topic/z")
    if what == "directory":
        assert f"{root}/topic/z is not a checkout: a real directory" in why
        assert f"deploykit checkout adopt {root}/topic/z --dry-run" in why
    else:
        assert f"{root}/topic is in the way of {root}/topic/z" in why
    assert scene.shown().get("v1") == "v1", "the others go on"
    scene.drop("topic/z")
    scene.update()
    assert os.path.lexists(root / "topic")
    assert (root / "topic/z/keep").exists() is (what == "directory")
    scene.add("topic/z")
    scene.update()
    assert not list(victim.iterdir())
    (root / "topic").rename(tmp_path / "away")
    assert scene.update().refused == {}
    assert scene.shown()["topic/z"] == "topic/z"


def test_a_directory_that_was_made_here_and_is_swapped_for_a_symlink_leads_nowhere(tmp_path: Path) -> None:
    scene = Tags(tmp_path, "topic/z", "topic/y", "v1")
    scene.update()
    victim = tmp_path / "victim"
    (scene.target / "topic").rename(victim)
    (scene.target / "topic").symlink_to(victim)
    before = sorted(victim.iterdir())
    scene.drop("topic/z")
    scene.add("topic/y")
    assert "is in the way" in scene.refusal("topic/y")
    assert sorted(victim.iterdir()) == before, "nothing is removed or replaced through it"
    (scene.target / "topic").unlink()
    scene.update()
    assert scene.shown() == {"v1": "v1", "topic/y": "topic/y"}


def test_what_others_put_into_a_directory_made_here_keeps_it_and_names_it_in_the_way(tmp_path: Path) -> None:
    scene = Tags(tmp_path, "foo/bar")
    scene.update()
    (scene.target / "foo/notes").write_text("mine")
    scene.drop("foo/bar")
    scene.add("foo")
    assert f"{scene.target}/foo is not a checkout: a real directory" in scene.refusal("foo")
    assert (scene.target / "foo/notes").read_text() == "mine"
    (scene.target / "foo/notes").unlink()
    assert scene.update().refused == {}
    assert scene.shown() == {"foo": "foo"}


@needs_root("to make a directory of another user")
@pytest.mark.parametrize("how", ["owner", "mode"])
def test_root_makes_no_checkout_in_a_directory_that_others_could_swap_it_in(how: str) -> None:
    with common_directory() as base:
        scene = Tags(base, "topic/z", "v1")
        (scene.target / "topic").mkdir(parents=True)
        if how == "owner":
            os.chown(scene.target / "topic", NOBODY.pw_uid, -1)
        else:
            (scene.target / "topic").chmod(0o777)
        why = scene.refusal("topic/z")
        assert f"{scene.target}/topic is not safe for a checkout" in why
        assert ("chown root" if how == "owner" else "chmod o-w") in why
        assert not list((scene.target / "topic").iterdir())
        assert scene.shown() == {"v1": "v1"}


def test_the_switch_shows_each_tag_in_its_new_place_before_the_old_one_goes(tmp_path: Path) -> None:
    scene = Tags(tmp_path, "topic/z", "topic/y", "a/b/c", "v1")
    scene.update()
    inode = (scene.target / "v1").lstat().st_ino
    places = [("topic/z", "topic%2Fz"), ("topic/y", "topic%2Fy"), ("a/b/c", "a%2Fb%2Fc"), ("v1", "v1")]
    stop, looked, gaps = threading.Event(), 0, list[str]()

    def read() -> None:
        nonlocal looked
        while not stop.is_set():
            for pair in places:
                settings = scene.settings
                # The new place is looked at last: it comes before the old one goes, and stays.
                old, new = pair if not settings.nested else pair[::-1]
                missed = not (scene.target / old / "a").exists() and not (scene.target / new / "a").exists()
                # Between the two looks the settings may have changed, and so which place is the new one.
                if missed and scene.settings is settings:
                    gaps.append(old)
            looked += 1

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for on in (False, True, False):
            scene.nested(on)
            result = scene.update()
            assert result.refused == result.failed == {}
            assert scene.shown() == {(nested if on else flat): nested for nested, flat in places}
            assert (
                names_below(scene.target) >= {"topic", "a", "a/b"} if on else "topic" not in names_below(scene.target)
            )
            assert scene.update() == CheckoutResult()
    finally:
        stop.set()
        reader.join()
    assert looked
    assert gaps == []
    assert (scene.target / "v1").lstat().st_ino == inode, "what stays in its place is not touched"
    assert scene.homes() == {flat for _, flat in places}, "the copies of the old places are gone"


def test_a_tag_that_cannot_move_stays_where_it_is_until_it_can(tmp_path: Path) -> None:
    scene = Tags(tmp_path, "topic/z")
    scene.nested(False)
    scene.update()
    scene.nested(True)
    (scene.target / "topic").touch()
    assert "in the way" in scene.refusal("topic/z")
    assert scene.shown() == {"topic%2Fz": "topic/z"}
    (scene.target / "topic").unlink()
    assert scene.update().removed == (scene.target / "topic%2Fz",)
    assert scene.shown() == {"topic/z": "topic/z"}


def test_only_named_refs_move_and_a_deleted_one_goes_from_its_old_place(tmp_path: Path) -> None:
    scene = Tags(tmp_path, "topic/z", "topic/y", "gone/x")
    scene.nested(False)
    scene.update()
    scene.drop("gone/x")
    scene.nested(True)
    scene.mirror.fetch(allow_mass_deletion=True)
    scene.checkouts.update(scene.mirror, {RefName("refs/tags/topic/z")})
    assert scene.shown() == {"topic/z": "topic/z", "topic%2Fy": "topic/y"}


def test_without_its_state_an_update_shows_the_same_and_removes_no_directory_it_does_not_know(tmp_path: Path) -> None:
    scene = Tags(tmp_path, "topic/z", "gone/x")
    scene.update()
    (scene.target / ".deploykit/tags-site/state.json").write_bytes(b"{")
    scene.drop("gone/x")
    assert scene.update().removed == (scene.target / "gone/x",)
    assert names_below(scene.target) == {"topic", "topic/z", "gone"}
    (scene.target / ".deploykit/tags-site/state.json").unlink()
    scene.nested(False)
    scene.update()
    assert names_below(scene.target) == {"topic%2Fz", "topic", "gone"}


def test_a_state_or_a_copy_with_a_name_that_leads_elsewhere_is_not_followed(tmp_path: Path) -> None:
    scene = Tags(tmp_path, "v1")
    scene.update()
    ours = scene.target / ".deploykit/tags-site"
    for name in (",etc", "..,..,victim", ",,", "a,,b"):
        (ours / name).mkdir()
    (tmp_path / "victim").mkdir()
    state = ours / "state.json"
    state.write_text(
        state.read_text().replace('"format"', '"parents": ["../../victim", "/etc", ".deploykit"], "format"')
    )
    scene.add("v1")
    assert scene.update().removed == ()
    assert (tmp_path / "victim").is_dir()
    assert scene.shown() == {"v1": "v1"}


def test_a_file_system_that_ignores_case_mixes_no_two(tmp_path: Path) -> None:
    with caseless_disk(tmp_path / "mounted") as where:
        scene = Tags(tmp_path, "Topic/A", "topic/b", "Foo")
        scene.target = where / "tags"
        scene.settings = attrs.evolve(scene.settings, target=scene.target)
        scene.nested(True)
        for _ in range(2):
            result = scene.update()
            assert (result.refused, result.removed) == ({}, ())
        assert (scene.target / "Topic/A/a").read_text() == "Topic/A"
        scene.add("topic/a", "foo/bar")
        for _ in range(2):
            assert set(scene.update().refused) == {"refs/tags/topic/a", "refs/tags/foo/bar"}
            assert (scene.target / "Topic/A/a").read_text() == "Topic/A"
            assert (scene.target / "Foo/a").read_text() == "Foo"
        scene.drop("Topic/A", "Foo")
        # What FUSE knew as "foo" it goes on to know for a second after "Foo" is gone.
        wait_until(lambda: not scene.update().refused, "that the others come")
        assert (scene.target / "topic/a/a").read_text() == "topic/a"
        assert (scene.target / "foo/bar/a").read_text() == "foo/bar"
        scene.drop("topic/a", "topic/b")
        scene.update()
        assert "topic" not in names_below(scene.target)
        assert (scene.target / "foo/bar/a").read_text() == "foo/bar"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_an_update_killed_at_any_call_leaves_no_tag_without_its_tree_and_no_directory_behind(tmp_path: Path) -> None:
    """Tags move, come, go, become directories and the other way round, and one is where `nested` was off."""
    scene = Tags(tmp_path, "v1", "topic/z", "foo", "back/b", "gone/deep/x")
    scene.update()
    scene.add("moved/m")
    scene.mirror.fetch()
    Checkouts(attrs.evolve(scene.settings, nested=False)).update(scene.mirror, {RefName("refs/tags/moved/m")})
    old = {tag: tag for tag in ("v1", "topic/z", "foo", "back/b", "gone/deep/x")} | {"moved%2Fm": "moved/m"}
    assert set(scene.shown()) == set(old)
    sweep = CheckoutSweep(scene, old)
    scene.drop("foo", "back/b", "gone/deep/x")
    scene.add("v1", "topic/y", "foo/bar", "back")
    sweep.expect({tag: tag for tag in ("v1", "topic/z", "topic/y", "foo/bar", "back", "moved/m")})

    def check(run: object) -> None:
        shown = set(scene.shown())
        assert shown >= {"v1", "topic/z"}
        assert shown & {"moved/m", "moved%2Fm"}
        sweep.check(run)  # type: ignore[arg-type]
        assert scene.homes() == {name.replace("/", ",") for name in sweep.new}

    options: dict[str, Any] = {"roots": [sweep.root], "prepare": sweep.prepare, "sample": sample_size(4)}
    print(kill_sweep(sweep.argv, check=check, allow_missed=0.05, **options))
