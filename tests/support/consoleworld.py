"""A small fleet as the console would show it: a failed canary, a lock, a silent node, and quiet sites beside them."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Final

import attrs

from deploykit.web.projection.activityviews import (
    AuditView,
    BuildView,
    CommitView,
    LatestChange,
    MirrorView,
    NoticeView,
    PushView,
    RefView,
)
from deploykit.web.projection.rolloutviews import HistoryView, RolloutNode, RolloutOverview, StepView
from deploykit.web.projection.views import (
    NodeSummary,
    Problem,
    ProjectionHealth,
    SiteLockView,
    SiteOnNode,
    SiteStanding,
    SiteSummary,
)
from tests.support.fixedqueries import FixedQueries

#: The clock of this world.
NOW: Final = datetime(2026, 11, 30, 3, 12, tzinfo=UTC)
#: What a hostile sender writes everywhere: it must be seen as text, and never run.
CANARY: Final = '<img src=x onerror="window.hit=1"><script>window.hit=1<!--"\'}}{{7*7}}\u202e\x1b[31m'

_COMMITS: Final = {
    "v2.4.0": "5f1a0c7b9e2d48f6a3c1b0d9e8f7a6b5c4d3e2f1",
    "v2.4.1": "9c3e7d1f0a2b4c6d8e0f1a3b5c7d9e1f3a5b7c9d",
    "v1.9.3": "21d4e6f8a0b2c4d6e8f0a1b3c5d7e9f1a3b5c7d9",
    "v0.8.0": "e7a95c31b8d2f4061a3c5e7092b4d6f8a1c3e5f7",
    "v3.0.2": "0b4d8f2a6c1e5937f0d2b4a6c8e1f3957b9d1e3f",
}
_WEB: Final = ("web-1", "web-2", "web-3", "web-4")
_LOCK: Final = SiteLockView(
    site="billing",
    holder="grace",
    reason="month end, invoices are running",
    since=NOW - timedelta(hours=5),
    until=NOW + timedelta(hours=7),
)

_LOG: Final = (
    "fetch: v2.4.1 is 9c3e7d1f0a",
    "fetch: 3 objects, 14 kB",
    "migrate: 0042_basket_index ... ok",
    "migrate: 0043_basket_count ... ok",
    "migrate: 2 migrations in 4.8 s",
    "switch: current -> releases/2026-11-30T03:02:14",
    *(f"check: attempt {at} of 10: GET /health: 503 Service Unavailable" for at in range(1, 11)),
    'check: basket: relation "basket_count" does not exist',
    "check: gave up after 30 s, exit code 7",
    "back: current -> releases/2026-11-28T00:07:51",
    "back: GET /health: 200",
)


def ago(**size: float) -> datetime:
    """Return a time before now."""
    return NOW - timedelta(**size)


def _on(site: str, node: str, ref: str, standing: SiteStanding) -> SiteOnNode:
    return SiteOnNode(
        site=site, node=node, repo=_REPOS[site], standing=standing, release=f"{ref}-1", ref=f"refs/tags/{ref}",
        commit=_COMMITS[ref], since=ago(days=2, hours=3), by="ada", last_phase="deploy", last_outcome="success",
        last_at=ago(days=2), seen=ago(seconds=40), modified=0,
    )  # fmt: skip


_REPOS: Final = {"shop": "shop/frontend", "billing": "billing", "docs": "docs", "search": "search/api"}


def _silent(one: SiteOnNode) -> SiteOnNode:
    return attrs.evolve(one, standing="silent", seen=ago(minutes=26))


def _sites_of(node: str) -> tuple[SiteOnNode, ...]:
    shop = _on("shop", node, "v2.4.0", "current")
    sites = [shop, attrs.evolve(_on("docs", node, "v0.8.0", "current"), by="linus")]
    if node == "web-1":
        sites[0] = attrs.evolve(
            shop,
            standing="failed",
            last_outcome="rolled-back",
            last_at=ago(minutes=9),
            rollout="r-7f31",
            last_detail="step check: exit code 7: /health answered 503",
        )
    if node in ("web-1", "web-2"):
        sites.insert(0, attrs.evolve(_on("billing", node, "v3.0.2", "frozen"), lock=_LOCK, by="grace"))
    else:
        sites.append(attrs.evolve(_on("search", node, "v1.9.3", "current"), since=ago(hours=7)))
    return tuple(_silent(one) for one in sites) if node == "web-4" else tuple(sites)


def _summary(site: str, ref: str, nodes: tuple[NodeSummary, ...]) -> SiteSummary:
    standings = Counter[str](one.standing for node in nodes for one in node.sites if one.site == site)
    return SiteSummary(
        site=site,
        repo=_REPOS[site],
        ref=f"refs/tags/{ref}",
        commit=_COMMITS[ref],
        reason="live on most nodes",
        nodes=standings.total(),
        counts=dict(standings),
        changed=ago(days=2, hours=3),
        by="ada",
    )


def _rollouts() -> tuple[RolloutOverview, ...]:
    failed = RolloutOverview(
        rollout="r-7f31", site="shop", ref="refs/tags/v2.4.1", commit=_COMMITS["v2.4.1"], state="failed",
        counts={"rolled-back": 1, "pending": 3}, failed=("web-1",), requested_by="ada", host="ops-1",
        detail="canary web-1 failed: step check", began=ago(minutes=11), changed=ago(minutes=9), ended=ago(minutes=9),
    )  # fmt: skip
    fine = RolloutOverview(
        rollout="r-search", site="search", ref="refs/tags/v1.9.3", commit=_COMMITS["v1.9.3"], state="succeeded",
        counts={"active": 2}, requested_by="linus", began=ago(hours=7, minutes=4), changed=ago(hours=7),
        ended=ago(hours=7),
    )  # fmt: skip
    older = attrs.evolve(
        failed, rollout="r-shop", ref="refs/tags/v2.4.0", commit=_COMMITS["v2.4.0"], state="succeeded", detail="",
        counts={"active": 4}, failed=(), began=ago(days=2, hours=4), changed=ago(days=2, hours=3),
        ended=ago(days=2, hours=3),
    )  # fmt: skip
    return (failed, fine, older)


def small_world() -> FixedQueries:
    """Return a fleet of four nodes and four sites in which three things need a look."""
    nodes = tuple(
        NodeSummary(
            node=name, seen=ago(minutes=26) if name == "web-4" else ago(seconds=40), silent=name == "web-4",
            version="0.1.0", host=f"{name}.example.org", facts={"datacentre": "north", "cores": 8},
            classes=("web", "north"), sites=_sites_of(name),
        )
        for name in _WEB
    )  # fmt: skip
    sites = (
        attrs.evolve(_summary("billing", "v3.0.2", nodes), lock=_LOCK, by="grace", changed=ago(days=9)),
        attrs.evolve(_summary("docs", "v0.8.0", nodes), by="linus"),
        attrs.evolve(
            _summary("search", "v1.9.3", nodes),
            changed=ago(hours=7),
            by="linus",
            rollout="r-search",
            rollout_state="succeeded",
        ),
        attrs.evolve(_summary("shop", "v2.4.0", nodes), rollout="r-7f31", rollout_state="failed"),
    )
    return FixedQueries(
        health_now=ProjectionHealth(
            connected=True, asked=ago(minutes=2), answered=3, complete_since=ago(days=3), unverified=False
        ),
        problem_list=(
            Problem(
                kind="rollout", text="rollout of v2.4.1 to shop failed: canary web-1, step check: exit code 7",
                since=ago(minutes=9), site="shop", rollout="r-7f31",
            ),
            Problem(kind="node", text="web-4 does not answer", since=ago(minutes=26), node="web-4"),
            Problem(
                kind="lock", text="billing is locked by grace: month end, invoices are running", since=ago(hours=5),
                site="billing",
            ),
        ),
        change_list=(
            LatestChange(time=ago(minutes=9), what="rollout", text="shop: v2.4.1 failed", by="ada", site="shop",
                         rollout="r-7f31"),
            LatestChange(time=ago(minutes=14), what="build", text="shop/frontend #812 success", repo="shop/frontend"),
            LatestChange(time=ago(minutes=19), what="push", text="shop/frontend: tag v2.4.1 created", by="ada",
                         repo="shop/frontend"),
            LatestChange(time=ago(hours=5), what="lock", text="billing locked", by="grace", site="billing"),
            LatestChange(time=ago(hours=7), what="rollout", text="search: v1.9.3 live", by="linus", site="search",
                         rollout="r-search"),
        ),
        site_list=sites,
        node_list=nodes,
        mirror_list=tuple(
            MirrorView(
                node=node, repo=repo, ref=f"refs/tags/{ref}", commit=_COMMITS[ref], outcome="updated", seconds=0.41,
                time=ago(minutes=18),
            )
            for node in _WEB
            for repo, ref in (("shop/frontend", "v2.4.1"), ("docs", "v0.8.0"))
        ),
        ref_list=(
            RefView(repo="shop/frontend", ref="refs/tags/v2.4.1", commit=_COMMITS["v2.4.1"], time=ago(minutes=19),
                    holders=3, expected=4, missing=("web-4",)),
            RefView(repo="shop/frontend", ref="refs/tags/v2.4.0", commit=_COMMITS["v2.4.0"], time=ago(days=2),
                    holders=4, expected=4, live=("shop",)),
        ),
        push_list=(
            PushView(
                id="p1", time=ago(minutes=19), repo="shop/frontend", ref="refs/tags/v2.4.1", kind="created",
                new=_COMMITS["v2.4.1"], pusher="ada", source="webhook/forge", commit_count=1,
                commits=(CommitView(id=_COMMITS["v2.4.1"], author="Ada", message="Basket: count items once"),),
            ),
        ),
        build_list=(
            BuildView(id="b1", time=ago(minutes=14), repo="shop/frontend", ref="refs/tags/v2.4.1", job="shop",
                      commit=_COMMITS["v2.4.1"], number="812", url="https://ci.example.org/812", state="success"),
        ),
        rollout_list=_rollouts(),
        rollout_nodes={
            "r-7f31": (
                RolloutNode(
                    node="web-1", state="rolled-back", phase="activate", detail="step check: exit code 7",
                    request="d-1", log_lines=len(_LOG), began=ago(minutes=11), ended=ago(minutes=9),
                    steps=(
                        StepView(name="fetch", state="done", seconds=1.2),
                        StepView(name="migrate", state="done", seconds=4.8),
                        StepView(name="switch", state="done", seconds=0.1),
                        StepView(name="check", state="failed", seconds=30.0, exit_code=7),
                    ),
                ),
                *(RolloutNode(node=name, state="pending") for name in _WEB[1:]),
            )
        },
        logs={("r-7f31", "web-1"): _LOG},
        history_list=tuple(
            HistoryView(
                id=f"{node}:{number}", site="shop", node=node, number=number, phase="deploy", outcome="success",
                ref="refs/tags/v2.4.0", commit=_COMMITS["v2.4.0"], requested_by="ada", started=ago(days=2),
                finished=ago(days=2), rollout="r-shop",
            )
            for node in _WEB
            for number in (12, 11)
        ),
        notice_list=(NoticeView(id="n1", time=ago(hours=1), source="jenkins/ci", text="queue is long"),),
        audit_list=(
            AuditView(id="a1", time=ago(minutes=9), action="deploy", decision="failed", who="ada", site="shop",
                      where="web-1", rollout="r-7f31", detail="v2.4.1: step check: exit code 7"),
            AuditView(id="a2", time=ago(minutes=11), action="deploy", decision="asked", who="ada", site="shop",
                      rollout="r-7f31", detail="v2.4.1 to 4 nodes, canary 1"),
            AuditView(id="a3", time=ago(hours=5), action="lock", decision="done", who="grace", site="billing",
                      detail="month end, invoices are running"),
        ),
    )  # fmt: skip


def quiet_world() -> FixedQueries:
    """Return the same fleet on a good night: nothing is wrong."""
    world = small_world()
    nodes = tuple(
        attrs.evolve(
            node,
            silent=False,
            seen=ago(seconds=40),
            sites=tuple(
                attrs.evolve(one, standing="current", lock=None, last_outcome="success", last_detail="", rollout="")
                for one in node.sites
            ),
        )
        for node in world.node_list
    )
    sites = tuple(
        attrs.evolve(one, counts={"current": one.nodes}, lock=None, rollout_state="succeeded" if one.rollout else "")
        for one in world.site_list
    )
    return attrs.evolve(
        world,
        node_list=nodes,
        site_list=sites,
        problem_list=(),
        rollout_list=world.rollout_list[1:],
        change_list=world.change_list[1:],
    )


def big_world(nodes: int = 1000, sites: int = 20) -> FixedQueries:
    """Return a fleet of so many nodes, each with so many sites."""
    names = [f"app-{at:02d}" for at in range(sites)]
    base = _on("shop", "n", "v2.4.0", "current")
    found = tuple(
        NodeSummary(
            node=f"node-{at:04d}", seen=ago(seconds=at % 60), version="0.1.0",
            sites=tuple(attrs.evolve(base, site=name, node=f"node-{at:04d}") for name in names),
        )
        for at in range(nodes)
    )  # fmt: skip
    counts = {"current": nodes - 3, "outdated": 2, "failed": 1}
    return FixedQueries(
        node_list=found,
        site_list=tuple(
            SiteSummary(site=name, repo="shop", ref="refs/tags/v2.4.0", commit=_COMMITS["v2.4.0"], nodes=nodes,
                        counts=counts, changed=ago(hours=2), by="ada")
            for name in names
        ),
        problem_list=tuple(
            Problem(kind="site", text=f"{name} failed on node-0007", since=ago(minutes=5), site=name, node="node-0007")
            for name in names[:12]
        ),
    )  # fmt: skip


def hostile_world() -> FixedQueries:
    """Return the small world with `CANARY` in front of every text that came from outside."""
    world = small_world()
    for field in attrs.fields(FixedQueries):
        setattr(world, field.name, _hostile(getattr(world, field.name)))
    return world


def _hostile(value: object) -> object:
    if isinstance(value, str):
        return CANARY + value
    if isinstance(value, tuple):
        return tuple(_hostile(one) for one in value)
    if isinstance(value, dict):
        return {_hostile(key): _hostile(one) for key, one in value.items()}
    fields: tuple[attrs.Attribute[object], ...] = getattr(type(value), "__attrs_attrs__", ())
    if fields:
        return type(value)(**{field.name: _hostile(getattr(value, field.name)) for field in fields})
    return value
