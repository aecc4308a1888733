"""The packages daemon as a process, killed or asked to end during a read: nothing is lost, nothing done twice."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.messages import Message
from tests.brokers.rabbitmq import RabbitMQ
from tests.support.packagesworld import PackagesWorld
from tests.support.wait import wait_until


class DaemonProcess:
    """The daemon with the world's package manager, started as often as a test likes."""

    def __init__(self, world: PackagesWorld) -> None:
        self._words, self._starts = (str(world.root), world.settings.broker.address, world.topic), 0
        self.log = world.root / "log"
        self.log.touch()
        self.running: subprocess.Popen[bytes] | None = None

    def start(self) -> subprocess.Popen[bytes]:
        """Start it, and wait until it is ready."""
        self._starts += 1
        with self.log.open("ab") as log:
            self.running = subprocess.Popen(
                [sys.executable, "-m", "tests.support.packagesdriver", *self._words], stdout=log, stderr=log
            )
        running = self.running
        wait_until(lambda: self._ready >= self._starts or running.poll() is not None, "the daemon")
        assert running.poll() is None, self.log.read_text()
        return running

    @property
    def _ready(self) -> int:
        return self.log.read_text().count("ready: packages on web1")

    def end(self) -> None:
        """End it, whatever it does."""
        if self.running is not None:
            self.running.kill()
            self.running.wait(60)


@pytest.fixture
def world(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> Iterator[PackagesWorld]:
    with PackagesWorld(tmp_path, deploykit_broker.address) as made:
        yield made


@pytest.fixture
def process(world: PackagesWorld) -> Iterator[DaemonProcess]:
    made = DaemonProcess(world)
    yield made
    made.end()


def begin_a_read(world: PackagesWorld) -> Message:
    """Announce a package, and return once its source is being read, and does not end."""
    before = len(world.reads)
    world.hold()
    message = world.announce(correlation_id="push")
    wait_until(lambda: len(world.reads) > before, "the read")
    return message


def reports_on(world: PackagesWorld, message: Message) -> int:
    """How many reports on a message came, after another one was reported on."""
    world.report_on(world.announce())
    return len([each for each in world.reports if each.request == message.id])


@pytest.mark.rabbitmq
def test_what_was_in_work_when_it_was_killed_is_done_again_once_by_rabbitmq(
    tmp_path: Path, rabbitmq: RabbitMQ, unique_name: str
) -> None:
    with PackagesWorld(tmp_path, rabbitmq.address, topic=unique_name) as world:
        process = DaemonProcess(world)
        try:
            is_done_again_once(world, process)
        finally:
            process.end()


def test_what_was_in_work_when_it_was_killed_is_done_again_once(world: PackagesWorld, process: DaemonProcess) -> None:
    is_done_again_once(world, process)


def is_done_again_once(world: PackagesWorld, process: DaemonProcess) -> None:
    """Kill the daemon in the middle of a read, and see what the next one does."""
    running = process.start()
    message = begin_a_read(world)
    running.kill()
    assert running.wait(60) == -signal.SIGKILL
    assert world.reports == []
    world.let_go()
    process.start()
    assert world.report_on(message).correlation_id == "push"
    assert world.reads == ["ours", "ours"]
    assert reports_on(world, message) == 1
    assert len(world.reads) == 3


def test_term_waits_for_a_read_and_its_message_does_not_come_again(
    world: PackagesWorld, process: DaemonProcess
) -> None:
    running = process.start()
    message = begin_a_read(world)
    running.send_signal(signal.SIGTERM)
    wait_until(lambda: "SIGTERM: ending" in process.log.read_text(), "it to take note")
    wait_until(lambda: "ending: waits for source ours, which is being read" in process.log.read_text(), "the reason")
    assert running.poll() is None
    late = world.announce()  # the next one's work
    world.let_go()
    assert running.wait(60) == 0
    assert world.reads == ["ours"]
    process.start()
    world.report_on(late)
    assert reports_on(world, message) == 1
    assert len(world.reads) == 3, "one for the late message, one for the last"


def test_a_read_that_fails_while_it_ends_is_the_next_ones(world: PackagesWorld, process: DaemonProcess) -> None:
    """A supervisor ends the package manager with us: that says nothing about the source."""
    running = process.start()
    message = begin_a_read(world)
    world.next_reads("failed")
    running.send_signal(signal.SIGTERM)
    wait_until(lambda: "SIGTERM: ending" in process.log.read_text(), "it to take note")
    world.let_go()
    assert running.wait(60) == 0
    assert world.reports == []
    process.start()
    assert world.report_on(message).outcome == "refreshed"
    assert reports_on(world, message) == 1


def test_hup_reads_the_settings_again_and_loses_nothing(world: PackagesWorld, process: DaemonProcess) -> None:
    running = process.start()
    message = begin_a_read(world)
    running.send_signal(signal.SIGHUP)
    world.let_go()
    wait_until(lambda: process.log.read_text().count("ready: packages on web1") == 2, "it to be ready again")
    assert world.report_on(message).outcome == "refreshed"
    assert reports_on(world, message) == 1
    running.send_signal(signal.SIGTERM)
    assert running.wait(60) == 0
