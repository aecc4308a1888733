"""The embedded broker as clients written by others see it: stomp.py on each version, and stompman."""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from deploykit.broker.server import EmbeddedBroker
from tests.support.bus import in_time

os.environ.setdefault("STOMP_SKIP_HOSTNAME_SCAN", "1")
stomp = pytest.importorskip("stomp")


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker(users={"user": "pass"}) as broker:
        yield broker


class _Listener:
    """Puts every event into a queue."""

    def __init__(self) -> None:
        self.messages: queue.Queue[Any] = queue.Queue()
        self.receipts: queue.Queue[str] = queue.Queue()
        self.errors: queue.Queue[Any] = queue.Queue()
        self.disconnected = threading.Event()
        self.heartbeat_timeout = threading.Event()

    def on_message(self, frame: Any) -> None:
        self.messages.put(frame)

    def on_receipt(self, frame: Any) -> None:
        self.receipts.put(frame.headers["receipt-id"])

    def on_error(self, frame: Any) -> None:
        self.errors.put(frame)

    def on_disconnected(self) -> None:
        self.disconnected.set()

    def on_heartbeat_timeout(self) -> None:
        self.heartbeat_timeout.set()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("on_"):
            return lambda *_args: None
        raise AttributeError(name)


_CLASSES = {"1.0": "Connection10", "1.1": "Connection11", "1.2": "Connection12"}


def _stomp_py(broker: EmbeddedBroker, version: str, passcode: str = "pass") -> tuple[Any, _Listener]:
    extra = {} if version == "1.0" else {"heartbeats": (1000, 1000)}
    connection = getattr(stomp, _CLASSES[version])([("127.0.0.1", broker.port)], **extra)
    listener = _Listener()
    connection.set_listener("", listener)
    connection.connect("user", passcode, wait=True)
    return connection, listener


def _ack(connection: Any, version: str, frame: Any, name: str = "ack") -> None:
    call = getattr(connection, name)
    if version == "1.0":
        call(frame.headers["message-id"])
    elif version == "1.1":
        call(frame.headers["message-id"], frame.headers["subscription"])
    else:
        call(frame.headers["ack"])


@pytest.mark.parametrize("version", list(_CLASSES))
def test_stomp_py_publishes_consumes_acknowledges_and_leaves(broker: EmbeddedBroker, version: str) -> None:
    connection, listener = _stomp_py(broker, version)
    connection.subscribe("/queue/a", id="7", ack="client-individual", headers={"prefetch-count": "1"})
    for number in range(3):
        connection.send("/queue/a", f"body {number} é\n", headers={"ref": "refs/heads/a:b"}, receipt=str(number))
    for number in range(3):
        assert listener.receipts.get(timeout=60) == str(number)
        frame = listener.messages.get(timeout=60)
        assert (frame.body, frame.headers["ref"]) == (f"body {number} é\n", "refs/heads/a:b")
        _ack(connection, version, frame)
    broker.wait_for(lambda stats: stats.queues == {"/queue/a": 0})
    connection.disconnect(receipt="bye")
    assert listener.disconnected.wait(60)
    assert listener.errors.empty()


@pytest.mark.parametrize("version", ["1.1", "1.2"])
def test_stomp_py_nacks_into_the_dead_letter_queue(broker: EmbeddedBroker, version: str) -> None:
    connection, listener = _stomp_py(broker, version)
    connection.subscribe("/queue/a", id="7", ack="client-individual")
    connection.send("/queue/a", "x")
    _ack(connection, version, listener.messages.get(timeout=60), "nack")
    broker.wait_for(lambda stats: stats.queues == {"/queue/a": 0, "/queue/DLQ.a": 1})
    connection.disconnect()


@pytest.mark.parametrize("version", ["1.1", "1.2"])
def test_stomp_py_heart_beats_hold_both_ways(broker: EmbeddedBroker, version: str) -> None:
    def given_up() -> float:
        # One quiet time is enough: a machine that stops for longer than heart-beats allow ends one, whoever is right.
        connection, listener = _stomp_py(broker, version)
        time.sleep(4.0)  # four intervals: three would have been the end, on either side
        kept = connection.is_connected() and broker.stats().connections == 1
        if not kept or listener.heartbeat_timeout.is_set():
            with contextlib.suppress(stomp.exception.StompException):
                connection.disconnect()
            broker.wait_for(lambda stats: stats.connections == 0, 60)
            return 1
        last.append((connection, listener))
        return 0

    last: list[tuple[Any, _Listener]] = []
    in_time(1, given_up)
    broker.faults.heartbeats_off()
    assert last[0][1].heartbeat_timeout.wait(60)


@pytest.mark.parametrize("version", list(_CLASSES))
def test_stomp_py_is_told_of_a_wrong_passcode(broker: EmbeddedBroker, version: str) -> None:
    with pytest.raises(stomp.exception.ConnectFailedException):
        _stomp_py(broker, version, passcode="wrong")


@pytest.mark.parametrize("version", list(_CLASSES))
def test_stomp_py_transactions(broker: EmbeddedBroker, version: str) -> None:
    connection, listener = _stomp_py(broker, version)
    connection.subscribe("/topic/t", id="7")
    for end in ("abort", "commit"):
        transaction = connection.begin()
        connection.send("/topic/t", end, transaction=transaction)
        getattr(connection, end)(transaction)
    assert listener.messages.get(timeout=60).body == "commit"
    connection.disconnect()


@pytest.mark.parametrize("version", list(_CLASSES))
def test_a_durable_subscription_of_stomp_py_is_filled_while_it_is_away(broker: EmbeddedBroker, version: str) -> None:
    durable = {"durable": "true", "auto-delete": "false", "x-queue-name": "node-1"}
    connection, listener = _stomp_py(broker, version)
    connection.subscribe("/topic/t", id="7", ack="auto", headers=durable)
    broker.wait_for(lambda stats: stats.subscriptions == 1)
    connection.disconnect()
    broker.wait_for(lambda stats: stats.connections == 0)
    other, _ = _stomp_py(broker, version)
    other.send("/topic/t", "missed")
    broker.wait_for(lambda stats: stats.durable == {("node-1", "/topic/t"): 1})
    connection, listener = _stomp_py(broker, version)
    connection.subscribe("/topic/t", id="8", ack="auto", headers=durable)
    assert listener.messages.get(timeout=60).body == "missed"
    connection.unsubscribe(id="8", headers={"durable": "true"})
    broker.wait_for(lambda stats: stats.durable == {})
    other.disconnect()
    connection.disconnect()


def test_stompman_publishes_in_a_transaction_and_consumes(broker: EmbeddedBroker) -> None:
    stompman = pytest.importorskip("stompman")

    async def talk() -> list[bytes]:
        got: list[bytes] = []
        enough = asyncio.Event()

        async def handler(frame: Any) -> None:
            got.append(frame.body)
            if len(got) == 5:
                enough.set()

        server = stompman.ConnectionParameters(host="127.0.0.1", port=broker.port, login="user", passcode="pass")
        heartbeat = stompman.Heartbeat(will_send_interval_ms=1000, want_to_receive_interval_ms=1000)
        async with stompman.Client(servers=[server], heartbeat=heartbeat) as client:
            subscription = await client.subscribe(
                "/queue/a", handler, ack="client-individual", on_suppressed_exception=lambda *_: None
            )
            await client.send(b"0", "/queue/a", headers={"x": "1:2\n"})
            async with client.begin() as transaction:
                for number in range(1, 5):
                    await transaction.send(str(number).encode(), "/queue/a")
            await asyncio.wait_for(enough.wait(), 60)
            await asyncio.sleep(4.0)  # four heart-beats: three without one would have been the end
            assert client.is_alive()
            await subscription.unsubscribe()
        return got

    assert asyncio.run(talk()) == [b"0", b"1", b"2", b"3", b"4"]
    broker.wait_for(lambda stats: stats.queues == {} and stats.connections == 0)
