"""Which services there are, by name. A new daemon is one line here: `deploykit run` and its help know it then."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs

from deploykit.bus import Bus
from deploykit.daemons.service.extras import import_with_extra
from deploykit.daemons.service.group import ServiceGroup, name_in
from deploykit.daemons.service.metrics import Metrics
from deploykit.daemons.service.service import Service
from deploykit.errors import DeploykitError, UsageError
from deploykit.settings.node import Settings


@attrs.frozen(kw_only=True, slots=True)
class ServiceEntry:
    """Where a service is found.

    Args:
        loader: `module:class`, below `deploykit.daemons`, or in full. The class takes settings, `bus=` and `metrics=`.
        client_id: of the connection, with `{node}` for the node's name; the first of those that run together counts.
        relays: it sends what waits in the outbox, too.
        extra: what must be installed beside the package, `web`; empty: nothing.
    """

    loader: str
    client_id: str = ""
    relays: bool = False
    extra: str = ""

    def make(self, settings: Settings, bus: Bus, metrics: Metrics) -> Service:
        """Return the service, not yet started.

        Raises:
            UsageError: what it needs is not installed.
        """
        module, _, name = self.loader.partition(":")
        full = module if module.startswith("deploykit.") else f"deploykit.daemons.{module}"
        kind = getattr(import_with_extra(full, self.extra), name)
        made = kind(settings, bus=bus, metrics=metrics)
        if not isinstance(made, Service):
            raise TypeError(f"{self.loader} is no service")
        return made


#: In this order they are started.
SERVICES: Final[dict[str, ServiceEntry]] = {
    "agent": ServiceEntry(loader="agent.agent:Agent", client_id="deploykit-{node}", relays=True),
    "jenkins": ServiceEntry(loader="jenkins.trigger:JenkinsTrigger", client_id="deploykit-{node}-jenkins", relays=True),
    "access": ServiceEntry(loader="access.daemon:AccessDaemon", client_id="deploykit-{node}-access", relays=True),
    "packages": ServiceEntry(
        loader="packages.daemon:PackagesDaemon", client_id="deploykit-{node}-packages", relays=True
    ),
    "webhook": ServiceEntry(
        loader="deploykit.web.receiver.service:WebhookService",
        client_id="deploykit-{node}-webhook",
        relays=True,
        extra="web",
    ),
    "web": ServiceEntry(
        loader="deploykit.web.service:ConsoleService",
        client_id="deploykit-{node}-web",
        extra="web",
    ),
    "notify": ServiceEntry(loader="notify.service:NotifyService", client_id="deploykit-{node}-notify"),
    "relay": ServiceEntry(loader="relay:RelayService", relays=True),
    "keepalive": ServiceEntry(loader="keepalive:KeepaliveSender"),
}


def check_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of services in the order in which they are started.

    Raises:
        UsageError: there is none, one is not known or comes twice, or one does what another does already.
    """
    unknown = [name for name in names if name not in SERVICES]
    if unknown or not names:
        raise UsageError(f"no service {unknown[0]!a}" if unknown else "no service", f"there are: {', '.join(SERVICES)}")
    if len(set(names)) < len(names):
        raise UsageError("a service is named twice", "name each once")
    chosen = tuple(name for name in SERVICES if name in names)
    others = [name for name in chosen if name != "relay" and SERVICES[name].relays]
    if "relay" in chosen and others:
        raise UsageError(f"{others[0]} has a relay of its own", "leave out relay")
    return chosen


def make_group(names: Sequence[str], settings: Settings, metrics: Metrics | None = None) -> ServiceGroup:
    """Return services on one bus, none of them started.

    Args:
        names: checked by `check_names`.
        settings: for all.
        metrics: where all count.

    Raises:
        DeploykitError: one cannot be made; the text says which.
    """
    broker = settings.broker
    if "keepalive" in names:
        broker = attrs.evolve(broker, keepalive=())  # the service sends them, not the bus too
    client_id = next((SERVICES[name].client_id for name in names if SERVICES[name].client_id), "")
    bus = Bus(broker, client_id=client_id.format(node=settings.node))
    services, metrics = [], metrics or Metrics()
    for name in names:
        try:
            services.append(SERVICES[name].make(settings, bus, metrics))
        except BaseException as error:
            bus.stop(0)
            if isinstance(error, DeploykitError):
                name_in(error, name)
            raise
    return ServiceGroup(services, bus=bus)
