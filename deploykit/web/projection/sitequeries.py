"""Sites and nodes, read from the database."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import attrs
from sqlalchemy import Connection, Row, and_, func, literal_column, select

from deploykit.web.projection.activityviews import MirrorView
from deploykit.web.projection.cells import moment, unpacked_dict, unpacked_list
from deploykit.web.projection.drifting import RANKS
from deploykit.web.projection.foldlocks import node_lock, site_lock
from deploykit.web.projection.paging import (
    narrowed,
    only_nodes,
    only_repos,
    paged,
    searched,
    visible_sites,
)
from deploykit.web.projection.tables import LOCKS, MIRRORS, NODES, ROLLOUTS, SITE_NODES, SITES
from deploykit.web.projection.versions import parts_of
from deploykit.web.projection.views import (
    NodeSummary,
    Paged,
    PageRequested,
    PartView,
    SiteLockView,
    SiteOnNode,
    SiteSummary,
)
from deploykit.web.viewer import Viewer

#: The columns of `select(SITE_NODES)`, in their order.
_CELLS: Final = tuple(SITE_NODES.columns.keys())


def read_sites(connection: Connection, viewer: Viewer, now: datetime, only: str = "") -> tuple[SiteSummary, ...]:
    """Return the sites that a viewer may see, by name; or just one."""
    names = (only,) if only and viewer.sees(only) else () if only else visible_sites(connection, viewer)
    rows = connection.execute(select(SITES).where(SITES.c.site.in_(names)).order_by(SITES.c.site)).all()
    locks = read_locks(connection, [row.site for row in rows], now)
    rollouts = _newest_rollouts(connection, [row.site for row in rows])
    parts = parts_of(connection, rows)
    return tuple(_site(row, locks.get(row.site), rollouts.get(row.site, ("", "")), parts) for row in rows)


def _site(
    row: Row[Any],
    lock: SiteLockView | None,
    rollout: tuple[str, str],
    parts: Mapping[str, tuple[PartView, ...]],
) -> SiteSummary:
    counts = unpacked_dict(row.counts)
    return SiteSummary(
        site=row.site,
        repo=row.repo,
        ref=row.ref,
        commit=row.commit,
        parts=parts.get(row.commit, ()),
        reason=row.reason,
        nodes=row.nodes,
        counts={kind: counts[kind] for kind in RANKS if counts.get(kind)},
        changed=moment(row.changed),
        by=row.by,
        lock=lock,
        rollout=rollout[0],
        rollout_state=rollout[1],
    )


def read_locks(connection: Connection, sites: Sequence[str], now: datetime) -> dict[str, SiteLockView]:
    """Return the locks in force, by site."""
    statements = {
        row["site"]: dict(row) for row in connection.execute(select(LOCKS).where(LOCKS.c.site.in_(sites))).mappings()
    }
    shown: defaultdict[str, list[tuple[str, int | None]]] = defaultdict(list)
    table = SITE_NODES.c
    statement = (
        select(table.site, table.lock, func.max(table.seen))
        .where(table.site.in_(sites), table.lock != literal_column("''"))
        .group_by(table.site, table.lock)
    )
    for site, lock, seen in connection.execute(statement):
        shown[site].append((lock, seen))
    found = {site: site_lock(shown[site], statements.get(site), now) for site in {*statements, *shown}}
    return {site: lock for site, lock in found.items() if lock is not None}


def _newest_rollouts(connection: Connection, sites: Sequence[str]) -> dict[str, tuple[str, str]]:
    newest = (
        select(ROLLOUTS.c.site, func.max(ROLLOUTS.c.at).label("at"))
        .where(ROLLOUTS.c.site.in_(sites))
        .group_by(ROLLOUTS.c.site)
        .subquery()
    )
    statement = select(ROLLOUTS.c.site, ROLLOUTS.c.rollout, ROLLOUTS.c.state).join(
        newest, and_(newest.c.site == ROLLOUTS.c.site, newest.c.at == ROLLOUTS.c.at)
    )
    return {site: (rollout, state) for site, rollout, state in connection.execute(statement)}


def read_site_nodes(
    connection: Connection, viewer: Viewer, site: str, page: PageRequested, now: datetime
) -> Paged[SiteOnNode]:
    """Return the nodes of a site, those that need a look first, then by name."""
    if not viewer.sees(site):
        return Paged(items=(), total=0)
    table = SITE_NODES.c
    statement = searched(select(SITE_NODES).where(table.site == site), page, table.node, table.ref, table.standing)
    total = connection.execute(select(func.count()).select_from(statement.subquery())).scalar_one()
    locks = _statements(connection, [site])
    return paged(
        connection,
        statement,
        (table.rank, table.node),
        (int, str),
        page,
        lambda rows: _with_parts(connection, rows, [site_on_node(row, locks, now) for row in rows]),
        descending=False,
        total=total,
    )


def _with_parts(connection: Connection, rows: Sequence[Row[Any]], views: list[SiteOnNode]) -> list[SiteOnNode]:
    parts = parts_of(connection, rows)
    return [attrs.evolve(view, parts=parts.get(view.commit, ())) for view in views] if parts else views


def _statements(connection: Connection, sites: Iterable[str]) -> dict[str, dict[str, Any]]:
    found = connection.execute(select(LOCKS).where(LOCKS.c.site.in_(list(sites)))).mappings()
    return {row["site"]: dict(row) for row in found}


def site_on_node(row: Row[Any], locks: dict[str, dict[str, Any]], now: datetime) -> SiteOnNode:
    """Return the view of a row of `site_nodes`."""
    # There are thousands on a page, and an attribute of a row costs more than all of this.
    cells = dict(zip(_CELLS, row, strict=True))
    return SiteOnNode(
        site=cells["site"],
        node=cells["node"],
        repo=cells["repo"],
        standing=cells["standing"] if cells["standing"] in RANKS else "other",
        release=cells["release"],
        ref=cells["ref"],
        commit=cells["commit"],
        since=moment(cells["since"]),
        by=cells["by"],
        previous_ref=cells["previous_ref"],
        previous_commit=cells["previous_commit"],
        prepared_ref=cells["prepared_ref"],
        prepared_commit=cells["prepared_commit"],
        last_phase=cells["last_phase"],
        last_outcome=cells["last_outcome"],
        last_detail=cells["last_detail"],
        last_at=moment(cells["last_at"]),
        modified=cells["modified"],
        problem=cells["problem"],
        lock=node_lock(cells["lock"], cells["seen"], locks.get(cells["site"]), now),
        rollout=cells["rollout"],
        seen=moment(cells["seen"]),
    )


def read_nodes(connection: Connection, viewer: Viewer, page: PageRequested, now: datetime) -> Paged[NodeSummary]:
    """Return nodes by name."""
    statement = _visible_nodes(connection, viewer)
    statement = searched(statement, page, NODES.c.node, NODES.c.host, NODES.c.classes)
    total = connection.execute(select(func.count()).select_from(statement.subquery())).scalar_one()
    return paged(
        connection,
        statement,
        (NODES.c.node,),
        (str,),
        page,
        lambda rows: _summaries(connection, viewer, rows, now),
        descending=False,
        total=total,
    )


def read_node(connection: Connection, viewer: Viewer, node: str, now: datetime) -> NodeSummary | None:
    """Return one node; None where there is none, or the viewer may see none of its sites."""
    rows = connection.execute(_visible_nodes(connection, viewer).where(NODES.c.node == node)).all()
    return next(iter(_summaries(connection, viewer, rows, now)), None)


def _visible_nodes(connection: Connection, viewer: Viewer) -> Any:
    return narrowed(select(NODES), only_nodes(connection, viewer, NODES.c.node))


def _summaries(connection: Connection, viewer: Viewer, rows: Sequence[Row[Any]], now: datetime) -> list[NodeSummary]:
    names = [row.node for row in rows]
    sites: defaultdict[str, list[SiteOnNode]] = defaultdict(list)
    statement = select(SITE_NODES).where(SITE_NODES.c.node.in_(names)).order_by(SITE_NODES.c.site)
    locks = {row["site"]: dict(row) for row in connection.execute(select(LOCKS)).mappings()}
    seen: dict[str, bool] = {}
    found = connection.execute(statement).all()
    for view in _with_parts(connection, found, [site_on_node(row, locks, now) for row in found]):
        if view.site not in seen:
            seen[view.site] = viewer.sees(view.site)
        if seen[view.site]:
            sites[view.node].append(view)
    return [
        NodeSummary(
            node=row.node,
            seen=moment(row.seen),
            silent=bool(row.silent),
            version=row.version,
            host=row.host,
            facts=unpacked_dict(row.facts),
            classes=tuple(map(str, unpacked_list(row.classes))),
            twins=row.twins,
            cut=_cut(viewer, unpacked_list(row.cut)),
            sites=tuple(sites[row.node]),
        )
        for row in rows
    ]


def _cut(viewer: Viewer, lines: list[object]) -> tuple[str, ...]:
    """Return what a node left out. Its lines name repositories and sites, whichever those are."""
    return tuple(map(str, lines)) if viewer.sees_all or not lines else ("some of it",)


def read_node_mirrors(connection: Connection, viewer: Viewer, node: str, page: PageRequested) -> Paged[MirrorView]:
    """Return what a node's mirrors fetched last, newest first."""
    table = MIRRORS.c
    statement = narrowed(
        searched(select(MIRRORS).where(table.node == node), page, table.repo, table.ref),
        only_repos(connection, viewer, table.repo),
    )
    return paged(
        connection,
        statement,
        (table.at, table.repo, table.key),
        (int, str, str),
        page,
        lambda rows: list(map(mirror_view, rows)),
    )


def mirror_view(row: Row[Any]) -> MirrorView:
    """Return the view of a row of `mirrors`."""
    return MirrorView(
        node=row.node,
        repo=row.repo,
        ref=row.ref,
        commit=row.commit,
        outcome=row.outcome,
        detail=row.detail,
        seconds=row.seconds,
        time=moment(row.at),
    )
