"""Submodules on a node: a deploy fetches the mirrors that lack a commit, directories follow when it is there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.messages import MirrorUpdated, RefUpdated
from deploykit.names import ZERO_ID, ObjectId, RefName, RepoName
from deploykit.settings import RepositorySettings, SiteSettings
from deploykit.settings.mirror import CheckoutSettings
from deploykit.wire import encode
from tests.support.node import SHOP, Node
from tests.support.submodules import Worked, files_of
from tests.support.wait import wait_until

OURS = ("TAG", ".deploykit/REVISION")
THEME, DEEP = RepoName("theme"), RepoName("deep")
FORGE = "https://forge.example.org/people/deep"


class World(Node):
    """A node with a site and a directory of a shop, whose theme has a submodule in turn."""

    def __init__(self, root: Path, broker: EmbeddedBroker) -> None:
        super().__init__(root, broker, release=SiteSettings(submodules="mirror"))
        self.deep, self.theme, self.shop = (Worked(root, name) for name in ("deep", "theme", "shop"))
        self.deep.push({"deep.txt": b"1"})
        self.theme.add(self.deep, "deep", url=f"{FORGE}.git")
        self.theme.push({"style.css": b"red"})
        self.shop.add(self.theme, "theme", url="../theme.git")
        self.first = ObjectId(self.shop.push({"index.php": b"1"}, tag="v1"))
        self.target = root / "shown"
        checkout = CheckoutSettings(mode="trusting", target=self.target, submodules="mirror", grace=0)
        self.settings = attrs.evolve(
            self.settings,
            repositories={
                SHOP: RepositorySettings(url=self.shop.url, checkouts=(checkout,)),
                THEME: RepositorySettings(url=self.theme.url),
                DEEP: RepositorySettings(url=self.deep.url),
            },
            submodules={FORGE: DEEP},
        )

    def moves(self, tag: str) -> ObjectId:
        """Let all three move, and push a tag of the shop; nobody announces it."""
        self.theme.follow("deep", self.deep.push({"deep.txt": tag.encode()}))
        self.shop.follow("theme", self.theme.push({"style.css": tag.encode()}))
        return ObjectId(self.shop.push({}, tag=tag))

    def announce(self, ref: str, new: ObjectId) -> None:
        push = RefUpdated(source="git", repo=SHOP, ref=RefName(ref), old=ZERO_ID, new=new)
        self.bus.publish(self.settings.topics.source, encode(push))

    def same_as_git(self, tag: str, shown: Path) -> None:
        """Compare a directory with what git clones, to which we say where the address leads that is not there."""
        expected = self.shop.cloned(tag, self.root / f"clone-{tag}", **{self.deep.url: f"{FORGE}.git"})
        assert files_of(shown, but=OURS) == expected
        assert expected["theme/deep/deep.txt"] == ("file", tag.encode())


@pytest.fixture
def world(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> Iterator[World]:
    made = World(tmp_path, deploykit_broker)
    with made:
        yield made


def test_a_deploy_fetches_every_mirror_that_lacks_a_commit(world: World) -> None:
    with world.agent() as agent:
        agent.ready()
        new = world.moves("v2")
        request = world.request("v2", new)
        world.send(request)
        report = world.report_on(request)
    assert report.outcome == "success", report.detail
    world.same_as_git("v2", world.site / "current")
    fetched = {message.repo for message, _ in world.heard if isinstance(message, MirrorUpdated)}
    assert fetched == {SHOP, THEME, DEEP}


def test_a_commit_that_no_branch_has_is_refused_by_name(world: World) -> None:
    with world.agent() as agent:
        agent.ready()
        lost = world.deep.push({"deep.txt": b"lost"}, branch="wip")
        world.theme.follow("deep", lost)
        world.shop.follow("theme", world.theme.push({}))
        new = ObjectId(world.shop.push({}, tag="v2"))
        world.deep.git("push", "-q", "origin", ":refs/heads/wip")
        request = world.request("v2", new)
        world.send(request)
        report = world.report_on(request)
    assert report.outcome == "refused"
    assert f"theme/deep ({FORGE}.git)" in report.detail
    assert lost[:12] in report.detail
    assert not (world.site / "current").exists()


def test_a_directory_waits_for_its_submodules_and_follows_when_they_are_there(world: World) -> None:
    with world.agent() as agent:
        agent.ready()
        shown = world.target / "theme" / "deep" / "deep.txt"
        wait_until(shown.exists, "the first tree, submodules included")
        new = world.moves("v2")
        world.announce("refs/heads/main", new)
        wait_until(lambda: shown.read_bytes() == b"v2", "the directory with the new submodules")
        world.same_as_git("v2", world.target)
    moved = [m for m, _ in world.heard if isinstance(m, MirrorUpdated) and (m.repo, m.new) == (SHOP, new)]
    first, *_, last = [m for m in moved if m.ref == "refs/heads/main"]
    assert first.outcome == "failed"
    assert "no branch or tag in the mirror of theme has commit" in first.detail
    assert (last.outcome, last.detail) == ("unchanged", "the problem is gone"), "the ref had moved before"
