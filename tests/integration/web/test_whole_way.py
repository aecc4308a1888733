"""One night before the console: RabbitMQ, five agents, a hook, a forge, builds, rollouts; a browser that stays open."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from deploykit.fleet.plan import Target
from tests.brokers.rabbitmq import RabbitMQ
from tests.support.browser import Tab, chromium, tab
from tests.support.chain.brokers import RealBroker
from tests.support.consolefleet import ConsoleFleet
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.slow, pytest.mark.rabbitmq]

CANARY = "web1"
#: Patience for what a page shows, in milliseconds.
SOON = 60_000


class Night:
    """The acts of one night, each of which goes on where the one before it has ended."""

    def __init__(self, world: ConsoleFleet, broker: RealBroker, browser: Browser, watcher: Tab) -> None:
        self.world, self.fleet, self.broker = world, world.fleet, broker
        self.browser, self.watcher = browser, watcher
        self.page = watcher.page
        self.canary = self.fleet.named(CANARY)

    def begin(self) -> None:
        """Open the console, on the night after v1 was deployed; it is not loaded again."""
        self.fleet.level()
        self.page.goto(self.world.url)
        see(self.page, "#stream-words", "live")
        self.page.evaluate("window.untouched = true")
        see(self.page, "#verdict.ok h1", "All is well")

    def pushes_and_a_build(self) -> Target:
        """A push by the hook, one by a webhook, and a build appear by themselves; return what was pushed."""
        new = self.fleet.push()
        see(self.page, "#changes", f"v2 created {new.commit[:12]}")
        assert self.world.forge_push("refs/heads/next", new.commit) == 202
        see(self.page, "#changes", f"next created {new.commit[:12]}")
        self.world.build("begin", 7, new.commit)
        see(self.page, "#changes", "shop-tests 7 of main started")
        self.world.build("success", 7, new.commit)
        see(self.page, "#changes", "shop-tests 7 of main succeeded by ci@fleet")
        return new

    def a_canary_fails(self, new: Target) -> str:
        """A rollout stops at its canary: step by step on its page, and on the page that is open; return its id."""
        for what in ("hold", "fail"):
            self.fleet.order(what, CANARY, "post-deploy", new)
        self.fleet.desk.start(new)
        self.fleet.wait_held(CANARY, "post-deploy", new)
        rollout: str = self.fleet.desk.stored.plan.rollout
        see(self.page, "#changes", "deploy of v2 on shop: canary")
        with tab(self.browser) as second:
            page = second.page
            page.goto(f"{self.world.url}/deploys/{rollout}")
            see(page, "#nodes .phases", "prepare", "activate")
            see(page, self._row(self.canary), "at work", "began")
            see(page, self._row(self.fleet.named("web2")), "prepared")
            self.fleet.let_go_of(CANARY, "post-deploy", new)
            assert self.fleet.desk.wait().code == 1
            see(page, "#deploy-state .verdict.bad", "failed", f"canary {self.canary} failed", "4 skipped")
            see(page, self._row(self.canary), "failed, went back", "exit 1")
            for short in ("web2", "web3", "web4", "web5"):
                see(page, self._row(self.fleet.named(short)), "skipped")
            see(page, "#tails", f"post-deploy runs on {self.canary}")
            assert (
                page.locator(f"{self._row(self.canary)} td").count() == page.locator("thead th[scope=col]").count() - 1
            )
            assert "pre-deploy" in page.locator("#nodes thead").inner_text()
            assert overflow(page) <= 0
        see(self.page, "#verdict.bad h1", "2 things need a look")
        see(self.page, "#problems", f"deploy of v2 on shop failed: canary {self.canary} failed")
        return rollout

    def a_good_rollout(self) -> None:
        """The next release goes live everywhere, and nothing is wrong any more."""
        done = self.fleet.desk.run(self.fleet.push(), "--batch", "4")
        assert done.code == 0, done.output
        see(self.page, "#sites", "v3", "5 current", "by root, signed ops@fleet", "succeeded")
        see(self.page, "#verdict.ok h1", "All is well")
        assert "SHA256" not in self.page.locator("main").inner_text()

    def the_broker_is_killed(self) -> None:
        """The page says so as long as it lasts; what is pushed meanwhile waits, and what is known stays."""
        before = self.known()
        self.broker.kill()
        see(self.page, "#banners [role=alert]", "No broker since")
        see(self.page, "#verdict.bad h1", "The console hears nothing")
        see(self.page, "#sites", "v3", "5 current")
        late = self.fleet.push()
        assert self.world.forge_push("refs/heads/later", late.commit) == 202
        self.broker.start()
        self.page.locator("#banners [role=alert]").wait_for(state="detached", timeout=SOON)
        # Whoever was connected before the console may have said something already: the nodes hold it all the same.
        wanted = {"refs/tags/v4": True, "refs/heads/later": True}
        wait_until(lambda: wanted.items() <= self.held().items(), "every node has what was pushed meanwhile")
        self.world.wait_shown()
        see(self.page, "#verdict.ok h1", "All is well")
        check_same(self.known(), before)

    def the_console_is_killed_and_its_database_lost(self) -> None:
        """Started again it says since when it is complete, and shows what the nodes hold; the page comes back alone."""
        before = self.known()
        started = self.world.get("health")["complete_since"]
        self.world.console.kill()
        shutil.rmtree(self.world.database)
        see(self.page, "#stream.lost", "reconnecting")
        self.world.console.start()
        see(self.page, "#stream", "live")
        self.world.wait_shown()
        assert self.world.get("health")["complete_since"] > started
        check_same(self.known(), before)
        see(self.page, "#sites", "v3", "5 current", "by root, signed ops@fleet")
        see(self.page, "#verdict.ok h1", "All is well")
        wait_until(self._says_since_when, "the page says since when the console has heard everything")

    def without_script(self, failed: str) -> None:
        """The same facts can be read without script."""
        with tab(self.browser, script=False) as plain:
            page = plain.page
            page.goto(self.world.url)
            see(page, "#verdict.ok h1", "All is well")
            see(page, "#sites", "v3", "5 current", "by root, signed ops@fleet", " UTC")
            see(page, "#changes", "deploy of v2 on shop: failed", "next created", "shop-tests 7 of main succeeded")
            page.goto(f"{self.world.url}/deploys/{failed}")
            see(page, self._row(self.canary), "failed, went back", "exit 1")
            see(page, self._row(self.fleet.named("web2")), "skipped")
            see(page, "#tails", f"post-deploy runs on {self.canary}")
            page.goto(f"{self.world.url}/refs/shop")
            see(page, "main", "next", "v3")
            assert {urlsplit(url).netloc for url in plain.requests} == {urlsplit(self.world.url).netloc}

    def _says_since_when(self) -> bool:
        since = str(self.world.get("health")["complete_since"])[:19]
        return self.page.locator(f'#footer time[datetime="{since}Z"]').count() > 0

    def held(self) -> dict[str, bool]:
        """Return the refs that are shown, and of each whether every node has it."""
        return {each["ref"]: each["everywhere"] for each in self.world.get("refs/shop?limit=500")["items"]}

    def known(self) -> dict[str, Any]:
        """Return what nodes hold, as the console shows it: without when it was heard."""
        unlike = ("seen", "modified")  # files are compared only where a node is asked
        nodes = self.world.get("sites/shop/nodes")["items"]
        history = self.world.get("history?site=shop&limit=500")["items"]
        alike = [{key: str(value) for key, value in each.items() if key not in unlike} for each in nodes]
        return {
            "nodes": {each["node"]: each for each in alike},
            "history": sorted((each["node"], each["phase"], each["outcome"], each["ref"]) for each in history),
            "refs": {ref for ref, everywhere in self.held().items() if everywhere}
            & {"refs/tags/v3", "refs/heads/next"},
        }

    def _row(self, node: str) -> str:
        return f'#nodes tr[data-row]:has(a[href="/nodes/{node}"])'


def check_same(now: dict[str, Any], before: dict[str, Any]) -> None:
    """Compare what `known` returned at two times, node by node.

    A report tells its own time; a node that describes itself later, when its log says the deploy ended, in whole
    seconds. Whichever came last is shown.
    """
    for node, cells in before["nodes"].items():
        later = now["nodes"][node]
        for name in ("since", "last_at"):
            apart = datetime.fromisoformat(later.pop(name)) - datetime.fromisoformat(cells.pop(name))
            assert abs(apart) < timedelta(seconds=30), f"{name} of {node}"
        assert later == cells
    assert now == before


def see(page: Page, where: str, *texts: str) -> None:
    """Wait until a part of a page has texts."""
    for text in texts:
        page.locator(where, has_text=text).first.wait_for(timeout=SOON)


def overflow(page: Page) -> int:
    return int(page.evaluate("document.documentElement.scrollWidth - window.innerWidth"))


def test_one_night_on_rabbitmq(tmp_path: Path, new_rabbitmq: Callable[..., RabbitMQ]) -> None:
    broker = RealBroker(new_rabbitmq().start())
    with ConsoleFleet(tmp_path, broker) as world, chromium() as browser, tab(browser) as watcher:
        night = Night(world, broker, browser, watcher)
        night.begin()
        failed = night.a_canary_fails(night.pushes_and_a_build())
        night.a_good_rollout()
        night.without_script(failed)
        night.the_broker_is_killed()
        night.the_console_is_killed_and_its_database_lost()
        assert night.page.evaluate("window.untouched"), "the page was loaded again"
        assert {urlsplit(url).netloc for url in watcher.requests} == {urlsplit(world.url).netloc}
        assert [text for text in watcher.problems if "net::ERR_" not in text] == []  # while the console was away
