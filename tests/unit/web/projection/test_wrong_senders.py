"""Senders whose clock is wrong, who send too much, or send again what somebody else said before."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import attrs
import pytest
from sqlalchemy import select, text

from deploykit.messages import (
    DeployProgressed,
    DeployReported,
    DeployRequested,
    Message,
    MirrorUpdated,
    NodeDescribed,
    RolloutReported,
    SiteState,
)
from deploykit.names import ZERO_ID, RefName
from deploykit.settings.web import WebSettings
from deploykit.web.projection.folding import AHEAD
from deploykit.web.projection.foldlogs import STEPS
from deploykit.web.projection.heard import Heard
from deploykit.web.projection.queries import Queries
from deploykit.web.projection.store import Store
from deploykit.web.projection.tables import ROLLOUT_NODES
from deploykit.web.projection.views import PageRequested
from deploykit.web.viewer import EVERYBODY
from tests.support.webworld import C1, C2, MAIN, NOW, REPO, SHOP, V1, V2, WEB1, WEB2, world_queries, world_store

_LATER = NOW + timedelta(minutes=10)
_DECADE = timedelta(days=3650)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store.open(WebSettings(), tmp_path, now=lambda: _LATER)
    yield made
    made.close()


@pytest.fixture
def queries(store: Store) -> Queries:
    return world_queries(store)


def described(ref: RefName, commit: str = C1) -> NodeDescribed:
    state = SiteState(site=SHOP, repo=REPO, release=str(ref), ref=ref, commit=commit, since=NOW)  # type: ignore[arg-type]  # an id
    return NodeDescribed(node=WEB1, time=NOW, sites=(state,))


def at(message: Message, store: Store, received: timedelta, *, sent: timedelta | None = None) -> None:
    """Let a store hear a message; times from `NOW` on."""
    time = NOW + (received if sent is None else sent)
    store.apply([Heard(message=attrs.evolve(message, time=time), received=NOW + received, signer="x")])


def live(queries: Queries) -> list[str]:
    found = queries.node(EVERYBODY, WEB1)
    return [site.ref for site in found.sites] if found else []


def test_a_clock_that_was_years_ahead_does_not_hide_what_its_node_says_afterwards(
    store: Store, queries: Queries
) -> None:
    at(described(V1), store, timedelta(), sent=_DECADE)
    assert live(queries) == [V1]
    at(described(V2, C2), store, AHEAD + timedelta(seconds=1))
    assert live(queries) == [V2]


def test_a_coordinators_clock_that_was_ahead_does_not_freeze_its_rollout(store: Store, queries: Queries) -> None:
    announced = RolloutReported(time=NOW, site=SHOP, rollout="r", state="rolling", kind="deploy", nodes={"asked": 1})
    at(announced, store, timedelta(), sent=_DECADE)
    at(attrs.evolve(announced, state="succeeded"), store, AHEAD + timedelta(seconds=1))
    assert [each.state for each in queries.rollouts(EVERYBODY, "", PageRequested()).items] == ["succeeded"]


def test_a_clock_that_is_a_little_ahead_keeps_its_own_order(store: Store, queries: Queries) -> None:
    ahead = AHEAD - timedelta(seconds=10)
    at(described(V2, C2), store, timedelta(seconds=1), sent=ahead + timedelta(seconds=2))
    at(described(V1), store, timedelta(seconds=2), sent=ahead + timedelta(seconds=1))
    assert live(queries) == [V2]


def test_a_message_that_is_sent_again_is_no_sign_of_life(store: Store, queries: Queries) -> None:
    at(described(V1), store, timedelta())
    at(described(V2, C2), store, timedelta(seconds=1))
    store.answered([], NOW + timedelta(minutes=1))
    for sent in (timedelta(), timedelta(seconds=1)):
        at(described(V1), store, timedelta(minutes=5), sent=sent)
    node = queries.node(EVERYBODY, WEB1)
    assert node is not None
    assert (node.silent, node.seen) == (True, NOW + timedelta(seconds=1))
    at(described(V2, C2), store, timedelta(minutes=6))
    node = queries.node(EVERYBODY, WEB1)
    assert node is not None
    assert (node.silent, node.seen) == (False, NOW + timedelta(minutes=6))


def test_a_message_without_the_signature_that_there_could_be_is_no_sign_of_life(store: Store, queries: Queries) -> None:
    fetched = MirrorUpdated(time=_LATER, node=WEB1, repo=REPO, ref=MAIN, old=ZERO_ID, new=C1, outcome="updated")
    store.apply([Heard(message=fetched, received=_LATER, forgeable=True)])
    assert queries.nodes(EVERYBODY, PageRequested()).items == ()
    at(described(V1), store, timedelta())
    store.answered([], NOW + timedelta(minutes=1))
    store.apply([Heard(message=attrs.evolve(fetched, id="again"), received=_LATER, forgeable=True)])
    node = queries.node(EVERYBODY, WEB1)
    assert node is not None
    assert node.silent


def test_what_is_remembered_of_a_command_is_bounded_however_many_steps_it_has(store: Store) -> None:
    for first in (0, 1000):
        store.apply(
            [
                Heard(
                    message=DeployProgressed(
                        time=NOW,
                        node=WEB1,
                        site=SHOP,
                        request="q",
                        rollout="r",
                        phase="deploy",
                        number=2 * number + 1,
                        step=f"step {number} {'x' * 500}",
                        state="began",
                    ),
                    received=NOW,
                )
                for number in range(first, first + 1000)
            ]
        )
    with store.reading() as connection:
        (cell,) = connection.execute(select(ROLLOUT_NODES.c.heard)).scalars()
    assert len(json.loads(cell)["q"]["gaps"]) == STEPS
    assert len(cell) < 300 * STEPS


def test_pages_are_there_while_comparisons_cannot_be_written(tmp_path: Path) -> None:
    store = world_store(tmp_path)
    with store._transaction() as connection:
        connection.execute(text("CREATE TRIGGER full BEFORE UPDATE ON sites BEGIN SELECT RAISE(ABORT, 'no room'); END"))
        connection.execute(text("UPDATE site_nodes SET since = 1"))
    store._touched.add(SHOP)
    store._compare_after.clear()
    assert [site.site for site in world_queries(store).sites(EVERYBODY)] == ["docs", "shop"]
    store.close()


def test_a_node_cannot_fail_a_command_that_is_for_another_node(store: Store, queries: Queries) -> None:
    asked = DeployRequested(
        id="q", time=NOW, site=SHOP, ref=V1, commit=C1, audience=(WEB1,), expires=_LATER, phase="deploy"
    )
    report = DeployReported(time=NOW, node=WEB1, site=SHOP, request="q", phase="deploy", outcome="success")
    printed = DeployProgressed(
        time=NOW, node=WEB2, site=SHOP, request="q", phase="deploy", number=0, step="s", state="output", output="x\n"
    )
    for message in (asked, report, attrs.evolve(report, id="r", node=WEB2, outcome="failure"), printed):
        at(message, store, timedelta(seconds=1))
    found = queries.rollout(EVERYBODY, "q", PageRequested())
    assert found is not None
    assert (found.summary.state, [node.node for node in found.nodes.items]) == ("succeeded", [WEB1])
    assert {entry.where for entry in queries.audit(EVERYBODY, "", PageRequested()).items} == {WEB1, ""}
