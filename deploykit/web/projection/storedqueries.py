"""The questions of pages and API, answered from the database."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from datetime import datetime

import attrs
from sqlalchemy import Connection

from deploykit.web.projection.accessqueries import NodeAccess, read_access, read_protected
from deploykit.web.projection.activityqueries import (
    read_audit,
    read_builds,
    read_notices,
    read_pushes,
    read_refs,
    read_repositories,
)
from deploykit.web.projection.activityviews import (
    AuditView,
    BuildView,
    LatestChange,
    MirrorView,
    NoticeView,
    PushView,
    RefView,
)
from deploykit.web.projection.cells import clean
from deploykit.web.projection.overview import find_problems, latest_changes
from deploykit.web.projection.queries import Queries
from deploykit.web.projection.rolloutqueries import (
    read_history,
    read_log,
    read_operation,
    read_rollout,
    read_rollouts,
)
from deploykit.web.projection.rolloutviews import HistoryView, LogSlice, RolloutDetail, RolloutOverview
from deploykit.web.projection.sitequeries import read_node, read_node_mirrors, read_nodes, read_site_nodes, read_sites
from deploykit.web.projection.views import (
    NodeSummary,
    Paged,
    PageRequested,
    Problem,
    ProjectionHealth,
    SiteOnNode,
    SiteSummary,
)
from deploykit.web.viewer import Viewer


class StoredQueries(Queries):
    """Answers from a store. Of names that are asked for, a character that no database takes matches nothing.

    Args:
        reading: yields a connection that sees one state of the database.
        health: returns whether that can be relied on.
        now: the wall clock, aware UTC.
    """

    def __init__(
        self,
        reading: Callable[[], AbstractContextManager[Connection]],
        health: Callable[[], ProjectionHealth],
        *,
        now: Callable[[], datetime],
    ) -> None:
        self._reading = reading
        self._health = health
        self._now = now

    def health(self, viewer: Viewer) -> ProjectionHealth:
        """See `Queries`."""
        health = self._health()
        # The line on the last message that is not believed names its node and site, whichever those are.
        return health if viewer.sees_all else attrs.evolve(health, distrust="", answered=0)

    def problems(self, viewer: Viewer, limit: int = 50) -> tuple[Problem, ...]:
        """See `Queries`."""
        with self._reading() as connection:
            return find_problems(connection, viewer, self.health(viewer), self._now(), limit)

    def changes(self, viewer: Viewer, limit: int = 20) -> tuple[LatestChange, ...]:
        """See `Queries`."""
        with self._reading() as connection:
            return latest_changes(connection, viewer, limit)

    def sites(self, viewer: Viewer) -> tuple[SiteSummary, ...]:
        """See `Queries`."""
        with self._reading() as connection:
            return read_sites(connection, viewer, self._now())

    def site(self, viewer: Viewer, site: str) -> SiteSummary | None:
        """See `Queries`."""
        with self._reading() as connection:
            return next(iter(read_sites(connection, viewer, self._now(), clean(site))), None) if site else None

    def site_nodes(self, viewer: Viewer, site: str, page: PageRequested) -> Paged[SiteOnNode]:
        """See `Queries`."""
        with self._reading() as connection:
            return read_site_nodes(connection, viewer, clean(site), page, self._now())

    def nodes(self, viewer: Viewer, page: PageRequested) -> Paged[NodeSummary]:
        """See `Queries`."""
        with self._reading() as connection:
            return read_nodes(connection, viewer, page, self._now())

    def node(self, viewer: Viewer, node: str) -> NodeSummary | None:
        """See `Queries`."""
        with self._reading() as connection:
            return read_node(connection, viewer, clean(node), self._now())

    def node_mirrors(self, viewer: Viewer, node: str, page: PageRequested) -> Paged[MirrorView]:
        """See `Queries`."""
        with self._reading() as connection:
            return read_node_mirrors(connection, viewer, clean(node), page)

    def repositories(self, viewer: Viewer) -> tuple[str, ...]:
        """See `Queries`."""
        with self._reading() as connection:
            return read_repositories(connection, viewer)

    def refs(self, viewer: Viewer, repo: str, page: PageRequested) -> Paged[RefView]:
        """See `Queries`."""
        with self._reading() as connection:
            return read_refs(connection, viewer, clean(repo), page) if repo else Paged(items=())

    def pushes(self, viewer: Viewer, repo: str, page: PageRequested) -> Paged[PushView]:
        """See `Queries`."""
        with self._reading() as connection:
            return read_pushes(connection, viewer, clean(repo), page)

    def builds(self, viewer: Viewer, repo: str, page: PageRequested) -> Paged[BuildView]:
        """See `Queries`."""
        with self._reading() as connection:
            return read_builds(connection, viewer, clean(repo), page)

    def rollouts(self, viewer: Viewer, site: str, page: PageRequested) -> Paged[RolloutOverview]:
        """See `Queries`."""
        with self._reading() as connection:
            return read_rollouts(connection, viewer, clean(site), page)

    def rollout(self, viewer: Viewer, rollout: str, page: PageRequested) -> RolloutDetail | None:
        """See `Queries`."""
        with self._reading() as connection:
            return read_rollout(connection, viewer, clean(rollout), page)

    def log(self, viewer: Viewer, rollout: str, node: str, first: int, limit: int) -> LogSlice | None:
        """See `Queries`."""
        with self._reading() as connection:
            return read_log(connection, viewer, clean(rollout), clean(node), first, limit)

    def history(self, viewer: Viewer, site: str, node: str, page: PageRequested) -> Paged[HistoryView]:
        """See `Queries`."""
        with self._reading() as connection:
            return read_history(connection, viewer, clean(site), clean(node), page)

    def operation(self, viewer: Viewer, site: str, id: str) -> HistoryView | None:
        """See `Queries`."""
        with self._reading() as connection:
            return read_operation(connection, viewer, clean(site), clean(id))

    def notices(self, viewer: Viewer, page: PageRequested) -> Paged[NoticeView]:
        """See `Queries`."""
        with self._reading() as connection:
            return read_notices(connection, viewer, page)

    def audit(self, viewer: Viewer, site: str, page: PageRequested) -> Paged[AuditView]:
        """See `Queries`."""
        with self._reading() as connection:
            return read_audit(connection, viewer, clean(site), page)

    def protected(self, viewer: Viewer) -> Mapping[str, tuple[str, ...]]:
        """See `Queries`."""
        with self._reading() as connection:
            return read_protected(connection, viewer)

    def access(self, viewer: Viewer, site: str) -> tuple[NodeAccess, ...]:
        """See `Queries`."""
        with self._reading() as connection:
            return read_access(connection, viewer, site)
