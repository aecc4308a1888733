"""A console over RabbitMQ and real agents: what it shows, and what becomes of it when something else breaks."""

from __future__ import annotations

import secrets
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest

from deploykit.bus import Bus
from deploykit.messages import DeployReported, Notice
from deploykit.settings.web import WebSettings
from deploykit.web.service import ConsoleService
from deploykit.wire import encode
from tests.brokers.rabbitmq import RabbitMQ
from tests.support.node import git
from tests.support.realfleet import RealFleet, topics_below
from tests.support.wait import wait_until

#: More than the refs of a repository that a question asks for by itself.
MANY_TAGS = 30
pytestmark = [pytest.mark.slow, pytest.mark.rabbitmq]


class Console:
    """A console that runs, and a client of its API."""

    def __init__(self, fleet: RealFleet, state: Path, **web: Any) -> None:
        self.service = ConsoleService(
            attrs.evolve(fleet.desk, state=state, web=WebSettings(listen="127.0.0.1:0", **web))
        )
        self._client = httpx.Client(base_url=self.service.url, timeout=30)

    def get(self, path: str) -> Any:
        """Return the JSON of an answer of the API."""
        return self._client.get(f"/api/v1/{path}").raise_for_status().json()

    def page(self, path: str) -> str:
        """Return a page."""
        return self._client.get(path).raise_for_status().text

    def live(self) -> dict[str, str]:
        """Return what is live on the site's nodes: node -> ref."""
        found = self._client.get("/api/v1/sites/shop/nodes")
        return {} if found.status_code == 404 else {each["node"]: each["ref"] for each in found.json()["items"]}

    @contextmanager
    def events(self) -> Iterator[list[str]]:
        """Yield the kinds of events that come on the stream, as they come."""
        kinds: list[str] = []
        opened = threading.Event()

        def read() -> None:
            with httpx.stream("GET", f"{self.service.url}api/v1/events", timeout=60) as answer:
                opened.set()
                try:
                    kinds.extend(each.removeprefix("event: ") for each in answer.iter_lines() if each[:6] == "event:")
                except httpx.TransportError:
                    return  # the console has ended

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        assert opened.wait(60)
        yield kinds

    def close(self) -> None:
        """Close the client."""
        self._client.close()


@contextmanager
def console_of(fleet: RealFleet, state: Path, **web: Any) -> Iterator[Console]:
    with ExitStack() as stack:
        made = Console(fleet, state, **web)
        stack.callback(made.close)
        stack.enter_context(made.service)
        yield made


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, rabbitmq: RabbitMQ) -> Iterator[RealFleet]:
    """Two nodes on RabbitMQ on which v1 is live."""
    topics = topics_below(f"t-{secrets.token_hex(6)}")
    with RealFleet(tmp_path_factory.mktemp("fleet"), rabbitmq.address, ["web1", "web2"], topics=topics) as made:
        made.push("v1")
        for number in range(MANY_TAGS):
            git("tag", f"t{number + 1}", cwd=made.origin.path)
        assert made.run(made.planned("v1")).exit_code == 0
        yield made


def on_both(ref: str) -> dict[str, str]:
    return dict.fromkeys(("web1", "web2"), f"refs/tags/{ref}")


def test_a_console_that_starts_later_shows_what_the_nodes_hold(fleet: RealFleet, tmp_path: Path) -> None:
    with console_of(fleet, tmp_path) as console:
        wait_until(lambda: console.live() == on_both("v1"), "both nodes are shown")
        wait_until(lambda: not console.get("health")["rebuilding"], "rebuilt")
        health = console.get("health")
        assert (health["connected"], health["answered"], health["distrusted"]) == (True, 2, 0)
        assert not health["unverified"]
        wait_until(lambda: console.get("history?site=shop")["items"], "the nodes' own journals")
        # The answers have come when `rebuilding` ends; they are written a moment later.
        wait_until(
            lambda: len(console.get("refs/shop")["items"]) > MANY_TAGS, "more refs than a question asks for by itself"
        )
        for path in ("/", "/sites/shop", "/nodes", "/nodes/web1", "/deploys", "/history?site=shop"):
            assert "web1" in console.page(path) or "shop" in console.page(path), path


def test_a_rollout_is_followed_live_and_what_is_forged_is_not_shown(fleet: RealFleet, tmp_path: Path) -> None:
    with console_of(fleet, tmp_path) as console, console.events() as kinds:
        wait_until(lambda: console.live() == on_both("v1"), "both nodes are shown")
        forged = DeployReported(
            node=fleet.nodes[0],
            site=next(iter(fleet.settings_of(fleet.nodes[0]).sites)),
            request="r-forged",
            phase="deploy",
            outcome="failure",
            detail="canary",
        )
        with Bus(fleet.desk.broker, client_id="stranger") as bus:
            assert bus.wait_connected(60)
            bus.publish(fleet.desk.topics.report, encode(forged), timeout=30)
        fleet.push("v2", post_deploy="echo printed by the script")
        result = fleet.run(fleet.planned("v2"))
        assert result.exit_code == 0
        wait_until(lambda: console.live() == on_both("v2"), "v2 is live on both")
        wait_until(lambda: {"deploy", "step", "node"} <= set(kinds), "events of all kinds")
        newest = wait_until(
            lambda: (found := console.get("deploys")["items"]) and found[0]["state"] == "succeeded" and found[0],
            "the rollout has ended",
        )
        log = wait_until(
            lambda: (found := console.get(f"deploys/{newest['rollout']}/nodes/web1/log"))["total"] and found, "the log"
        )
        assert "printed by the script" in str(log["lines"])
        health = console.get("health")
        assert health["distrusted"] == 1
        assert "deploy.reported" in health["distrust"]
        assert "canary" not in console.page("/") + console.page("/deploys") + console.page("/audit")


def test_a_database_that_is_deleted_meanwhile_is_rebuilt_from_the_nodes(fleet: RealFleet, tmp_path: Path) -> None:
    with console_of(fleet, tmp_path) as console:
        before = wait_until(lambda: len(found := console.live()) == 2 and found, "both nodes are shown")
        asked = wait_until(lambda: console.get("health")["asked"], "asked")
        shutil.rmtree(tmp_path / "web")
        with Bus(fleet.desk.broker, client_id="pusher") as bus:
            assert bus.wait_connected(60)
            bus.publish(fleet.desk.topics.notice, encode(Notice(text="hello")), timeout=30)
        wait_until(lambda: console.get("health")["asked"] not in (asked, None), "asked again")
        wait_until(lambda: console.live() == before, "both nodes are shown again")
        assert (tmp_path / "web" / "console.db").exists()


def test_a_broker_that_is_killed_and_comes_back(tmp_path: Path, new_rabbitmq: Callable[..., RabbitMQ]) -> None:
    broker = new_rabbitmq().start()
    with RealFleet(tmp_path / "fleet", broker.address, ["web1"]) as fleet:
        fleet.push("v1")
        assert fleet.run(fleet.planned("v1")).exit_code == 0
        with console_of(fleet, tmp_path / "desk") as console, console.events() as kinds:
            before = wait_until(lambda: console.get("health")["asked"], "asked")
            wait_until(lambda: console.live() == {"web1": "refs/tags/v1"}, "the node is shown")
            broker.kill9()
            health = wait_until(lambda: (found := console.get("health"))["away_since"] and found, "away")
            assert not health["connected"]
            assert health["reason"]
            assert console.live() == {"web1": "refs/tags/v1"}, "what is known stays visible"
            assert "away" in console.page("/").lower() or "hears nothing" in console.page("/").lower()
            broker.start()
            wait_until(lambda: console.get("health")["connected"], "connected again", timeout=120)
            wait_until(lambda: console.get("health")["asked"] not in (before, None), "asked again", timeout=120)
            wait_until(lambda: kinds.count("health") >= 3, "open pages heard of it")
