"""Half-old fleets that people watch: our daemons' reports reach the original's bot as lines, and ours as messages."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from deploykit.bus import Bus, Delivery
from deploykit.daemons.access.daemon import AccessDaemon
from deploykit.daemons.jenkins.trigger import JenkinsTrigger
from deploykit.errors import MessageError
from deploykit.messages import AccessReported, BuildRequested, DeployReported, Message, MirrorUpdated
from deploykit.names import RefName, SiteName
from deploykit.settings import (
    AccessSettings,
    AccessSiteSettings,
    JenkinsSettings,
    JobSettings,
    OutboxSettings,
    Settings,
)
from deploykit.trust.signature import HEADER
from deploykit.wire import CONTENT_TYPE, decode
from tests.brokers.server import BrokerServer
from tests.support.mixedfleet import MixedFleet
from tests.support.node import SHOP, Node
from tests.support.originals.publishers import EVENTBOT, access_form, git_post_receive
from tests.support.originals.readers import OldEventbot
from tests.support.stubjenkins import StubJenkins, StubJob
from tests.support.wait import wait_until

#: What people must hear of: a part of the line, and the topic it comes on.
ANNOUNCED = {
    "web1 [shop] v1 updated": "stompgit",
    "web1 deploy shop v1": "stompgit",
    "web2 access to example-site for ada granted": "stageaccess",
    "web3 Requested Jenkins build: [shop] refs/tags/v1": "jenkins",
}


class Ours:
    """A reader of ours on every topic that is not for people."""

    def __init__(self, fleet: MixedFleet) -> None:
        self.heard: list[tuple[Delivery, Message]] = []
        self.bus = Bus(fleet.settings.broker)
        self._topics = [t for t in fleet.topics.destinations if t not in fleet.topics.notices.values()]

    def __enter__(self) -> Ours:
        self.bus.start()
        for topic in self._topics:
            assert self.bus.subscribe(topic, self._hear).wait_active(60)
        return self

    def __exit__(self, *_: object) -> None:
        self.bus.stop()

    def _hear(self, delivery: Delivery) -> None:
        try:
            message = decode(delivery.headers, delivery.body, delivery.destination)
        except MessageError:
            return  # an access to a site that is named by its label: only its daemon knows which that is
        if message is not None:
            self.heard.append((delivery, message))

    def of(self, kind: type[Message]) -> list[Delivery]:
        """The deliveries of one kind."""
        return [delivery for delivery, message in list(self.heard) if isinstance(message, kind)]


def machine(node: Node, name: str, **changes: object) -> Settings:
    """The settings of another machine of the fleet."""
    own = {"node": name, "state": node.root / name, "outbox": OutboxSettings(path=node.root / f"{name}.spool")}
    return attrs.evolve(node.settings, **own, **changes)  # type: ignore[arg-type]


@pytest.mark.rabbitmq
def test_the_originals_bot_hears_lines_alone_and_our_readers_messages(tmp_path: Path, rabbitmq: BrokerServer) -> None:
    fleet = MixedFleet(tmp_path, rabbitmq)
    node = Node(tmp_path / "node", rabbitmq)
    node.settings = attrs.evolve(node.settings, topics=fleet.topics, legacy=True)
    site = AccessSiteSettings(file=tmp_path / "htpasswd", label="Example site")
    site.file.touch(0o640)
    sites = AccessSettings(sites={SiteName("example-site"): site}, legacy=True, gather=0.05)
    node.origin.push()
    with (
        StubJenkins([StubJob(name="shop-tests")]) as jenkins,
        Ours(fleet) as ours,
        OldEventbot(fleet.old) as bot,
        node,
    ):
        servers = {"ci": jenkins.settings(tmp_path)}
        builds = JenkinsSettings(servers=servers, jobs=(JobSettings(repo=SHOP, job="shop-tests"),))
        with (
            node.agent() as agent,
            AccessDaemon(machine(node, "web2", access=sites)) as access,
            JenkinsTrigger(machine(node, "web3", jenkins=builds)) as trigger,
        ):
            agent.ready()
            assert access.wait_connected(60)
            assert trigger.wait_connected(60)
            commit = node.origin.push(tag="v1")
            git_post_receive(fleet.old, "shop", node.origin.path, f"{'0' * 40} {commit} refs/tags/v1\n")
            node.wait(MirrorUpdated, lambda m: m.ref == RefName("refs/tags/v1"))
            asked = node.request("v1", commit)
            node.send(asked)
            assert node.report_on(asked).outcome == "success"
            access_form(fleet.old, "Example site", "ada")
            wait_until(lambda: all(map(ours.of, (AccessReported, BuildRequested, DeployReported))), "all reports")

            def missing() -> set[str]:
                heard = {part for _, text in bot.lines for part in ANNOUNCED if text.startswith(part)}
                return ANNOUNCED.keys() - heard

            wait_until(lambda: not missing(), f"{missing()} in {bot.lines}")
        assert bot.runs
    for frame in bot.heard:
        assert frame.headers["content-type"].startswith("text/plain")
        assert frame.headers["subject"] == EVENTBOT
        assert not frame.text.startswith("{")
        assert "\n" not in frame.text.rstrip("\n")
    for part, where in ANNOUNCED.items():
        assert [topic for topic, text in bot.lines if text.startswith(part)] == [where]
    for kind in (MirrorUpdated, DeployReported, AccessReported, BuildRequested):
        for delivery in ours.of(kind):
            assert delivery.headers["content-type"].startswith(CONTENT_TYPE)
    assert all(HEADER in delivery.headers for delivery in ours.of(DeployReported))
