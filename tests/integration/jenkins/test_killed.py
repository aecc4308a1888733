"""`deploykit jenkins` as a process that is killed again and again: books are right at the end."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.bus import Bus, Delivery
from deploykit.messages import BuildRequested
from deploykit.wire import decode
from tests.support.buildorders import push
from tests.support.cli import command
from tests.support.stubjenkins import StubJenkins, StubJob
from tests.support.wait import wait_until

PUSHES = 40
KILLS = 6


class Daemon:
    """`deploykit jenkins` as a process of its own, started as often as a test likes; one log."""

    def __init__(self, root: Path, broker: EmbeddedBroker, jenkins: StubJenkins) -> None:
        self.config, self.log = root / "deploykit.toml", root / "jenkins.log"
        token = jenkins.settings(root).token_file
        self.settings = (
            f'node = "web1"\nstate = "{root}/state"\n[broker]\naddress = "{broker.address}"\nbackoff_max = 0.2\n'
            f'[outbox]\npath = "{root}/spool"\n'
            "[jenkins]\nask_again_after = 2.0\npause_max = 0.3\n"
            f'[jenkins.servers.ci]\nurl = "{jenkins.url}"\nuser = "deploykit"\ntoken_file = "{token}"\ntimeout = 5\n'
        )
        self.write('[[jenkins.jobs]]\nrepo = "shop"\njob = "shop-tests"\n')
        self.log.touch()
        self._running: subprocess.Popen[bytes] | None = None

    def write(self, jobs: str) -> None:
        """Write the settings file."""
        self.config.touch(mode=0o600)
        self.config.write_text(self.settings + jobs)

    def start(self, *, ready: bool = True) -> subprocess.Popen[bytes]:
        """Start it."""
        before = self.said("ready: jenkins")
        with self.log.open("ab") as log:
            self._running = subprocess.Popen(command("jenkins", "-c", str(self.config)), stdout=log, stderr=log)
        if ready:
            wait_until(lambda: self.said("ready: jenkins") > before, "for the daemon")
        return self._running

    def said(self, text: str) -> int:
        return self.log.read_text().count(text)

    def end(self, number: int) -> int:
        """Send a signal and return the exit code."""
        assert self._running is not None
        self._running.send_signal(number)
        code = self._running.wait(60)
        self._running = None
        return code

    def kill(self) -> None:
        if self._running is not None and self._running.poll() is None:
            assert self.end(signal.SIGKILL) == -signal.SIGKILL


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker(data=tmp_path / "broker") as started:
        yield started


@pytest.fixture
def jenkins() -> Iterator[StubJenkins]:
    with StubJenkins([StubJob(name="shop-tests"), StubJob(name="docs")]) as started:
        yield started


@pytest.fixture
def daemon(tmp_path: Path, broker: EmbeddedBroker, jenkins: StubJenkins) -> Iterator[Daemon]:
    made = Daemon(tmp_path, broker, jenkins)
    yield made
    made.kill()


def test_killed_again_and_again_every_push_is_built_once_and_said(
    broker: EmbeddedBroker, jenkins: StubJenkins, daemon: Daemon
) -> None:
    chance = random.Random(13)  # the moments of the kills differ with the machine's load all the same
    heard: dict[str, BuildRequested] = {}

    def hear(delivery: Delivery) -> None:
        message = decode(delivery.headers, delivery.body)
        if isinstance(message, BuildRequested):
            heard[message.id] = message

    with Bus(broker.address) as bus:
        bus.subscribe("/topic/deploykit.build", hear)
        assert bus.wait_connected(30)
        daemon.start()
        pushes = [push(f"refs/heads/b{number}") for number in range(PUSHES)]
        for number, message in enumerate(pushes):
            bus.send(message)
            if number % (PUSHES // KILLS) == 3:
                time.sleep(chance.uniform(0.0, 0.3))  # nothing is waited for: it is killed at any instant
                daemon.kill()
                if number > PUSHES // 2:
                    jenkins.stop()
                    daemon.start(ready=False)
                    time.sleep(chance.uniform(0.0, 0.3))
                    jenkins.start()
                else:
                    daemon.start(ready=False)
        asked = ("queued", "joined")
        wait_until(
            lambda: {m.correlation_id for m in heard.values() if m.outcome in asked} == {m.id for m in pushes},
            "a report of every build",
            60,
        )
        jenkins.queue.wait_for_builds("shop-tests", PUSHES)
        assert daemon.end(signal.SIGTERM) == 0
    built = Counter(build.parameters["DEPLOYKIT_CORRELATION_ID"] for build in jenkins.queue.jobs["shop-tests"].builds)
    assert built == Counter(message.id for message in pushes)
    reports = Counter(m.correlation_id for m in heard.values() if m.outcome in asked)
    assert set(reports.values()) == {1}
    assert not any(m.perhaps_twice for m in heard.values())


def test_new_settings_count_after_hup_and_wrong_ones_change_nothing(
    broker: EmbeddedBroker, jenkins: StubJenkins, daemon: Daemon
) -> None:
    process = daemon.start()
    with Bus(broker.address) as bus:
        daemon.write('[[jenkins.jobs]]\nrepo = "shop"\njob = "docs"\nignore_refs = "(?!x)"\n')
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: daemon.said("not accepted by google-re2") == 1, "the refusal of the settings")
        bus.send(push())
        jenkins.queue.wait_for_builds("shop-tests", 1)
        daemon.write('[[jenkins.jobs]]\nrepo = "shop"\njob = "docs"\n')
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: daemon.said("ready: jenkins") == 2, "the new settings")
        bus.send(push())
        jenkins.queue.wait_for_builds("docs", 1)
    assert len(jenkins.queue.jobs["shop-tests"].builds) == 1
    assert daemon.end(signal.SIGTERM) == 0


def test_one_run_to_the_end_takes_what_came_meanwhile(
    broker: EmbeddedBroker, jenkins: StubJenkins, daemon: Daemon
) -> None:
    daemon.start()
    daemon.kill()
    with Bus(broker.address) as bus:
        bus.send(push())
    words = command("jenkins", "--once", "--config", str(daemon.config))
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "1 build answered\n"), done.stderr
    jenkins.queue.wait_for_builds("shop-tests", 1)
