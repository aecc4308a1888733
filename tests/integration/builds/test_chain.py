"""The whole chain on each broker: a push is built, its signed success opens the gate, and three nodes deploy it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deploykit.messages import DeployReported
from tests.support.chain.brokers import ChainBroker, EmbeddedProcess, RealBroker
from tests.support.chain.world import Chain

pytestmark = [pytest.mark.slow]


@pytest.fixture(
    params=[
        "embedded",
        pytest.param("rabbitmq", marks=pytest.mark.rabbitmq),
        pytest.param("activemq", marks=pytest.mark.activemq),
    ]
)
def chain(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Chain]:
    embedded = EmbeddedProcess(tmp_path) if request.param == "embedded" else None
    broker: ChainBroker = embedded.start() if embedded else RealBroker(request.getfixturevalue(request.param))
    try:
        with Chain(tmp_path, broker) as made:
            yield made
    finally:
        if embedded is not None:
            embedded.close()


def test_a_push_is_built_and_its_signed_success_lets_three_nodes_deploy_it(chain: Chain) -> None:
    chain.hold("build")
    commit = chain.push("v1")
    early = chain.deploy("v1", chain.nodes[0])[chain.nodes[0]]
    assert early.returncode == 3, early.stderr
    assert f"no successful build of shop-tests for {commit[:8]}; none is known" in early.stderr
    chain.let_go()
    builds = chain.built(commit)
    assert [build.result for build in builds] == ["SUCCESS"], builds[0].log
    chain.fetched("v1")
    done = chain.deploy("v1")
    assert {node: one.returncode for node, one in done.items()} == dict.fromkeys(chain.nodes, 0), done
    assert chain.live() == ["v1"] * 3

    broken = chain.push("v2", broken=True)
    assert [build.result for build in chain.built(broken)] == ["FAILURE"]
    chain.books.of_push(broken, chain.builds_of(broken))
    request = chain.ask("v2", broken)
    for report in chain.books.of_deploy(request).values():
        assert report.outcome == "refused"
        assert f"no successful build of shop-tests for {broken[:8]}; number 2 failed" in report.detail
    assert chain.live() == ["v1"] * 3

    chain.books.of_push(commit, builds)
    successes = chain.books.of(DeployReported, lambda one: one.outcome == "success")
    assert sorted(one.node for one in successes) == sorted(chain.nodes)
    chain.books.nothing_live_unbuilt()
    chain.end()
