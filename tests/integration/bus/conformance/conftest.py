"""One suite, three brokers, three protocol versions, plain and TLS."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.settings import BusSettings
from tests.brokers.certs import Authority
from tests.brokers.server import BrokerServer
from tests.support.conformance import DIALECT_OF, VERSIONS, Place


@pytest.fixture(scope="session")
def embedded_pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[EmbeddedBroker, EmbeddedBroker, Path]]:
    """The embedded broker twice: plain, and with TLS."""
    authority = Authority(tmp_path_factory.mktemp("tls"), name="embedded CA")
    identity = authority.server()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.cert_file, identity.key_file)
    users = {"deploy": "s3cret"}
    with EmbeddedBroker(users=users) as plain, EmbeddedBroker(users=users, tls=context) as tls:
        yield plain, tls, authority.ca_file


@pytest.fixture(
    params=[
        pytest.param("embedded"),
        pytest.param("rabbitmq", marks=pytest.mark.rabbitmq),
        pytest.param("activemq", marks=pytest.mark.activemq),
    ]
)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["plain", "tls"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def addresses(request: pytest.FixtureRequest, kind: str) -> tuple[str, str, Path]:
    """Plain address, TLS address, file of the CA."""
    if kind == "embedded":
        plain, tls, ca_file = request.getfixturevalue("embedded_pair")
        return plain.address, tls.address, ca_file
    broker: BrokerServer = request.getfixturevalue(kind)
    return broker.address, broker.tls_address, broker.ca_file


@pytest.fixture(params=VERSIONS)
def place(
    request: pytest.FixtureRequest, kind: str, transport: str, addresses: tuple[str, str, Path], unique_name: str
) -> Place:
    version = str(request.param)
    settings = BusSettings(
        address=addresses[1] if transport == "tls" else addresses[0],
        tls_ca=addresses[2] if transport == "tls" else None,
        versions=(version,),
        heartbeat=2.0,
        backoff_max=0.5,
        dead_letter=f"/queue/dead-{unique_name}",
    )
    return Place(kind, DIALECT_OF[kind], settings, version)
