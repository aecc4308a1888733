"""The private brokers that other tests stand on: what they promise, shown on the real programs."""

from __future__ import annotations

import ipaddress
import os
import secrets
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from tests.brokers import activemq as activemq_module
from tests.brokers import rabbitmq as rabbitmq_module
from tests.brokers import reaper
from tests.brokers.activemq import ActiveMQ
from tests.brokers.process import PortLease, listening_addresses
from tests.brokers.rabbitmq import RabbitMQ
from tests.brokers.rawstomp import RawStomp, RawStompError
from tests.brokers.reaper import marked_processes
from tests.brokers.server import BrokerFailed, BrokerServer
from tests.support.wait import wait_until

_TOP = Path(__file__).parents[3]


def _is_loopback(host: str) -> bool:
    address = ipaddress.ip_address(host)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def _consume(raw: RawStomp, queue: str, count: int) -> list[bytes]:
    raw.subscribe(queue)
    bodies: list[bytes] = []
    for _ in range(count):
        message = raw.expect("MESSAGE")
        bodies.append(message.body)
        raw.ack(message)
    return bodies


# --- logins and TLS


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_right_login_publishes_and_receives(real_broker: BrokerServer, unique_name: str, tls: bool) -> None:
    with real_broker.connect(tls=tls) as raw:
        raw.publish(f"/queue/{unique_name}", b"hello")
        assert _consume(raw, f"/queue/{unique_name}", 1) == [b"hello"]


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_wrong_passcode_and_unknown_users_are_refused(real_broker: BrokerServer, tls: bool) -> None:
    for login, passcode in [(real_broker.login, "wrong"), ("nobody", "x"), ("guest", "guest"), ("admin", "admin")]:
        with pytest.raises(RawStompError):
            real_broker.connect(login=login, passcode=passcode, tls=tls)


def test_no_login_at_all_is_refused(real_broker: BrokerServer) -> None:
    with RawStomp(real_broker.port) as raw, pytest.raises(RawStompError):
        raw.connect()


def test_tls_certificate_verifies_only_with_its_own_ca(real_broker: BrokerServer) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        RawStomp(real_broker.tls_port, tls=ssl.create_default_context())


def test_addresses_hold_what_a_client_needs(real_broker: BrokerServer) -> None:
    credentials = f"{real_broker.login}:{real_broker.passcode}"
    assert real_broker.address == f"stomp://{credentials}@127.0.0.1:{real_broker.port}"
    assert real_broker.tls_address == f"stomp+ssl://{credentials}@127.0.0.1:{real_broker.tls_port}"


def test_client_certificate_logs_in_without_passcode_and_is_demanded(
    new_real_broker: Callable[..., BrokerServer], unique_name: str
) -> None:
    with new_real_broker(client_certs=True) as broker:
        with broker.connect(tls=True) as raw:
            raw.publish(f"/queue/{unique_name}", b"by certificate")
        with broker.connect() as raw:
            assert _consume(raw, f"/queue/{unique_name}", 1) == [b"by certificate"]
        bare = broker.authority.client_context()
        # TLS 1.3 tells the client only with its first read that the certificate was wanted
        with pytest.raises((ssl.SSLError, ConnectionError, RawStompError)), RawStomp(broker.tls_port, tls=bare) as raw:
            raw.connect(broker.login, broker.passcode)
        stranger = broker.authority.client_context(broker.authority.client("stranger", name="stranger"))
        with pytest.raises(RawStompError), RawStomp(broker.tls_port, tls=stranger) as raw:
            raw.connect()


# --- life of the process


def test_what_was_confirmed_survives_kill_9_and_an_orderly_restart(
    breakable_broker: BrokerServer, unique_name: str
) -> None:
    """Messages in a queue, and what a durable subscription to a topic is owed."""
    broker = breakable_broker
    queue, topic = f"/queue/{unique_name}", f"/topic/{unique_name}"
    bodies = [b"%d" % number for number in range(20)]
    port, tls_port, first_pid = broker.port, broker.tls_port, broker.pid
    as_rabbit = {"durable": "true", "auto-delete": "false", "x-queue-name": f"{unique_name}-durable"}
    as_activemq = {"activemq.subscriptionName": unique_name}
    durable = as_rabbit if broker.kind == "rabbitmq" else as_activemq
    with broker.connect(client_id=unique_name) as subscriber:
        subscriber.subscribe(topic, receipt="subscribed", **durable)
        subscriber.expect("RECEIPT")
    raw = broker.connect()
    raw.publish(queue, bodies[0])  # declares it
    broker.sync_declared()
    for body in bodies[1:]:
        raw.publish(queue, body)
    raw.publish(topic, b"while away")
    broker.kill9()
    with pytest.raises((RawStompError, OSError)):
        raw.read()
    raw.close()
    with pytest.raises(ConnectionRefusedError):
        broker.connect()
    broker.start()
    assert (broker.port, broker.tls_port) == (port, tls_port)
    assert broker.pid != first_pid
    with broker.connect() as again:
        assert _consume(again, queue, len(bodies)) == bodies
        again.publish(queue, b"kept")
    with broker.connect(client_id=unique_name) as subscriber:
        subscriber.subscribe(topic, **durable)
        assert subscriber.expect("MESSAGE").body == b"while away"
    broker.restart()
    with broker.connect() as last:
        assert _consume(last, queue, 1) == [b"kept"]


def test_two_instances_share_nothing(new_real_broker: Callable[..., BrokerServer], unique_name: str) -> None:
    queue = f"/queue/{unique_name}"
    first, second = new_real_broker(), new_real_broker()
    starts = [threading.Thread(target=broker.start) for broker in (first, second)]
    for thread in starts:  # also: a broker outlives the thread that started it
        thread.start()
    for thread in starts:
        thread.join()
    assert first.pid is not None
    assert second.pid is not None
    assert not first.listeners() & second.listeners()
    with pytest.raises(RawStompError):
        second.connect(login=first.login, passcode=first.passcode)
    with first.connect() as raw:
        raw.publish(queue, b"first only")
    with second.connect() as raw:
        raw.subscribe(queue, receipt="subscribed")
        raw.expect("RECEIPT")
        with pytest.raises(RawStompError, match="no frame in time"):
            raw.read(timeout=0.5)
    first.kill9()
    with second.connect() as raw:
        raw.publish(queue, b"unharmed")


def test_frozen_broker_accepts_and_does_not_answer_until_thawed(breakable_broker: BrokerServer) -> None:
    broker = breakable_broker
    broker.freeze()
    with pytest.raises(RawStompError, match="no frame in time"):
        broker.connect(timeout=1)
    broker.thaw()
    broker.connect().close()
    broker.freeze()
    broker.stop()  # must not hang on a frozen process
    assert broker.processes() == []


# --- nothing left, nothing open to others


def test_it_listens_on_loopback_only_and_leaves_nothing_behind(new_real_broker: Callable[..., BrokerServer]) -> None:
    broker = new_real_broker().start()
    running, listeners, directory = broker.processes(), broker.listeners(), broker.directory
    assert broker.pid in running
    assert {broker.port, broker.tls_port} <= {port for _, port in listeners}
    assert [host for host, _ in listeners if not _is_loopback(host)] == []
    broker.stop()
    assert broker.processes() == []
    for _, port in listeners:
        with pytest.raises(ConnectionRefusedError):
            RawStomp(port)
    assert directory.exists()
    broker.close()
    assert not directory.exists()
    with pytest.raises(BrokerFailed, match="was closed"):
        broker.start()


@pytest.mark.parametrize(  # what ends them is the same for both: each signal once, each broker once without a goodbye
    ("kind", "number"),
    [
        ("rabbitmq", signal.SIGKILL),
        ("activemq", signal.SIGKILL),
        ("activemq", signal.SIGINT),
        ("activemq", signal.SIGTERM),
    ],
    ids=["rabbitmq-SIGKILL", "activemq-SIGKILL", "activemq-SIGINT", "activemq-SIGTERM"],
)
def test_an_aborted_run_leaves_no_process_and_no_directory(
    request: pytest.FixtureRequest, kind: str, number: signal.Signals
) -> None:
    request.getfixturevalue(f"new_{kind}")  # skips where the program is missing
    name = {"rabbitmq": "RabbitMQ", "activemq": "ActiveMQ"}[kind]
    script = (
        f"import sys; from tests.brokers.{kind} import {name}\n"
        f"broker = {name}().start(); print(broker.mark, broker.directory, flush=True); sys.stdin.read()"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=_TOP,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # KeyboardInterrupt's traceback
    )
    with run:
        assert run.stdout is not None
        mark, directory = run.stdout.readline().decode().split()
        assert marked_processes(mark) != []
        assert Path(directory).exists()
        run.send_signal(number)
        run.wait(60)
        wait_until(lambda: marked_processes(mark) == [], timeout=60, what="processes ended")
        wait_until(lambda: not Path(directory).exists(), timeout=60, what="directory removed")


def test_the_watchman_ends_marked_processes_at_the_time_bound_though_the_run_still_lives() -> None:
    mark = f"bound-{secrets.token_hex(8)}"
    sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
    watchman = [sys.executable, "-I", "-S", reaper.__file__, mark, "0.3"]
    with (
        subprocess.Popen(sleep, env={**os.environ, reaper.MARK_VARIABLE: mark}, start_new_session=True) as marked,
        subprocess.Popen(sleep) as unmarked,
        subprocess.Popen(watchman, stdin=subprocess.PIPE),
    ):
        try:
            assert marked.wait(60) == -signal.SIGKILL
            assert unmarked.poll() is None
        finally:
            marked.kill()
            unmarked.kill()


@pytest.mark.rabbitmq
def test_a_failed_start_says_why_and_leaves_nothing_running(
    new_rabbitmq: Callable[..., RabbitMQ], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = RabbitMQ._settings
    monkeypatch.setattr(RabbitMQ, "_settings", lambda self: [*right(self), "no.such.setting = 1"])
    broker = new_rabbitmq()
    with pytest.raises(BrokerFailed, match=r"no\.such\.setting"):
        broker.start()
    assert broker.processes() == []


@pytest.mark.activemq
def test_a_start_over_its_time_bound_is_given_up_and_cleaned_up(new_activemq: Callable[..., ActiveMQ]) -> None:
    broker = new_activemq(start_timeout=0.2)
    with pytest.raises(BrokerFailed, match="was not ready in"):
        broker.start()
    assert broker.processes() == []


# --- memory alarm


@pytest.mark.rabbitmq
def test_memory_alarm_withholds_receipts_until_cleared(rabbitmq: RabbitMQ, unique_name: str) -> None:
    queue = f"/queue/{unique_name}"
    with rabbitmq.connect() as raw:
        raw.publish(queue, b"before")
        try:
            rabbitmq.set_memory_alarm(True)
            raw.publish(queue, b"the last one it reads")
            raw.send("SEND", {"destination": queue, "persistent": "true", "receipt": "late"}, b"during")
            with pytest.raises(RawStompError, match="no frame in time"):
                raw.read(timeout=1.5)
        finally:
            rabbitmq.set_memory_alarm(False)  # the session's own: nobody else uses it meanwhile
        raw.expect_receipt("late")


# --- where they are not installed


@pytest.mark.parametrize(
    ("module", "place", "package"),
    [(rabbitmq_module, "_SERVER", "rabbitmq-server"), (activemq_module, "_JAR", "activemq")],
    ids=["rabbitmq", "activemq"],
)
def test_missing_broker_skips_naming_its_package_and_fails_in_ci(
    monkeypatch: pytest.MonkeyPatch, module: ModuleType, place: str, package: str
) -> None:
    monkeypatch.setattr(module, place, Path("/nonexistent/broker"))
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match=f"apt-get install {package}"):
        module.check_installed()
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match=f"apt-get install {package}"):
        module.check_installed()


# --- ports


def test_a_leased_port_is_not_leased_twice_and_lies_below_the_ephemeral_range() -> None:
    leases = [PortLease() for _ in range(50)]
    try:
        ports = {lease.port for lease in leases}
        assert len(ports) == len(leases)
        low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
        assert max(ports) < low
    finally:
        for lease in leases:
            lease.release()


def test_listening_addresses_sees_a_listener_on_every_interface() -> None:
    script = "import socket; s = socket.create_server(('0.0.0.0', 0)); print(s.getsockname()[1], flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        assert listening_addresses([server.pid]) == {("0.0.0.0", port)}
        assert not _is_loopback("0.0.0.0")
        server.kill()
