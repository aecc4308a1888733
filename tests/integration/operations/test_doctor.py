"""`deploykit doctor` and `deploykit keepalive`: what they say, what they find, and that they leave nothing behind."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.bus import Bus
from deploykit.daemons.keepalive import KeepaliveSender, send_once
from deploykit.errors import PublishError, SettingsError
from deploykit.names import NodeName
from deploykit.operations.doctor import examine
from deploykit.operations.findings import Finding
from deploykit.settings import BusSettings, Settings
from deploykit.testing.proxy import FaultProxy
from tests.brokers.server import BrokerServer
from tests.support.bus import Collector, fast, running, text
from tests.support.cli import command, run
from tests.support.wait import wait_until


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker(users={"ada": "s3cret"}, record=1000) as embedded:
        yield embedded


def by_check(findings: tuple[Finding, ...]) -> dict[str, Finding]:
    return {finding.check: finding for finding in findings}


def test_a_sound_broker_passes_every_check_and_nothing_is_left(broker: EmbeddedBroker) -> None:
    told: list[Finding] = []
    # A beat is waited for somewhat longer than its period: of 1 s, a busy machine misses it.
    findings = examine(fast(broker.address, heartbeat=2.0, connect_timeout=5.0), told.append)
    assert tuple(told) == findings
    assert [finding.check for finding in findings] == [
        "answers",
        "version",
        "TLS",
        "login",
        "receipts",
        "heart-beat",
        "NACK",
        "durable subscription",
    ]
    assert not any(finding.failed for finding in findings)
    assert "deploykit-embedded" in findings[0].text
    broker.wait_for(lambda stats: stats.connections == 0)
    assert dict(broker.stats().durable) == {}
    assert dict(broker.stats().queues) == {}


def test_each_real_broker_passes(real_broker: BrokerServer) -> None:
    for settings in (
        BusSettings(address=real_broker.address),
        BusSettings(address=real_broker.tls_address, tls_ca=real_broker.ca_file),
    ):
        findings = by_check(examine(settings))
        assert [finding for finding in findings.values() if finding.failed] == []
        assert "one came after" in findings["heart-beat"].text
        expected = "comes back" if real_broker.kind == "rabbitmq" else "does not come back"
        assert expected in findings["NACK"].text


@pytest.mark.parametrize(
    ("change", "check", "seen", "fix"),
    [
        ({"address": "stomp://127.0.0.1:1"}, "answers", "refused", "running"),
        (
            {"passcode": "canary"},
            "answers",
            "login: access refused: login or passcode is wrong",
            "passcode",
        ),
        ({"address": "stomp+ssl://127.0.0.1:{port}"}, "answers", "TLS", "port"),
        ({"heartbeat": 0.0}, "heart-beat", "off", "heartbeat"),
    ],
)
def test_every_failure_comes_with_a_way_out(
    broker: EmbeddedBroker, change: dict[str, object], check: str, seen: str, fix: str
) -> None:
    base = fast(f"stomp://127.0.0.1:{broker.port}", login="ada", passcode="s3cret", connect_timeout=5.0)
    if "address" in change:
        change = {**change, "address": str(change["address"]).format(port=broker.port)}
    finding = by_check(examine(attrs.evolve(base, **change)))[check]  # type: ignore[arg-type]
    assert finding.failed
    assert seen in finding.text
    assert fix in finding.remedy
    assert "canary" not in str(finding)


def test_a_broker_that_promises_beats_and_sends_none_is_found_out(broker: EmbeddedBroker) -> None:
    broker.faults.heartbeats_off()
    finding = by_check(examine(fast(broker.address, heartbeat=1.0)))["heart-beat"]
    assert finding.failed


def test_a_slow_line_is_found_out(broker: EmbeddedBroker) -> None:
    with FaultProxy(broker.port) as proxy:
        proxy.latency(0.3)
        address = proxy.address_for("ada:s3cret")
        finding = by_check(examine(fast(address, heartbeat=10.0, connect_timeout=5.0)))["receipts"]
    assert finding.failed
    assert "overloaded" in finding.remedy


def test_each_broker_of_a_list_is_examined(broker: EmbeddedBroker) -> None:
    findings = examine(fast(f"failover:(stomp://127.0.0.1:1,{broker.address})?nonsense=1"))
    assert {finding.broker for finding in findings} == {
        "settings",
        "stomp://127.0.0.1:1",
        f"stomp://127.0.0.1:{broker.port}",
    }


def config(tmp_path: Path, address: str, more: str = "") -> Path:
    path = tmp_path / "deploykit.toml"
    path.write_text(f'node = "n1"\n[broker]\naddress = "{address}"\nheartbeat = 2.0\n{more}')
    path.chmod(0o600)
    return path


def test_the_command_prints_a_line_each_and_its_exit_code_says_it(broker: EmbeddedBroker, tmp_path: Path) -> None:
    file = config(tmp_path, broker.address)
    done = run("doctor", "--config", str(file), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 8
    as_json = run("doctor", "--json", "--config", str(file), cwd=tmp_path)
    assert [json.loads(line)["check"] for line in as_json.stdout.splitlines()][-1] == "durable subscription"
    broker.stop()
    down = run("doctor", "--config", str(file), cwd=tmp_path)
    assert down.returncode == 1
    assert down.stdout.startswith("error ")
    assert "s3cret" not in done.stdout + as_json.stdout + down.stdout + down.stderr


def test_keepalive_once_reaches_topics_and_queues_and_says_what_failed(broker: EmbeddedBroker, tmp_path: Path) -> None:
    file = config(tmp_path, broker.address, 'keepalive = ["/topic/a", "/queue/b"]\n')
    done = run("keepalive", "--once", "--config", str(file), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [(frame.headers["destination"], frame.body) for frame in broker.sent()] == [
        ("/topic/a", b"\n"),
        ("/queue/b", b"\n"),
    ]
    assert all("expires" in frame.headers and "persistent" not in frame.headers for frame in broker.sent())
    bad = run("keepalive", "--once", "nowhere", "/topic/c", "--config", str(file), cwd=tmp_path)
    assert bad.returncode == 1
    assert "sent: /topic/c" in bad.stdout
    assert "nowhere" in bad.stderr


def test_every_bus_with_the_setting_keeps_its_destinations_alive(broker: EmbeddedBroker) -> None:
    settings = fast(broker.address, keepalive=("/topic/a",), keepalive_every=0.05)
    with running(settings) as bus:
        wait_until(lambda: len(broker.sent("/topic/a")) >= 3)
        wait_until(lambda: bus.counters.published >= 3)


def test_a_keepalive_that_finds_no_room_is_left_out(broker: EmbeddedBroker) -> None:
    with running(fast(broker.address, keepalive=("/topic/a",), keepalive_every=0.05, window=2)) as bus:
        broker.faults.withhold_receipts()
        futures = [bus.publish_nowait("/queue/q", text(str(n)), timeout=3.0) for n in range(2)]
        for future in futures:
            with pytest.raises(PublishError, match="no receipt"):
                future.result(60)
        broker.faults.withhold_receipts(False)
        bus.publish("/queue/q", text("room again"), timeout=30)


def test_a_keepalive_that_makes_no_sense_is_said_at_once(broker: EmbeddedBroker) -> None:
    with pytest.raises(SettingsError) as caught:
        Bus(fast(broker.address, keepalive=("/topic/", "/topic/a\nb"), keepalive_every=0.0))
    assert len(caught.value.problems) == 3


@pytest.mark.parametrize(
    "words", [("relay",), ("agent",), ("watch", "-d", "/topic/b")], ids=["relay", "agent", "watch"]
)
def test_every_daemon_keeps_alive_what_its_settings_file_lists(
    broker: EmbeddedBroker, tmp_path: Path, words: tuple[str, ...]
) -> None:
    more = f'keepalive = ["/topic/a", "/queue/b"]\nkeepalive_every = 0.1\n[outbox]\npath = "{tmp_path}/spool"\n'
    file = config(tmp_path, broker.address, more)
    file.write_text(f'state = "{tmp_path}/state"\n{file.read_text()}')
    daemon = subprocess.Popen(
        command(*words, "--config", str(file)),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        wait_until(
            lambda: daemon.poll() is not None or min(len(broker.sent(name)) for name in ("/topic/a", "/queue/b")) >= 3,
            timeout=60,
        )
        assert daemon.poll() is None
        assert {frame.body for frame in broker.sent("/topic/a")} == {b"\n"}
    finally:
        daemon.terminate()
        said, _ = daemon.communicate(timeout=60)
    assert daemon.returncode == 0, said


def test_a_keepalive_daemon_says_what_fails_and_ends_at_once(tmp_path: Path) -> None:
    file = config(tmp_path, "stomp://127.0.0.1:9")  # a port that is given to nobody
    words = command("keepalive", "/topic/a", "--every", "1", "--config", str(file))
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as daemon:
        assert daemon.stderr is not None
        said = ""
        while "keepalive to /topic/a: " not in said:
            said = daemon.stderr.readline()
            assert said
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(60) == 0


@pytest.mark.parametrize("options", [(), ("--once",)])
def test_a_keepalive_whose_login_is_refused_ends(
    broker: EmbeddedBroker, tmp_path: Path, options: tuple[str, ...]
) -> None:
    file = config(tmp_path, f"stomp://ada:wrong@127.0.0.1:{broker.port}")
    done = run("keepalive", "/topic/a", *options, "--config", str(file), cwd=tmp_path)
    assert done.returncode == 1
    assert "it refused the login" in done.stderr.splitlines()[-1]


def test_nothing_is_waited_for_once_a_keepalive_is_stopped(broker: EmbeddedBroker) -> None:
    broker.stop()
    stop = threading.Event()
    stop.set()
    with Bus(fast(broker.address)) as bus:
        began = time.monotonic()
        send_once(bus, ("/topic/a",), timeout=3600, stop=stop)
        assert time.monotonic() - began < 600


def test_handlers_never_see_a_keepalive(broker: EmbeddedBroker) -> None:
    collector = Collector()
    with running(fast(broker.address)) as bus:
        bus.subscribe("/queue/q", collector)
        assert send_once(bus, ("/queue/q",)) == {}
        bus.publish("/queue/q", text("real"))
        collector.wait(1)
        assert collector.bodies == ["real"]
    assert broker.peek("/queue/q") == ()


def test_the_loop_ends_when_it_is_told_and_survives_the_broker(broker: EmbeddedBroker) -> None:
    settings = Settings(node=NodeName("n"), broker=fast(broker.address))
    with KeepaliveSender(settings, destinations=("/topic/a",), every=0.1):
        wait_until(lambda: len(broker.sent("/topic/a")) >= 2)
        broker.restart()
        wait_until(lambda: len(broker.sent("/topic/a")) >= 2)
