"""The embedded broker as a process of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from deploykit.broker.server import EmbeddedBroker
from deploykit.daemons.service import lifecycle, logs
from deploykit.settings.log import LogSettings

_log = logging.getLogger(__name__)


def run(
    *,
    host: str,
    port: int,
    data: Path | None,
    load_users: Callable[[], Mapping[str, str] | None],
    on_ready: Callable[[str], None],
) -> None:
    """Serve until TERM. HUP reads the logins again; wrong ones change nothing.

    Args:
        host, port: where to listen; port 0 takes a free one.
        data: directory that keeps queues and durable subscriptions over a restart.
        load_users: returns the passcode of each login; None lets anybody in.
        on_ready: called with the address, without credentials, once it listens.

    Raises:
        UsageError: the port is taken, or `host` is not a loopback address.
    """
    users = load_users()
    changed = threading.Event()
    logs.set_up(LogSettings(), secrets=(users or {}).values())
    with (
        lifecycle.signals(on_reload=changed.set) as stop,
        EmbeddedBroker(host=host, port=port, users=users, data=data) as broker,
    ):
        on_ready(f"stomp://{host}:{broker.port}")
        while broker.running and not stop.wait(0.5):  # a disk failure ends it; leaving the block raises that error
            if changed.is_set():
                changed.clear()
                following = lifecycle.try_reload(lambda: (load_users(),))
                if following is not None:
                    (known,) = following
                    logs.set_up(LogSettings(), secrets=[*(users or {}).values(), *(known or {}).values()])
                    _log.info("settings read again: %s", "nothing is different" if known == users else "logins")
                    users = known
                    broker.replace_users(users)
