"""A deploy command whose objects of Git LFS come late, or never."""

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
from tests.support.lfsrepos import TRACKED, LfsServer, LfsWorked
from tests.support.node import SHOP, Node
from tests.support.submodules import files_of
from tests.support.wait import wait_until

OURS = ("TAG", ".deploykit/REVISION")
THEME = RepoName("theme")


class World(Node):
    """A node with a site and a directory of a shop; its theme is a submodule. Both have objects."""

    def __init__(self, root: Path, broker: EmbeddedBroker, server: LfsServer) -> None:
        super().__init__(root, broker, release=SiteSettings(submodules="mirror"))
        self.server = server
        self.theme, self.shop = LfsWorked(root, "theme"), LfsWorked(root, "shop")
        self.theme.push({".gitattributes": TRACKED, "big.bin": b"the theme's"})
        self.shop.add(self.theme, "theme")
        self.commit = ObjectId(self.shop.push({".gitattributes": TRACKED, "img/a.bin": b"the shop's"}, tag="v1"))
        self.target = root / "shown"
        checkout = CheckoutSettings(mode="trusting", target=self.target, submodules="mirror", grace=0)
        self.settings = attrs.evolve(
            self.settings,
            repositories={
                SHOP: RepositorySettings(
                    url=self.shop.url, checkouts=(checkout,), mirror=server.settings_for(self.shop)
                ),
                THEME: RepositorySettings(url=self.theme.url, mirror=server.settings_for(self.theme)),
            },
        )

    def announce(self, repo: RepoName, new: str) -> None:
        """Say that `main` of a repository is there."""
        push = RefUpdated(source="git", repo=repo, ref=RefName("refs/heads/main"), old=ZERO_ID, new=ObjectId(new))
        self.bus.publish(self.settings.topics.source, encode(push))


@pytest.fixture
def world(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> Iterator[World]:
    with LfsServer(tmp_path) as server:
        made = World(tmp_path, deploykit_broker, server)
        with made:
            yield made


def test_a_deploy_fetches_once_more_what_came_late_and_then_refuses_by_name(world: World, tmp_path: Path) -> None:
    late = {
        world.shop.object_of("img/a.bin"): tmp_path / "a",
        world.theme.object_of("big.bin"): tmp_path / "b",
    }
    for place, aside in late.items():
        place.rename(aside)
    with world.agent() as agent:
        agent.ready()
        asked = world.server.questions
        first = world.request("v1", world.commit)
        world.send(first)
        report = world.report_on(first)
        assert report.outcome == "refused"
        assert "objects of Git LFS are missing: img/a.bin" in report.detail
        assert "theme/big.bin" in report.detail
        assert "the mirror of theme" in report.detail
        assert world.server.questions == asked + 2, "each of the two mirrors was fetched once more"
        assert not (world.site / "current").exists()
        for place, aside in late.items():
            aside.rename(place)
        second = world.request("v1", world.commit)
        world.send(second)
        assert world.report_on(second).outcome == "success"
        expected = world.shop.cloned("v1", tmp_path / "clone")
        assert files_of(world.site / "current", but=OURS) == expected
        # The directory was behind for the same reason, and follows.
        wait_until(
            lambda: world.target.exists() and files_of(world.target) == expected, "the directory with its objects"
        )
        wait_until(lambda: any("the problem is gone" in m.detail for m in moves(world)), "the report on the directory")

        # Now the theme's object alone comes late, with a fetch that moves no ref.
        world.shop.follow("theme", newest := world.theme.push({"big.bin": b"later"}))
        place = world.theme.object_of("big.bin")
        place.rename(tmp_path / "c")
        world.announce(SHOP, world.shop.push({}))
        lacks = "objects of Git LFS are missing: theme/big.bin"
        wait_until(lambda: any(lacks in m.detail for m in moves(world)), "the report on the theme's object")
        agent.ready()
        (tmp_path / "c").rename(place)
        world.announce(THEME, newest)
        shown = world.target / "theme" / "big.bin"
        wait_until(lambda: shown.read_bytes() == b"later", "the directory with the theme's object")


def moves(world: World) -> list[MirrorUpdated]:
    return [message for message, _ in world.heard if isinstance(message, MirrorUpdated)]
