"""What queries return: values that pages and the API show as they are. Pure.

Rules:

* Every text in them came from outside and is hostile: a page escapes it, the API writes it as JSON.
* Times are aware, in UTC; None where it is not known.
* `since` fields say since when a state holds, `seen` when a node was last heard.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final, Generic, Literal, TypeVar

import attrs

T = TypeVar("T")
#: Most rows of one page of a list.
MAX_LIMIT: Final = 500

#: How a site on a node stands: those of `fleet.drift`, and `empty` where nothing is live.
SiteStanding = Literal["current", "outdated", "other", "frozen", "modified", "failed", "silent", "unexpected", "empty"]
ProblemKind = Literal["broker", "database", "node", "site", "rollout", "build", "mirror", "lock", "distrust"]


@attrs.frozen(kw_only=True, slots=True)
class PageRequested:
    """Which part of a list is wanted.

    Args:
        after: as `Paged.next` of the page before; empty for the first page.
        limit: most rows, 1 to `MAX_LIMIT`.
        search: a text that the names in a row must contain, whatever the case; empty: all rows.
    """

    after: str = ""
    limit: int = 100
    search: str = ""


@attrs.frozen(kw_only=True, slots=True)
class Paged(Generic[T]):
    """One page of a list. `next` is empty where nothing follows; `total` is None where nobody counted."""

    items: tuple[T, ...]
    next: str = ""
    total: int | None = None


@attrs.frozen(kw_only=True, slots=True)
class ProjectionHealth:
    """Whether what is shown can be relied on.

    Args:
        connected: to a broker, now.
        away_since: when the connection was lost; None while there is one.
        reason: why there is none.
        rebuilding: nodes are being asked now, because the database was lost, is new, or missed something.
        asked, answered: when nodes were last asked, and how many answered.
        complete_since: from when on what the bus told is complete, as far as known.
        distrusted: messages since the start whose signature was missing or not believed: they are not shown.
        distrust, distrusted_at: why, the last such message, in one line; when it came.
        unverified: no keys are configured: everything is shown as it came.
        dropped: messages since the start that came faster than they could be kept.

    `distrust` and `answered` are of the whole fleet: empty, and 0, for those who do not see all sites.
    """

    connected: bool = False
    away_since: datetime | None = None
    reason: str = ""
    rebuilding: bool = False
    asked: datetime | None = None
    answered: int = 0
    complete_since: datetime | None = None
    distrusted: int = 0
    distrust: str = ""
    distrusted_at: datetime | None = None
    unverified: bool = False
    dropped: int = 0


@attrs.frozen(kw_only=True, slots=True)
class Problem:
    """Something that a person should look at; the worst first.

    Args:
        site, node, rollout, repo: what it is about; empty where it is not about one.
    """

    kind: ProblemKind
    text: str
    since: datetime | None = None
    site: str = ""
    node: str = ""
    rollout: str = ""
    repo: str = ""


@attrs.frozen(kw_only=True, slots=True)
class SiteLockView:
    """A lock in force. `allow_rollback`: nodes may still go back."""

    site: str
    holder: str = ""
    reason: str = ""
    since: datetime | None = None
    until: datetime | None = None
    allow_rollback: bool = True


@attrs.frozen(kw_only=True, slots=True)
class PartView:
    """What one of several repositories contributes to a version of a site."""

    repo: str
    ref: str
    commit: str


@attrs.frozen(kw_only=True, slots=True)
class SiteOnNode:
    """A site on one node.

    Args:
        release, ref, commit, since: what is live.
        parts: what is live, where the site is made of several repositories: `ref` is empty, and `commit` is their id.
        by: who asked for it; empty where it is not known.
        last_phase, last_outcome, last_detail: of the last operation that ended.
        modified: paths that differ from the manifest; None where nobody looked.
        seen: when the node was last heard of this site.
    """

    site: str
    node: str
    repo: str = ""
    standing: SiteStanding = "empty"
    release: str = ""
    ref: str = ""
    commit: str = ""
    parts: tuple[PartView, ...] = ()
    since: datetime | None = None
    by: str = ""
    previous_ref: str = ""
    previous_commit: str = ""
    prepared_ref: str = ""
    prepared_commit: str = ""
    last_phase: str = ""
    last_outcome: str = ""
    last_detail: str = ""
    last_at: datetime | None = None
    modified: int | None = None
    problem: str = ""
    lock: SiteLockView | None = None
    rollout: str = ""
    seen: datetime | None = None


@attrs.frozen(kw_only=True, slots=True)
class SiteSummary:
    """A site over all nodes.

    Args:
        ref, commit, reason: what counts as current, and why; empty where nothing is live.
        parts: what counts as current, as of `SiteOnNode`.
        counts: how many nodes stand how; only what occurs.
        changed, by: the last change of what is live, and who asked for it.
        rollout, rollout_state: the newest rollout; empty where there was none.
    """

    site: str
    repo: str = ""
    ref: str = ""
    commit: str = ""
    parts: tuple[PartView, ...] = ()
    reason: str = ""
    nodes: int = 0
    counts: Mapping[str, int] = attrs.field(factory=dict, eq=dict, hash=False)
    changed: datetime | None = None
    by: str = ""
    lock: SiteLockView | None = None
    rollout: str = ""
    rollout_state: str = ""


@attrs.frozen(kw_only=True, slots=True)
class NodeSummary:
    """A node.

    Args:
        silent: it did not answer the last question, or was not heard for long.
        sites: those that the viewer may see.
        twins: how many other agents answer under its name.
    """

    node: str
    seen: datetime | None = None
    silent: bool = False
    version: str = ""
    host: str = ""
    facts: Mapping[str, object] = attrs.field(factory=dict, eq=dict, hash=False)
    classes: tuple[str, ...] = ()
    twins: int = 0
    cut: tuple[str, ...] = ()
    sites: tuple[SiteOnNode, ...] = ()
