"""docs/bus.md: the daemon in it is 20 lines, runs as it stands there, and survives what the page says it survives."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploykit import encode
from deploykit.broker.server import EmbeddedBroker
from deploykit.bus import Bus
from deploykit.messages import Notice
from deploykit.settings import BusSettings
from deploykit.testing.proxy import FaultProxy
from deploykit.wire.codec import ID_HEADER
from tests.brokers.server import BrokerServer
from tests.support.bus import fast, running, text
from tests.support.wait import wait_until

PAGE = Path(__file__).parents[3] / "docs" / "bus.md"
TOPIC = "/topic/deploykit.notice"


def daemon() -> str:
    found = re.search(r"<!-- daemon -->\n```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return found[1]


@contextmanager
def daemon_running(directory: Path, address: str) -> Iterator[Callable[[], list[str]]]:
    """Run it as a process of its own; gives what it has printed so far."""
    script, output = directory / "daemon.py", directory / "output"
    script.write_text(daemon(), encoding="utf-8")
    with output.open("ab") as out, (directory / "errors").open("ab") as errors:
        process = subprocess.Popen(
            [sys.executable, str(script)],
            cwd=directory,
            env={"PATH": os.environ["PATH"], "BROKER": address, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=errors,
        )
        try:
            yield lambda: output.read_text(encoding="utf-8").splitlines()
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                code = process.wait(60)
            finally:
                process.kill()
    assert code == 0, (directory / "errors").read_text(encoding="utf-8")


def notice(bus: Bus, number: int) -> None:
    bus.publish(TOPIC, encode(Notice(text=f"number {number}", source="test")), timeout=30)


def printed(numbers: range) -> list[str]:
    return [f"number {number}" for number in numbers]


def test_it_is_20_lines() -> None:
    assert len(daemon().splitlines()) <= 20


def test_it_survives_what_a_broker_does(tmp_path: Path) -> None:
    with EmbeddedBroker(users={"ada": "s3cret"}, data=tmp_path / "broker") as broker:
        with daemon_running(tmp_path, broker.address) as lines, running(fast(broker.address, heartbeat=1.0)) as bus:
            broker.wait_for(lambda stats: stats.subscriptions >= 1, 60)
            notice(bus, 0)
            wait_until(lambda: lines() == printed(range(1)))
            faults: list[Callable[[], object]] = [
                broker.restart,
                broker.faults.drop,
                broker.faults.half_open,
                broker.faults.garble,
                lambda: broker.faults.oversize(6_000_000),
                lambda: broker.faults.send_error("no reason"),
                lambda: broker.faults.lose_acks(3),
                lambda: broker.faults.duplicate_sends(3),
                lambda: bus.publish(TOPIC, text("not a message at all", **{"content-type": "application/json"})),
                broker.restart,
            ]
            for number, fault in enumerate(faults, 1):
                fault()
                notice(bus, number)
            wait_until(lambda: len(lines()) > len(faults), timeout=90)
            time.sleep(0.3)
            assert sorted(lines()) == sorted(printed(range(len(faults) + 1)))
        # While it is away its messages are kept, and it does not print twice what it has printed.
        with running(fast(broker.address)) as bus:
            notice(bus, 100)
        with daemon_running(tmp_path, broker.address) as lines:
            wait_until(lambda: "number 100" in lines(), timeout=60)
            assert len(lines()) == len(faults) + 2
        # One message, perhaps in two copies: the broker may have doubled this very SEND, or died before its receipt.
        assert len({dead.headers[ID_HEADER] for dead in broker.peek("/queue/deploykit.dead-letter")}) == 1


@pytest.mark.slow
def test_it_notices_by_itself_that_nobody_is_at_the_other_end(tmp_path: Path) -> None:
    """A firewall that forgot the connection tells neither side: only missing heart-beats do."""
    with (
        EmbeddedBroker(users={"ada": "s3cret"}) as broker,
        FaultProxy(broker.port) as proxy,
        daemon_running(tmp_path, proxy.address_for("ada:s3cret")) as lines,
        running(fast(broker.address)) as bus,
    ):
        broker.wait_for(lambda stats: stats.subscriptions >= 1, 60)
        notice(bus, 0)
        wait_until(lambda: lines() == printed(range(1)))
        proxy.half_open("client")
        broker.wait_for(lambda stats: stats.subscriptions == 0, 60)
        notice(bus, 1)
        wait_until(lambda: lines() == printed(range(2)), timeout=60)


@pytest.mark.slow
def test_it_survives_kill_9_of_a_real_broker(new_real_broker: Callable[..., BrokerServer], tmp_path: Path) -> None:
    broker = new_real_broker().start()
    settings = BusSettings(address=broker.address, backoff_max=0.5)
    with daemon_running(tmp_path, broker.address) as lines, running(settings) as bus:
        warm_up = 0
        while not lines():  # until its subscription stands
            warm_up -= 1
            notice(bus, warm_up)
            time.sleep(0.2)
        broker.sync_declared()
        for number in range(3):
            notice(bus, number)
            broker.kill9()
            broker.start()
        notice(bus, 3)
        try:
            wait_until(lambda: set(printed(range(4))) <= set(lines()), timeout=60)
        except AssertionError as error:
            said = (tmp_path / "errors").read_text(encoding="utf-8")
            raise AssertionError(f"{error}; printed {lines()}; it said:\n{said}") from None
        assert len(lines()) == len(set(lines()))
