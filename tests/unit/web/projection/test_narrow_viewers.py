"""Of what a viewer may not see nothing shows: not in names of nodes, counts, or lines on what is wrong or was cut."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import attrs
import pytest

from deploykit.messages import HeldRef, MirrorUpdated, NodeDescribed, SiteState
from deploykit.names import ZERO_ID, NodeName, SiteName
from deploykit.web.projection.heard import Heard
from deploykit.web.projection.queries import Queries
from deploykit.web.projection.views import PageRequested
from deploykit.web.viewer import EVERYBODY, RoleGrant, Viewer
from tests.support.webworld import C1, C3, NOW, REPO, V1, V3, WEB1, healthy, heard_messages, world_store

_ALL = PageRequested(limit=500)
_SHOP_ONLY = Viewer(name="sam", grants=(RoleGrant(sites="shop", role="look"),))
_HIDDEN = NodeName("hidden1")


@pytest.fixture(scope="module")
def queries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Queries]:
    """The world, and a hidden site that uses the repository of a visible one on a node of its own."""
    store = world_store(tmp_path_factory.mktemp("narrow"))
    web1 = next(each.message for each in reversed(heard_messages()) if each.message.source == f"agent/{WEB1}")
    assert isinstance(web1, NodeDescribed)
    hidden = SiteState(site=SiteName("hidden"), repo=REPO, release="v1", ref=V1, commit=C1)
    time = NOW + timedelta(seconds=1)
    held = HeldRef(repo=REPO, ref=V1, commit=C1, time=time)
    told = (
        NodeDescribed(id="h1", time=time, node=_HIDDEN, sites=(hidden,), refs=(held,), refs_count=1),
        MirrorUpdated(
            id="h2", time=time, node=_HIDDEN, repo=REPO, ref=V3, old=ZERO_ID, new=C3, outcome="failed", detail="-"
        ),
        attrs.evolve(web1, id="h3", time=time, cut=("refs of hidden-repo: the mirror cannot be read",)),
    )
    store.apply([Heard(message=message, received=time, signer="x") for message in told])
    health = attrs.evolve(healthy(), distrusted=2, distrust="deploy-reported from agent/hidden1: not signed")
    yield store.queries(lambda: health)
    store.close()


@pytest.mark.parametrize("viewer", [EVERYBODY, _SHOP_ONLY])
def test_a_ref_names_and_counts_only_nodes_that_the_viewer_may_see(queries: Queries, viewer: Viewer) -> None:
    refs = {ref.ref: ref for ref in queries.refs(viewer, REPO, _ALL).items}
    more = viewer.sees_all
    assert (_HIDDEN in refs[V3].missing) == more
    assert (refs[V3].holders, refs[V3].expected) == (2, 4 if more else 3)
    assert (refs[V1].holders, refs[V1].expected) == ((4, 4) if more else (3, 3))


def test_a_fetch_that_failed_on_a_hidden_node_is_no_problem_of_theirs(queries: Queries) -> None:
    assert any(problem.node == _HIDDEN for problem in queries.problems(EVERYBODY))
    assert not any(_HIDDEN in f"{problem.node} {problem.text}" for problem in queries.problems(_SHOP_ONLY))


def test_what_is_not_believed_is_counted_but_not_described(queries: Queries) -> None:
    assert _HIDDEN in queries.health(EVERYBODY).distrust
    health = queries.health(_SHOP_ONLY)
    assert (health.connected, health.distrusted, health.distrust, health.answered) == (True, 2, "", 0)
    (problem,) = (each for each in queries.problems(_SHOP_ONLY) if each.kind == "distrust")
    assert problem.text.startswith("2 messages ")
    assert _HIDDEN not in problem.text


def test_what_a_node_left_out_is_not_named(queries: Queries) -> None:
    for viewer in (EVERYBODY, _SHOP_ONLY):
        node = queries.node(viewer, WEB1)
        assert node is not None
        assert node.cut
        assert ("hidden" in str(node.cut)) == viewer.sees_all
