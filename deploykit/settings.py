"""The settings of every part, as values. Reads no file and no environment: `config` does that.

Defaults are what a careful operator would choose. Times are seconds, sizes are bytes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

import attrs

from deploykit.names import NodeName, RepoName, SiteName
from deploykit.topics import TopicMap

#: As a site's `run_as`: the scripts run as its `owner`.
AS_OWNER: Final = "owner"

_NOTHING: Mapping[str, str] = MappingProxyType({})
_NO_TIMES: Mapping[str, float] = MappingProxyType({})
_NO_ANSWERS: Mapping[str, Literal["again", "skip", "stop"]] = MappingProxyType({})


def _without_credentials(address: str) -> str:
    """Show an address, or a list of them, without what stands before an `@`, however broken it is."""
    first, *parts = address.split("://")
    if not parts:
        return repr(re.sub(r"^[^@]*:.*@", "***@", address))
    return repr("://".join([first, *(re.sub(r"^.*@", "***@", part, flags=re.DOTALL) for part in parts)]))


@attrs.frozen(kw_only=True, slots=True)
class BusSettings:
    """How to reach the brokers, and how patient to be. What the address says of these things wins.

    Args:
        address: `stomp://host:port`, `stomp+ssl://…`, or `failover:(a,b)?randomize=false`.
        login, passcode: used for every broker whose address holds none of its own.
        client_id: who we are to ActiveMQ, which keeps durable subscriptions by it; unique among all connections.
        versions: STOMP versions to offer.
        tls_ca: file with the certificates to trust; the system's when absent.
        tls_cert, tls_key: the client certificate, where the broker asks for one.
        tls_verify: check the broker's certificate and name. Off only for a test.
        heartbeat: seconds between beats, asked for in both directions; 0 turns them off.
        connect_timeout: for one attempt, from dialling to CONNECTED.
        publish_timeout: until a message must be confirmed, where the caller does not say.
        backoff_initial, backoff_max: ceiling of the first and of every pause between two rounds of attempts.
        stall_timeout: no receipt for so long while some are owed: the connection is given up.
        window, window_bytes: most messages that may wait for their receipts; who publishes more waits.
        in_flight: most of them that are written to the broker and not yet confirmed.
        max_frame: largest body taken; a larger one goes to the dead letters unread.
        dead_letter: where messages go that were given up.
        keepalive, keepalive_every: destinations that every bus sends an empty line to, and how often in seconds.
    """

    address: str = attrs.field(default="stomp://127.0.0.1:61613", repr=_without_credentials)
    login: str = attrs.field(default="", repr=False)
    passcode: str = attrs.field(default="", repr=False)
    client_id: str = ""
    vhost: str = "/"
    versions: tuple[str, ...] = ("1.2", "1.1", "1.0")
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_verify: bool = True
    heartbeat: float = 10.0
    connect_timeout: float = 10.0
    publish_timeout: float = 30.0
    backoff_initial: float = 0.1
    backoff_max: float = 10.0
    stall_timeout: float = 60.0
    window: int = 5000
    in_flight: int = 256
    window_bytes: int = 32 * 1024 * 1024
    max_frame: int = 4 * 1024 * 1024
    dead_letter: str = "/queue/deploykit.dead-letter"
    keepalive: tuple[str, ...] = ()
    keepalive_every: float = 60.0


@attrs.frozen(kw_only=True, slots=True)
class OutboxSettings:
    """The spool of messages to send, and the relay that sends them.

    Args:
        path: the directory.
        create: make it when it is missing, mode 3770.
        group: the group of its writers, when it is made; the group of the process that makes it when empty.
        window: most records on their way to the broker at a time.
        max_attempts: a record the broker refused so often becomes a dead letter.
        pause_max: the longest pause between two attempts.
        rescan: how often the spool is looked at although no writer announced anything.
    """

    path: Path = Path("/var/spool/deploykit")
    create: bool = True
    group: str = ""
    window: int = 256
    max_attempts: int = 5
    pause_max: float = 30.0
    rescan: float = 10.0


@attrs.frozen(kw_only=True, slots=True)
class MirrorSettings:
    """One repository's mirror: what it holds, how the origin is reached, what it may do to us.

    Args:
        refs: patterns of the refs to mirror; `*` also crosses `/`.
        deadline: for a whole fetch, in seconds; it ends then, whatever the origin does.
        connect_timeout: for reaching the origin, its name included.
        stall_timeout: the longest wait for a single byte.
        allow_http: also `http://` addresses: everything goes in clear, passwords too.
        ssh_key: the private key for `ssh://`; ssh's own choice when absent.
        ssh_known_hosts: the origin's host key must be in this file; ssh's own files when absent.
        ca_file: certificates to trust for `https://`; the system's when absent.
        credentials_file: lines of `https://USER:PASSWORD@HOST`, as `git credential-store` writes them; mode 0600.
        credential_helper: a program and its arguments that speaks git's credential protocol.
        non_fast_forward: `refuse` leaves a ref alone that was rewritten, and a tag that moved.
        never_older: leave a ref alone that would go back to a commit it had before, or to an older one.
        max_delete_percent: refuse to delete more of the refs than this in one fetch (from 4 refs on), unless told.
        signed: patterns of refs that move only to what is signed by a key in `allowed_signers`.
        allowed_signers: OpenSSH's file of that name.
        max_pack_bytes, max_object_bytes, max_listing_bytes: what an origin may send at most.
        min_free_bytes, min_free_inodes: do not start, and stop, when the disk has less.
        repack_after: packs to let pile up before upkeep makes one of them (by the git program); 0 never does.
    """

    refs: tuple[str, ...] = ("refs/heads/*", "refs/tags/*")
    deadline: float = 600.0
    connect_timeout: float = 15.0
    stall_timeout: float = 60.0
    allow_http: bool = False
    ssh_key: Path | None = None
    ssh_known_hosts: Path | None = None
    ca_file: Path | None = None
    credentials_file: Path | None = None
    credential_helper: tuple[str, ...] = ()
    non_fast_forward: Literal["allow", "refuse"] = "allow"
    never_older: bool = False
    max_delete_percent: float = 50.0
    signed: tuple[str, ...] = ()
    allowed_signers: Path | None = None
    max_pack_bytes: int = 32 << 30
    max_object_bytes: int = 512 << 20
    max_listing_bytes: int = 256 << 20
    min_free_bytes: int = 64 << 20
    min_free_inodes: int = 200
    repack_after: int = 50


@attrs.frozen(kw_only=True, slots=True)
class CheckoutSettings:
    """Refs of a mirror kept as directories.

    Args:
        mode: `normal` none; `trusting` the default branch in `target`; `branch` the one named in `branch` in `target`;
            `puppetmaster` each branch in `target/BRANCH`, by names Puppet takes; `tags` each tag in `target/TAG`;
            `atomic` each branch in `target_BRANCH`.
        target: where; must not be a real directory in the way (`trusting`, `branch`, `atomic`).
        branch: for `branch`; for `trusting` instead of the default branch.
        refs: only refs that match one of these patterns; all that the mode takes when empty.
        remove: whether the directory of a deleted ref goes; by default so in the modes with many directories.
        grace: seconds a replaced copy is left untouched for readers that still have it open.
        symlinks, submodules, raw_attributes, max_entries, max_bytes, umask: as for a site's releases.
        owner: `user` or `user:group` for everything written; needs root.
        durable: nothing is reported done that a power cut could take away.
    """

    mode: Literal["normal", "trusting", "branch", "puppetmaster", "tags", "atomic"]
    target: Path
    branch: str = ""
    refs: tuple[str, ...] = ()
    remove: bool | None = None
    grace: float = 10.0
    symlinks: Literal["inside", "any", "refuse"] = "inside"
    submodules: Literal["refuse", "skip"] = "refuse"
    raw_attributes: tuple[Literal["filter", "eol", "ident", "working-tree-encoding"], ...] = ()
    max_entries: int = 250_000
    max_bytes: int = 8 << 30
    umask: int | None = None
    owner: str = ""
    durable: bool = True


@attrs.frozen(kw_only=True, slots=True)
class RepositorySettings:
    """One repository a node mirrors: its origin's URL, the mirror's own settings, and which refs become directories."""

    url: str = attrs.field(repr=_without_credentials)
    mirror: MirrorSettings = attrs.field(factory=MirrorSettings)
    checkouts: tuple[CheckoutSettings, ...] = ()


@attrs.frozen(kw_only=True, slots=True)
class SiteSettings:
    """One site's releases. The defaults suit a directory that is set up on its first deploy and has no scripts.

    Args:
        keep: how many good releases stay; the live one, the last good one and pinned ones always do.
        recycle: keep one release beyond that and turn it into the next one: a deploy then costs what changed.
        grace: seconds for which a release that was live is neither recycled nor removed, whatever `keep` says: whoever
            opened it before the switch reads on undisturbed. Deploys that follow each other faster leave more behind.
        paranoid: read every file of a release that is recycled or verified, not only what `lstat` says.
        shared: what lives in `shared/` and is linked into every release; `uploads/` is a directory and is made when
            missing, `config.php` a file that must be there or is taken from the first release.
        subdirectory: only this directory of the repository, as the release's root.
        state_files: write `TAG` and `.deploykit/REVISION` into the release, unless the tree has files of that name.
        symlinks: `inside` refuses a link that leaves the tree, `any` writes it, `refuse` allows none.
        submodules: `refuse`, or `skip`: an empty directory in its place.
        raw_attributes: which of `filter`, `eol`, `ident`, `working-tree-encoding` may be ignored.
        export_attributes: honour `export-ignore` and `export-subst` as `git archive` does.
        max_entries, max_depth, max_bytes, max_file_bytes: what a tree may hold at most.
        umask: bits taken from the modes of what is written; the process's own when absent.
        owner: `user` or `user:group` for everything written; needs root.
        durable: nothing is reported done that a power cut could take away.
        lock_wait: how long to wait while another deploy runs; 0 refuses at once.
        scripts: where the deploy scripts are: a directory of the tree, or an absolute one outside it; "" for none.
        required: scripts that must be there; without one of them nothing is touched.
        script_timeout: for each script; its whole process group is killed after it.
        timeouts: for single scripts, by name.
        at_crash: what becomes of a script that a crash cut off, by name: run it `again` (the default), `skip` it, or
            `stop` and leave the decision to a person.
        output_limit: bytes of a script's output that are kept: half from its start, half from its end.
        environment: further variables for the scripts. Never printed or recorded.
        run_as: `user` or `user:group` the scripts run as, or `owner`: who `owner` names; needs root. A script runs only
            if nobody but that user and root can change it or a directory on the way to it.
        health_url: fetched after post-deploy until it answers with 2xx; else the old release comes back.
        health_timeout: for all attempts together.
        drift: when files of the live release were edited by hand: `warn`, `refuse` to deploy over it, or `ignore`.
        drift_ignore: patterns of paths that may change (`cache/*`).
        older: `refuse` to deploy a commit that the live one already contains, unless told; or `allow`.
    """

    keep: int = attrs.field(default=5, validator=attrs.validators.ge(1))
    recycle: bool = True
    grace: float = attrs.field(default=2.0, validator=attrs.validators.ge(0))
    paranoid: bool = False
    shared: tuple[str, ...] = ()
    subdirectory: str = ""
    state_files: bool = True
    symlinks: Literal["inside", "any", "refuse"] = "inside"
    submodules: Literal["refuse", "skip"] = "refuse"
    raw_attributes: tuple[Literal["filter", "eol", "ident", "working-tree-encoding"], ...] = ()
    export_attributes: bool = False
    max_entries: int = 250_000
    max_depth: int = 64
    max_bytes: int = 8 * 1024**3
    max_file_bytes: int = 1024**3
    umask: int | None = None
    owner: str = ""
    durable: bool = True
    lock_wait: float = 600.0
    scripts: str = "deploy"
    required: tuple[str, ...] = ()
    script_timeout: float = 300.0
    timeouts: Mapping[str, float] = _NO_TIMES
    at_crash: Mapping[str, Literal["again", "skip", "stop"]] = _NO_ANSWERS
    output_limit: int = 65536
    environment: Mapping[str, str] = attrs.field(default=_NOTHING, repr=False)
    run_as: str = ""
    health_url: str = attrs.field(default="", repr=_without_credentials)
    health_timeout: float = 30.0
    drift: Literal["warn", "refuse", "ignore"] = "warn"
    drift_ignore: tuple[str, ...] = ()
    older: Literal["refuse", "allow"] = "refuse"


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
