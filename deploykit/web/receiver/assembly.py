"""The parts of a receiver put together from the settings of a machine: for its own service, and inside the console."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Final

from starlette.applications import Starlette
from starlette.routing import BaseRoute

from deploykit.daemons.relay import open_outbox
from deploykit.daemons.service.metrics import Metrics
from deploykit.errors import SettingsError, WebError
from deploykit.outbox import Outbox
from deploykit.settings.node import Settings
from deploykit.web.receiver.app import outbox_publisher, receiver_app, receiver_routes
from deploykit.web.receiver.deliveries import DeliveryStore
from deploykit.web.receiver.intake import WebhookIntake

_log = logging.getLogger(__name__)

#: For `Metrics.expect`.
SERVICE: Final = "webhook"
_COUNTERS: Final = ("webhook_requests_total",)


class WebhookReceiver:
    """A receiver with its outbox and its store of deliveries. Close it.

    Args:
        settings: of this machine; there is a source at least.
        metrics: where it counts.
        outbox: already open; None: the settings' one.

    Raises:
        SettingsError: there is no source, or a file with a secret cannot be used.
        OutboxError: the spool cannot be opened.
        WebError: the store of deliveries cannot be opened.
    """

    def __init__(self, settings: Settings, metrics: Metrics, *, outbox: Outbox | None = None) -> None:
        if not settings.webhook.sources:
            raise SettingsError(
                "there is no [webhook.sources.NAME] in the settings", "see docs/webhooks.md for an example"
            )
        self._settings = settings
        self._metrics = metrics
        self.outbox = open_outbox(settings.outbox) if outbox is None else outbox
        self._store = DeliveryStore(store_path(settings))
        try:
            self.intake = WebhookIntake(
                settings.webhook,
                outbox_publisher(
                    self.outbox,
                    settings.webhook,
                    settings.topics,
                    legacy=settings.webhook_legacy,
                    legacy_deletes=settings.legacy_deletes,
                ),
                self._store,
                count=metrics.webhook_answered,
            )
        except BaseException:
            self._store.close()
            raise

    def routes(self) -> list[BaseRoute]:
        """Return a route for each source, to be mounted in an application."""
        return receiver_routes(self._settings.webhook, self.intake)

    def application(self) -> Starlette:
        """Return an application that serves the sources alone."""
        return receiver_app(self._settings.webhook, self.intake)

    def expect(self) -> None:
        """Have the metrics show the counters of each source from the beginning."""
        self._metrics.expect(SERVICE, sources=self._settings.webhook.sources, counters=_COUNTERS)

    def prune(self) -> None:
        """Forget deliveries that are older than the settings say. A failure is logged: it costs room only."""
        try:
            self._store.prune(time.time() - self._settings.webhook.remember)
        except WebError as error:
            _log.error("%s", error)

    def close(self) -> None:
        """Close the store. Nothing may arrive any more."""
        self._store.close()


def store_path(settings: Settings) -> Path:
    """Return where deliveries are remembered."""
    return settings.state / "webhook" / "deliveries.db"


__all__ = ["WebhookReceiver", "store_path"]
