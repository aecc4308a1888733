"""The embedded broker as a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from deploykit.daemons import lifecycle, logs
from deploykit.settings import LogSettings
from deploykit.testing.broker import EmbeddedBroker


def run(
    *, host: str, port: int, data: Path | None, users: Mapping[str, str] | None, on_ready: Callable[[str], None]
) -> None:
    """Serve until TERM.

    Args:
        host, port: where to listen; port 0 takes a free one.
        data: directory that keeps queues and durable subscriptions over a restart.
        users: login -> passcode; None lets anybody in.
        on_ready: called with the address, without credentials, once it listens.

    Raises:
        UsageError: the port is taken, or `host` is not a loopback address.
    """
    logs.set_up(LogSettings(), secrets=(users or {}).values())
    with (
        lifecycle.signals() as stop,
        EmbeddedBroker(host=host, port=port, users=dict(users) if users else None, data=data) as broker,
    ):
        on_ready(f"stomp://{host}:{broker.port}")
        while broker.running and not stop.wait(0.5):
            pass  # a broker whose disk failed has ended by itself; leaving the block raises why
