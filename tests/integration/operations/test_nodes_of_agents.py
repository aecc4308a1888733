"""A real agent is found, compared and asked for its journal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.fleet.selection import Selection
from deploykit.names import NodeName, ObjectId, SiteName
from deploykit.operations.fleetstatus import fleet_status
from deploykit.operations.nodes import find_nodes
from deploykit.operations.sitehistory import site_history
from deploykit.operations.targets import resolve_targets
from deploykit.settings import FactsSettings, Settings
from tests.support.asking import let_ask
from tests.support.node import NODE, Node

SHOP = SiteName("shop")
EVERYBODY = Selection(everybody=True)


@pytest.fixture
def node(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> Iterator[Node]:
    with Node(tmp_path, deploykit_broker) as made:
        yield let_ask(made, FactsSettings(own={"env": "live"}))


def asker(node: Node) -> Settings:
    """The settings of an operator's machine."""
    return attrs.evolve(node.settings, node=NodeName("desk"), signing_key=node.root / "operator.key")


def deploy(node: Node, tag: str) -> ObjectId:
    """Push a tag, have the agent put it live, and return its commit."""
    commit = node.origin.push(tag=tag)
    request = node.request(tag, commit)
    node.send(request)
    assert node.report_on(request).outcome == "success"
    return commit


def test_an_agent_is_found_compared_and_tells_what_was_done(node: Node) -> None:
    with node.agent() as agent:
        agent.ready()
        first, second = (deploy(node, tag) for tag in ("v1", "v2"))
        settings = asker(node)

        found = find_nodes(settings, node.bus, Selection(facts=("env=live",), selects=("site=shop",)))
        assert [each.node for each in found.nodes] == [NODE]
        assert (found.exit_code, found.notes) == (0, ())

        targets = resolve_targets(settings, node.bus, EVERYBODY, site=SHOP, want_previous=True)
        assert targets.nodes == (NODE,)
        assert targets.previous[NODE].commit == first

        (node.site / "current" / "index.html").write_text("tampered\n")
        (shop,) = fleet_status(settings, node.bus, EVERYBODY).sites
        assert shop.wanted is not None
        assert (shop.wanted.commit, shop.wanted.ref) == (second, "refs/tags/v2")
        assert [(each.drift, each.detail) for each in shop.nodes] == [("modified", "1 path differs from the release")]

        past = site_history(settings, node.bus, EVERYBODY, SHOP)
        assert [(each.operation.commit, each.operation.outcome) for each in past.entries] == [
            (second, "success"),
            (first, "success"),
        ]


def test_an_agent_that_does_not_grant_the_question_is_not_found(node: Node) -> None:
    node = let_ask(node, None, *(attrs.evolve(g, types=("deploy.requested",)) for g in node.settings.trust.grants))
    with node.agent() as agent:
        agent.ready()
        found = find_nodes(asker(node), node.bus, EVERYBODY, timeout=1.0)
    assert (found.answered, found.exit_code) == (0, 1)
    assert "node.queried" in found.notes[0]
