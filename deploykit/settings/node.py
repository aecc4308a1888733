"""Everything in one `deploykit.toml`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import attrs

from deploykit.messages.topics import TopicMap
from deploykit.names import NodeName, RepoName, SiteName
from deploykit.settings.access import AccessSettings
from deploykit.settings.audit import AuditSettings
from deploykit.settings.builds import BuildsSettings
from deploykit.settings.bus import BusSettings
from deploykit.settings.credentials import hide_credentials
from deploykit.settings.facts import FactsSettings
from deploykit.settings.jenkins import JenkinsSettings
from deploykit.settings.keepalive import KeepaliveSettings
from deploykit.settings.log import LogSettings
from deploykit.settings.mirror import RepositorySettings
from deploykit.settings.notify import NotifySettings
from deploykit.settings.outbox import OutboxSettings
from deploykit.settings.packages import PackagesSettings
from deploykit.settings.problems import below, too_small
from deploykit.settings.service import ServiceSettings
from deploykit.settings.site import NodeSiteSettings
from deploykit.settings.trust import TrustSettings
from deploykit.settings.via import ViaSettings
from deploykit.settings.web import WebSettings
from deploykit.settings.webhook import WebhookSettings


@attrs.frozen(kw_only=True, slots=True)
class Settings:
    """Everything in one `deploykit.toml`.

    Args:
        rollouts: where rollouts that begin on this machine keep their journals and locks; by default `rollouts` in
            `state`.
        submodules: address of a submodule -> the repository that stands for it. An address that is the `url` of a
            repository needs no entry. Compared without login, `.git` and `/` at the end; never connected to.
        reconcile_every: seconds between two comparisons of a mirror with its origin, at most.
        fetch_spread: a fetch starts after a random part of so many seconds, so that a thousand nodes that receive the
            same message do not fetch in the same instant; 0 for a few nodes that should be quick.
        legacy: the original's programs listen on this bus, too: beside what a daemon reports goes a line for people,
            and `topics` are the original's where they are not set.
        legacy_deletes: with `legacy`, also send webhooks' deletions of refs in the original's form, whose Jenkins
            daemon builds a deleted branch.
    """

    node: NodeName
    state: Path = Path("/var/lib/deploykit")
    rollouts: Path | None = None
    broker: BusSettings = attrs.field(factory=BusSettings)
    topics: TopicMap = attrs.field(factory=TopicMap)
    outbox: OutboxSettings = attrs.field(factory=OutboxSettings)
    audit: AuditSettings = attrs.field(factory=AuditSettings)
    trust: TrustSettings = attrs.field(factory=TrustSettings)
    builds: BuildsSettings = attrs.field(factory=BuildsSettings)
    facts: FactsSettings = attrs.field(factory=FactsSettings)
    signing_key: Path | None = None
    log: LogSettings = attrs.field(factory=LogSettings)
    service: ServiceSettings = attrs.field(factory=ServiceSettings)
    repositories: Mapping[RepoName, RepositorySettings] = attrs.field(factory=dict)
    submodules: Mapping[str, RepoName] = attrs.field(factory=dict, repr=False)
    sites: Mapping[SiteName, NodeSiteSettings] = attrs.field(factory=dict)
    jenkins: JenkinsSettings = attrs.field(factory=JenkinsSettings)
    web: WebSettings = attrs.field(factory=WebSettings)
    webhook: WebhookSettings = attrs.field(factory=WebhookSettings)
    access: AccessSettings = attrs.field(factory=AccessSettings)
    notify: NotifySettings = attrs.field(factory=NotifySettings)
    via: ViaSettings = attrs.field(factory=ViaSettings)
    packages: PackagesSettings = attrs.field(factory=PackagesSettings)
    keepalive: KeepaliveSettings = attrs.field(factory=KeepaliveSettings)
    reconcile_every: float = 300.0
    fetch_spread: float = 1.0
    legacy: bool = False
    legacy_deletes: bool = False

    @property
    def webhook_legacy(self) -> bool:
        """Whether the webhook receiver writes the original's text bodies."""
        return self.legacy or self.webhook.legacy

    @property
    def rollouts_directory(self) -> Path:
        """Where the journals and locks of rollouts are."""
        return self.rollouts if self.rollouts is not None else self.state / "rollouts"

    @property
    def submodule_repos(self) -> Mapping[str, RepoName]:
        """Which repository stands for which address of a submodule."""
        return {chosen.url: repo for repo, chosen in self.repositories.items()} | dict(self.submodules)

    @property
    def site_repos(self) -> Mapping[SiteName, tuple[RepoName, ...]]:
        """The repositories of each site."""
        return {name: site.repos for name, site in self.sites.items()}

    def problems(self) -> tuple[str, ...]:
        """Return what is wrong, each line with its full path; empty when all is well.

        What needs other rooms to check (origins, grants, targets) is found by `config`.
        """
        return tuple(self._problems())

    def _problems(self) -> Iterator[str]:
        yield from too_small(self, {"reconcile_every": 1})
        yield from below("broker", self.broker.problems())
        yield from below("topics", self.topics.problems())
        yield from below("outbox", self.outbox.problems())
        yield from below("audit", self.audit.problems())
        yield from below("trust", self.trust.problems())
        yield from below("service", self.service.problems())
        yield from below("builds", self.builds.problems())
        yield from below("facts", self.facts.problems())
        yield from below("jenkins", self.jenkins.problems())
        yield from below("web", self.web.problems())
        yield from below("webhook", self.webhook.problems())
        yield from below("access", self.access.problems())
        yield from below("notify", self.notify.problems())
        yield from below("via", self.via.problems())
        yield from below("packages", self.packages.problems())
        yield from below("keepalive", self.keepalive.problems())
        for url, repo in self.submodules.items():
            if repo not in self.repositories:
                yield f"submodules.{hide_credentials(url)!r}: {repo!r} is not in [repositories]"
        for repo, repository in self.repositories.items():
            yield from below(f"repositories.{repo}", repository.problems())
        for name, site in self.sites.items():
            yield from below(f"sites.{name}", site.problems())
