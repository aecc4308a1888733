"""`watch`: neither more nor less than was asked for, whoever reads it and wherever the broker is."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.bus import Bus
from deploykit.messages import Notice, RefUpdated
from deploykit.names import parse_object_id, parse_ref_name, parse_repo_name
from deploykit.settings import BusSettings
from deploykit.wire import Frame, encode
from tests.support.cli import command, run
from tests.support.watching import Watching

TOPIC = "/topic/deploykit.notice"


@pytest.fixture
def config(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> Path:
    return settings(tmp_path, deploykit_broker.address)


def settings(directory: Path, address: str, connect_timeout: int = 60) -> Path:
    file = directory / "deploykit.toml"
    broker = f'address = "{address}"\nbackoff_max = 0.2\nconnect_timeout = {connect_timeout}\n'
    file.write_text(f'node = "hub"\n[broker]\n{broker}')
    file.chmod(0o600)
    return file


def say(broker: EmbeddedBroker, *texts: str) -> None:
    with Bus(BusSettings(address=broker.address)) as bus:
        for text in texts:
            bus.publish(TOPIC, encode(Notice(source="test", text=text)))


def test_a_message_is_one_line_and_ctrl_c_ends_it_well(
    config: Path, deploykit_broker: EmbeddedBroker, watching: Callable[..., Watching]
) -> None:
    watch = watching()
    watch.wait(lambda: watch.lines() == ["ready: watching"])
    say(deploykit_broker, "hello", "\x1b[2Jworld")
    watch.wait(lambda: len(watch.lines()) == 3)
    assert watch.lines()[1].endswith("hello")
    assert "\x1b" not in watch.lines()[2]
    assert watch.end(signal.SIGINT) == 0


def test_count_takes_no_more_than_it_shows_and_leaves_the_rest_to_the_next(
    config: Path, deploykit_broker: EmbeddedBroker
) -> None:
    words = ("watch", "--json", "--durable", "me", "-d", TOPIC, "-c", str(config))
    say_later = subprocess.Popen(command(*words, "--count", "1"), stdout=subprocess.PIPE, text=True)
    assert say_later.stdout is not None
    assert json.loads(say_later.stdout.readline()) == {"ready": True}
    say(deploykit_broker, *(f"n{i}" for i in range(5)))
    assert say_later.wait(60) == 0
    first = say_later.stdout.read().splitlines()
    say_later.stdout.close()
    done = run(*words, "--count", "4")
    shown = [json.loads(line) for line in (*first, *done.stdout.splitlines()) if "ready" not in line]
    assert [entry["summary"] for entry in shown] == [f"n{i}" for i in range(5)]
    assert done.returncode == 0


def test_a_forgotten_name_is_kept_nothing_for(config: Path, deploykit_broker: EmbeddedBroker) -> None:
    words = ("watch", "--durable", "me", "-d", TOPIC, "-c", str(config))
    first = subprocess.Popen(command(*words), stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    assert first.stdout.readline() == "ready: watching\n"
    first.terminate()
    assert first.wait(60) == 0
    first.stdout.close()
    assert run(*words, "--forget").returncode == 0
    say(deploykit_broker, "missed")
    again = subprocess.Popen(command(*words, "--count", "1"), stdout=subprocess.PIPE, text=True)
    assert again.stdout is not None
    assert again.stdout.readline() == "ready: watching\n"
    say(deploykit_broker, "seen")
    assert again.stdout.readline().endswith("seen\n")
    assert again.wait(60) == 0
    again.stdout.close()


def test_it_ends_when_nobody_reads_on(config: Path, deploykit_broker: EmbeddedBroker) -> None:
    watch = subprocess.Popen(
        command("watch", "-c", str(config)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert watch.stdout is not None
        assert watch.stderr is not None
        assert watch.stdout.readline() == "ready: watching\n"
        watch.stdout.close()
        say(deploykit_broker, "one", "two")
        assert watch.wait(60) == 1
        assert "Traceback" not in watch.stderr.read()
        watch.stderr.close()
    finally:
        watch.kill()
        watch.wait()


def test_it_says_why_nothing_comes_once_and_goes_on_when_the_broker_is_there(
    tmp_path: Path, watching: Callable[..., Watching]
) -> None:
    broker = EmbeddedBroker(data=tmp_path / "broker")
    broker.start()
    settings(tmp_path, broker.address, connect_timeout=1)
    broker.stop()
    try:
        watch = watching()
        watch.wait(lambda: "waiting for a broker" in watch.errors.read_text())
        broker.start()
        watch.wait(lambda: watch.lines() == ["ready: watching"])
        say(broker, "hello")
        watch.wait(lambda: len(watch.lines()) == 2)
        assert watch.errors.read_text().count("waiting") == 1
        assert watch.end() == 0
    finally:
        broker.stop()


def test_what_is_no_message_is_shown_as_such(
    config: Path, deploykit_broker: EmbeddedBroker, watching: Callable[..., Watching]
) -> None:
    watch = watching("--json")
    watch.wait(lambda: watch.lines() != [])
    with Bus(BusSettings(address=deploykit_broker.address)) as bus:
        bus.publish(TOPIC, Frame({"content-type": "application/cloudevents+json"}, b"{"))
    watch.wait(lambda: len(watch.lines()) == 2)
    assert json.loads(watch.lines()[1])["error"]
    assert watch.end() == 0


@pytest.mark.parametrize("thread", ["c-1", ""])
@pytest.mark.parametrize("notice_first", [False, True])
@pytest.mark.parametrize("words", [(), ("--json",)], ids=["lines", "json"])
def test_a_push_is_shown_once_although_hooks_send_its_line_as_a_notice_too(
    config: Path,
    deploykit_broker: EmbeddedBroker,
    watching: Callable[..., Watching],
    words: tuple[str, ...],
    notice_first: bool,
    thread: str,
) -> None:
    watch = watching(*words)
    watch.wait(lambda: watch.lines() != [])
    push = RefUpdated(
        repo=parse_repo_name("shop"),
        ref=parse_ref_name("refs/heads/main"),
        old=parse_object_id("1" * 40),
        new=parse_object_id("2" * 40),
        correlation_id=thread,
    )
    beside = Notice(source="git/host", text=push.summary, correlation_id=thread)
    other = Notice(source="git/host", text="something else about it", correlation_id=thread)
    pair = [("/topic/deploykit.source", encode(push)), (TOPIC, encode(beside))]
    with Bus(BusSettings(address=deploykit_broker.address)) as bus:
        bus.publish_many([*reversed(pair)] if notice_first else pair)  # a notice waits for its event for a second
        bus.publish(TOPIC, encode(other))  # a notice without an event comes a moment later
    watch.wait(lambda: any("something else" in line for line in watch.lines()))
    shown = [line for line in watch.lines() if "something else" not in line and "ready" not in line]
    assert len(shown) == 1, shown
    if words:
        assert json.loads(shown[0])["message"]["type"] == RefUpdated.TYPE
    else:
        assert push.summary in shown[0]
    assert watch.end() == 0


def test_a_notice_is_shown_where_its_event_is_not_watched(
    config: Path, deploykit_broker: EmbeddedBroker, watching: Callable[..., Watching]
) -> None:
    watch = watching("-d", TOPIC)
    watch.wait(lambda: watch.lines() != [])
    with Bus(BusSettings(address=deploykit_broker.address)) as bus:
        for _ in range(2):
            bus.publish(TOPIC, encode(Notice(source="git/host", text="[shop] main moved", correlation_id="c-1")))
    watch.wait(lambda: len(watch.lines()) == 3)
    assert watch.end() == 0


def test_a_destination_that_the_broker_refuses_is_no_success(config: Path) -> None:
    done = run("watch", "-c", str(config), "-d", "nonsense")
    assert (done.returncode, done.stdout) == (2, "")
    assert "does not know the destination 'nonsense'" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_one_refused_destination_is_told_and_the_others_are_watched(
    config: Path, deploykit_broker: EmbeddedBroker, watching: Callable[..., Watching]
) -> None:
    watch = watching("-d", "nonsense", "-d", TOPIC)
    watch.wait(lambda: "ready: watching" in watch.lines())
    say(deploykit_broker, "hello")
    watch.wait(lambda: any("hello" in line for line in watch.lines()))
    assert "no messages from nonsense" in watch.errors.read_text()


def test_forgetting_without_a_broker_is_no_success(tmp_path: Path, unused_port: int) -> None:
    file = settings(tmp_path, f"stomp://127.0.0.1:{unused_port}", connect_timeout=1)
    for words in (("watch", "--durable", "x", "--forget"), ("agent", "--forget")):
        done = run(*words, "-c", str(file))
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
