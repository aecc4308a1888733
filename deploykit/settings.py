"""The settings of every part, as values. Reads no file and no environment: `config` does that.

Defaults are what a careful operator would choose. Times are seconds, sizes are bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import attrs

from deploykit.names import NodeName, RepoName, SiteName

_NOTHING: Mapping[str, str] = MappingProxyType({})


@attrs.frozen(kw_only=True, slots=True)
class BusSettings:
    """How to reach the brokers.

    Args:
        address: `stomp://host:port`, `stomp+ssl://…`, or `failover:(a,b)?randomize=false`.
        login, passcode: used for every broker whose address holds none of its own.
        tls_ca: file with the certificates to trust; the system's when absent.
        tls_cert, tls_key: the client certificate, where the broker asks for one.
        heartbeat: seconds between beats, asked for in both directions; 0 turns them off.
        connect_timeout: for one attempt, from dialling to CONNECTED.
        backoff_max: the longest pause between two rounds of attempts.
    """

    address: str = "stomp://127.0.0.1:61613"
    login: str = ""
    passcode: str = attrs.field(default="", repr=False)
    vhost: str = "/"
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    heartbeat: float = 10.0
    connect_timeout: float = 10.0
    backoff_max: float = 30.0


@attrs.frozen(kw_only=True, slots=True)
class TopicSettings:
    """Where messages go."""

    source: str = "/topic/deploykit.source"
    mirror: str = "/topic/deploykit.mirror"
    deploy: str = "/topic/deploykit.deploy"
    report: str = "/topic/deploykit.report"
    notice: str = "/topic/deploykit.notice"


@attrs.frozen(kw_only=True, slots=True)
class OutboxSettings:
    """The spool of messages to send."""

    path: Path = Path("/var/spool/deploykit")


@attrs.frozen(kw_only=True, slots=True)
class MirrorSettings:
    """One repository's mirror: which refs, and how long an origin may take."""

    refs: tuple[str, ...] = ("refs/heads/*", "refs/tags/*")
    deadline: float = 600.0


@attrs.frozen(kw_only=True, slots=True)
class RepositorySettings:
    """One repository a node mirrors: its origin's URL, and the mirror's own settings."""

    url: str
    mirror: MirrorSettings = attrs.field(factory=MirrorSettings)


@attrs.frozen(kw_only=True, slots=True)
class SiteSettings:
    """One site's releases.

    Args:
        keep: how many releases stay on disk; the live one and the last good one always do.
        shared: directories and files that live in `shared/` and are linked into every release.
        scripts: where the deploy scripts are: a directory inside the tree, or an absolute one outside it.
        required: scripts that must be there; without one of them nothing is touched.
        script_timeout: for each script; its whole process group is killed after it.
    """

    keep: int = 5
    shared: tuple[str, ...] = ()
    scripts: str = "deploy"
    required: tuple[str, ...] = ()
    script_timeout: float = 300.0
    environment: Mapping[str, str] = _NOTHING


@attrs.frozen(kw_only=True, slots=True)
class NodeSiteSettings:
    """One site on a node: where it lives, and which repository feeds it."""

    path: Path
    repo: RepoName
    release: SiteSettings = attrs.field(factory=SiteSettings)


@attrs.frozen(kw_only=True, slots=True)
class GrantSettings:
    """Who may send what: keys (principals in `allowed_signers`) for a message type, on some sites. Default deny.

    Args:
        principal: one name, no pattern; a line of `allowed_signers` says which keys may use it.
        types: `deploy.requested`, its full wire type, or the class's name.
        sites: patterns as in ssh_config(5) (`*`, `?`, `!not-this`).
        speaks_for: for replies: patterns of the nodes this principal may report for. A principal that is
            named as a node speaks for that node without any grant.
    """

    principal: str
    types: tuple[str, ...]
    sites: tuple[str, ...] = ("*",)
    speaks_for: tuple[str, ...] = ()


@attrs.frozen(kw_only=True, slots=True)
class TrustSettings:
    """Whose commands a node obeys, and how fresh they must be.

    Args:
        allowed_signers: an OpenSSH allowed_signers file; without one no command is obeyed.
        revoked_keys: public keys, one a line, that count for nothing from now on.
        max_expiry: how far ahead a command's expiry may lie when it arrives.
        skew: how much clocks may differ.
    """

    allowed_signers: Path | None = None
    revoked_keys: Path | None = None
    grants: tuple[GrantSettings, ...] = ()
    max_expiry: float = 3600.0
    skew: float = 30.0


@attrs.frozen(kw_only=True, slots=True)
class LogSettings:
    """How daemons log: `console` lines for people, `json` lines for machines."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["console", "json"] = "console"


@attrs.frozen(kw_only=True, slots=True)
class Settings:
    """Everything one `deploykit.toml` says."""

    node: NodeName
    state: Path = Path("/var/lib/deploykit")
    broker: BusSettings = attrs.field(factory=BusSettings)
    topics: TopicSettings = attrs.field(factory=TopicSettings)
    outbox: OutboxSettings = attrs.field(factory=OutboxSettings)
    trust: TrustSettings = attrs.field(factory=TrustSettings)
    signing_key: Path | None = None
    log: LogSettings = attrs.field(factory=LogSettings)
    repositories: Mapping[RepoName, RepositorySettings] = attrs.field(factory=dict)
    sites: Mapping[SiteName, NodeSiteSettings] = attrs.field(factory=dict)
    reconcile_every: float = 300.0
