"""The brokers of a chaos run, each with the same handles: start, kill -9, freeze, another certificate."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs

from deploykit.broker.engine import Engine
from deploykit.broker.faults import FaultSwitches
from deploykit.broker.server import EmbeddedBroker
from deploykit.broker.store import BrokerStore
from tests.brokers import activemq, rabbitmq
from tests.brokers.server import BrokerServer

#: `generic` is the embedded broker under a name that the bus does not know: no prefetch, no durable subscriptions.
KINDS = ("embedded", "generic", "rabbitmq", "activemq")


@attrs.frozen(kw_only=True)
class Target:
    """A running broker.

    Args:
        user: "login:passcode".
        port: of the listener to be used, which stays the same over kill and start.
        declared: returns when what was subscribed so far outlives a kill.
        faults: the embedded broker's own switches.
        server: a real broker.
    """

    kind: str
    user: str
    port: int
    tls: bool
    start: Callable[[], object]
    kill: Callable[[], object]
    running: Callable[[], bool]
    freeze: Callable[[bool], object]
    declared: Callable[[], object] = lambda: None
    log_tail: Callable[[], str] = lambda: ""
    faults: FaultSwitches | None = None
    server: BrokerServer | None = None

    @property
    def durable(self) -> bool:
        """Whether it has durable subscriptions to topics."""
        return self.kind != "generic"

    def address(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """Return the address to connect to, there or through something that listens elsewhere."""
        client_certs = self.server is not None and self.tls and self.server.client_certs
        user = "" if client_certs else f"{self.user}@"
        return f"{'stomp+ssl' if self.tls else 'stomp'}://{user}{host}:{port or self.port}"


class _Nameless(EmbeddedBroker):
    """The embedded broker with another `server` header."""

    def _engine_over(self, store: BrokerStore | None) -> Engine:
        engine = super()._engine_over(store)
        engine.core._server = "apache-activemq-artemis/2.31.0"
        return engine


@contextlib.contextmanager
def target(kind: str, directory: Path, *, tls: bool) -> Iterator[Target]:
    """Start a broker of a kind; end it after."""
    if kind in ("embedded", "generic"):
        assert not tls, "TLS is for the real brokers"
        make = _Nameless if kind == "generic" else EmbeddedBroker
        with make(users={"deploy": "secret"}, data=directory / "broker") as broker:
            yield Target(
                kind=kind,
                user="deploy:secret",
                port=broker.port,
                tls=False,
                start=broker.start,
                kill=broker.kill,
                running=lambda: broker.running,
                freeze=broker.faults.freeze,
                faults=broker.faults,
            )
        return
    if kind == "rabbitmq":
        rabbitmq.check_installed()
        server: BrokerServer = rabbitmq.RabbitMQ(client_certs=tls)
    else:
        activemq.check_installed()
        server = activemq.ActiveMQ(client_certs=tls)
    try:
        server.start()
        yield Target(
            kind=kind,
            user=f"{server.login}:{server.passcode}",
            port=server.tls_port if tls else server.port,
            tls=tls,
            start=server.start,
            kill=server.kill9,
            running=lambda: server.pid is not None,
            freeze=lambda on: server.freeze() if on else server.thaw(),
            declared=server.sync_declared,
            log_tail=server.log_tail,
            server=server,
        )
    finally:
        server.close()
