"""What lies between a client and its broker: a fault proxy, and a dead address beside it under the same name."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self
from unittest import mock

from deploykit.testing.proxy import FaultProxy
from tests.chaos.schedule import Step
from tests.chaos.targets import Target

#: What `Network.apply` knows.
FAULTS = (
    "reset",
    "drop",
    "half-open",
    "black-hole",
    "lose-receipts",
    "lose-sends",
    "slow",
    "late",
    "slices",
    "cut",
    "cut-next",
    "refuse",
)
_DEAD = "127.0.0.2"
_ALIVE = "127.0.0.1"


class Network:
    """The way to `target`.

    Args:
        several: the name that `address` has in it stands for two addresses, of which the first takes connections and
            stays mute, and later drops their SYNs (its backlog is full). Only inside `several_addresses`.
    """

    def __init__(self, target: Target, *, several: bool) -> None:
        self._target = target
        self._several = several
        self.proxy = FaultProxy(target.port)
        self._mute: socket.socket | None = None

    def __enter__(self) -> Self:
        self.proxy.start()
        if self._several:
            self._mute = socket.create_server((_DEAD, self.proxy.port), backlog=4)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._mute is not None:
            self._mute.close()
        self.proxy.stop()

    @property
    def address(self) -> str:
        """Where a client connects to."""
        return self._target.address("localhost" if self._several else _ALIVE, self.proxy.port)

    def apply(self, step: Step, over: threading.Event) -> None:
        """Do one of `FAULTS` for its time, or until `over`, and undo it."""
        proxy, part = self.proxy, step.chance
        match step.kind:
            case "reset":
                proxy.reset()
            case "drop":
                proxy.drop()
            case "half-open":
                proxy.half_open("client" if part < 0.7 else "broker")
            case "black-hole":
                proxy.black_hole(direction="up" if part < 0.3 else "down" if part < 0.6 else "both")
            case "lose-receipts" | "lose-sends":
                proxy.black_hole(direction="down" if step.kind == "lose-receipts" else "up")
            case "slow":
                proxy.bandwidth(int(2_000 + 200_000 * part))
            case "late":
                proxy.latency(0.3 * part, jitter=0.1 * part)
            case "slices":
                proxy.slices(1 + int(100 * part), pause=0.001)
            case "cut":
                proxy.cut_after(int(5_000 * part), direction="up" if part < 0.5 else "down", now=True)
            case "cut-next":
                proxy.cut_after(int(2_000 * part), direction="up" if part < 0.5 else "down")
                proxy.reset()
            case "refuse":
                proxy.refuse()
                proxy.reset()
            case _:
                raise AssertionError(step.kind)
        over.wait(step.seconds)
        if step.kind in ("lose-receipts", "lose-sends"):
            proxy.reset()  # before the hole closes: what is in it is gone
        proxy.clear()


@contextlib.contextmanager
def several_addresses() -> Iterator[None]:
    """Let `localhost` stand for two addresses in this process, the dead one first."""
    real = socket.getaddrinfo

    def look_up(host: Any, port: Any, *args: Any, **options: Any) -> list[Any]:
        if host != "localhost":
            return real(host, port, *args, **options)
        return [found for name in (_DEAD, _ALIVE) for found in real(name, port, *args, **options)]

    with mock.patch.object(socket, "getaddrinfo", look_up):
        yield
