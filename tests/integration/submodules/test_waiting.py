"""Directories that wait for submodules: which fetches they ask for, and that these come to an end."""

from __future__ import annotations

from collections import deque
from pathlib import Path

import pytest

from deploykit.checkouts import CheckoutResult, Checkouts
from deploykit.daemons.agent.submodules import SubmoduleCheckouts
from deploykit.mirror import Mirror
from deploykit.names import RepoName
from deploykit.settings import RepositorySettings, Settings
from deploykit.settings.mirror import CheckoutSettings, MirrorSettings
from tests.support.lfsrepos import LfsServer, LfsWorked
from tests.support.submodules import Worked, git

LOST = "0123456789" * 4


class Node:
    """Mirrors with a directory each, fetched one after the other as they are asked for, as by an agent.

    Args:
        lfs: where the objects of Git LFS come from.
    """

    def __init__(self, root: Path, *origins: Worked, lfs: LfsServer | None = None) -> None:
        self.root = root
        targets = {
            RepoName(each.name): CheckoutSettings(
                mode="trusting", target=root / "shown" / each.name, submodules="mirror", grace=0
            )
            for each in origins
        }
        for target in targets.values():
            assert target.target is not None
            target.target.parent.mkdir(exist_ok=True)
        repositories = {
            RepoName(each.name): RepositorySettings(
                url=each.url,
                checkouts=(targets[RepoName(each.name)],),
                mirror=lfs.settings_for(each) if lfs is not None else MirrorSettings(),
            )
            for each in origins
        }
        self.settings = Settings(node="n", state=root, repositories=repositories)  # type: ignore[arg-type]
        self.checkouts = {repo: Checkouts(chosen) for repo, chosen in targets.items()}
        self.asked: deque[RepoName] = deque()
        self.fetches: list[RepoName] = []
        self.submodules = SubmoduleCheckouts(self.settings, self.mirror, self.asked.append, self.asked.append)

    def mirror(self, repo: RepoName) -> Mirror:
        chosen = self.settings.repositories[repo]
        return Mirror.open(self.root / f"{repo}.mirror", chosen.url, chosen.mirror)

    def fetch(self, repo: RepoName) -> CheckoutResult:
        self.fetches.append(repo)
        with self.mirror(repo) as mirror:
            fetched = mirror.fetch()
            news = bool(fetched.changes or fetched.lfs.objects)
            result = self.submodules.update(repo, mirror, self.checkouts[repo], None)
        self.submodules.fetched(repo, news=news)
        return result

    def fetch_what_is_asked_for(self) -> list[RepoName]:
        """Fetch until nothing is asked for; return what was fetched."""
        self.fetches.clear()
        while self.asked:
            self.fetch(self.asked.popleft())
            assert len(self.fetches) < 50, "the fetches do not end"
        return self.fetches


def lacks(repo: Worked, path: str, url: str, commit: str = LOST) -> None:
    """Push a submodule at a commit that nobody has."""
    git("config", "-f", ".gitmodules", f"submodule.{path}.path", path, cwd=repo.work)
    git("config", "-f", ".gitmodules", f"submodule.{path}.url", url, cwd=repo.work)
    repo.git("add", ".gitmodules")
    repo.git("update-index", "--add", "--cacheinfo", f"160000,{commit},{path}")
    repo.git("commit", "-q", "-m", "lacks")
    repo.git("push", "-q", "origin", "HEAD:refs/heads/main")


def test_repositories_that_wait_for_each_other_are_not_fetched_for_ever(tmp_path: Path) -> None:
    one, other = Worked(tmp_path, "one"), Worked(tmp_path, "other")
    lacks(one, "sub", other.url)
    lacks(other, "sub", one.url)
    node = Node(tmp_path, one, other)
    node.asked += ["one", "other"]  # type: ignore[list-item]
    assert len(node.fetch_what_is_asked_for()) <= 8
    node.asked += ["one", "other"]  # type: ignore[list-item]
    assert sorted(node.fetch_what_is_asked_for()) == ["one", "other"], "nothing moved, and each was asked before"


def test_a_repository_that_is_its_own_submodule_is_not_fetched_for_ever(tmp_path: Path) -> None:
    one = Worked(tmp_path, "one")
    lacks(one, "sub", one.url)
    node = Node(tmp_path, one)
    node.asked += ["one"]  # type: ignore[list-item]
    assert len(node.fetch_what_is_asked_for()) <= 3


@pytest.mark.parametrize("first", ["shop", "theme"])
def test_the_directory_follows_whichever_mirror_is_fetched_first(tmp_path: Path, first: str) -> None:
    theme, shop = Worked(tmp_path, "theme"), Worked(tmp_path, "shop")
    theme.push({"style.css": b"1"})
    shop.add(theme, "theme")
    shop.push({})
    node = Node(tmp_path, theme, shop)
    node.asked += [first]  # type: ignore[list-item]
    node.fetch_what_is_asked_for()
    if first == "theme":
        node.fetch(RepoName("shop"))
    shown = tmp_path / "shown" / "shop" / "theme" / "style.css"
    assert shown.read_bytes() == b"1"

    # The commit comes long after the shop's: nothing asks for it, its own push is announced.
    shop.follow("theme", theme.push({"style.css": b"2"}))
    later = theme.git("rev-parse", "HEAD")
    theme.git("push", "-q", "--force", "origin", "HEAD~1:refs/heads/main")
    shop.push({})
    node.asked += ["shop"]  # type: ignore[list-item]
    assert node.fetch_what_is_asked_for() == ["shop", "theme", "shop"]
    assert shown.read_bytes() == b"1"
    theme.git("push", "-q", "origin", f"{later}:refs/heads/main")
    node.asked += ["theme"]  # type: ignore[list-item]
    assert node.fetch_what_is_asked_for() == ["theme", "shop"]
    assert shown.read_bytes() == b"2"


def test_the_directory_follows_when_the_objects_of_a_submodule_come(tmp_path: Path) -> None:
    theme, shop = LfsWorked(tmp_path, "theme"), Worked(tmp_path, "shop")
    theme.push({".gitattributes": b"*.bin filter=lfs -text\n", "a.bin": b"the object"})
    shop.add(theme, "theme")
    shop.push({})
    place, late = theme.object_of("a.bin"), tmp_path / "late"
    place.rename(late)
    shown = tmp_path / "shown" / "shop" / "theme" / "a.bin"
    with LfsServer(tmp_path) as server:
        node = Node(tmp_path, theme, shop, lfs=server)
        node.asked += ["theme", "shop"]  # type: ignore[list-item]
        # The theme's mirror is asked once more, and then left alone: its server has not got the object.
        assert node.fetch_what_is_asked_for() == ["theme", "shop", "theme", "shop"]
        assert not shown.exists()
        node.asked += ["shop"]  # type: ignore[list-item]
        assert node.fetch_what_is_asked_for() == ["shop"]
        late.rename(place)
        node.asked += ["theme"]  # type: ignore[list-item]  # compared with its origin: no ref moves
        assert node.fetch_what_is_asked_for() == ["theme", "shop"]
    assert shown.read_bytes() == b"the object"
