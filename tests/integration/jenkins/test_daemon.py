"""Pushes on a real bus become builds at the stub Jenkins, and everybody hears what came of them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.bus import Bus, Delivery
from deploykit.daemons.jenkins.commands import once
from deploykit.daemons.jenkins.trigger import JenkinsTrigger
from deploykit.daemons.service.metrics import Metrics
from deploykit.messages import BuildRequested, Message, Notice
from deploykit.messages.topics import PRESETS
from deploykit.settings import JenkinsSettings, JobSettings, Settings
from deploykit.wire import Frame, decode
from tests.support.buildorders import MAIN, NEW, SHOP, job, node_settings, push
from tests.support.stubjenkins import StubJenkins, StubJob
from tests.support.wait import wait_until


class Fleet:
    """A broker, a Jenkins, settings, and a bus that hears what is published."""

    def __init__(self, root: Path, broker: EmbeddedBroker, jenkins: StubJenkins) -> None:
        self.jenkins = jenkins
        found = JenkinsSettings(
            servers={"ci": jenkins.settings(root)}, jobs=(job(),), pause_max=0.2, ask_again_after=0.5
        )
        self.settings = node_settings(root, broker.address, found)
        self.bus = Bus(broker.address, client_id="test").start()
        self.heard: list[tuple[Delivery, Message | None]] = []
        for topic in dict.fromkeys((*self.settings.topics.destinations, *PRESETS["future"].destinations)):
            self.bus.subscribe(topic, self._hear)
        self.bus.subscribe(self.settings.broker.dead_letter, self._hear)
        assert self.bus.wait_connected(30)

    def _hear(self, delivery: Delivery) -> None:
        self.heard.append((delivery, decode(delivery.headers, delivery.body, delivery.destination)))

    def jobs(self, *jobs: JobSettings, **changes: object) -> Settings:
        """The settings with other jobs."""
        jenkins = attrs.evolve(self.settings.jenkins, jobs=jobs, **changes)  # type: ignore[arg-type]
        return attrs.evolve(self.settings, jenkins=jenkins)

    def requests(self, *outcomes: str) -> list[BuildRequested]:
        """The events about requests, each id once."""
        found = {m.id: m for _, m in list(self.heard) if isinstance(m, BuildRequested)}
        return [m for m in found.values() if not outcomes or m.outcome in outcomes]

    def wait(self, *outcomes: str, count: int = 1) -> list[BuildRequested]:
        """Wait for so many events about requests."""
        wait_until(lambda: len(self.requests(*outcomes)) >= count, f"{count} {outcomes}, got {self.requests()}")
        return self.requests(*outcomes)

    def lines(self) -> list[str]:
        """The lines for people."""
        return [m.text for _, m in list(self.heard) if isinstance(m, Notice)]

    def line(self, text: str) -> str:
        """Wait for the line for people that has a text: it goes out beside the event, and may be heard after it."""
        return wait_until(lambda: next((each for each in self.lines() if text in each), ""), f"a line with {text}")

    def builds(self, name: str = "shop-tests") -> list[dict[str, str]]:
        """The parameters of what Jenkins built."""
        return [dict(build.parameters) for build in self.jenkins.queue.jobs[name].builds]

    def settled(self, trigger: JenkinsTrigger) -> None:
        """Wait until nothing waits any more."""
        wait_until(lambda: not trigger.waiting, "the end of all builds")


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    jobs = [StubJob(name="shop-tests"), StubJob(name="shop-docs"), StubJob(name="plain", parameters=None)]
    with EmbeddedBroker() as broker, StubJenkins(jobs) as jenkins:
        made = Fleet(tmp_path, broker, jenkins)
        yield made
        made.bus.stop()


def test_a_push_starts_a_build_and_everybody_hears_of_it(fleet: Fleet) -> None:
    message = push(correlation_id="c-1")
    with JenkinsTrigger(fleet.settings) as trigger:
        assert trigger.wait_connected(30)
        fleet.bus.send(message)
        (queued,) = fleet.wait("queued")
        (started,) = fleet.wait("started")
    assert fleet.builds() == [
        {
            "DEPLOYKIT_CORRELATION_ID": "c-1",
            "DEPLOYKIT_REPO": "shop",
            "DEPLOYKIT_REF": "refs/heads/main",
            "DEPLOYKIT_COMMIT": NEW,
        }
    ]
    assert (queued.repo, queued.ref, queued.commit, queued.correlation_id) == (SHOP, MAIN, NEW, "c-1")
    assert (queued.server, queued.job, queued.number, queued.perhaps_twice) == ("ci", "shop-tests", 0, False)
    assert (started.number, started.queue_item) == (1, queued.queue_item)
    assert started.url.endswith("/job/shop-tests/1/")
    line = fleet.line("Jenkins build")
    assert fleet.lines() == [line] == [f"web1 Requested Jenkins build: [shop] refs/heads/main {NEW} / shop-tests"]
    assert trigger.status == "waiting for a broker"


def test_pushes_that_come_while_it_is_down_are_built_later(fleet: Fleet) -> None:
    with JenkinsTrigger(fleet.settings) as trigger:
        assert trigger.wait_connected(30)
    for number in range(3):
        fleet.bus.send(push(f"refs/heads/b{number}"))
    report = once(fleet.settings, 30.0)
    assert (report.connected, report.asked, report.left) == (True, 3, 0)
    fleet.wait("queued", count=3)
    fleet.jenkins.queue.wait_for_builds("shop-tests", 3)


def test_a_jenkins_that_is_down_holds_up_neither_messages_nor_other_servers(fleet: Fleet, tmp_path: Path) -> None:
    with StubJenkins([StubJob(name="other")]) as second:
        (tmp_path / "two").mkdir()
        servers = {**fleet.settings.jenkins.servers, "two": second.settings(tmp_path / "two")}
        settings = fleet.jobs(job(server="ci"), job("other", server="two"), servers=servers)
        fleet.jenkins.stop()
        with JenkinsTrigger(settings) as trigger:
            assert trigger.wait_connected(30)
            for number in range(5):
                fleet.bus.send(push(f"refs/heads/b{number}"))
            second.queue.wait_for_builds("other", 5)
            wait_until(lambda: trigger.waiting == 5, "the builds of the server that is down")
        assert not fleet.builds()
        fleet.jenkins.start()
        with JenkinsTrigger(settings) as trigger:
            fleet.settled(trigger)
            fleet.wait("queued", count=10)
        fleet.jenkins.queue.wait_for_builds("shop-tests", 5)
        assert [b["DEPLOYKIT_REF"] for b in fleet.builds()] == [f"refs/heads/b{n}" for n in range(5)]
        assert len(second.queue.jobs["other"].builds) == 5


def test_a_build_that_is_refused_says_what_to_change_and_is_built_after_that(fleet: Fleet) -> None:
    fleet.jenkins.queue.jobs["shop-tests"].disabled = True
    message = push()
    with JenkinsTrigger(fleet.settings) as trigger:
        assert trigger.wait_connected(30)
        fleet.bus.send(message)
        (refused,) = fleet.wait("refused")
        assert "409" in refused.detail
        assert "enable it in Jenkins" in refused.detail
        wait_until(lambda: any("dead-letter-reason" in d.headers for d, _ in fleet.heard), "the dead letter")
        letter = next(d for d, _ in fleet.heard if "dead-letter-reason" in d.headers)
        assert "409" in letter.headers["dead-letter-reason"]
        assert letter.headers["original-destination"] == fleet.settings.topics.source
        assert fleet.line("Refused").startswith("web1 Refused Jenkins build: [shop]")
        # Mended, and sent back from the dead letters.
        fleet.jenkins.queue.jobs["shop-tests"].disabled = False
        kept = ("content-type", "subject", "deploykit-type", "deploykit-id")
        frame = Frame({k: v for k, v in letter.headers.items() if k in kept}, letter.body)
        fleet.bus.publish(
            letter.headers["original-destination"], Frame({**frame.headers, "deploykit-id": "x"}, frame.body)
        )
        fleet.wait("queued")
        fleet.jenkins.queue.wait_for_builds("shop-tests", 1)


def test_a_lost_answer_is_looked_for_and_the_build_is_not_started_twice(fleet: Fleet) -> None:
    fleet.jenkins.fault("close", method="POST")
    with JenkinsTrigger(fleet.settings) as trigger:
        assert trigger.wait_connected(30)
        fleet.bus.send(push())
        (queued,) = fleet.wait("queued")
        fleet.settled(trigger)
    fleet.jenkins.queue.wait_for_builds("shop-tests", 1)
    assert not queued.perhaps_twice
    assert len(fleet.jenkins.posts()) == 1


def test_a_request_that_never_arrived_is_made_again(fleet: Fleet) -> None:
    fleet.jenkins.fault("close", method="POST", carried_out=False)
    with JenkinsTrigger(fleet.settings) as trigger:
        assert trigger.wait_connected(30)
        fleet.bus.send(push())
        (queued,) = fleet.wait("queued")
    fleet.jenkins.queue.wait_for_builds("shop-tests", 1)
    assert not queued.perhaps_twice
    assert len(fleet.jenkins.posts()) == 2


def test_where_it_may_not_look_it_asks_again_and_says_perhaps_twice(fleet: Fleet) -> None:
    settings = fleet.jobs(job("plain"))
    fleet.jenkins.fault("close", method="POST", path="/build$")
    with JenkinsTrigger(settings) as trigger:
        assert trigger.wait_connected(30)
        fleet.bus.send(push())
        (queued,) = fleet.wait("queued", "joined")
    assert queued.perhaps_twice
    assert "perhaps twice" in fleet.line("plain")


def test_on_the_originals_topics_its_readers_understand_the_line(fleet: Fleet) -> None:
    settings = attrs.evolve(fleet.settings, topics=PRESETS["future"])
    with JenkinsTrigger(settings) as trigger:
        assert trigger.wait_connected(30)
        body = f"repo: shop\noldrev: {'0' * 40}\nnewrev: {NEW}\nrefname: refs/heads/main\n {NEW}\nAuthor: Ada\n\nx\n\n"
        headers = {"subject": f"[shop] refs/heads/main {NEW}", "content-type": "text/plain; charset=UTF-8"}
        fleet.bus.publish("/topic/future.git.commits", Frame({"content-type": "text/plain"}, b"\n"))  # a keepalive
        fleet.bus.publish("/topic/future.git.commits", Frame(headers, body.encode()))
        fleet.wait("queued")
        wait_until(lambda: bool(fleet.lines()), "the line for people")
    delivery = next(d for d, m in fleet.heard if isinstance(m, Notice))
    assert delivery.destination == "/topic/future.events.jenkins"
    # As a reader written for the original's messages takes it: a subject, and one line of text.
    assert delivery.headers["subject"] == "Talking to eventbot"
    assert delivery.headers["content-type"].startswith("text/plain")
    said = delivery.body.decode()
    assert said.rstrip("\n") == f"web1 Requested Jenkins build: [shop] refs/heads/main {NEW} / shop-tests"


def test_the_frames_of_a_legacy_revision_start_each_projects_build_once(fleet: Fleet) -> None:
    settings = attrs.evolve(fleet.jobs(job(projects=("*",), parameters={"DEPLOYKIT_REF": "{project}"})))
    settings = attrs.evolve(settings, topics=PRESETS["future"])
    both = "web/trunk/\nlib/trunk/\n"
    with JenkinsTrigger(settings) as trigger:
        assert trigger.wait_connected(30)
        for revision, project, dirs in ((7, "web", both), (7, "lib", both), (8, "end", "end/trunk/\n")):
            body = (
                f"repo: shop\nrevname: {revision}\n Author: ada\nDate: 2026-11-29 22:00:00 +0000 (Sun, 29 Nov 2026)\n"
                f"Project: {project}\n\nDirs:\n{dirs}\nlog\n\n"
            )
            frame = Frame({"subject": f"[shop] {revision} ", "content-type": "text/plain"}, body.encode())
            fleet.bus.publish("/topic/future.git.commits", frame)
        fleet.wait("queued", count=3)  # a job's builds keep their order: both frames before the last were handled
        fleet.settled(trigger)
    fleet.jenkins.queue.wait_for_builds("shop-tests", 3)
    assert sorted(b["DEPLOYKIT_REF"] for b in fleet.builds()) == ["end", "lib", "web"]


def test_it_works_on_a_bus_that_others_use_too(fleet: Fleet) -> None:
    begun = time.monotonic()
    with JenkinsTrigger(fleet.settings, bus=fleet.bus) as trigger:
        assert trigger.wait_connected(30)
        fleet.bus.send(push())
        fleet.wait("queued")
    assert fleet.bus.wait_connected(1)
    assert time.monotonic() - begun < 60


def test_who_asked_and_what_was_decided_is_recorded_and_counted(fleet: Fleet) -> None:
    fleet.jenkins.queue.jobs["shop-docs"].disabled = True
    metrics = Metrics()
    settings = fleet.jobs(job(), job("shop-docs"))
    with JenkinsTrigger(settings, metrics=metrics) as trigger:
        assert trigger.wait_connected(30)
        fleet.bus.send(push(correlation_id="c-1"))
        fleet.wait("queued")
        fleet.wait("refused")
    records = [json.loads(line) for line in (settings.state / "audit.log").read_text().splitlines()]
    assert [r["decision"] for r in records if r["action"] == "build"] == ["allowed", "allowed"]
    # "build.result" is what an agent records of a build that has ended.
    found = {r["target"]: r for r in records if r["action"] == "build.answer"}
    assert found["ci/shop-tests"]["decision"] == "allowed"
    assert found["ci/shop-docs"]["decision"] == "denied"
    assert "409" in found["ci/shop-docs"]["reason"]
    assert {r["correlation_id"] for r in found.values()} == {"c-1"}
    assert found["ci/shop-docs"]["details"]["pusher"] == "ada"
    counted = {labels: number for labels, number in metrics.series("builds_requested_total").items() if number}
    assert counted == {("shop", "queued"): 1.0, ("shop", "refused"): 1.0}


def test_a_branch_of_a_multibranch_project_is_built_and_an_unknown_one_is_looked_for(fleet: Fleet) -> None:
    jobs = [StubJob(name="multi", kind="multibranch", parameters=None), StubJob(name="multi/feature%2Flogin")]
    with StubJenkins(jobs) as jenkins:
        settings = fleet.jobs(
            job("multi", multibranch=True), servers={"ci": jenkins.settings(fleet.settings.state.parent)}
        )
        with JenkinsTrigger(settings) as trigger:
            assert trigger.wait_connected(30)
            fleet.bus.send(push("refs/heads/feature/login"))
            (queued,) = fleet.wait("queued")
            fleet.bus.send(push("refs/heads/new"))
            (scanned,) = fleet.wait("scanned")
            # Its line is sent after the event: a daemon that ends between the two keeps it for the next start.
            wait_until(
                lambda: any(line.endswith("/ multi/new (scanning the branches)") for line in fleet.lines()), "its line"
            )
        assert queued.job == "multi/feature%2Flogin"
        jenkins.queue.wait_for_builds("multi/feature%2Flogin", 1)
        assert scanned.ref == "refs/heads/new"
