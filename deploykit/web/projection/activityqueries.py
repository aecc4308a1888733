"""Pushes, builds, refs, notices and the audit, read from the database."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Final

from sqlalchemy import Connection, Row, func, select, union

from deploykit.web.projection.activityviews import AuditView, BuildView, CommitView, NoticeView, PushView, RefView
from deploykit.web.projection.cells import moment, moment_of, unpacked_list
from deploykit.web.projection.paging import (
    narrowed,
    only_repos,
    only_sites,
    paged,
    searched,
    visible_repos,
    visible_sites,
)
from deploykit.web.projection.tables import AUDIT, BUILDS, NODE_REFS, NOTICES, PUSHES, SITE_NODES
from deploykit.web.projection.views import Paged, PageRequested
from deploykit.web.viewer import Viewer

#: Nodes without a ref that are named.
_NAMED: Final = 20


def read_pushes(connection: Connection, viewer: Viewer, repo: str, page: PageRequested) -> Paged[PushView]:
    """Return pushes, newest first."""
    table = PUSHES.c
    statement = narrowed(select(PUSHES), only_repos(connection, viewer, table.repo, repo))
    statement = searched(statement, page, table.ref, table.pusher, table.repo, table.new, table.commits)
    return paged(
        connection, statement, (table.at, table.key), (int, str), page, lambda rows: list(map(push_view, rows))
    )


def push_view(row: Row[Any]) -> PushView:
    """Return the view of a row of `pushes`."""
    return PushView(
        id=row.id,
        time=moment_of(row.at),
        repo=row.repo,
        ref=row.ref,
        kind=row.kind,
        old=row.old,
        new=row.new,
        pusher=row.pusher,
        source=row.source,
        commits=tuple(CommitView(**commit) for commit in unpacked_list(row.commits)),
        commit_count=row.commit_count,
        revision=row.revision,
        projects=tuple(map(str, unpacked_list(row.projects))),
        correlation=row.correlation,
    )


def read_builds(connection: Connection, viewer: Viewer, repo: str, page: PageRequested) -> Paged[BuildView]:
    """Return builds, newest first."""
    table = BUILDS.c
    statement = narrowed(select(BUILDS), only_repos(connection, viewer, table.repo, repo))
    statement = searched(statement, page, table.job, table.ref, table.repo, table.commit, table.state)
    return paged(
        connection, statement, (table.at, table.key), (int, str), page, lambda rows: list(map(build_view, rows))
    )


def build_view(row: Row[Any]) -> BuildView:
    """Return the view of a row of `builds`."""
    return BuildView(
        id=row.id,
        time=moment_of(row.at),
        repo=row.repo,
        ref=row.ref,
        commit=row.commit,
        job=row.job,
        number=row.number,
        url=row.url,
        state=row.state,
        signer=row.signer,
        correlation=row.correlation,
    )


def read_notices(connection: Connection, viewer: Viewer, page: PageRequested) -> Paged[NoticeView]:
    """Return lines for people, newest first."""
    if not viewer.sees_all:
        return Paged(items=())
    table = NOTICES.c
    statement = searched(select(NOTICES), page, table.text, table.source)
    return paged(
        connection,
        statement,
        (table.at, table.key),
        (int, str),
        page,
        lambda rows: [NoticeView(id=r.id, time=moment_of(r.at), source=r.source, text=r.text) for r in rows],
    )


def read_audit(connection: Connection, viewer: Viewer, site: str, page: PageRequested) -> Paged[AuditView]:
    """Return who asked for what and what was decided, newest first."""
    table = AUDIT.c
    statement = narrowed(select(AUDIT), only_sites(connection, viewer, table.site, site))
    statement = searched(
        statement, page, table.action, table.decision, table.who, table.signer, table.place, table.site, table.detail
    )
    return paged(
        connection, statement, (table.at, table.key), (int, str), page, lambda rows: list(map(_audit_view, rows))
    )


def _audit_view(row: Row[Any]) -> AuditView:
    return AuditView(
        id=row.id,
        time=moment_of(row.at),
        action=row.action,
        decision=row.decision,
        who=row.who,
        signer=row.signer,
        where=row.place,
        site=row.site,
        rollout=row.rollout,
        detail=row.detail,
    )


def read_repositories(connection: Connection, viewer: Viewer) -> tuple[str, ...]:
    """Return the repositories that are known, by name."""
    seen = visible_repos(connection, viewer)
    if seen is not None:
        return tuple(sorted(seen))
    tables = (SITE_NODES, PUSHES, NODE_REFS)
    found = connection.execute(union(*(select(table.c.repo).distinct() for table in tables))).scalars()
    return tuple(sorted(repo for repo in found if repo))


def read_refs(connection: Connection, viewer: Viewer, repo: str, page: PageRequested) -> Paged[RefView]:
    """Return the refs that nodes hold, newest first."""
    table = NODE_REFS.c
    newest = func.coalesce(func.max(table.at), 0).label("newest")
    ref = func.min(table.ref).label("ref")
    grouped = narrowed(
        searched(select(table.key, ref, newest), page, table.ref), only_repos(connection, viewer, table.repo, repo)
    ).group_by(table.key)
    inner = grouped.subquery()
    return paged(
        connection,
        select(inner),
        (inner.c.newest, inner.c.key),
        (int, str),
        page,
        lambda rows: _ref_views(connection, viewer, repo, rows),
    )


def _ref_views(connection: Connection, viewer: Viewer, repo: str, rows: Sequence[Row[Any]]) -> list[RefView]:
    table = NODE_REFS.c
    expected = _mirroring(connection, repo)
    held: defaultdict[str, list[Row[Any]]] = defaultdict(list)
    keys = [row.key for row in rows]
    for each in connection.execute(select(NODE_REFS).where(table.repo == repo, table.key.in_(keys))):
        held[each.key].append(each)
    live: defaultdict[str, set[str]] = defaultdict(set)
    places = SITE_NODES.c
    sites = visible_sites(connection, viewer)
    statement = (
        select(places.ref, places.site).where(places.repo == repo, places.site.in_(sites), places.ref != "").distinct()
    )
    for ref, site in connection.execute(statement):
        live[ref].add(site)
    return [_ref_view(repo, row, held[row.key], expected, live[row.ref]) for row in rows]


def _ref_view(repo: str, row: Row[Any], held: list[Row[Any]], expected: frozenset[str], live: set[str]) -> RefView:
    commits = known_commits(held)
    votes = Counter(commits.values())
    ages = {commits[each.node]: each.at or 0 for each in sorted(held, key=lambda each: each.at or 0)}
    commit = max(votes, key=lambda each: (ages[each], votes[each], each), default="")
    holders = {node for node, names in commits.items() if names == commit}
    return RefView(
        repo=repo,
        ref=row.ref,
        commit=commit,
        time=moment(row.newest) if row.newest else None,
        holders=len(holders),
        expected=len(expected | holders),
        missing=tuple(sorted(expected - holders)[:_NAMED]),
        live=tuple(sorted(live)),
    )


def known_commits(held: Iterable[Row[Any]]) -> dict[str, str]:
    """Return the commit that a ref names on each node, by node.

    Of a tag that a node has just fetched only the tag's own object is known: another node says which commit that is.
    """
    rows = list(held)
    peeled = {row.object: row.commit for row in rows if row.object and row.commit}
    return {row.node: row.commit or peeled.get(row.object, row.object) for row in rows}


def _mirroring(connection: Connection, repo: str) -> frozenset[str]:
    """Return the nodes that mirror a repository."""
    found = union(
        select(NODE_REFS.c.node).where(NODE_REFS.c.repo == repo),
        select(SITE_NODES.c.node).where(SITE_NODES.c.repo == repo),
    )
    return frozenset(connection.execute(found).scalars())
