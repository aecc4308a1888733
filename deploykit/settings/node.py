"""Everything one `deploykit.toml` says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import attrs

from deploykit.messages.topics import TopicMap
from deploykit.names import NodeName, RepoName, SiteName
from deploykit.settings.bus import BusSettings
from deploykit.settings.log import LogSettings
from deploykit.settings.mirror import RepositorySettings
from deploykit.settings.outbox import OutboxSettings
from deploykit.settings.site import NodeSiteSettings
from deploykit.settings.trust import TrustSettings


@attrs.frozen(kw_only=True, slots=True)
class Settings:
    """Everything one `deploykit.toml` says.

    Args:
        reconcile_every: a mirror is compared with its origin at least so often.
        fetch_spread: a fetch starts after a random part of so many seconds, so that a thousand nodes that hear the same
            message do not come in the same instant; 0 for a few nodes that should be quick.
    """

    node: NodeName
    state: Path = Path("/var/lib/deploykit")
    broker: BusSettings = attrs.field(factory=BusSettings)
    topics: TopicMap = attrs.field(factory=TopicMap)
    outbox: OutboxSettings = attrs.field(factory=OutboxSettings)
    trust: TrustSettings = attrs.field(factory=TrustSettings)
    signing_key: Path | None = None
    log: LogSettings = attrs.field(factory=LogSettings)
    repositories: Mapping[RepoName, RepositorySettings] = attrs.field(factory=dict)
    sites: Mapping[SiteName, NodeSiteSettings] = attrs.field(factory=dict)
    reconcile_every: float = 300.0
    fetch_spread: float = 1.0
