"""The webhook receiver as a daemon: an HTTP server, an outbox, and a relay that sends what the outbox holds.

Rules:

* It takes deliveries with the broker up or down: what is in the outbox is sent later.
* HUP keeps the socket: no connection is refused while the settings are read again.
* At its end requests that have arrived are answered first; then the relay and the bus end.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Final

from deploykit.bus import Bus
from deploykit.daemons.relay import make_relay
from deploykit.daemons.service import lifecycle
from deploykit.daemons.service.metrics import Metrics
from deploykit.daemons.service.service import STOP_SECONDS, Service
from deploykit.errors import ServiceFailed
from deploykit.settings.node import Settings
from deploykit.settings.service import parse_listen_address
from deploykit.web.listener import SharedListener
from deploykit.web.receiver.assembly import WebhookReceiver
from deploykit.web.server import ServerLimits, WebServer

#: Added to the deadline of a body: the server's own deadline is for head and body.
_HEAD_SECONDS: Final = 5.0
_PRUNE_EVERY: Final = 3600.0
_SETTING: Final = "[webhook] listen"


def run(load: Callable[[], Settings], *, on_ready: Callable[[str], None] = lambda _: None) -> None:
    """Receive until TERM. HUP reads the settings again; wrong ones change nothing.

    Args:
        load: returns the settings.
        on_ready: called with `webhook receiver at ADDRESS` once it listens.

    Raises:
        SettingsError: the first settings are wrong, or have no source.
        UsageError: it cannot listen where they say.
        WebError, OutboxError: the store of deliveries or the spool cannot be opened.
        LoginRefused: every broker refuses the login.
    """
    lifecycle.serve_one(
        "webhook", load, lambda settings, metrics: WebhookService(settings, metrics=metrics), on_ready=on_ready
    )


class WebhookService(Service):
    """Takes the webhooks of forges. Use it as a context manager; it owns threads, no signal handlers.

    Args:
        settings: the node's; its `[webhook]` has a source at least.
        bus: a started bus that it shares; None: it makes its own.
        metrics: counts requests.

    Raises:
        SettingsError: there is no source, or a file with a secret cannot be used.
        UsageError: it cannot listen where the settings say.
        WebError, OutboxError: the store of deliveries or the spool cannot be opened.
    """

    def __init__(self, settings: Settings, *, bus: Bus | None = None, metrics: Metrics | None = None) -> None:
        counted = metrics or Metrics()
        with ExitStack() as undo:
            self._receiver = WebhookReceiver(settings, counted)
            undo.callback(self._receiver.close)
            listener = SharedListener(parse_listen_address(settings.webhook.listen), setting=_SETTING)
            undo.callback(listener.close)
            self._server = WebServer(
                self._receiver.application(),
                listener,
                limits=ServerLimits(arrival=settings.webhook.deadline + _HEAD_SECONDS),
            )
            super().__init__(
                f"webhook receiver at {self._server.url}",
                settings.broker,
                bus=bus,
                client_id=f"deploykit-{settings.node}-webhook",
                metrics=counted,
            )
            undo.pop_all()
        self._relay = make_relay(self._receiver.outbox, self.link.bus, settings.outbox)
        self.threads.add("webhook-relay", partial(self._relay.run, self.ending))
        self.threads.add("webhook-upkeep", self._look_after)
        self._serving = False

    def _start(self) -> None:
        with ExitStack() as undo:
            undo.callback(self._receiver.close)
            undo.callback(self._server.close)
            self._receiver.expect()
            self.link.start()
            self.threads.start()
            self.watch_outbox(self._receiver.outbox.path)
            self._server.start()
            self._serving = True
            undo.pop_all()

    def _end(self) -> None:
        try:
            self._serving = False
            self._server.close()  # first: what has arrived is answered while everything else still works
            self.ending.set()
            self.threads.join(time.monotonic() + STOP_SECONDS)  # before the bus: the relay waits for the last receipts
            super()._end()
        finally:
            self._receiver.close()

    @property
    def url(self) -> str:
        """Where it listens."""
        return self._server.url

    @property
    def working(self) -> bool:
        """Whether it takes deliveries: a broker that is away changes nothing."""
        return self._serving and not self._server.failure

    @property
    def status(self) -> str:
        """Where it listens, and whether a broker is connected."""
        return f"listens at {self.url}; {super().status}"

    @property
    def problems(self) -> tuple[str, ...]:
        """An outbox that cannot be written, and files of secrets that cannot be read any more."""
        return self._receiver.intake.problems

    @property
    def blocking(self) -> tuple[str, ...]:
        """The outbox alone: with secrets that were read before it goes on."""
        return tuple(filter(None, (self._receiver.intake.failure,)))

    def check(self) -> None:
        """Make sure that it can still do its work; see `Service.check`."""
        super().check()
        if self._server.failure:
            raise ServiceFailed(self._server.failure)

    def _look_after(self) -> None:
        while True:
            self._receiver.prune()
            if self.ending.wait(_PRUNE_EVERY):
                return


__all__ = ["WebhookService", "run"]
