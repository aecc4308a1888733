"""The console's actions on real agents: deploys, ways back, locks, four eyes, messages that were signed elsewhere."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.bus import Bus
from deploykit.errors import ActionRefused
from deploykit.messages import SiteLocked, utc_now
from deploykit.names import NodeName, SiteName
from deploykit.operations.mandatefiles import mandate_frame
from deploykit.settings import GrantSettings, NodeSiteSettings, Settings
from deploykit.settings.web import WebSettings
from deploykit.trust.keyfiles import generate_key, trust
from deploykit.trust.mandate import Requirement
from deploykit.trust.signature import HEADER, sign
from deploykit.web.actions.asked import ControlAsked, DeployAsked, LockAsked, NodesAsked, OptionsAsked, RollbackAsked
from deploykit.web.actions.assembling import action_ports
from deploykit.web.actions.locks import ConsoleLocks
from deploykit.web.actions.relay import ConsoleRelay
from deploykit.web.actions.rollouts import ConsoleRollouts
from deploykit.web.hosting.host import RolloutHost
from deploykit.web.ledger.ledger import Ledger
from deploykit.web.projection.activityviews import AuditView
from deploykit.wire import encode
from tests.support.actionworld import ADMIN, LIVE, STAGE
from tests.support.fixedqueries import FixedQueries
from tests.support.realfleet import RealFleet
from tests.support.wait import wait_until

WEB = ("web1", "web2", "web3")
PEOPLE = ("ann", "bob")
ALL = NodesAsked(everybody=True)


class SignedFleet(RealFleet):
    """Agents that grant the console rollouts and locks, and people approvals.

    Args:
        signatures: so many of them the site asks for.
        told: the settings of the console say that, too, where it is more than one.
    """

    def __init__(self, root: Path, address: str, signatures: int, told: bool) -> None:
        super().__init__(root, address, WEB)
        self.signatures, self.told = signatures, told
        self.keys = {name: generate_key(root / f"{name}.key") for name in PEOPLE}
        for name in PEOPLE:
            trust(root / "allowed_signers", name, self.keys[name].public_blob)
        types = ("deploy.requested", "rollout.abort", "rollout.run", "node.queried", "site.locked", "lock.release")
        grants = (
            GrantSettings(principal="ops@example.org", types=types),
            *(GrantSettings(principal=name, types=("rollout.approved", "site.locked")) for name in PEOPLE),
        )
        trusted = attrs.evolve(self.desk.trust, grants=grants)
        self.desk = attrs.evolve(self.desk, trust=trusted, web=WebSettings(lease=3.0), sites=self._sites(root / "none"))

    def _sites(self, path: Path) -> dict[SiteName, NodeSiteSettings]:
        if self.signatures == 1 or not self.told:
            return {}
        site = next(iter(super().settings_of(NodeName("web1")).sites.values()))
        return {SiteName("shop"): attrs.evolve(site, path=path, signatures=self.signatures)}

    def settings_of(self, node: NodeName) -> Settings:
        made = super().settings_of(node)
        sites = {name: attrs.evolve(site, signatures=self.signatures) for name, site in made.sites.items()}
        return attrs.evolve(made, sites=sites)


class Console:
    """A console's actions, its host and its ledger, over a fleet. Its projection has heard nothing.

    Args:
        patience: seconds for nodes to answer; long, as a busy machine is not a failure.
    """

    def __init__(self, fleet: SignedFleet, patience: float = 20.0) -> None:
        self.fleet, self.patience = fleet, patience
        self.lines: list[AuditView] = []
        self._stack = ExitStack()

    def __enter__(self) -> Console:
        desk = self.fleet.desk
        with ExitStack() as stack:
            self.ledger = Ledger.open(desk.web, desk.state)
            stack.callback(self.ledger.close)
            bus = stack.enter_context(Bus(desk.broker, client_id="console"))
            assert bus.wait_connected(60)
            host = RolloutHost(desk, bus, self.ledger)
            stack.callback(host.close, 20)
            host.serve()
            self.ports = action_ports(
                desk, FixedQueries(), host, bus, self.lines.append, key=host.key, patience=self.patience
            )
            self.rollouts = ConsoleRollouts(self.ports)
            self.locks = ConsoleLocks(self.ports, self.patience)
            self.relay = ConsoleRelay(self.ports)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def begin(self, asked: Any, viewer: Any = LIVE) -> str:
        """Begin what was asked for as it is shown now; return the rollout's id."""
        plan = self.rollouts.plan(viewer, asked)
        shown = tuple(node.node for node in plan.nodes)
        again = attrs.evolve(asked, plan=plan.digest, chosen=attrs.evolve(asked.chosen, exactly=shown))
        return self.rollouts.begin(viewer, again).rollout

    def ended(self, rollout: str) -> str:
        """Wait until a rollout has ended; return how."""
        from deploykit.fleet.replay import replay

        def over() -> bool:
            kept = self.ledger.rollouts.find(rollout)
            return kept is not None and kept.state == "ended"

        wait_until(over, f"{rollout} ends")
        return replay(self.ledger.rollouts.contents(rollout)).model.state


@pytest.fixture
def fleet(request: pytest.FixtureRequest, tmp_path: Path, deploykit_broker: EmbeddedBroker) -> Iterator[SignedFleet]:
    signatures, told = getattr(request, "param", (1, False))
    with SignedFleet(tmp_path, deploykit_broker.address, signatures, told) as made:
        yield made


@pytest.fixture
def console(request: pytest.FixtureRequest, fleet: SignedFleet) -> Iterator[Console]:
    with Console(fleet, getattr(request, "param", 20.0)) as made:
        yield made


def test_deployed_failed_gone_back_and_retried(fleet: SignedFleet, console: Console) -> None:
    fleet.push("v1")
    assert console.ended(console.begin(DeployAsked(site="shop", ref="v1", chosen=ALL))) == "succeeded"
    assert fleet.live() == ["v1"] * 3

    fleet.push("v2", pre_deploy=f'case "$PWD" in {fleet.root}/web2/*) test ! -e {fleet.root}/full;; esac')
    (fleet.root / "full").touch()
    options = OptionsAsked(first="1", batch=("1",), on_failure="stop", max_failures="0")
    plan = console.rollouts.plan(LIVE, DeployAsked(site="shop", ref="v2", chosen=ALL, options=options))
    assert {node.live_ref for node in plan.nodes} == {"refs/tags/v1"}
    failed = console.begin(DeployAsked(site="shop", ref="v2", chosen=ALL, options=options))
    assert console.ended(failed) == "failed"

    (fleet.root / "full").unlink()
    retry = console.rollouts.plan_retry(LIVE, failed)
    outcome = console.rollouts.retry(LIVE, failed, retry.digest)
    assert console.ended(outcome.rollout) == "succeeded"
    assert "v2" in fleet.live()


def test_the_way_back_names_per_node_what_was_live_until_when_and_who_put_it_there(
    fleet: SignedFleet, console: Console
) -> None:
    for tag in ("v1", "v2"):
        fleet.push(tag)
        assert console.ended(console.begin(DeployAsked(site="shop", ref=tag, chosen=ALL))) == "succeeded"
    plan = console.rollouts.plan(LIVE, RollbackAsked(site="shop", chosen=ALL))
    assert {node.to_ref for node in plan.nodes} == {"refs/tags/v1"}
    for node in plan.nodes:
        assert node.why.startswith("its previous release, live from ")
        assert node.why.endswith(", put there by liv, signed ops@example.org")
    assert console.ended(console.begin(RollbackAsked(site="shop", chosen=ALL))) == "succeeded"
    assert fleet.live() == ["v1"] * 3


def test_a_canary_that_waits_is_promoted_or_aborted_and_taken_back(fleet: SignedFleet, console: Console) -> None:
    fleet.push("v1")
    console.ended(console.begin(DeployAsked(site="shop", ref="v1", chosen=ALL)))
    fleet.push("v2")
    options = OptionsAsked(pause="ask", batch=("100%",))
    rollout = console.begin(DeployAsked(site="shop", ref="v2", chosen=ALL, options=options))
    wait_until(lambda: "v2" in fleet.live(), "the canary is live")
    with pytest.raises(ActionRefused) as caught:
        console.rollouts.begin(ADMIN, DeployAsked(site="shop", ref="v1", chosen=ALL))
    assert f"liv began rollout {rollout}" in str(caught.value)
    console.rollouts.control(LIVE, rollout, ControlAsked(kind="abort", rollback=True))
    assert console.ended(rollout) == "rolled-back"
    assert fleet.live() == ["v1"] * 3


def test_a_lock_is_on_every_node_refuses_and_is_lifted_by_whom_it_is_for(fleet: SignedFleet, console: Console) -> None:
    fleet.push("v1")
    outcome = console.locks.lock(LIVE, LockAsked(site="shop", reason="audit", until="2h"))
    assert (outcome.state, "3 of 3 nodes have it" in outcome.detail) == ("done", True)
    plan = console.rollouts.plan(ADMIN, DeployAsked(site="shop", ref="v1", chosen=ALL))
    assert "locked by liv" in plan.locked
    with pytest.raises(ActionRefused, match="audit"):
        console.rollouts.begin(LIVE, DeployAsked(site="shop", ref="v1", chosen=ALL))
    other = attrs.evolve(LIVE, name="olga")
    with pytest.raises(ActionRefused) as caught:
        console.locks.unlock(other, "shop")
    assert (caught.value.status, "it is not yours" in str(caught.value)) == (403, True)
    assert console.lines[-1].decision == "refused"
    outcome = console.locks.unlock(LIVE, "shop", "audit is over")
    assert (outcome.state, "3 of 3 nodes have it" in outcome.detail) == ("done", True)
    assert console.locks.unlock(LIVE, "shop").detail == "shop is not locked"
    assert console.ended(console.begin(DeployAsked(site="shop", ref="v1", chosen=ALL))) == "succeeded"


def test_a_lock_that_was_signed_elsewhere_is_passed_on_and_only_an_admin_lifts_it(
    fleet: SignedFleet, console: Console
) -> None:
    now = utc_now()
    message = SiteLocked(
        source="operator/laptop",
        time=now,
        site=SiteName("shop"),
        serial=int(now.timestamp()),
        holder="liv",
        reason="from my laptop",
        until=now + timedelta(hours=1),
    )
    frame = sign(encode(message), fleet.keys["ann"])
    console.relay.relay(LIVE, frame.body, frame.headers[HEADER])

    def locked() -> bool:
        return "from my laptop" in console.rollouts.plan(LIVE, DeployAsked(site="shop", ref="v1", chosen=ALL)).locked

    fleet.push("v1")
    wait_until(locked, "nodes hold the lock")
    with pytest.raises(ActionRefused, match="it is not yours"):
        console.locks.unlock(LIVE, "shop")
    assert console.locks.unlock(ADMIN, "shop").state == "done"


@pytest.mark.parametrize("fleet", [(2, True)], indirect=True)
def test_four_eyes_start_what_one_pair_may_not(fleet: SignedFleet, console: Console) -> None:
    fleet.push("v1")
    rollout = console.begin(DeployAsked(site="shop", ref="v1", chosen=ALL, reason="carts"))
    shown = console.rollouts.proposal(STAGE, rollout)
    assert shown is not None
    body = base64.b64decode(shown.body)
    for name, state in (("ann", "proposed"), ("bob", "started")):
        assert fleet.live() == ["", "", ""]
        header = sign(mandate_frame(body), fleet.keys[name]).headers[HEADER]
        assert console.rollouts.sign(STAGE, rollout, header).state == state
    assert console.ended(rollout) == "succeeded"
    assert fleet.live() == ["v1"] * 3


@pytest.mark.parametrize("fleet", [(2, False)], indirect=True)
def test_a_console_that_does_not_know_the_site_proposes_what_its_nodes_want_signed(
    fleet: SignedFleet, console: Console
) -> None:
    assert not fleet.desk.sites
    fleet.push("v1")
    plan = console.rollouts.plan(LIVE, DeployAsked(site="shop", ref="v1", chosen=ALL))
    assert (plan.needs, plan.needs_person) == (2, False)
    assert any("as web1, web2, web3 say" in note for note in plan.notes)
    rollout = console.begin(DeployAsked(site="shop", ref="v1", chosen=ALL))
    kept = console.ledger.rollouts.find(rollout)
    assert kept is not None
    assert (kept.state, kept.head().asks) == ("proposed", Requirement(signatures=2))
    shown = console.rollouts.proposal(STAGE, rollout)
    assert shown is not None
    body = base64.b64decode(shown.body)
    for name, state in (("ann", "proposed"), ("bob", "started")):
        header = sign(mandate_frame(body), fleet.keys[name]).headers[HEADER]
        assert console.rollouts.sign(STAGE, rollout, header).state == state
    assert console.ended(rollout) == "succeeded"
    assert fleet.live() == ["v1"] * 3


@pytest.mark.parametrize("console", [5.0], indirect=True)  # a node that nobody knows is waited for to the end
def test_unknown_nodes_and_sites_are_refused_by_what_real_agents_say(fleet: SignedFleet, console: Console) -> None:
    fleet.push("v1")
    with pytest.raises(ActionRefused) as caught:
        console.rollouts.plan(LIVE, DeployAsked(site="shop", ref="v1", chosen=NodesAsked(nodes=("web9",))))
    assert (caught.value.status, list(caught.value.problems)) == (422, ["nodes"])
    with pytest.raises(ActionRefused) as caught:
        console.rollouts.plan(LIVE, DeployAsked(site="shpo", ref="v1", chosen=ALL))
    assert caught.value.status == 404
