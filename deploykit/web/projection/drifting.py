"""How the nodes of a site stand: compared when something changed, and kept, so that no page has to compare.

The comparison itself is that of `deploykit nodes --drift` (`fleet.drift`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from operator import itemgetter
from typing import Final, TypeAlias

from sqlalchemy import Connection, select

from deploykit.fleet.drift import FleetReleases, NodeDrift, ShownLock
from deploykit.messages import HeldRef, NodeDescribed, SiteOperation, SitePart, SiteRelease, SiteState
from deploykit.names import NodeName, ObjectId, RefName, RepoName, SiteName
from deploykit.web.projection.cells import Row, latest, moment, packed
from deploykit.web.projection.foldlocks import node_lock
from deploykit.web.projection.refforms import NO_AGE
from deploykit.web.projection.rows import WorkingRows
from deploykit.web.projection.tables import LOCKS, NODES, REF_FORMS, SITE_NODES, SITES
from deploykit.web.projection.versions import parts_known

#: Those that need a look come first in lists.
RANKS: Final = {
    "failed": 0,
    "modified": 1,
    "unexpected": 2,
    "silent": 3,
    "other": 4,
    "outdated": 5,
    "frozen": 6,
    "empty": 7,
    "current": 8,
}
_MOST_COMMITS: Final = 500
#: The parts of versions that are made of several repositories, by their ids.
_Versions: TypeAlias = Mapping[str, tuple[SitePart, ...]]
#: What two nodes have in common that stand alike: all that `_state` and `_shown` read, but not since when.
_COMPARED: Final = itemgetter(
    *("repo", "release", "ref", "commit", "previous_release", "previous_commit", "modified", "problem", "lock"),
    *("last_phase", "last_outcome", "last_release", "last_ref", "last_commit", "last_detail"),
)


def compare_site(rows: WorkingRows, site: str, now: datetime) -> None:
    """Write down how each node of a site stands, and what counts as current there."""
    row = rows.get(SITES, site)
    if row is None:
        return
    nodes = sorted(rows.select(SITE_NODES, site=site), key=lambda each: str(each["node"]))
    silent = _silent(rows.connection)
    statement = rows.get(LOCKS, site)
    by_node = {each["node"]: each for each in nodes}
    answering = [each for each in nodes if each["node"] not in silent]
    named = {each[column] for each in answering if not each["ref"] for column in ("commit", "last_commit")}
    versions = {commit: parts for commit in named if commit and (parts := parts_known(rows, commit))}
    stated = statement["at"] if statement is not None else 0
    fleet = FleetReleases(_described(rows.connection, answering, stated, versions))
    wanted = fleet.newest_live(SiteName(site))
    found = fleet.drift(
        SiteName(site),
        wanted,
        silent=[NodeName(each["node"]) for each in nodes if each["node"] in silent],
        locked=lambda state: _shown(by_node.get(state.extra.get("node")), statement, now),
    )
    counts: Counter[str] = Counter()
    for drift in found.nodes:
        standing = _standing(drift)
        counts[standing] += 1
        changed = {"standing": standing, "rank": RANKS[standing], "detail": drift.detail[:1000]}
        rows.put(SITE_NODES, by_node[drift.node] | changed)
    if wanted is None and silent.intersection(by_node):  # what was known last, while nobody answers
        current = {}
    else:
        current = {
            "ref": (wanted.ref or "") if wanted is not None else "",
            "commit": wanted.commit if wanted is not None else "",
            "reason": wanted.reason if wanted is not None else "",
        }
    newest = max(nodes, key=lambda each: each["since"] or 0, default=None)
    row |= {
        "repo": next((each["repo"] for each in nodes if each["repo"]), row["repo"]),
        **current,
        "counts": packed(counts),
        "nodes": len(nodes),
        "changed": latest(each["since"] for each in nodes),
        "by": newest["by"] if newest is not None else "",
    }
    rows.put(SITES, row)


def _silent(connection: Connection) -> frozenset[str]:
    return frozenset(connection.execute(select(NODES.c.node).where(NODES.c.silent)).scalars())


def _standing(drift: NodeDrift) -> str:
    return "empty" if drift.drift == "other" and drift.live is None else drift.drift


def _shown(row: Row | None, statement: Row | None, now: datetime) -> ShownLock | None:
    if row is None:
        return None
    lock = node_lock(row["lock"], row["seen"], statement, now)
    if lock is None or lock.until is None:
        return None
    text = f"locked{f' by {lock.holder}' if lock.holder else ''} until {lock.until:%Y-%m-%d %H:%M} UTC"
    return ShownLock(holder=lock.holder, until=lock.until, text=f"{text}: {lock.reason}" if lock.reason else text)


def _described(connection: Connection, rows: Sequence[Row], stated: int, versions: _Versions) -> list[NodeDescribed]:
    """Return rows as descriptions, the first of which holds the ages of all commits that are live.

    Of a thousand nodes most stand alike: those share one state, also for the question which lock holds them.
    """
    states: dict[tuple[object, ...], tuple[SiteState]] = {}
    described = []
    for row in rows:
        alike = (*_COMPARED(row), (row["seen"] or 0) >= stated)
        shared = states.get(alike)
        if shared is None:
            shared = states[alike] = (_state(row, versions),)
        described.append(NodeDescribed(id="", node=NodeName(row["node"]), sites=shared, time=_SOME_TIME))
    if described:
        refs = tuple(_ages(connection, rows, versions))
        described[0] = NodeDescribed(
            id="", node=described[0].node, sites=described[0].sites, refs=refs, time=_SOME_TIME
        )
    return described


_SOME_TIME: Final = datetime.fromisoformat("2000-01-01T00:00:00+00:00")


def _ages(connection: Connection, rows: Sequence[Row], versions: _Versions) -> Iterable[HeldRef]:
    table = REF_FORMS.c
    parts = [part for row in rows for part in versions.get(row["commit"], ())]
    commits = sorted({*(row["commit"] for row in rows if row["commit"]), *(part.commit for part in parts)})
    repos = sorted({*(row["repo"] for row in rows), *(part.repo for part in parts)})
    statement = (
        select(table.repo, table.commit, table.ref, table.at)
        .where(table.repo.in_(repos), table.commit.in_(commits[:_MOST_COMMITS]), table.at != NO_AGE)
        .distinct()
    )
    for repo, commit, ref, at in connection.execute(statement):
        yield HeldRef(repo=RepoName(repo), ref=RefName(ref), commit=ObjectId(commit), time=moment(at))


def _state(row: Row, versions: _Versions) -> SiteState:
    last, parts = None, () if row["ref"] else versions.get(row["commit"], ())
    if row["last_outcome"]:
        last = SiteOperation(
            number=0,
            phase=row["last_phase"],
            outcome=row["last_outcome"],
            release=row["last_release"],
            ref=RefName(row["last_ref"]) if row["last_ref"] else None,
            commit=ObjectId(row["last_commit"]) if row["last_commit"] else None,
            detail=row["last_detail"],
            parts=() if row["last_ref"] else versions.get(row["last_commit"], ()),
        )
    return SiteState(
        site=SiteName(row["site"]),
        repo=RepoName(row["repo"]),
        release=row["release"],
        ref=RefName(row["ref"]) if row["ref"] else None,
        commit=ObjectId(row["commit"]) if row["commit"] else None,
        previous=SiteRelease(
            release=row["previous_release"],
            commit=ObjectId(row["previous_commit"]) if row["previous_commit"] else None,
        )
        if row["previous_release"]
        else None,
        last=last,
        modified=row["modified"],
        problem=row["problem"],
        repos=tuple(part.repo for part in parts),
        parts=parts,
        extra={"node": row["node"]},
    )
