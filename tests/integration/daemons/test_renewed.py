"""What is renewed while a daemon lives: certificates at the next connection, settings at HUP; the old stay on error."""

from __future__ import annotations

import datetime as dt
import logging
import shutil
import signal
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.bus import Bus
from deploykit.bus.certificates import Certificates
from deploykit.bus.events import Connected, ConnectFailed, ConnectionLost
from deploykit.settings import BusSettings
from tests.brokers.certs import Authority, Identity
from tests.brokers.server import BrokerServer
from tests.support.bus import Events, fast, running, text
from tests.support.cli import command
from tests.support.wait import wait_until

_PAST = dt.datetime(2026, 1, 1, 12, 0, tzinfo=dt.UTC)


def server_context(identity: Identity) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.cert_file, identity.key_file)
    return context


def replace(target: Path, source: Path) -> None:
    """Put a file into another's place, as certbot and others do it: at once."""
    new = target.with_suffix(".new")
    shutil.copyfile(source, new)
    new.replace(target)


@pytest.fixture(params=["replaced", "..data"])
def renew(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Path], Path]:
    """Make `live/ca.pem` hold what a file holds: replaced, or behind a symbolic link as Kubernetes has it."""
    live, numbers = tmp_path / "live", iter(range(100))
    live.mkdir()

    def put(ca: Path) -> Path:
        if request.param == "replaced":
            replace(live / "ca.pem", ca)
            return live / "ca.pem"
        version = live / f"..{next(numbers)}"
        version.mkdir()
        shutil.copy(ca, version / "ca.pem")
        (live / "..data_tmp").symlink_to(version.name)
        (live / "..data_tmp").rename(live / "..data")
        if not (live / "ca.pem").exists():
            (live / "ca.pem").symlink_to("..data/ca.pem")
        return live / "ca.pem"

    return put


def test_a_living_bus_takes_up_a_new_authority_and_its_connection_is_not_cut(
    tmp_path: Path, renew: Callable[[Path], Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    old, new = Authority(tmp_path / "old", name="old CA"), Authority(tmp_path / "new", name="new CA")
    events = Events()
    with EmbeddedBroker(tls=server_context(old.server())) as broker:
        settings = fast(broker.address, tls_ca=renew(old.ca_file))
        with running(settings, on_event=events) as bus:
            broker.stop()
            broker._tls = server_context(new.server())
            broker.start()
            problem = events.wait(ConnectFailed)[-1].problem
            wait_until(lambda: "new CA" in events.of(ConnectFailed)[-1].problem)
            problem = events.of(ConnectFailed)[-1].problem
            assert "CN=localhost of CN=new CA, valid until " in problem
            assert "ca.pem holds CN=old CA, valid until " in problem
            file = renew(new.ca_file)
            events.wait(Connected, 2)
            bus.publish("/queue/q", text("x"))
            assert f"certificates read again: {file}" in caplog.text
            losses = bus.counters.losses
            renew(old.ca_file)
            bus.publish("/queue/q", text("y"))
            assert bus.counters.losses == losses


@pytest.mark.slow
def test_a_living_bus_takes_up_its_new_client_certificate(
    new_real_broker: Callable[..., BrokerServer], tmp_path: Path
) -> None:
    """A broker that is given certificates of another authority, and trusts clients of that one only."""
    broker = new_real_broker(client_certs=True).start()
    first = broker.client_identity
    assert first is not None
    ca, cert, key = (tmp_path / name for name in ("ca.pem", "cert.pem", "key.pem"))

    def put(pem: Path, certificate: Path, private: Path) -> None:
        for target, source in ((cert, certificate), (ca, pem), (key, private)):
            replace(target, source)

    put(broker.ca_file, first.cert_file, first.key_file)
    settings = BusSettings(
        address=broker.tls_address, tls_ca=ca, tls_cert=cert, tls_key=key, backoff_max=0.5, connect_timeout=5.0
    )
    events = Events()
    with running(settings, on_event=events) as bus:
        bus.publish("/queue/q", text("before"))
        stranger = Authority(tmp_path / "stranger", name="stranger CA").client(broker.login)
        put(broker.ca_file, stranger.cert_file, stranger.key_file)
        bus._supervisor.reconnect("for a test")
        events.wait(ConnectFailed, timeout=60)
        problem = events.of(ConnectFailed)[-1].problem
        assert f"our certificate is CN={broker.login} of CN=stranger CA, valid until " in problem
        assert str(cert) in problem
        renewed = broker.authority.client(broker.login, name="renewed")
        put(broker.ca_file, renewed.cert_file, renewed.key_file)
        events.wait(Connected, 2, timeout=60)
        bus.publish("/queue/q", text("after"))


@pytest.mark.slow
@pytest.mark.rabbitmq
def test_a_rabbitmq_with_a_certificate_of_a_new_authority_is_reached_without_a_restart_of_ours(
    new_rabbitmq: Callable[..., BrokerServer], tmp_path: Path
) -> None:
    broker = new_rabbitmq().start()
    ca = tmp_path / "ca.pem"
    shutil.copyfile(broker.ca_file, ca)
    events = Events()
    settings = BusSettings(address=broker.tls_address, tls_ca=ca, backoff_max=0.5)
    with running(settings, on_event=events) as bus:
        broker.stop()
        events.wait(ConnectionLost)
        broker.authority = new = Authority(tmp_path / "new", name="new CA")
        identity = new.server()
        replace(broker.server_identity.cert_file, identity.cert_file)
        replace(broker.server_identity.key_file, identity.key_file)
        broker.start()
        wait_until(lambda: "CN=new CA" in str(bus.problem), timeout=60)
        replace(ca, new.ca_file)
        events.wait(Connected, 2, timeout=60)
        bus.publish("/queue/q", text("x"))


def test_a_pair_that_is_half_renewed_replaces_nothing_and_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    authority = Authority(tmp_path)
    one, two = authority.client("one", name="one"), authority.client("two", name="two")
    settings = BusSettings(tls_ca=authority.ca_file, tls_cert=one.cert_file, tls_key=one.key_file)
    certificates = Certificates(settings)
    first = certificates.context()
    assert certificates.context() is first
    replace(one.cert_file, two.cert_file)
    assert certificates.context() is first
    assert certificates.context() is first
    assert caplog.text.count("certificates not read again, the old ones stay: tls_cert, tls_key: ") == 1
    one.key_file.unlink()
    assert certificates.context() is first
    replace(one.key_file, two.key_file)
    assert certificates.context() is not first
    assert f"certificates read again: {one.cert_file}, {one.key_file}" in caplog.text


def test_a_certificate_that_has_expired_is_named_with_its_end(tmp_path: Path) -> None:
    authority = Authority(tmp_path, name="old CA")
    expired = authority.server(not_before=_PAST - dt.timedelta(days=1), not_after=_PAST)
    with (
        EmbeddedBroker(tls=server_context(expired)) as broker,
        Bus(fast(broker.address, tls_ca=authority.ca_file)) as bus,
    ):
        wait_until(lambda: bus.problem is not None)
        problem = str(bus.problem)
    assert "its certificate is not accepted: certificate has expired" in problem
    assert "(CN=localhost of CN=old CA, expired 2026-01-01 12:00 UTC)" in problem
    assert f"tls_ca {authority.ca_file} holds CN=old CA, valid until " in problem


# -- HUP ----------------------------------------------------------------------------------------------------------


class Daemon:
    """A daemon with a settings file that can be written anew."""

    def __init__(self, directory: Path, words: tuple[str, ...], said: Path) -> None:
        self.file = directory / "deploykit.toml"
        self.said = said
        self._directory = directory
        self._words = words
        self.process: subprocess.Popen[bytes] | None = None

    def settings(self, address: str) -> None:
        spool, state = self._directory / "spool", self._directory / "state"
        text = f'node = "n"\nstate = "{state}"\n[broker]\naddress = "{address}"\nbackoff_max = 0.2\n'
        self.file.write_text(f'{text}[outbox]\npath = "{spool}"\n')
        self.file.chmod(0o600)

    def start(self) -> None:
        with self.said.open("wb") as out:
            words = command(*self._words, "--config", str(self.file))
            self.process = subprocess.Popen(words, stdout=out, stderr=out)

    def wait(self, line: str, count: int = 1) -> None:
        process = self.process
        assert process is not None
        wait_until(
            lambda: self.said.read_text().count(line) >= count or process.poll() is not None, f"{count} {line}", 60
        )
        assert self.said.read_text().count(line) >= count, self.said.read_text()

    def hup(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)


@pytest.fixture(params=["agent", "relay", "watch", "keepalive /topic/a"])
def daemon(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Daemon]:
    one = Daemon(tmp_path, tuple(request.param.split()), tmp_path / "said")
    yield one
    if one.process is not None:
        one.process.send_signal(signal.SIGTERM)
        assert one.process.wait(60) == 0, one.said.read_text()


def test_every_daemon_reads_its_settings_again_at_hup_and_bad_ones_change_nothing(daemon: Daemon) -> None:
    with EmbeddedBroker() as first, EmbeddedBroker(users={"ada": "canary"}) as second:
        daemon.settings(first.address)
        daemon.start()
        wait_until(lambda: first.stats().connections == 1, timeout=60)
        daemon.file.write_text("nonsense")
        daemon.hup()
        daemon.wait("settings not reloaded, the old ones stay: ")
        assert first.stats().connections == 1
        daemon.settings(second.address)
        daemon.hup()
        daemon.wait("settings read again: broker.address\n")
        wait_until(lambda: (first.stats().connections, second.stats().connections) == (0, 1), timeout=60)
        daemon.settings(second.address.replace("canary", "wrong"))
        daemon.hup()
        daemon.wait("settings read again: broker.address\n", 2)
        daemon.wait("settings given up, the old ones are back: ")
        wait_until(lambda: second.stats().connections == 1, timeout=60)
        daemon.hup()
        daemon.wait("settings read again: ", 4)
    assert "canary" not in daemon.said.read_text()


@pytest.mark.parametrize("word", ["agent", "relay"])
def test_a_new_passcode_in_the_file_that_no_broker_accepts_changes_nothing_at_hup(tmp_path: Path, word: str) -> None:
    """With `login_retry`, too: that is for a broker that has just come up, and this one has accepted us."""
    secret = tmp_path / "passcode"
    secret.write_text("canary\n")
    secret.chmod(0o600)
    one = Daemon(tmp_path, (word,), tmp_path / "said")
    with EmbeddedBroker(users={"ada": "canary"}) as broker:
        login = f'login = "ada"\npasscode_file = "{secret}"\nlogin_retry = 3600\nvhost = "/'
        one.settings(f'stomp://127.0.0.1:{broker.port}"\n{login}')
        one.start()
        wait_until(lambda: broker.stats().connections == 1, timeout=60)
        secret.write_text("wrong\n")
        one.hup()
        one.wait("settings read again: broker.passcode\n")
        one.wait("settings given up, the old ones are back: ")
        wait_until(lambda: broker.stats().connections == 1, timeout=60)
        assert one.process is not None
        one.process.send_signal(signal.SIGTERM)
        assert one.process.wait(60) == 0
    assert "canary" not in one.said.read_text()


def test_the_embedded_broker_reads_its_passcode_again_at_hup(tmp_path: Path) -> None:
    passcode, said = tmp_path / "passcode", tmp_path / "said"
    passcode.write_text("before\n")
    with said.open("wb") as out:
        words = command("broker", "--port", "0", "--user", "ada", "--passcode-file", str(passcode))
        process = subprocess.Popen(words, stdout=out, stderr=out)
    try:
        wait_until(lambda: "ready: " in said.read_text(), timeout=60)
        address = said.read_text().split()[1].replace("//", "//ada:{}@")
        with running(fast(address.format("before"), heartbeat=10.0)) as bus:  # it must not be lost on a busy machine
            passcode.write_text("")
            process.send_signal(signal.SIGHUP)
            wait_until(lambda: "settings not reloaded, the old ones stay: " in said.read_text())
            passcode.write_text("after\n")
            process.send_signal(signal.SIGHUP)
            wait_until(lambda: "settings read again: logins" in said.read_text())
            with running(fast(address.format("after"))):
                bus.publish("/queue/q", text("who is connected stays"))
            assert bus.counters.losses == 0
    finally:
        process.terminate()
        process.wait(60)
