"""Who may log in, and over which transport: on every broker, by every version, plain and TLS."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from deploykit.bus import Bus
from deploykit.errors import ConnectError, LoginRefused, PublishError, SettingsError
from deploykit.settings import BusSettings
from tests.brokers.certs import Authority
from tests.brokers.server import BrokerServer
from tests.support.bus import running, text
from tests.support.conformance import Place
from tests.support.wait import wait_until


def test_a_wrong_passcode_is_a_refused_login(place: Place) -> None:
    login, _, host = place.settings.address.partition("@")
    address = f"{login.rpartition(':')[0]}:canary@{host}"
    with Bus(place.bus(address=address)) as bus, pytest.raises(LoginRefused) as caught:
        bus.wait_connected(30)
    assert "canary" not in str(caught.value)


def test_a_plain_and_a_tls_port_are_not_confused_in_silence(
    place: Place, addresses: tuple[str, str, Path], transport: str
) -> None:
    plain, tls, ca_file = addresses
    swapped = plain.replace("stomp://", "stomp+ssl://") if transport == "tls" else tls.replace("stomp+ssl", "stomp")
    with Bus(place.bus(address=swapped, tls_ca=ca_file, connect_timeout=2.0)) as bus:
        wait_until(lambda: "TLS" in str(bus._supervisor.problem))
        with pytest.raises(PublishError):
            bus.publish("/queue/q", text("x"), timeout=1.0)


def test_a_certificate_of_a_stranger_is_refused(kind: str, addresses: tuple[str, str, Path], tmp_path: Path) -> None:
    stranger = Authority(tmp_path, name="stranger")
    settings = BusSettings(address=addresses[1], tls_ca=stranger.ca_file)
    with Bus(settings) as bus:
        wait_until(lambda: isinstance(bus._supervisor.problem, ConnectError))
        assert "certificate is not accepted" in str(bus._supervisor.problem)
    with Bus(attrs.evolve(settings, tls_ca=None)) as bus:
        wait_until(lambda: isinstance(bus._supervisor.problem, ConnectError))
    with running(attrs.evolve(settings, tls_ca=None, tls_verify=False)) as bus:
        bus.publish("/queue/q-tls", text("x"))


def test_a_certificate_for_another_name_is_refused(kind: str, addresses: tuple[str, str, Path]) -> None:
    address = addresses[1].replace("127.0.0.1", "127.0.0.2")
    with Bus(BusSettings(address=address, tls_ca=addresses[2], connect_timeout=2.0)) as bus:
        wait_until(lambda: isinstance(bus._supervisor.problem, ConnectError))


def test_a_file_that_is_no_certificate_is_said_before_anything_is_dialled(tmp_path: Path) -> None:
    for field in ("tls_ca", "tls_cert"):
        for content in (None, "nonsense"):
            file = tmp_path / f"{field}-{content}.pem"
            if content is not None:
                file.write_text(content)
            with pytest.raises(SettingsError, match=field):
                Bus(BusSettings(address="stomp+ssl://127.0.0.1:1", **{field: file}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "make",
    [
        pytest.param("new_rabbitmq", marks=pytest.mark.rabbitmq),
        pytest.param("new_activemq", marks=pytest.mark.activemq),
    ],
)
@pytest.mark.slow
def test_a_client_certificate_logs_in_without_a_passcode(make: str, request: pytest.FixtureRequest) -> None:
    new: Callable[..., BrokerServer] = request.getfixturevalue(make)
    broker = new(client_certs=True).start()
    identity = broker.client_identity
    assert identity is not None
    settings = BusSettings(
        address=broker.tls_address, tls_ca=broker.ca_file, tls_cert=identity.cert_file, tls_key=identity.key_file
    )
    with running(settings) as bus:
        bus.publish("/queue/q", text("x"))
    with Bus(attrs.evolve(settings, tls_cert=None, tls_key=None)) as bus, pytest.raises(PublishError):
        bus.publish("/queue/q", text("x"), timeout=2)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param("new_rabbitmq", marks=pytest.mark.rabbitmq),
        pytest.param("new_activemq", marks=pytest.mark.activemq),
    ],
)
@pytest.mark.slow
def test_odd_passcodes_log_in(make: str, request: pytest.FixtureRequest) -> None:
    new: Callable[..., BrokerServer] = request.getfixturevalue(make)
    passcodes = ["a\\b", "\\n", "a:b@c/d%e", "ä€", "a\\\\b"]
    users = {f"odd{number}": passcode for number, passcode in enumerate(passcodes)}
    broker = new(more_users=users).start()
    for login, passcode in users.items():
        with running(BusSettings(address=f"stomp://127.0.0.1:{broker.port}", login=login, passcode=passcode)):
            pass
