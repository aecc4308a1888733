"""Each fault switch of the embedded broker, as a client sees it."""

from __future__ import annotations

import contextlib
import gc
import socket
import sys
import threading
import time
import warnings
from collections.abc import Iterator

import pytest

from deploykit.broker.frames import VERSIONS
from deploykit.broker.server import EmbeddedBroker
from deploykit.errors import FrameError
from tests.support.raw_stomp import RawStomp


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as broker:
        yield broker


@pytest.fixture
def client(broker: EmbeddedBroker) -> Iterator[RawStomp]:
    with RawStomp.connected(broker.port, heart_beat="0,50") as client:
        yield client


def _without_beats(client: RawStomp) -> bool:
    """Tell whether five times as long as it beats nothing comes at all."""
    before = client.bytes_read
    return client.silent(0.25) and client.bytes_read == before


def test_freeze_stops_reading_writing_and_beating_and_thawing_goes_on(broker: EmbeddedBroker, client: RawStomp) -> None:
    broker.faults.freeze()
    client.silent(0.1)  # what was on its way
    client.send("SEND", b"x", destination="/queue/a", receipt="late")
    assert _without_beats(client)
    with RawStomp(broker.port) as second:
        second.send("CONNECT", accept_version="1.2")
        assert second.silent(0.2), "a new connection is made and gets no answer"
        broker.faults.freeze(False)
        assert second.frame().command == "CONNECTED"
    assert client.frame().headers["receipt-id"] == "late"


def test_a_thawed_broker_does_not_blame_clients_for_its_own_sleep(broker: EmbeddedBroker) -> None:
    with RawStomp.connected(broker.port, heart_beat="500,0") as client:
        broker.faults.freeze()
        time.sleep(2.5)  # a client that says nothing for 1.5 s is given up, see test_embedded_raw.py
        broker.faults.freeze(False)
        client.ask("SEND", destination="/queue/a")


def test_stop_reading_keeps_beating_while_receipts_wait(broker: EmbeddedBroker, client: RawStomp) -> None:
    broker.faults.stop_reading()
    client.send("SEND", destination="/queue/a", receipt="r")
    assert client.beats()
    assert broker.stats().queues == {}
    broker.faults.stop_reading(False)
    assert client.frame().headers["receipt-id"] == "r"


def test_slow_reads_push_back_on_the_sender(broker: EmbeddedBroker, client: RawStomp) -> None:
    broker.faults.slow_reads(20_000)
    start = time.monotonic()
    client.ask("SEND", b"x" * 10_000, destination="/queue/a")
    assert 0.4 <= time.monotonic() - start < 20
    broker.faults.slow_reads(None)
    start = time.monotonic()
    client.ask("SEND", b"x" * 1_000_000, destination="/queue/a")
    assert time.monotonic() - start < 20  # and not 50


def test_heartbeats_off_promises_and_does_not_keep(broker: EmbeddedBroker, client: RawStomp) -> None:
    assert client.beats()
    broker.faults.heartbeats_off()
    client.silent(0.1)
    assert _without_beats(client)
    client.ask("SEND", destination="/queue/a")


def test_refuse_heartbeats_answers_zero(broker: EmbeddedBroker) -> None:
    broker.faults.refuse_heartbeats()
    with RawStomp(broker.port) as client:
        client.send("CONNECT", accept_version="1.2", heart_beat="100,100")
        assert client.frame().headers["heart-beat"] == "0,0"


def test_mute_connect_never_answers(broker: EmbeddedBroker) -> None:
    broker.faults.mute_connect()
    with RawStomp(broker.port) as client:
        client.send("CONNECT", accept_version="1.2")
        client.send("SEND", destination="/queue/a")
        assert client.silent(0.3)
    broker.faults.mute_connect(False)
    with RawStomp.connected(broker.port):
        pass


def test_refuse_connections_resets_new_ones_only(broker: EmbeddedBroker, client: RawStomp) -> None:
    broker.faults.refuse_connections()
    with pytest.raises(OSError), RawStomp.connected(broker.port):
        pass
    client.ask("SEND", destination="/queue/a")


def test_withheld_receipts_do_not_come_though_the_message_is_there(broker: EmbeddedBroker, client: RawStomp) -> None:
    broker.faults.withhold_receipts()
    client.send("SEND", b"x", destination="/queue/a", receipt="r")
    broker.wait_for(lambda stats: stats.queues == {"/queue/a": 1})
    assert client.silent()
    broker.faults.withhold_receipts(False)
    client.ask("SEND", destination="/queue/a")


@pytest.mark.parametrize("close", [True, False])
def test_error_next_answers_one_frame_with_an_error(broker: EmbeddedBroker, client: RawStomp, close: bool) -> None:
    broker.faults.error_next("SEND", "no such vhost", close=close)
    client.ask("BEGIN", transaction="another command is not hit")
    client.send("SEND", destination="/queue/a", receipt="r")
    error = client.error() if close else client.frame()
    assert (error.command, error.headers["message"], error.headers["receipt-id"]) == ("ERROR", "no such vhost", "r")
    assert broker.stats().queues == {}
    if not close:
        client.ask("SEND", destination="/queue/a")


@pytest.mark.parametrize("close", [True, False])
def test_send_error_comes_unasked(broker: EmbeddedBroker, client: RawStomp, close: bool) -> None:
    assert broker.faults.send_error("shutting down", close=close) == 1
    error = client.error() if close else client.frame()
    assert error.headers["message"] == "shutting down"
    assert "receipt-id" not in error.headers
    if not close:
        client.ask("SEND", destination="/queue/a")


@pytest.mark.parametrize("version", VERSIONS)
def test_a_lost_ack_leaves_the_message_under_way_until_the_connection_ends(
    broker: EmbeddedBroker, version: str
) -> None:
    with RawStomp.connected(broker.port, version) as client:
        client.ask("SUBSCRIBE", id="1", destination="/queue/a", ack="client-individual")
        client.ask("SEND", destination="/queue/a")
        message = client.message()
        broker.faults.lose_acks(1)
        names = {"message-id": message.headers["message-id"], "subscription": "1", "id": message.headers.get("ack", "")}
        client.send("ACK", receipt="never", **names)
        assert client.silent()
        assert broker.stats().queues == {"/queue/a": 1}
    with RawStomp.connected(broker.port, version) as client:
        client.ask("SUBSCRIBE", id="1", destination="/queue/a", ack="client-individual")
        client.ack(client.message())
    broker.wait_for(lambda stats: stats.queues == {})


def test_duplicated_sends_are_two_messages_with_one_body(broker: EmbeddedBroker, client: RawStomp) -> None:
    broker.faults.duplicate_sends(1)
    client.ask("SEND", b"twice", destination="/queue/a")
    client.ask("SEND", b"once", destination="/queue/a")
    assert [frame.body for frame in broker.peek("/queue/a")] == [b"twice", b"twice", b"once"]


def test_shuffled_deliveries_are_all_there_in_another_order(broker: EmbeddedBroker, client: RawStomp) -> None:
    broker.faults.shuffle_deliveries(seed=1)
    bodies = [str(n).encode() for n in range(20)]
    for body in bodies:
        client.ask("SEND", body, destination="/queue/a")
    client.ask("SUBSCRIBE", id="1", destination="/queue/a")
    got = [client.message().body for _ in bodies]
    assert got != bodies
    assert sorted(got) == sorted(bodies)


@pytest.mark.parametrize("reset", [True, False])
def test_drop_ends_every_connection_and_hands_messages_back(
    broker: EmbeddedBroker, client: RawStomp, reset: bool
) -> None:
    client.ask("SEND", destination="/queue/a")
    client.ask("SUBSCRIBE", id="1", destination="/queue/a", ack="client-individual")
    client.message()
    assert broker.faults.drop(reset=reset) == 1
    with pytest.raises(ConnectionResetError if reset else ConnectionError):
        client.frame()
    with RawStomp.connected(broker.port) as second:
        second.ask("SUBSCRIBE", id="1", destination="/queue/a")
        assert second.message().headers["redelivered"] == "true"


def test_half_open_forgets_the_client_and_tells_it_nothing(broker: EmbeddedBroker, client: RawStomp) -> None:
    client.ask("SEND", destination="/queue/a")
    client.ask("SUBSCRIBE", id="1", destination="/queue/a", ack="client-individual")
    client.message()
    assert broker.faults.half_open() == 1
    client.silent(0.1)
    client.send("SEND", destination="/queue/b", receipt="r")
    assert _without_beats(client)
    assert broker.stats().connections == 0
    with RawStomp.connected(broker.port) as second:
        second.ask("SUBSCRIBE", id="1", destination="/queue/a")
        assert second.message().headers["redelivered"] == "true"


def test_garbled_bytes_are_no_frame(broker: EmbeddedBroker, client: RawStomp) -> None:
    assert broker.faults.garble() == 1
    with pytest.raises(FrameError):
        client.frame()


def test_garbled_bytes_may_be_chosen(broker: EmbeddedBroker, client: RawStomp) -> None:
    broker.faults.garble(b"RECEIPT\nreceipt-id:forged\n\n\0")
    assert client.frame().headers["receipt-id"] == "forged"


def test_an_oversized_frame_never_ends(broker: EmbeddedBroker, client: RawStomp) -> None:
    reader = threading.Thread(target=_read_all, args=(client, 3_000_000))
    reader.start()
    assert broker.faults.oversize(3_000_000) == 1
    reader.join(60)
    assert not reader.is_alive()
    assert client.silent()


def _read_all(client: RawStomp, count: int) -> None:
    while client.bytes_read < count:
        client.silent(0.05)


def test_clear_ends_every_lasting_fault(broker: EmbeddedBroker, client: RawStomp) -> None:
    faults = broker.faults
    faults.withhold_receipts()
    faults.mute_connect()
    faults.refuse_connections()
    faults.slow_reads(1)
    faults.error_next("SEND")
    faults.lose_acks(5)
    faults.duplicate_sends(5)
    faults.freeze()
    faults.clear()
    client.ask("SEND", destination="/queue/a")
    with RawStomp.connected(broker.port):
        pass
    assert broker.stats().queues == {"/queue/a": 1}


def test_faults_may_be_set_while_the_broker_is_stopped() -> None:
    broker = EmbeddedBroker()
    broker.faults.mute_connect()
    assert broker.faults.drop() == 0
    with broker, RawStomp(broker.port) as client:
        client.send("CONNECT")
        assert client.silent()


def test_a_broker_that_is_killed_while_clients_connect_leaves_no_socket_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernel had accepted and the broker not yet seen must be closed too."""
    left: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda what: left.append(str(what.exc_value)))
    gc.collect()  # what other tests left is not meant
    left.clear()
    storm = threading.Event()

    def connect(port: int) -> None:
        while not storm.is_set():
            with contextlib.suppress(OSError), socket.socket() as client:
                client.settimeout(1)
                client.connect(("127.0.0.1", port))

    with EmbeddedBroker() as broker:
        threads = [threading.Thread(target=connect, args=(broker.port,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(60):
                broker.restart()
        finally:
            storm.set()
            for thread in threads:
                thread.join(60)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        gc.collect()
    assert left == []
