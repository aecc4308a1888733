"""Mirrors of submodules and parts that are damaged: the one that is, and no other, is cloned anew."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from deploykit.audit import open_audit
from deploykit.builds.store import builds_of
from deploykit.daemons.agent.deployer import SiteDeployer
from deploykit.daemons.agent.gate import BuildGate
from deploykit.daemons.agent.mirrors import MirrorHandler, mirror_path
from deploykit.daemons.agent.progress import ProgressSender
from deploykit.messages import DeployRequested, SitePart
from deploykit.messages.topics import TopicMap
from deploykit.names import NodeName, ObjectId, RefName, RepoName, SiteName
from deploykit.release import DeployResult
from deploykit.settings import NodeSiteSettings, RepositorySettings, Settings, SiteSettings
from deploykit.settings.mirror import CheckoutSettings
from deploykit.testing.fakes import FakeBus
from deploykit.trust.allowed_signers import AllowedSigners
from deploykit.trust.check import Trust
from deploykit.trust.signature import Signers
from tests.integration.agent.test_rollout_commands import FakeReporter
from tests.support.damage import damage_object
from tests.support.parts import OURS
from tests.support.resultaudit import result_audit
from tests.support.submodules import Worked, files_of
from tests.support.wait import wait_until

WEB1 = NodeName("web1")
SHOP, THEME, APP = RepoName("shop"), RepoName("theme"), RepoName("app")
#: What is damaged, as git finds it in the theme.
DAMAGE = {"commit": "", "root": "^{tree}", "tree": ":img", "blob": ":img/a.png"}


class Origins:
    """A theme, a shop with it as a submodule, and another repository; tests only add to them."""

    def __init__(self, root: Path) -> None:
        self.theme, self.app, self.shop = (Worked(root, name) for name in ("theme", "app", "shop"))
        self.push_theme("t1")
        self.app.push({"index.php": b"<?php app"}, tag="v1")
        self.shop.add(self.theme, "theme")
        self.shop.push({"index.php": b"<?php 1"}, tag="v1")

    def push_theme(self, tag: str) -> str:
        files = {"style.css": b"red " + tag.encode(), "img/a.png": b"\x89PNG " + tag.encode() * 40}
        return self.theme.push(files, tag=tag)


class World:
    """A node with two sites: of the shop with its theme, and of two parts, of which one is that theme."""

    def __init__(self, root: Path, origins: Origins, *, checkout: bool = False) -> None:
        self.root = root
        self.theme, self.app, self.shop = origins.theme, origins.app, origins.shop
        self.shown = root / "shown"
        shown = CheckoutSettings(mode="trusting", target=self.shown, submodules="mirror", grace=0)
        self.settings = Settings(
            node=WEB1,
            state=root / "state",
            repositories={
                SHOP: RepositorySettings(url=self.shop.url, checkouts=(shown,) if checkout else ()),
                THEME: RepositorySettings(url=self.theme.url),
                APP: RepositorySettings(url=self.app.url),
            },
            sites={
                SiteName("shop"): NodeSiteSettings(
                    path=root / "site-shop", repo=SHOP, release=SiteSettings(submodules="mirror")
                ),
                SiteName("both"): NodeSiteSettings(path=root / "site-both", parts={APP: "app", THEME: "web/theme"}),
            },
            reconcile_every=3600.0,
            fetch_spread=0.0,
        )
        self.settings.state.mkdir()
        trust = Trust.from_settings(self.settings.trust, WEB1, trusted=lambda: AllowedSigners.parse(""))
        builds = builds_of(self.settings.state)
        gate = BuildGate(self.settings, trust, builds, result_audit(open_audit(self.settings), builds, WEB1))
        self.mirrors = MirrorHandler(self.settings, FakeReporter())
        progress = ProgressSender(WEB1, FakeBus(), TopicMap(), None)
        self._deployer = SiteDeployer(self.settings, self.mirrors, gate, progress)
        self.mirrors.start()
        self.mirrors.sync_all(time.monotonic() + 60)

    def damage(self, what: str, tag: str) -> str:
        """Damage an object of the theme in its mirror; return its id."""
        oid = self.theme.git("rev-parse", f"{tag}{DAMAGE[what]}")
        damage_object(mirror_path(self.settings, THEME), oid)
        return oid

    def set_aside(self) -> list[str]:
        """Return the names of the mirrors that were replaced."""
        return sorted(path.name for path in (self.settings.state / "mirrors").glob("*.damaged"))

    def wait_for_new_mirror(self) -> None:
        new = mirror_path(self.settings, THEME) / "HEAD"
        wait_until(lambda: bool(self.set_aside()) and new.exists(), "a new mirror of the theme")

    def deploy(self, site: str) -> DeployResult:
        """Deploy the first versions."""
        ref = RefName("refs/tags/v1")
        commits = {RepoName(each.name): ObjectId(each.git("rev-parse", "v1")) for each in (self.app, self.shop)}
        parts = (
            SitePart(repo=APP, ref=ref, commit=commits[APP]),
            SitePart(repo=THEME, ref=RefName("refs/tags/t1"), commit=ObjectId(self.theme.git("rev-parse", "t1"))),
        )
        which = {"parts": parts} if site == "both" else {"ref": ref, "commit": commits[SHOP]}
        expires = datetime.now(UTC) + timedelta(minutes=5)
        request = DeployRequested(site=SiteName(site), audience=(WEB1,), expires=expires, **which)
        return self._deployer.deploy(request, Signers(each=()), lambda _: "")

    def expected(self, site: str) -> dict[str, tuple[str, bytes]]:
        """Return the files of a site as git clones them."""
        if site == "shop":
            return self.shop.cloned("v1", self.root / "clone")
        found = {f"app/{path}": file for path, file in self.app.cloned("v1", self.root / "app-1").items()}
        theme = self.theme.cloned("t1", self.root / "theme-1")
        return found | {f"web/theme/{path}": file for path, file in theme.items()}

    def stop(self) -> None:
        self.mirrors.stop()
        self.mirrors._pool.close()


@pytest.fixture(scope="module")
def origins(tmp_path_factory: pytest.TempPathFactory) -> Origins:
    return Origins(tmp_path_factory.mktemp("origins"))


@pytest.fixture
def world(tmp_path: Path, origins: Origins, request: pytest.FixtureRequest) -> Iterator[World]:
    made = World(tmp_path, origins, checkout=getattr(request, "param", False))
    try:
        yield made
    finally:
        made.stop()
        gc.collect()  # what was left open says so now


@pytest.mark.parametrize("site", ["shop", "both"])
@pytest.mark.parametrize("what", DAMAGE)
def test_the_mirror_that_a_deploy_finds_damaged_is_cloned_anew_and_no_other(world: World, site: str, what: str) -> None:
    oid = world.damage(what, "t1")
    result = world.deploy(site)
    if what != "commit":  # that one is looked for before anything begins
        assert result.outcome in ("refused", "failure")
        assert oid in result.detail
        world.wait_for_new_mirror()
        result = world.deploy(site)
    assert result.outcome == "success", result
    assert world.set_aside() == ["theme.git.damaged"]
    assert files_of(world.root / f"site-{site}" / "current", but=OURS) == world.expected(site)


@pytest.mark.parametrize("world", [True], indirect=True, ids=["checkout"])
@pytest.mark.parametrize("what", DAMAGE)
def test_a_directory_follows_when_a_damaged_mirror_of_a_submodule_was_cloned_anew(
    world: World, origins: Origins, what: str
) -> None:
    wait_until((world.shown / "theme" / "style.css").exists, "the first tree, submodules included")
    commit = origins.push_theme(what)
    assert world.mirrors.sync(THEME)
    world.damage(what, what)
    world.shop.follow("theme", commit)
    world.shop.push({}, tag=what)
    world.mirrors.sync(SHOP)
    style = world.shown / "theme" / "style.css"
    wait_until(lambda: style.read_bytes() == f"red {what}".encode(), "the directory with the new theme")
    assert world.set_aside() == ["theme.git.damaged"]
    assert files_of(world.shown) == world.shop.cloned(what, world.root / "clone")
