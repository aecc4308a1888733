"""The first screen: what is wrong, the worst first; what changed last, and by whom."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, and_, func, select

from deploykit.fleet.rolloutstates import ENDS
from deploykit.messages import one_line
from deploykit.names import RefName, short_ref
from deploykit.web.projection.activityqueries import push_view
from deploykit.web.projection.activityviews import LatestChange
from deploykit.web.projection.cells import moment, moment_of
from deploykit.web.projection.drifting import RANKS
from deploykit.web.projection.paging import narrowed, only_nodes, only_repos, only_sites, visible_sites
from deploykit.web.projection.sitequeries import read_locks
from deploykit.web.projection.tables import AUDIT, BUILDS, MIRRORS, NODES, PUSHES, ROLLOUTS, SITE_NODES
from deploykit.web.projection.views import Problem, ProjectionHealth
from deploykit.web.viewer import Viewer

_NAMED: Final = 5
_STANDINGS: Final = {"failed": "failed", "modified": "modified by hand", "unexpected": "not expected"}
#: How builds ended, in words of a sentence.
_ENDED: Final = {"success": "succeeded", "failure": "failed", "cancelled": "was cancelled", "unstable": "is unstable"}
_BAD_BUILDS: Final = ("failure", "unstable", "refused", "failed")


def find_problems(
    connection: Connection, viewer: Viewer, health: ProjectionHealth, now: datetime, limit: int
) -> tuple[Problem, ...]:
    """Return what is wrong, the worst first."""
    found: list[Problem] = []
    sources = (_of_health(health), _of_rollouts(connection, viewer), _of_sites(connection, viewer))
    more = (_of_nodes(connection, viewer), _of_builds(connection, viewer), _of_mirrors(connection, viewer))
    for source in (*sources, *more, _of_distrust(health), _of_locks(connection, viewer, now)):
        for problem in source:
            found.append(problem)
            if len(found) >= limit:
                return tuple(found)
    return tuple(found)


def _of_health(health: ProjectionHealth) -> Iterator[Problem]:
    if not health.connected:
        why = f": {one_line(health.reason)}" if health.reason else ""
        yield Problem(kind="broker", text=f"no broker is connected{why}", since=health.away_since)
    if health.rebuilding:
        yield Problem(kind="database", text="the nodes are being asked: what is shown is not complete yet")
    if health.dropped:
        count = _messages(health.dropped)
        yield Problem(kind="database", text=f"{count} lost: they came faster than they could be kept")


def _of_distrust(health: ProjectionHealth) -> Iterator[Problem]:
    if health.distrusted:
        are = "is" if health.distrusted == 1 else "are"
        last = f"; the last: {health.distrust}" if health.distrust else ""
        text = f"{_messages(health.distrusted)} {are} not believed and not shown{last}"
        yield Problem(kind="distrust", text=one_line(text), since=health.distrusted_at)


def _messages(count: int) -> str:
    return "1 message" if count == 1 else f"{count} messages"


def _of_rollouts(connection: Connection, viewer: Viewer) -> Iterator[Problem]:
    """Rollouts that wait or failed: of each site the newest one, and the newest command by itself."""
    table = ROLLOUTS.c
    newest = (
        select(table.site, table.single, func.max(table.at).label("at")).group_by(table.site, table.single).subquery()
    )
    statement = narrowed(
        select(ROLLOUTS).join(newest, and_(*(newest.c[name] == table[name] for name in ("site", "single", "at")))),
        ROLLOUTS.c.state.in_(("failed", "aborted", "rolled-back", "aborting", "rolling-back", "paused")),
        only_sites(connection, viewer, ROLLOUTS.c.site),
    ).order_by(ROLLOUTS.c.changed.desc())
    for row in connection.execute(statement.limit(100)):
        why = f": {row.detail}" if row.detail else ""
        what = "is " if row.state not in ENDS or row.state in ("aborted", "rolled-back") else ""
        text = one_line(f"{row.kind} of {_ref(row.ref)} on {row.site} {what}{row.state}{why}")
        yield Problem(kind="rollout", text=text, since=moment(row.changed), site=row.site, rollout=row.rollout)


def _ref(ref: str) -> str:
    return short_ref(RefName(ref)) if ref else "several releases"


def _of_sites(connection: Connection, viewer: Viewer) -> Iterator[Problem]:
    table = SITE_NODES.c
    statement = narrowed(
        select(table.site, table.node, table.standing, table.detail, table.last_at),
        table.rank.in_([RANKS[standing] for standing in _STANDINGS]),
        only_sites(connection, viewer, table.site),
    ).order_by(table.rank, table.site, table.node)
    groups: defaultdict[tuple[str, str], list[tuple[str, str, int | None]]] = defaultdict(list)
    for site, node, standing, detail, at in connection.execute(statement.limit(5000)):
        groups[site, standing].append((node, detail, at))
    for (site, standing), nodes in groups.items():
        names = ", ".join(node for node, _, _ in nodes[:_NAMED]) + (" …" if len(nodes) > _NAMED else "")
        detail = next((detail for _, detail, _ in nodes if detail), "")
        text = f"{site} {_STANDINGS[standing]} on {names}" + (f": {detail}" if detail else "")
        since = max((at for _, _, at in nodes if at is not None), default=None)
        only = nodes[0][0] if len(nodes) == 1 else ""
        yield Problem(kind="site", text=one_line(text), since=moment(since), site=site, node=only)


def _of_nodes(connection: Connection, viewer: Viewer) -> Iterator[Problem]:
    table = NODES.c
    statement = narrowed(
        select(table.node, table.seen, table.silent, table.twins),
        table.silent | (table.twins > 0),
        only_nodes(connection, viewer, table.node),
    ).order_by(table.seen.desc(), table.node)
    for node, seen, silent, twins in connection.execute(statement.limit(100)):
        if silent:
            yield Problem(kind="node", text=f"{node} does not answer", since=moment(seen), node=node)
        if twins:
            text = f"{twins + 1} agents answer under the name {node}"
            yield Problem(kind="node", text=text, since=moment(seen), node=node)


def _of_builds(connection: Connection, viewer: Viewer) -> Iterator[Problem]:
    """Jobs whose last build of a ref failed."""
    table = BUILDS.c
    newest = select(table.repo, table.job, table.ref, func.max(table.at).label("at")).group_by(
        table.repo, table.job, table.ref
    )
    last = newest.subquery()
    same = [last.c[name] == table[name] for name in ("repo", "job", "ref", "at")]
    statement = narrowed(
        select(BUILDS).join(last, and_(*same)), table.state.in_(_BAD_BUILDS), only_repos(connection, viewer, table.repo)
    ).order_by(table.at.desc())
    for row in connection.execute(statement.limit(20)):
        of = f" of {_ref(row.ref)}" if row.ref else ""
        text = one_line(f"build {row.job} {row.number}{of} {_ENDED.get(row.state, row.state)}")
        yield Problem(kind="build", text=text, since=moment_of(row.at), repo=row.repo)


def _of_mirrors(connection: Connection, viewer: Viewer) -> Iterator[Problem]:
    table = MIRRORS.c
    statement = narrowed(
        select(MIRRORS),
        table.outcome.in_(("failed", "refused")),
        only_repos(connection, viewer, table.repo),
        only_nodes(connection, viewer, table.node),
    ).order_by(table.at.desc())
    for row in connection.execute(statement.limit(20)):
        why = f": {row.detail}" if row.detail else ""
        text = one_line(f"{row.node} could not fetch {row.repo} {_ref(row.ref)} ({row.outcome}){why}")
        yield Problem(kind="mirror", text=text, since=moment_of(row.at), node=row.node, repo=row.repo)


def _of_locks(connection: Connection, viewer: Viewer, now: datetime) -> Iterator[Problem]:
    for site, lock in sorted(read_locks(connection, visible_sites(connection, viewer), now).items()):
        until = f" until {lock.until:%Y-%m-%d %H:%M} UTC" if lock.until is not None else ""
        why = f": {lock.reason}" if lock.reason else ""
        text = one_line(f"{site} is locked by {lock.holder or 'somebody'}{until}{why}")
        yield Problem(kind="lock", text=text, since=lock.since, site=site)


def latest_changes(connection: Connection, viewer: Viewer, limit: int) -> tuple[LatestChange, ...]:
    """Return what changed last, the newest first."""
    limit = min(max(limit, 1), 500)
    sources = (_pushes, _builds, _rollouts, _locks)
    found = [change for source in sources for change in source(connection, viewer, limit)]
    return tuple(sorted(found, key=lambda each: each.time, reverse=True)[:limit])


def _pushes(connection: Connection, viewer: Viewer, limit: int) -> Iterator[LatestChange]:
    statement = narrowed(select(PUSHES), only_repos(connection, viewer, PUSHES.c.repo))
    for row in connection.execute(statement.order_by(PUSHES.c.at.desc(), PUSHES.c.key).limit(limit)):
        push = push_view(row)
        title = push.commits[0].message.partition("\n")[0] if push.commits else ""
        what = f"r{push.revision}" if push.revision is not None else f"{_ref(push.ref)} {push.kind} {push.new[:12]}"
        if push.kind == "deleted":
            what = f"{_ref(push.ref)} deleted"
        text = one_line(f"{push.repo} {what}" + (f": {title}" if title else ""))
        yield LatestChange(time=push.time, what="push", text=text, by=push.pusher, repo=push.repo)


def _builds(connection: Connection, viewer: Viewer, limit: int) -> Iterator[LatestChange]:
    statement = narrowed(select(BUILDS), only_repos(connection, viewer, BUILDS.c.repo))
    for row in connection.execute(statement.order_by(BUILDS.c.at.desc(), BUILDS.c.key).limit(limit)):
        of = f" of {_ref(row.ref)}" if row.ref else ""
        text = one_line(f"{row.job} {row.number}{of} {_ENDED.get(row.state, row.state)}")
        yield LatestChange(time=moment_of(row.at), what="build", text=text, by=row.signer, repo=row.repo)


def _rollouts(connection: Connection, viewer: Viewer, limit: int) -> Iterator[LatestChange]:
    statement = narrowed(select(ROLLOUTS), only_sites(connection, viewer, ROLLOUTS.c.site))
    for row in connection.execute(statement.order_by(ROLLOUTS.c.at.desc(), ROLLOUTS.c.rollout).limit(limit)):
        yield LatestChange(
            time=moment_of(row.changed or row.at),
            what="rollout",
            text=one_line(f"{row.kind} of {_ref(row.ref)} on {row.site}: {row.state or 'asked for'}"),
            by=row.requested_by,
            site=row.site,
            rollout=row.rollout,
        )


def _locks(connection: Connection, viewer: Viewer, limit: int) -> Iterator[LatestChange]:
    statement = narrowed(
        select(AUDIT).where(AUDIT.c.action.in_(("lock", "unlock")), AUDIT.c.decision == "done"),
        only_sites(connection, viewer, AUDIT.c.site),
    )
    for row in connection.execute(statement.order_by(AUDIT.c.at.desc(), AUDIT.c.key).limit(limit)):
        why = f": {row.detail}" if row.detail else ""
        text = one_line(f"{row.site} {row.action}ed{why}")
        yield LatestChange(time=moment_of(row.at), what="lock", text=text, by=row.who, site=row.site)
