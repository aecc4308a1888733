"""Any schedule of sends, kills, lost acks, duplicates, reordering, restarts: nothing acknowledged is lost, nothing is
handled twice. The embedded broker stands for the faults; the real ones for the truth (fewer schedules, real kill -9).

`DEPLOYKIT_SCHEDULES` sets how many schedules are generated for the embedded broker (default 200), and a quarter
as many for each real one: a broker's start takes longer than all the rest of a schedule.
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from deploykit.broker.server import EmbeddedBroker
from deploykit.settings import BusSettings
from tests.brokers.server import BrokerServer
from tests.support.books import Control, World

SCHEDULES = int(os.environ.get("DEPLOYKIT_SCHEDULES", "200"))

QUICK = BusSettings(
    heartbeat=0.3, backoff_initial=0.01, backoff_max=0.05, connect_timeout=1.0, publish_timeout=20.0, stall_timeout=0.5
)


class Books(RuleBasedStateMachine):
    """One world around an embedded broker that keeps its durable state in a directory."""

    def __init__(self) -> None:
        super().__init__()
        self._directory = tempfile.TemporaryDirectory(prefix="deploykit-books-")
        directory = Path(self._directory.name)
        self.broker = EmbeddedBroker(users={"u": "p"}, data=directory / "broker").start()
        control = Control(
            address=lambda: self.broker.address,
            kill=self.broker.kill,
            start=self.broker.start,
            running=lambda: self.broker.running,
            heal=self.broker.faults.clear,
        )
        self.world = World(control, directory, "books", settings=QUICK)

    @initialize(count=st.integers(1, 5))
    def first(self, count: int) -> None:
        self.world.send(count, to_topic=True)

    @rule(count=st.integers(1, 10), to_topic=st.booleans())
    def send(self, count: int, to_topic: bool) -> None:
        self.world.send(count, to_topic=to_topic)

    @rule(count=st.integers(1, 10), to_topic=st.booleans())
    def publish(self, count: int, to_topic: bool) -> None:
        self.world.publish(count, to_topic=to_topic)

    @rule(milliseconds=st.integers(0, 60))
    def wait(self, milliseconds: int) -> None:
        time.sleep(milliseconds / 1000)

    @rule()
    @precondition(lambda self: self.broker.running)
    def kill_broker(self) -> None:
        self.broker.kill()

    @rule()
    @precondition(lambda self: not self.broker.running)
    def start_broker(self) -> None:
        self.broker.start()

    @rule()
    @precondition(lambda self: self.broker.running)
    def kill_and_start_broker(self) -> None:
        self.broker.restart()

    @rule(reset=st.booleans())
    @precondition(lambda self: self.broker.running)
    def drop_connections(self, reset: bool) -> None:
        self.broker.faults.drop(reset=reset)

    @rule()
    @precondition(lambda self: self.broker.running)
    def half_open(self) -> None:
        self.broker.faults.half_open()

    @rule(count=st.integers(1, 5))
    def lose_acks(self, count: int) -> None:
        self.broker.faults.lose_acks(count)

    @rule(count=st.integers(1, 5))
    def duplicate(self, count: int) -> None:
        self.broker.faults.duplicate_sends(count)

    @rule(seed=st.integers(0, 1000))
    def reorder(self, seed: int) -> None:
        self.broker.faults.shuffle_deliveries(seed)

    @rule(on=st.booleans())
    def withhold_receipts(self, on: bool) -> None:
        self.broker.faults.withhold_receipts(on)

    @rule(command=st.sampled_from(["SEND", "ACK", "SUBSCRIBE", "CONNECT"]))
    def error(self, command: str) -> None:
        self.broker.faults.error_next(command, "planned", close=True)

    @rule(count=st.integers(1, 3))
    def fail_next(self, count: int) -> None:
        self.world.fail_next(count)

    @rule()
    def restart_relay(self) -> None:
        self.world.restart_relay()

    @rule()
    def restart_consumer(self) -> None:
        self.world.restart_consumer()

    def teardown(self) -> None:
        try:
            self.world.settle(timeout=180)
        finally:
            self.world.close()
            self.broker.stop()
            self._directory.cleanup()


@pytest.mark.slow
@pytest.mark.timeout(3600)
# A connection that asyncio was accepting while the embedded broker was killed is closed by the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_no_schedule_loses_an_acknowledged_message_or_handles_one_twice() -> None:
    run_state_machine_as_test(
        Books,
        settings=settings(
            max_examples=SCHEDULES,
            stateful_step_count=15,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", [20261123])
def test_no_schedule_with_a_real_broker_and_real_kill_9_does_either(
    new_real_broker: Callable[..., BrokerServer], tmp_path: Path, seed: int
) -> None:
    """Many schedules on one broker. The random seed is fixed, what the broker does in time is not."""
    dice = random.Random(seed)
    broker = new_real_broker().start()
    control = Control(
        address=lambda: broker.address,
        kill=broker.kill9,
        start=broker.start,
        running=lambda: broker.pid is not None,
        heal=lambda: None,
        declared=broker.sync_declared,
    )
    quick = BusSettings(heartbeat=2.0, backoff_initial=0.05, backoff_max=0.3, connect_timeout=5.0, publish_timeout=60.0)
    kills = 0
    for number in range(SCHEDULES // 4):
        directory = tmp_path / str(number)
        directory.mkdir()
        world = World(control, directory, f"books-{number}-{dice.randrange(10**9)}", settings=quick)
        steps = [dice.choice(["send", "publish", "wait", "relay", "consumer", "fail"]) for _ in range(10)]
        steps.insert(dice.randrange(2, 10), "kill")
        try:
            for step in steps:
                match step:
                    case "send":
                        world.send(dice.randrange(1, 50), to_topic=dice.random() < 0.5)
                    case "publish":
                        world.publish(dice.randrange(1, 50), to_topic=dice.random() < 0.5)
                    case "wait":
                        time.sleep(dice.random() * 0.1)
                    case "relay":
                        world.restart_relay()
                    case "consumer":
                        world.restart_consumer()
                    case "fail":
                        world.fail_next(dice.randrange(1, 4))
                    case "kill":
                        world.diary.note("world", "kill -9")
                        broker.kill9()
                        kills += 1
                        world.send(dice.randrange(1, 50), to_topic=dice.random() < 0.5)
                        broker.start()
            world.settle(timeout=180)
        finally:
            if broker.pid is None:
                broker.start()
            world.close()
    assert kills == SCHEDULES // 4 > 0
