"""What brokers do while a bus connects: late, silent, refusing, strange."""

from __future__ import annotations

import logging
import socket
import time

import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.bus import Bus
from deploykit.bus.events import Connected, ConnectFailed, ConnectionLost
from deploykit.errors import LoginRefused, PublishError
from deploykit.system.hosts import look_up
from tests.support.badservers import raw_server
from tests.support.bus import Events, fast, in_time, running, text
from tests.support.wait import wait_until


def test_a_broker_that_comes_up_late_is_found(broker: EmbeddedBroker) -> None:
    broker.stop()
    with Bus(fast(broker.address)) as bus:
        future = bus.publish_nowait("/queue/q", text("early"))
        assert not bus.wait_connected(0.3)
        broker.start()
        future.result(30)
    assert [f.body for f in broker.peek("/queue/q")] == [b"early"]


def test_connect_without_an_answer_ends_in_time_and_the_next_broker_is_tried(broker: EmbeddedBroker) -> None:
    with EmbeddedBroker(users={"ada": "s3cret"}) as mute:
        mute.faults.mute_connect()
        address = f"failover:({mute.address},{broker.address})?randomize=false"
        events = Events()
        with running(
            fast(address, connect_timeout=1.0), on_event=events
        ) as bus:  # within 30 s, the mute one never would
            bus.publish("/queue/q", text("x"))
            assert "no answer to CONNECT" in events.wait(ConnectFailed)[0].problem


def test_all_brokers_dead_and_one_back_is_enough(broker: EmbeddedBroker) -> None:
    with EmbeddedBroker(users={"ada": "s3cret"}) as other:
        events = Events()
        address = f"failover:({other.address},{broker.address})"
        with running(fast(address), on_event=events) as bus:
            other.kill()
            broker.kill()
            events.wait(ConnectionLost)
            broker.start()
            events.wait(Connected, 2)
            bus.publish("/queue/q", text("x"))


def test_service_is_back_within_a_second_of_the_port_opening(broker: EmbeddedBroker) -> None:
    with running(fast(broker.address, backoff_max=0.5)) as bus:

        def back() -> float:
            broker.kill()
            failures = bus.counters.connect_failures
            wait_until(lambda: bus.counters.connect_failures >= failures + 6)  # the back-off is at its ceiling
            broker.start()
            opened = time.monotonic()
            bus.publish("/queue/q", text("x"))
            return time.monotonic() - opened

        in_time(1.0, back)


def test_a_wrong_passcode_is_said_at_once_and_never_shown(
    broker: EmbeddedBroker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    events = Events()
    address = f"stomp://ada:canary-in-address@127.0.0.1:{broker.port}"
    with Bus(fast(address), on_event=events) as bus:
        with pytest.raises(LoginRefused) as caught:
            bus.wait_connected(30)
        with pytest.raises(LoginRefused):
            bus.publish("/queue/q", text("x"), timeout=0.5)
        shown = [repr(bus), repr(bus.settings), str(caught.value), repr(caught.value), *map(repr, events.seen)]
    assert "canary" not in " ".join(shown) + caplog.text


def test_a_login_that_is_refused_while_a_message_waits_ends_the_wait(broker: EmbeddedBroker) -> None:
    with Bus(fast(f"stomp://ada:wrong@127.0.0.1:{broker.port}")) as bus, pytest.raises(LoginRefused):
        bus.publish("/queue/q", text("x"), timeout=3600)


def test_a_login_is_tried_again_for_as_long_as_login_retry_allows(broker: EmbeddedBroker) -> None:
    address = broker.address
    broker.replace_users({})
    events = Events()
    with Bus(fast(address, login_retry=3600.0), on_event=events) as bus:
        events.wait(ConnectFailed, 3)
        assert not bus.wait_connected(0.1)  # and it raises nothing
        assert isinstance(bus.problem, LoginRefused)
        with pytest.raises(PublishError, match="access refused: login or passcode is wrong"):
            bus.publish("/queue/q", text("x"), timeout=0.3)
        broker.replace_users({"ada": "s3cret"})
        assert bus.wait_connected(30)
        bus.publish("/queue/q", text("x"))


def test_a_login_that_is_refused_for_longer_than_login_retry_is_given_up(broker: EmbeddedBroker) -> None:
    events = Events()
    began = time.monotonic()  # before the first attempt, from which the half second counts
    with Bus(fast(f"stomp://ada:mistyped@127.0.0.1:{broker.port}", login_retry=0.5), on_event=events) as bus:
        with pytest.raises(LoginRefused, match="access refused: login or passcode is wrong"):
            bus.wait_connected(60)
        assert time.monotonic() - began >= 0.4
        assert len(events.wait(ConnectFailed, 2)) >= 2


def test_an_error_that_ends_the_session_is_in_the_reason_of_the_loss(broker: EmbeddedBroker) -> None:
    events = Events()
    with running(fast(broker.address), on_event=events) as bus:
        broker.faults.send_error("out of disk")
        (lost,) = events.wait(ConnectionLost)
        assert lost.reason.startswith("the broker closed the connection after an ERROR: out of disk")
        events.wait(Connected, 2)
        broker.faults.drop()
        assert "out of disk" not in events.wait(ConnectionLost, 2)[1].reason
        bus.publish("/queue/q", text("x"))


def test_the_zone_of_a_link_local_address_is_kept() -> None:
    (address,) = look_up("fe80::1%lo", 9, 60)
    assert address.sockaddr[1:] == (9, 0, socket.if_nametoindex("lo"))


def test_a_login_that_was_good_once_is_tried_again_for_ever(broker: EmbeddedBroker) -> None:
    with running(fast(broker.address)) as bus:
        broker._users = {"ada": "changed"}
        broker.restart()
        wait_until(lambda: isinstance(bus._supervisor.problem, LoginRefused))
        with pytest.raises(PublishError, match="refused the login"):
            bus.publish("/queue/q", text("x"), timeout=0.3)
        broker._users = {"ada": "s3cret"}
        broker.restart()
        bus.publish("/queue/q", text("x"))


def test_a_port_that_speaks_something_else_gets_a_clear_line() -> None:
    with raw_server(b"SSH-2.0-OpenSSH_9.2\r\n") as port, Bus(fast(f"stomp://127.0.0.1:{port}")) as bus:
        wait_until(lambda: bus._supervisor.problem is not None)
        assert "not STOMP" in str(bus._supervisor.problem)
