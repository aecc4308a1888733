"""The broker of a chain: the embedded one as a process of its own, or a real one. Each can be killed and comes back."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Protocol

from tests.brokers.process import PortLease
from tests.brokers.rabbitmq import RabbitMQ
from tests.brokers.server import BrokerServer
from tests.support.chain.member import Member
from tests.support.cli import command
from tests.support.wait import wait_until

_LOGIN, _PASSCODE = "chain", "chain-canary"


class ChainBroker(Protocol):
    """What a chain needs of its broker."""

    @property
    def address(self) -> str:
        """Its address, login included."""

    def start(self) -> object:
        """Start it; return when it takes logins."""

    def kill(self) -> None:
        """End it as a power cut would."""

    def settle(self) -> None:
        """Return when what was subscribed to so far survives a kill."""


class EmbeddedProcess:
    """`deploykit broker` with a data directory."""

    def __init__(self, root: Path) -> None:
        self._lease = PortLease()
        passcode = root / "passcode"
        passcode.touch(0o600)
        passcode.write_text(f"{_PASSCODE}\n")
        port = str(self._lease.port)
        argv = command("broker", "--port", port, "--data", str(root / "broker"), "--user", _LOGIN)
        self._member = Member("broker", [*argv, "--passcode-file", str(passcode)], root)

    @property
    def address(self) -> str:
        return f"stomp://{_LOGIN}:{_PASSCODE}@127.0.0.1:{self._lease.port}"

    def start(self) -> EmbeddedProcess:
        self._member.start()
        wait_until(self._answers, "the embedded broker listens")
        return self

    def kill(self) -> None:
        self._member.kill()

    def settle(self) -> None:
        """Do nothing: a confirmed subscription is on its disk."""

    def close(self) -> None:
        """End it for good."""
        self._member.kill()
        self._lease.release()

    def _answers(self) -> bool:
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", self._lease.port)) == 0


class RealBroker:
    """RabbitMQ or ActiveMQ."""

    def __init__(self, server: BrokerServer) -> None:
        self._server = server

    @property
    def address(self) -> str:
        return self._server.address

    def start(self) -> RealBroker:
        self._server.start()
        return self

    def kill(self) -> None:
        self._server.kill9()

    def settle(self) -> None:
        if isinstance(self._server, RabbitMQ):
            self._server.sync_declared()
