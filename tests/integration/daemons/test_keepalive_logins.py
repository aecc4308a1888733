"""Keepalives with a login each: a connection for each, one that is refused stops no other, and no passcode shows."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import attrs
import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.bus import Bus, Delivery
from deploykit.daemons.keepalive import KeepaliveSender, once
from deploykit.errors import LoginRefused
from deploykit.names import NodeName
from deploykit.operations.keepalivecheck import check_keepalive_logins
from deploykit.settings import BusSettings, KeepaliveDestination, KeepaliveSettings, Settings
from tests.brokers.rabbitmq import RabbitMQ
from tests.support.cli import run
from tests.support.daemon import RunningDaemon
from tests.support.wait import wait_until

USERS = {"ada": "ada-canary", "bob": "bob-canary", "eve": "eve-canary"}
#: Two destinations of bob's, one of ada's, and one whose passcode is wrong.
DESTINATIONS = """
[keepalive.destinations.source]
destination = "/topic/source"
[keepalive.destinations.builds]
destination = "/queue/builds"
login = "bob"
passcode = "bob-canary"
[keepalive.destinations.more]
destination = "/queue/more"
login = "bob"
passcode = "bob-canary"
[keepalive.destinations.access]
destination = "/topic/access"
login = "eve"
passcode_file = "{file}"
"""
SHARED = 'keepalive_every = 1\nlogin = "ada"\npasscode = "ada-canary"\n'


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker(users=USERS) as made:
        yield made


@pytest.fixture
def passcode(tmp_path: Path) -> Path:
    file = tmp_path / "passcode"
    file.write_text("wrong-canary\n")
    file.chmod(0o600)
    return file


def bare(broker: EmbeddedBroker) -> str:
    return f"stomp://127.0.0.1:{broker.port}"


def written(tmp_path: Path, broker: EmbeddedBroker, passcode: Path, *words: str, more: str = "") -> RunningDaemon:
    daemon = RunningDaemon(tmp_path, bare(broker), *words)
    daemon.write(bare(broker), SHARED + more + DESTINATIONS.format(file=passcode))
    return daemon


def shows_no_secret(text: str) -> bool:
    return "canary" not in text


def test_once_sends_to_each_and_names_the_login_that_is_refused(
    tmp_path: Path, broker: EmbeddedBroker, passcode: Path
) -> None:
    daemon = written(tmp_path, broker, passcode)
    done = run("keepalive", "--once", "-c", str(daemon.file))
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "sent: source (/topic/source)",
        "sent: builds (/queue/builds)",
        "sent: more (/queue/more)",
    ]
    assert "deploykit: access (/topic/access): " in done.stderr
    assert "refused the login" in done.stderr
    assert shows_no_secret(done.stdout + done.stderr)
    passcode.write_text("eve-canary")
    done = run("keepalive", "--once", "-c", str(daemon.file))
    assert (done.returncode, done.stderr) == (0, "")
    assert "sent: access (/topic/access)\n" in done.stdout


def test_the_daemon_keeps_the_others_alive_and_takes_a_new_passcode_by_itself(
    tmp_path: Path, broker: EmbeddedBroker, passcode: Path
) -> None:
    pages = tmp_path / "pages"
    daemon = written(tmp_path, broker, passcode, "keepalive", more=f'[service]\nlisten = "unix:{pages}"\n')
    with daemon:
        daemon.wait("ready: keepalive to source (/topic/source), builds (/queue/builds), more (/queue/more), access (")
        daemon.wait("keepalive to access (/topic/access): ")
        daemon.wait("refused the login")
        wait_until(lambda: broker.stats().connections == 2, "ada's connection and bob's")
        wait_until(lambda: 'up{destination="builds"} 1.0' in page(pages, "/metrics"), "a keepalive of bob's")
        wait_until(
            lambda: "access (/topic/access): " in page(pages, "/ready"), "the problem"
        )  # looked for now and then
        assert page(pages, "/ready").startswith("HTTP/1.1 200")
        assert 'deploykit_keepalive_up{destination="access"} 0.0' in page(pages, "/metrics")
        passcode.write_text("eve-canary")
        wait_until(lambda: broker.stats().connections == 3, "the third connection", 60)
        wait_until(lambda: "access" not in page(pages, "/ready"), "no problem any more", 60)
        wait_until(lambda: 'up{destination="access"} 1.0' in page(pages, "/metrics"), "the count", 60)
        settings = daemon.file.read_text()
        daemon.file.write_text(settings.replace('login = "bob"', 'login = "bob"\npasscode_file = "/nowhere"'))
        daemon.hup()
        daemon.wait("the old ones stay: keepalive.destinations.builds.passcode, passcode_file: give one of them")
        daemon.file.write_text(settings.partition("[keepalive.destinations.access]")[0])
        daemon.hup()
        daemon.wait("settings read again: keepalive.destinations")
        wait_until(lambda: broker.stats().connections == 2, "eve's connection is gone", 60)
    assert shows_no_secret(daemon.log.read_text())
    wait_until(lambda: broker.stats().connections == 0)


def page(socket_path: Path, path: str) -> str:
    """A page of the daemon, with its head."""
    with socket.socket(socket.AF_UNIX) as one:
        one.settimeout(30)
        one.connect(str(socket_path))
        one.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        pieces = []
        while piece := one.recv(65536):
            pieces.append(piece)
    return b"".join(pieces).decode()


def test_it_shares_the_connection_of_the_services_it_runs_beside(
    tmp_path: Path, broker: EmbeddedBroker, passcode: Path
) -> None:
    passcode.write_text("eve-canary")
    with written(tmp_path, broker, passcode, "run", "relay", "keepalive") as daemon:
        daemon.wait("ready: keepalive to ")
        wait_until(lambda: broker.stats().connections == 3, "ada's for both, bob's and eve's", 60)
    wait_until(lambda: broker.stats().connections == 0)


def settings_of(address: str, **destinations: KeepaliveDestination) -> Settings:
    broker = BusSettings(address=address, backoff_max=0.2, connect_timeout=20.0, keepalive_every=1.0)
    return Settings(node=NodeName("web1"), broker=broker, keepalive=KeepaliveSettings(destinations=destinations))


def test_without_a_shared_destination_the_login_of_the_broker_is_not_used(broker: EmbeddedBroker) -> None:
    own = KeepaliveDestination(destination="/queue/a", login="bob", passcode="bob-canary")
    settings = settings_of(f"stomp://mallory:wrong@127.0.0.1:{broker.port}", a=own)
    with KeepaliveSender(settings) as embedded:
        assert embedded.wait_connected(30)
        wait_until(lambda: embedded.metrics.series("keepalive_up") == {("a",): 1.0}, "a keepalive", 30)
        assert (embedded.problems, embedded.status) == ((), "connected")
    wait_until(lambda: broker.stats().connections == 0)


def test_the_first_login_that_is_refused_ends_nothing(broker: EmbeddedBroker) -> None:
    bad = KeepaliveDestination(destination="/queue/a", login="eve", passcode="x")
    good = KeepaliveDestination(destination="/queue/a", login="bob", passcode="bob-canary")
    with KeepaliveSender(settings_of(bare(broker), bad=bad, good=good)) as sender:
        wait_until(lambda: any("refused the login" in line for line in sender.problems), "the refusal", 30)
        wait_until(lambda: sender.metrics.series("keepalive_up") == {("bad",): 0.0, ("good",): 1.0}, "a keepalive", 30)
        assert sender.wait_connected(30)
        sender.check()
        assert (sender.connected, sender.working, sender.blocking) == (True, True, ())
        assert sender.status == "1 of 2 connections"


def test_where_every_login_is_refused_it_ends(broker: EmbeddedBroker) -> None:
    one = KeepaliveDestination(destination="/queue/a", login="bob", passcode="x")
    other = KeepaliveDestination(destination="/queue/a", login="eve", passcode="x")
    for destinations in ({"one": one}, {"one": one, "other": other}):
        with KeepaliveSender(settings_of(bare(broker), **destinations)) as sender, pytest.raises(LoginRefused):
            sender.wait_connected(30)
    results = once(settings_of(bare(broker), one=one, other=other), destinations=(), every=None)
    assert [str(target) for target in results] == ["one (/queue/a)", "other (/queue/a)"]
    assert all("refused the login" in problem for problem in results.values())


def test_doctor_tries_each_login(broker: EmbeddedBroker) -> None:
    good = KeepaliveDestination(destination="/queue/a", login="bob", passcode="bob-canary")
    bad = attrs.evolve(good, login="eve")
    shared = KeepaliveDestination(destination="/queue/b")
    shown: list[object] = []
    settings = settings_of(bare(broker), good=good, bad=bad, shared=shared)
    found = check_keepalive_logins(settings, shown.append)
    assert [(each.check, each.verdict) for each in found] == [
        ("login for keepalives to good (/queue/a)", "ok"),
        ("login for keepalives to bad (/queue/a)", "error"),
    ]
    assert shown == [*found]
    assert shows_no_secret(str(found))


@pytest.fixture
def two_users(rabbitmq: RabbitMQ, unique_name: str) -> Iterator[tuple[str, str]]:
    """Two users of RabbitMQ, each of whom may use its own queue alone."""
    names = (f"{unique_name}-1", f"{unique_name}-2")
    with ExitStack() as stack:
        for name in names:
            stack.enter_context(rabbitmq.user(name, "pw-canary", f"^({name}|amq.default)$"))
        yield names


@pytest.mark.rabbitmq
def test_two_users_of_a_real_broker_with_different_permissions(
    rabbitmq: RabbitMQ, two_users: tuple[str, str], unique_name: str
) -> None:
    first, second = two_users

    def queue(name: str, login: str, passcode: str = "pw-canary") -> KeepaliveDestination:
        return KeepaliveDestination(destination=f"/queue/{name}", login=login, passcode=passcode)

    settings = Settings(
        node=NodeName("web1"),
        broker=BusSettings(address=rabbitmq.address, backoff_max=0.2, connect_timeout=20.0),
        keepalive=KeepaliveSettings(
            destinations={
                "shared": KeepaliveDestination(destination=f"/topic/{unique_name}"),
                "first": queue(first, first),
                "second": queue(second, second),
                "foreign": queue(first, second),  # on the connection of `second`, which may not
                "wrong": queue(second, second, "other-canary"),
            }
        ),
    )
    came: list[Delivery] = []
    with Bus(settings.broker) as listener:
        listener.subscribe(f"/topic/{unique_name}", came.append).wait_active(30)
        results = {target.name: problem for target, problem in once(settings, destinations=(), every=30.0).items()}
    assert {name for name, problem in results.items() if not problem} == {"shared", "first", "second"}, results
    assert "refused the login" in results["wrong"]
    assert "access" in results["foreign"]
    assert shows_no_secret(str(results))
    assert came == []  # no handler of this library sees a keepalive
