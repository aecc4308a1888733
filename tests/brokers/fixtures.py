"""Pytest fixtures with real brokers. `tests/conftest.py` lists this module in `pytest_plugins`.

`rabbitmq`, `activemq` and `real_broker` (once with each) are shared by the whole session: use destinations with names
of your own (`unique_name`), and never stop them. A test that stops, kills or freezes a broker asks for
`breakable_broker` (once with each): one for all tests of a module, started again and thawed before each, names of your
own again. A test that needs other settings or an empty one makes its own with `new_rabbitmq`, `new_activemq` or
`new_real_broker` (once with each). One that alarms a shared one has to clear that, whatever happens. Under pytest-xdist
each worker has its own of all these.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.brokers import activemq as activemq_module
from tests.brokers import rabbitmq as rabbitmq_module
from tests.brokers.activemq import ActiveMQ
from tests.brokers.rabbitmq import RabbitMQ
from tests.brokers.server import BrokerServer

_BOTH = [pytest.param("rabbitmq", marks=pytest.mark.rabbitmq), pytest.param("activemq", marks=pytest.mark.activemq)]


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[RabbitMQ]:
    """A running RabbitMQ, shared by the session."""
    rabbitmq_module.check_installed()
    with RabbitMQ() as broker:
        yield broker


@pytest.fixture(scope="session")
def activemq() -> Iterator[ActiveMQ]:
    """A running ActiveMQ, shared by the session."""
    activemq_module.check_installed()
    with ActiveMQ() as broker:
        yield broker


@pytest.fixture(scope="session", params=_BOTH)
def real_broker(request: pytest.FixtureRequest) -> BrokerServer:
    """Each real broker in turn, running, shared by the session."""
    broker: BrokerServer = request.getfixturevalue(request.param)
    return broker


@pytest.fixture
def new_rabbitmq() -> Iterator[Callable[..., RabbitMQ]]:
    """Make private RabbitMQs, not started yet; keywords as for the class."""
    rabbitmq_module.check_installed()
    with ExitStack() as stack:

        def make(**keywords: object) -> RabbitMQ:
            broker = RabbitMQ(**keywords)  # type: ignore[arg-type]
            stack.callback(broker.close)
            return broker

        yield make


@pytest.fixture
def new_activemq() -> Iterator[Callable[..., ActiveMQ]]:
    """Make private ActiveMQs, not started yet; keywords as for the class."""
    activemq_module.check_installed()
    with ExitStack() as stack:

        def make(**keywords: object) -> ActiveMQ:
            broker = ActiveMQ(**keywords)  # type: ignore[arg-type]
            stack.callback(broker.close)
            return broker

        yield make


@pytest.fixture(params=_BOTH)
def new_real_broker(request: pytest.FixtureRequest) -> Callable[..., BrokerServer]:
    """Make private brokers of each kind in turn, not started yet."""
    make: Callable[..., BrokerServer] = request.getfixturevalue(f"new_{request.param}")
    return make


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("rabbitmq", marks=pytest.mark.rabbitmq),
        pytest.param("activemq", marks=pytest.mark.activemq),
    ],
)
def breakable_broker_of_module(request: pytest.FixtureRequest) -> Iterator[BrokerServer]:
    """Each real broker in turn, for a module; tests ask for `breakable_broker`."""
    if request.param == "rabbitmq":
        rabbitmq_module.check_installed()
        with RabbitMQ() as rabbitmq:
            yield rabbitmq
    else:
        activemq_module.check_installed()
        with ActiveMQ() as activemq:
            yield activemq


@pytest.fixture
def breakable_broker(breakable_broker_of_module: BrokerServer) -> BrokerServer:
    """Each real broker in turn, running, which a test may stop, kill and freeze."""
    breakable_broker_of_module.thaw()
    return breakable_broker_of_module.start()


@pytest.fixture
def unique_name() -> str:
    """A destination name that no other test of this or any run uses."""
    return f"t-{secrets.token_hex(6)}"


@pytest.fixture
def unused_port() -> Iterator[int]:
    """A port that is taken, and where nobody answers."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]
