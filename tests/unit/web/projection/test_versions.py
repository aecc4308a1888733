"""A site of several repositories in the projection: each version's parts, wherever its id stands for a commit."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from deploykit.messages import (
    DeployReported,
    DeployRequested,
    HeldRef,
    Message,
    NodeDescribed,
    RolloutReported,
    SitePart,
    SiteRelease,
    SiteState,
)
from deploykit.messages.site import id_of
from deploykit.names import NodeName, ObjectId, RefName, RepoName, SiteName
from deploykit.settings.web import WebSettings
from deploykit.web.projection.cells import micros
from deploykit.web.projection.heard import Heard
from deploykit.web.projection.pruning import prune_some
from deploykit.web.projection.queries import Queries
from deploykit.web.projection.store import Store
from deploykit.web.projection.tables import VERSIONS
from deploykit.web.projection.views import PageRequested, PartView
from deploykit.web.viewer import EVERYBODY
from tests.support.webworld import NOW, world_queries

_ALL = PageRequested(limit=500)
SHOP, APP, THEME = SiteName("shop"), RepoName("app"), RepoName("design/theme")
WEB1, WEB2 = NodeName("web1"), NodeName("web2")
COMMITS = {tag: ObjectId(tag[1] * 40) for tag in ("v1", "v2")}


def parts(app: str, theme: str) -> tuple[SitePart, ...]:
    return tuple(
        SitePart(repo=repo, ref=RefName(f"refs/tags/{tag}"), commit=COMMITS[tag])
        for repo, tag in ((APP, app), (THEME, theme))
    )


def shown(of: tuple[SitePart, ...]) -> tuple[PartView, ...]:
    return tuple(PartView(repo=part.repo, ref=part.ref, commit=part.commit) for part in of)


OLD, NEW = parts("v1", "v1"), parts("v1", "v2")
ID = id_of(NEW)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(WebSettings(), tmp_path, now=lambda: NOW)
    yield opened
    opened.close()


def apply(store: Store, *messages: Message) -> Queries:
    store.apply([Heard(message=each, received=NOW + timedelta(hours=1), signer="ann") for each in messages])
    return world_queries(store)


def described(node: NodeName, of: tuple[SitePart, ...], **more: Any) -> NodeDescribed:
    state = SiteState(site=SHOP, repo=APP, repos=(APP, THEME), release="r", commit=id_of(of), parts=of, **more)
    refs = tuple(
        HeldRef(repo=repo, ref=RefName(f"refs/tags/{tag}"), commit=commit, time=NOW - timedelta(days=9 - int(tag[1])))
        for repo in (APP, THEME)
        for tag, commit in COMMITS.items()
    )
    return NodeDescribed(id=f"d-{node}", node=node, time=NOW, sites=(state,), refs=refs)


def command(**more: Any) -> DeployRequested:
    return DeployRequested(
        **({"id": "c1", "site": SHOP, "parts": NEW, "audience": (WEB1,), "rollout": "r"} | more), time=NOW, expires=NOW
    )


def report() -> DeployReported:
    made = SiteRelease(release="r", commit=ID, parts=NEW)
    return DeployReported(
        id="d", time=NOW, node=WEB1, site=SHOP, request="c1", phase="deploy", outcome="success", live_known=True,
        release="r", commit=ID, parts=NEW, target=made, previous=SiteRelease(release="q", commit=id_of(OLD), parts=OLD),
    )  # fmt: skip


def test_what_is_live_and_what_is_current_shows_its_parts(store: Store) -> None:
    queries = apply(store, described(WEB1, NEW), described(WEB2, OLD))
    site = queries.site(EVERYBODY, SHOP)
    assert site is not None
    assert (site.ref, site.commit, site.parts) == ("", ID, shown(NEW))
    nodes = {each.node: each for each in queries.site_nodes(EVERYBODY, SHOP, _ALL).items}
    assert (nodes["web1"].parts, nodes["web1"].standing) == (shown(NEW), "current")
    assert (nodes["web2"].parts, nodes["web2"].standing) == (shown(OLD), "outdated")
    node = queries.node(EVERYBODY, "web2")
    assert node is not None
    assert node.sites[0].parts == shown(OLD)
    assert {"app", "design/theme"} <= set(queries.repositories(EVERYBODY))


def test_a_rollout_and_the_history_show_them_too(store: Store) -> None:
    announced = RolloutReported(
        id="a", time=NOW, site=SHOP, rollout="r", kind="deploy", commit=ID, parts=NEW, state="rolling"
    )
    queries = apply(store, announced, command(), report())
    (rollout,) = queries.rollouts(EVERYBODY, SHOP, _ALL).items
    assert (rollout.ref, rollout.commit, rollout.parts) == ("", ID, shown(NEW))
    (done,) = queries.history(EVERYBODY, SHOP, "", _ALL).items
    assert (done.commit, done.parts) == (ID, shown(NEW))
    assert queries.operation(EVERYBODY, SHOP, done.id) == done
    (live,) = queries.site_nodes(EVERYBODY, SHOP, _ALL).items
    assert live.parts == shown(NEW)


def test_a_command_for_many_nodes_that_comes_once_for_each_is_one(store: Store) -> None:
    """The copy that comes after the node's answer must not put the node back to where it was asked."""
    queries = apply(store, command(), report(), command())
    detail = queries.rollout(EVERYBODY, "r", _ALL)
    assert detail is not None
    assert [node.state for node in detail.nodes.items] == ["success"]


def test_parts_that_somebody_has_changed_in_the_database_are_not_compared(store: Store) -> None:
    apply(store, described(WEB1, NEW))
    with store._transaction() as connection:
        connection.execute(update(VERSIONS).values(parts='[{"repo": "app"}, 3]'))
    queries = apply(store, described(WEB2, OLD))
    assert {each.node for each in queries.site_nodes(EVERYBODY, SHOP, _ALL).items} == {"web1", "web2"}


def test_a_version_that_nobody_names_any_more_goes_by_its_age(store: Store) -> None:
    apply(store, described(WEB1, NEW))
    with store._transaction() as connection:
        prune_some(connection, micros(NOW + timedelta(days=1)), 1000)
        assert connection.execute(select(VERSIONS.c.commit)).all() == []
