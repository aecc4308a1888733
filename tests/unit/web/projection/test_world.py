"""A small fleet, folded and asked: what the first screen needs."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploykit.settings.web import WebSettings
from deploykit.web.projection.queries import Queries
from deploykit.web.projection.store import Store
from deploykit.web.projection.views import PageRequested
from deploykit.web.viewer import EVERYBODY, RoleGrant, Viewer
from tests.support.webworld import (
    C2,
    C3,
    DONE,
    FAILED,
    NOW,
    REPO,
    SINGLE,
    heard_messages,
    world_queries,
    world_store,
)

_ALL = PageRequested(limit=500)
_DOCS_ONLY = Viewer(name="dora", grants=(RoleGrant(sites="docs", role="look"),))


@pytest.fixture(scope="module")
def queries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Queries]:
    """The questions of a store that holds the world."""
    store = world_store(tmp_path_factory.mktemp("world"))
    yield world_queries(store)
    store.close()


def test_each_site_says_what_is_current_and_how_its_nodes_stand(queries: Queries) -> None:
    docs, shop = queries.sites(EVERYBODY)
    assert (docs.site, docs.nodes, dict(docs.counts)) == ("docs", 2, {"frozen": 1, "current": 1})
    assert docs.lock is not None
    assert (docs.lock.holder, docs.lock.reason) == ("cleo@desk", "the fair, until Friday")
    assert (shop.commit, shop.nodes, shop.lock) == (C2, 3, None)
    assert dict(shop.counts) == {"failed": 1, "modified": 1, "outdated": 1}
    assert (shop.by, shop.rollout, shop.rollout_state) == ("ann@desk", SINGLE, "succeeded")


def test_nodes_that_need_a_look_come_first(queries: Queries) -> None:
    found = queries.site_nodes(EVERYBODY, "shop", _ALL)
    assert [(each.node, each.standing) for each in found.items] == [
        ("web1", "failed"),
        ("web2", "modified"),
        ("web3", "outdated"),
    ]
    assert found.total == 3


def test_what_is_wrong_is_listed_the_worst_first(queries: Queries) -> None:
    kinds = [problem.kind for problem in queries.problems(EVERYBODY)]
    assert kinds == ["rollout", "site", "site", "build", "mirror", "lock"]


def test_what_changed_last_comes_first(queries: Queries) -> None:
    changes = queries.changes(EVERYBODY, 4)
    assert [change.what for change in changes] == ["build", "build", "lock", "rollout"]
    assert changes[3].by == "ann@desk"


def test_a_rollout_shows_its_nodes_steps_and_log(queries: Queries) -> None:
    detail = queries.rollout(EVERYBODY, FAILED, _ALL)
    assert detail is not None
    assert (detail.summary.state, detail.summary.failed) == ("failed", ("web1",))
    (node,) = detail.nodes.items
    assert [(step.name, step.state) for step in node.steps] == [
        ("fetch", "done"),
        ("export", "done"),
        ("migrate", "failed"),
        ("switch", "skipped"),
    ]
    log = queries.log(EVERYBODY, FAILED, "web1", -2, 10)
    assert log is not None
    assert log.lines == ("migrating table 39", "\x1b[31mERROR\x1b[0m no space")
    assert not log.open


def test_a_command_by_itself_is_a_rollout_of_its_own(queries: Queries) -> None:
    rollouts = queries.rollouts(EVERYBODY, "shop", _ALL).items
    assert [(each.rollout, each.single, each.kind, each.state) for each in rollouts] == [
        (SINGLE, True, "rollback", "succeeded"),
        (FAILED, False, "deploy", "failed"),
        (DONE, False, "deploy", "succeeded"),
    ]


def test_refs_that_not_every_node_holds_are_marked(queries: Queries) -> None:
    refs = {ref.ref: ref for ref in queries.refs(EVERYBODY, REPO, _ALL).items}
    newest = refs["refs/tags/v1.3"]
    assert (newest.commit, newest.holders, newest.expected, newest.missing) == (C3, 2, 3, ("web3",))
    assert refs["refs/tags/v1.2"].everywhere
    assert refs["refs/tags/v1.2"].live == ("shop",)


def test_a_viewer_sees_only_their_sites(queries: Queries) -> None:
    assert [site.site for site in queries.sites(_DOCS_ONLY)] == ["docs"]
    assert queries.site(_DOCS_ONLY, "shop") is None
    assert queries.site_nodes(_DOCS_ONLY, "shop", _ALL).items == ()
    assert [node.node for node in queries.nodes(_DOCS_ONLY, _ALL).items] == ["web1", "web2"]
    assert queries.node(_DOCS_ONLY, "web3") is None
    assert queries.rollouts(_DOCS_ONLY, "", _ALL).items == ()
    assert queries.rollouts(_DOCS_ONLY, "shop", _ALL).items == ()
    assert queries.rollout(_DOCS_ONLY, FAILED, _ALL) is None
    assert queries.log(_DOCS_ONLY, FAILED, "web1", 0, 10) is None
    assert {push.repo for push in queries.pushes(_DOCS_ONLY, "", _ALL).items} == {"docs"}
    assert queries.pushes(_DOCS_ONLY, REPO, _ALL).items == ()
    assert {build.repo for build in queries.builds(_DOCS_ONLY, "", _ALL).items} == {"docs"}
    assert queries.refs(_DOCS_ONLY, REPO, _ALL).items == ()
    assert queries.repositories(_DOCS_ONLY) == ("docs",)
    assert queries.notices(_DOCS_ONLY, _ALL).items == ()
    assert {entry.site for entry in queries.audit(_DOCS_ONLY, "", _ALL).items} == {"docs"}
    assert queries.history(_DOCS_ONLY, "", "", _ALL).items == ()
    assert queries.operation(_DOCS_ONLY, "shop", "web1:3") is None
    assert queries.node_mirrors(_DOCS_ONLY, "web3", _ALL).items == ()
    assert {change.what for change in queries.changes(_DOCS_ONLY)} == {"push", "build", "lock"}
    assert {problem.site or problem.repo for problem in queries.problems(_DOCS_ONLY)} == {"docs"}


def test_an_operation_of_the_history_has_a_link(queries: Queries) -> None:
    history = queries.history(EVERYBODY, "shop", "web1", _ALL).items
    assert [each.id for each in history] == ["web1:3", "web1:2", "web1:1"]
    assert queries.operation(EVERYBODY, "shop", "web1:3") == history[0]
    assert history[0].rollout == FAILED


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_messages_and_copies_of_them_change_nothing(tmp_path: Path, seed: int) -> None:
    shuffled = [*heard_messages(), *heard_messages()]
    random.Random(seed).shuffle(shuffled)
    stores = [Store.open(WebSettings(), tmp_path / name, now=lambda: NOW) for name in ("in-order", "shuffled")]
    stores[0].apply(heard_messages())
    for at in range(0, len(shuffled), 17):
        stores[1].apply(shuffled[at : at + 17])
    seen = [_everything(world_queries(store)) for store in stores]
    for store in stores:
        store.close()
    for in_order, shuffled_one in zip(*seen, strict=True):
        assert in_order == shuffled_one


def _everything(queries: Queries) -> list[object]:
    return [
        queries.sites(EVERYBODY),
        queries.nodes(EVERYBODY, _ALL),
        queries.pushes(EVERYBODY, "", _ALL),
        queries.builds(EVERYBODY, "", _ALL),
        queries.refs(EVERYBODY, REPO, _ALL),
        queries.node_mirrors(EVERYBODY, "web3", _ALL),
        queries.history(EVERYBODY, "", "", _ALL),
        queries.notices(EVERYBODY, _ALL),
    ]
