"""The settings of every part, as values: one file a family. `config` reads them from a file; here no file is read.

Rules:
* Defaults are what a careful operator would choose. Times are seconds, sizes are bytes.
* Each family checks itself: `problems()` returns lines of `field: expected …, not …`. Bus, config and hooks call it.
* A family is loaded on first use: a hook loads none but its own (`settings.hooks`, the one that reads its files).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deploykit.settings.access import AccessSettings, AccessSiteSettings
    from deploykit.settings.audit import AuditSettings
    from deploykit.settings.builds import BuildsSettings
    from deploykit.settings.buildservers import BuildServerSettings
    from deploykit.settings.bus import BusSettings
    from deploykit.settings.facts import FactsSettings
    from deploykit.settings.jenkins import JenkinsSettings, JobSettings
    from deploykit.settings.keepalive import KeepaliveDestination, KeepaliveSettings
    from deploykit.settings.log import LogSettings
    from deploykit.settings.mirror import CheckoutSettings, MirrorSettings, RepositorySettings
    from deploykit.settings.node import Settings
    from deploykit.settings.notify import ChannelSettings, NotifySettings
    from deploykit.settings.oidc import OidcSettings
    from deploykit.settings.outbox import OutboxSettings
    from deploykit.settings.packages import PackageSourceSettings, PackagesSettings
    from deploykit.settings.service import ServiceSettings
    from deploykit.settings.site import NodeSiteSettings, SiteSettings
    from deploykit.settings.tree import TreeSettings
    from deploykit.settings.trust import GrantSettings, TrustSettings
    from deploykit.settings.via import ViaSettings
    from deploykit.settings.web import WebAccessSettings, WebSettings
    from deploykit.settings.webhook import GenericMapping, WebhookSettings, WebhookSourceSettings

_LAZY = {
    "AccessSettings": "access",
    "AccessSiteSettings": "access",
    "AuditSettings": "audit",
    "BuildsSettings": "builds",
    "BuildServerSettings": "buildservers",
    "BusSettings": "bus",
    "CheckoutSettings": "mirror",
    "FactsSettings": "facts",
    "GrantSettings": "trust",
    "JenkinsSettings": "jenkins",
    "JobSettings": "jenkins",
    "KeepaliveDestination": "keepalive",
    "KeepaliveSettings": "keepalive",
    "LogSettings": "log",
    "MirrorSettings": "mirror",
    "NodeSiteSettings": "site",
    "ChannelSettings": "notify",
    "NotifySettings": "notify",
    "OidcSettings": "oidc",
    "OutboxSettings": "outbox",
    "PackageSourceSettings": "packages",
    "PackagesSettings": "packages",
    "RepositorySettings": "mirror",
    "ServiceSettings": "service",
    "Settings": "node",
    "SiteSettings": "site",
    "TreeSettings": "tree",
    "TrustSettings": "trust",
    "ViaSettings": "via",
    "GenericMapping": "webhook",
    "WebAccessSettings": "web",
    "WebSettings": "web",
    "WebhookSettings": "webhook",
    "WebhookSourceSettings": "webhook",
}

__all__ = [
    "AccessSettings",
    "AccessSiteSettings",
    "AuditSettings",
    "BuildsSettings",
    "BuildServerSettings",
    "BusSettings",
    "CheckoutSettings",
    "FactsSettings",
    "GrantSettings",
    "JenkinsSettings",
    "JobSettings",
    "KeepaliveDestination",
    "KeepaliveSettings",
    "LogSettings",
    "MirrorSettings",
    "NodeSiteSettings",
    "ChannelSettings",
    "NotifySettings",
    "OidcSettings",
    "OutboxSettings",
    "PackageSourceSettings",
    "PackagesSettings",
    "RepositorySettings",
    "ServiceSettings",
    "Settings",
    "SiteSettings",
    "TreeSettings",
    "TrustSettings",
    "ViaSettings",
    "GenericMapping",
    "WebAccessSettings",
    "WebSettings",
    "WebhookSettings",
    "WebhookSourceSettings",
]


def __getattr__(name: str) -> object:
    try:
        module = _LAZY[name]
    except KeyError:
        raise AttributeError(f"module 'deploykit.settings' has no attribute {name!r}") from None
    return getattr(importlib.import_module(f"deploykit.settings.{module}"), name)
