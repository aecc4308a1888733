"""Repositories that whoever may push has made: `.gitmodules`, trees and histories that cost much, or lie."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from deploykit.errors import SubmoduleMissing, TreeError
from deploykit.git.commits import History, Reachable
from deploykit.git.repository import Repository
from deploykit.mirror import submodules
from deploykit.mirror.submodules import SubmoduleRules, SubmoduleSource
from deploykit.names import ObjectId, RefName, RepoName
from deploykit.trees import list_tree
from tests.support.gitrepo import DIRECTORY, FILE, GITLINK, GitRepo

LOST = "0123456789" * 4
Opened = Callable[..., SubmoduleSource]


def modules(*paths: str, url: str = "https://example.org/lib") -> bytes:
    return "".join(f'[submodule "{path}"]\n\tpath = {path}\n\turl = {url}\n' for path in paths).encode()


class World:
    """A repository, and the library that stands for every address in it."""

    def __init__(self, root: Path) -> None:
        self.shop, self.lib = GitRepo(root / "shop.git"), GitRepo(root / "lib.git")
        self.tip = self.lib.commit({"lib.txt": b"1"})
        self.opened = {RepoName("lib"): Repository(self.lib.path), RepoName("shop"): Repository(self.shop.path)}
        self.depth = 4

    def push(self, *rows: tuple[str, bytes, str]) -> None:
        commit = self.shop.commit_tree(self.shop.tree(sorted(rows, key=lambda row: row[1])))
        self.shop.git("update-ref", "refs/heads/main", commit)

    def source(self) -> SubmoduleSource:
        rules = SubmoduleRules(
            repositories={"https://example.org/lib": RepoName("lib"), "https://example.org/shop": RepoName("shop")},
            open=self.opened.__getitem__,
            depth=self.depth,
        )
        return SubmoduleSource(self.opened[RepoName("shop")], "", rules)

    def files(self) -> set[bytes]:
        source = self.source()
        return {entry.path for entry in list_tree(source.store, source.resolve("main").tree)}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_modes_of_old_repositories_count_as_what_they_are(world: World) -> None:
    blob = world.shop.blob(modules("way/lib"))
    way = world.shop.tree([("160755", b"lib", world.tip)])
    world.push(("100664", b".gitmodules", blob), ("40755", b"way", way))
    assert world.files() == {b".gitmodules", b"way/lib/lib.txt"}


def test_a_symlink_is_no_gitmodules(world: World) -> None:
    blob = world.shop.blob(modules("lib"))
    world.push(("120000", b".gitmodules", blob), (GITLINK, b"lib", world.tip))
    assert world.source().resolve("main").mounts == ()


def test_a_name_that_stands_twice_is_refused_as_in_every_tree(world: World) -> None:
    blob = world.shop.blob(modules("lib"))
    world.push((FILE, b".gitmodules", blob), (GITLINK, b"lib", world.tip), (GITLINK, b"lib", world.tip))
    with pytest.raises(TreeError, match="one name twice"):
        world.source().resolve("main")


def test_large_trees_beside_many_entries_are_read_once_and_counted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = world.shop.blob(b"x")
    rows = [(FILE, b"f%05d" % n, blob) for n in range(2000)]
    large = world.shop.tree([*rows, (GITLINK, b"lib", world.tip)])
    paths = [f"lib{n}" for n in range(900)]
    monkeypatch.setattr(submodules, "_MOST_ROWS", 10_000)
    world.push((FILE, b".gitmodules", world.shop.blob(modules(*paths))), *rows)
    assert world.source().resolve("main").mounts == (), "each of 900 paths is looked for in one reading"
    deep = [f"d{n}/lib" for n in range(9)]
    here = [(DIRECTORY, b"d%d" % n, large) for n in range(9)]
    world.push((FILE, b".gitmodules", world.shop.blob(modules(*deep))), *here)
    with pytest.raises(TreeError, match="more than 10000 entries"):
        world.source().resolve("main")


def test_all_gitmodules_together_have_a_limit(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submodules, "_MODULES_BYTES", 5000)
    content = modules("lib", url="https://example.org/none") + b"#" * 3000
    inner = world.shop.commit_tree(world.shop.tree([(FILE, b".gitmodules", world.shop.blob(content))]))
    world.shop.git("update-ref", "refs/heads/inner", inner)
    content = modules("in", url="https://example.org/shop") + b"#" * 3000
    world.push((FILE, b".gitmodules", world.shop.blob(content)), (GITLINK, b"in", inner))
    with pytest.raises(TreeError, match="more than 5000 bytes"):
        world.source().resolve("main")


def test_submodules_that_double_at_each_depth_end_at_the_limit(world: World) -> None:
    """A repository that is its own submodule, ten times at each of four depths."""
    world.depth = 16
    paths = [f"s{n}" for n in range(10)]
    commit = world.tip
    blob = world.shop.blob(modules(*paths, url="https://example.org/shop"))
    world.shop.git("fetch", "-q", str(world.lib.path), "main")
    for depth in range(5):
        rows = [(FILE, b".gitmodules", blob), *((GITLINK, path.encode(), commit) for path in paths)]
        commit = world.shop.commit_tree(world.shop.tree(rows))
        world.shop.git("update-ref", f"refs/heads/d{depth}", commit)
        world.shop.git("update-ref", "refs/heads/main", commit)
    world.shop.git("update-ref", "refs/heads/first", world.tip)
    with pytest.raises(TreeError, match="more than 1000 submodules"):
        world.source().resolve("main")


def test_what_is_too_deep_is_not_to_be_fetched(world: World) -> None:
    world.depth = 1
    inner = world.shop.commit_tree(
        world.shop.tree([(FILE, b".gitmodules", world.shop.blob(modules("lib"))), (GITLINK, b"lib", world.tip)])
    )
    world.shop.git("update-ref", "refs/heads/inner", inner)
    content = modules("in", url="https://example.org/shop")
    world.push((FILE, b".gitmodules", world.shop.blob(content)), (GITLINK, b"in", inner))
    (missing,) = world.source().missing("main")
    assert (missing.path, missing.too_deep) == ("in/lib", True)
    with pytest.raises(SubmoduleMissing, match="raise submodule_depth"):
        world.source().resolve("main")


def test_a_commit_that_only_an_annotated_tag_has_counts(world: World) -> None:
    tagged = world.lib.commit_tree(world.lib.tree_of(world.tip), parent=world.tip, message="tagged")
    world.lib.git("tag", "-a", "-m", "v1", "v1", tagged)
    world.push((FILE, b".gitmodules", world.shop.blob(modules("lib"))), (GITLINK, b"lib", tagged))
    assert world.files() == {b".gitmodules", b"lib/lib.txt"}


def test_ids_of_another_kind_are_named(tmp_path: Path) -> None:
    world = World(tmp_path)
    other = GitRepo(tmp_path / "other.git", object_format="sha256")
    other.commit({"lib.txt": b"1"})
    world.opened[RepoName("lib")] = Repository(other.path)
    world.push((FILE, b".gitmodules", world.shop.blob(modules("lib"))), (GITLINK, b"lib", world.tip))
    with pytest.raises(SubmoduleMissing, match="ids of sha256"):
        world.source().resolve("main")


def test_a_history_is_walked_once_for_many_commits_that_no_branch_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = GitRepo(tmp_path / "lib.git")
    commits = [repo.commit({"n": b"%d" % n}) for n in range(30)]
    tree = repo.tree_of(commits[0])
    lost = [repo.commit_tree(tree, message=f"lost {n}") for n in range(20)]
    read: list[bytes] = []
    parents = History.parents

    def counted(self: History, oid: bytes) -> list[bytes]:
        read.append(oid)
        return parents(self, oid)

    monkeypatch.setattr(History, "parents", counted)
    with Repository(repo.path) as opened:
        tips = dict(opened.refs).values()
        assert list(opened.refs.values()) == [ObjectId(commits[-1])] == [opened.refs[RefName("refs/heads/main")]]
        known = Reachable(opened.store, tips)
        assert LOST not in known
        assert read == [], "what is not there needs no walk"
        assert commits[-2] in known
        assert len(read) <= 2, "what is new is found soon"
        assert not any(each in known for each in lost)
        assert all(each in known for each in commits)
        assert len(read) == 30
        known.close()
