"""What the projection knows of accesses: asked, granted, failed, ended; in whatever order it hears of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest

from deploykit.messages import (
    AccessGrantRequested,
    AccessReported,
    AccessRevokeRequested,
    Message,
    NodeDescribed,
    NodeQueried,
    SiteAccess,
)
from deploykit.names import NodeName, SiteName
from deploykit.settings.web import WebSettings
from deploykit.web.projection.heard import Heard
from deploykit.web.projection.queries import Queries
from deploykit.web.projection.store import Store
from deploykit.web.viewer import EVERYBODY, RoleGrant, Viewer
from tests.support.webworld import NOW, world_queries

SHOP, DOCS = SiteName("shop"), SiteName("docs")
WEB1, WEB2 = NodeName("web1"), NodeName("web2")
UNTIL = NOW + timedelta(days=3)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(WebSettings(), tmp_path, now=lambda: NOW)
    yield opened
    opened.close()


def apply(store: Store, *messages: Message) -> Queries:
    store.apply([Heard(message=each, received=NOW + timedelta(hours=1), signer="ann") for each in messages])
    return world_queries(store)


def described(node: NodeName, *users: str, minute: float = 0, **changes: Any) -> NodeDescribed:
    access = tuple(SiteAccess(site=SHOP, user=user, until=UNTIL, requested_by="ann") for user in users)
    made = NodeDescribed(node=node, protects=(SHOP,), access=access, time=NOW + timedelta(minutes=minute))
    return attrs.evolve(made, **changes)


def granted(minute: float = 1, **changes: Any) -> AccessGrantRequested:
    made = AccessGrantRequested(
        id="g1", site=SHOP, user="bob", until=UNTIL, requested_by="eve", time=NOW + timedelta(minutes=minute)
    )
    return attrs.evolve(made, **changes)


def report(node: NodeName, outcome: Any, minute: float = 2, **changes: Any) -> AccessReported:
    made = AccessReported(
        node=node, site=SHOP, user="bob", outcome=outcome, request="g1", time=NOW + timedelta(minutes=minute)
    )
    return attrs.evolve(made, **changes)


def states(queries: Queries) -> dict[tuple[str, str], str]:
    return {(each.user, each.node): each.state for each in queries.access(EVERYBODY, "")}


def test_a_grant_is_asked_for_until_each_node_has_reported(store: Store) -> None:
    queries = apply(store, described(WEB1, "alice"), described(WEB2), granted())
    assert queries.protected(EVERYBODY) == {"shop": ("web1", "web2")}
    assert states(queries) == {("alice", "web1"): "granted", ("bob", "web1"): "asked", ("bob", "web2"): "asked"}
    queries = apply(store, report(WEB1, "granted", until=UNTIL), report(WEB2, "failed", detail="no room"))
    assert states(queries) == {("alice", "web1"): "granted", ("bob", "web1"): "granted", ("bob", "web2"): "failed"}
    first, second = (each for each in queries.access(EVERYBODY, "shop") if each.user == "bob")
    assert (first.until, first.requested_by, first.asked) == (UNTIL, "eve", "")
    assert (second.until, second.detail) == (None, "no room")


def test_who_asked_is_known_from_the_report_alone(store: Store) -> None:
    """No console hears the command: it may hold a password."""
    queries = apply(store, described(WEB1), described(WEB2), report(WEB1, "granted", until=UNTIL, requested_by="eve"))
    (row,) = queries.access(EVERYBODY, "shop")
    assert (row.user, row.node, row.requested_by) == ("bob", "web1", "eve")
    failed = report(WEB1, "failed", 3, request="g2", requested_by="mal")
    (row,) = apply(store, failed).access(EVERYBODY, "shop")
    assert (row.state, row.requested_by) == ("granted", "eve"), "what failed changed nothing"
    (row,) = apply(store, report(WEB1, "granted", 4, request="g3", requested_by="ann")).access(EVERYBODY, "shop")
    assert row.requested_by == "ann"
    (row,) = apply(store, report(WEB1, "granted", 5, request=None)).access(EVERYBODY, "shop")
    assert row.requested_by == "ann", "an older node does not say it"


def test_the_order_in_which_messages_come_does_not_matter(tmp_path: Path) -> None:
    told = (described(WEB1), granted(), report(WEB1, "granted", until=UNTIL), report(WEB1, "expired", 5, request=None))
    results = []
    for number, order in enumerate(itertools.permutations(told)):
        store = Store.open(WebSettings(), tmp_path / str(number), now=lambda: NOW)
        results.append([row for row in states(apply(store, *order, *order)).items() if row[1] == "granted"])
        store.close()
    assert all(result == [] for result in results)


def test_a_node_that_could_not_change_an_access_still_has_it(store: Store) -> None:
    queries = apply(
        store,
        described(WEB1, "bob"),
        AccessRevokeRequested(id="r1", site=SHOP, user="bob", time=NOW + timedelta(minutes=1)),
        report(WEB1, "failed", request="r1", detail="the test of the server's configuration failed"),
    )
    (row,) = queries.access(EVERYBODY, "")
    assert (row.state, row.until, row.asked) == ("granted", UNTIL, "")
    assert "test" in row.detail


def test_a_description_removes_what_is_gone_and_nothing_that_it_was_not_asked_about(store: Store) -> None:
    apply(store, described(WEB1, "alice", "bob"))
    cut = described(WEB1, minute=1, cut=("access: 0 of 2, there is no room for more",))
    assert len(states(apply(store, cut))) == 2
    question = NodeQueried(id="q1", details=("access",), site=DOCS)
    assert (
        len(states(apply(store, question, NodeDescribed(node=WEB1, request="q1", time=NOW + timedelta(minutes=2)))))
        == 2
    )
    assert len(states(apply(store, described(WEB1, minute=3, access=(), request="")))) == 0
    assert states(apply(store, described(WEB1, "alice", minute=2))) == {}
    question = NodeQueried(id="q2", details=("access",))
    queries = apply(store, question, NodeDescribed(node=WEB1, request="q2", time=NOW + timedelta(minutes=9)))
    assert queries.protected(EVERYBODY) == {}


def test_a_description_that_says_nothing_of_accesses_changes_none(store: Store) -> None:
    apply(store, described(WEB1, "alice"))
    queries = apply(store, NodeDescribed(node=WEB1, time=NOW + timedelta(minutes=9)))
    assert states(queries) == {("alice", "web1"): "granted"}


def test_a_viewer_sees_the_sites_that_they_may_look_at(store: Store) -> None:
    queries = apply(store, described(WEB1, "alice"), granted())
    narrow = Viewer(name="dan", grants=(RoleGrant(sites="docs", role="admin"),))
    assert queries.access(narrow, "") == ()
    assert queries.access(narrow, "shop") == ()
    assert queries.protected(narrow) == {}


def test_a_command_for_other_nodes_asks_nothing_of_this_one(store: Store) -> None:
    queries = apply(store, described(WEB1), described(WEB2), granted(audience=(WEB2,)))
    assert states(queries) == {("bob", "web2"): "asked"}


def test_a_database_of_the_first_version_gets_the_tables(tmp_path: Path) -> None:
    from sqlalchemy import create_engine, inspect, text

    Store.open(WebSettings(), tmp_path, now=lambda: NOW).close()
    engine = create_engine(f"sqlite:///{tmp_path}/web/console.db")
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE access_users"))
        connection.execute(text("DROP TABLE protected_sites"))
        connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    engine.dispose()
    store = Store.open(WebSettings(), tmp_path, now=lambda: NOW)
    assert not store.set_aside_because
    assert states(apply(store, described(WEB1, "alice"))) == {("alice", "web1"): "granted"}
    store.close()
    engine = create_engine(f"sqlite:///{tmp_path}/web/console.db")
    assert {"access_users", "protected_sites"} <= set(inspect(engine).get_table_names())
    engine.dispose()
