"""Locks on real agents: nodes that were off, new ones, replays, who may override, and what reports and audit hold."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest

from deploykit.audit.files import read_records
from deploykit.audit.record import AuditRecord
from deploykit.broker.server import EmbeddedBroker
from deploykit.bus import Bus, Delivery
from deploykit.daemons.agent.lockstore import lock_store_of
from deploykit.messages import (
    DeployReported,
    DeployRequested,
    Message,
    NodeDescribed,
    SiteLocked,
    SiteUnlocked,
    utc_now,
)
from deploykit.messages.statement import SignedStatement
from deploykit.names import NodeName, RefName, SiteName
from deploykit.operations.rollout import RolloutResult
from deploykit.operations.rolloutplan import plan_rollback
from deploykit.settings import GrantSettings
from deploykit.trust.keyfiles import generate_key, load_signing_key, trust
from deploykit.trust.signature import SigningKey, sign
from deploykit.trust.statements import frame_again, frame_of, statement_of
from deploykit.wire import decode, encode
from tests.brokers.server import BrokerServer
from tests.support.daemon import RunningDaemon
from tests.support.needs import other_clock
from tests.support.node import NodeAgent
from tests.support.realfleet import RealFleet, topics_below
from tests.support.wait import wait_until

SHOP = SiteName("shop")
HOUR = timedelta(hours=1)


class LockedFleet(RealFleet):
    """Nodes that are started one by one, and ann, who may lock."""

    def __init__(self, root: Path, address: str, **more: Any) -> None:
        super().__init__(root, address, ("web1", "web2", "web3"), **more)
        signers = root / "allowed_signers"
        self.ann: SigningKey = generate_key(root / "ann.key")
        trust(signers, "ann@example.org", self.ann.public_blob)
        grants = (
            *self.desk.trust.grants,
            GrantSettings(principal="ann@example.org", types=("site.locked", "deploy.requested")),
        )
        self.desk = attrs.evolve(self.desk, trust=attrs.evolve(self.desk.trust, grants=grants))
        self.bus = Bus(self.desk.broker, client_id="ann")

    def __enter__(self) -> LockedFleet:
        self.bus.start()
        assert self.bus.wait_connected(60)
        return self

    def __exit__(self, *_: object) -> None:
        self.bus.stop()

    def agent(self, name: str) -> NodeAgent:
        """A node's agent, to be entered."""
        return NodeAgent(self.settings_of(NodeName(name)))

    def state(self, message: Message) -> SignedStatement:
        """Have ann make a statement; every node that is on hears it."""
        statement = statement_of(sign(encode(message), self.ann))
        self.replay(statement)
        return statement

    def replay(self, statement: SignedStatement) -> None:
        """Publish a statement again, as anybody can."""
        self.bus.publish(self.desk.topics.deploy, frame_again(statement))

    def stored(self, name: str) -> set[int]:
        """The serials of the statements that are on a node's disk."""
        known = lock_store_of(self.settings_of(NodeName(name)).state).load()
        return {serial_of(signed) for _, signed, _ in known.statements}

    def deploy(self, tag: str, *names: str, **options: Any) -> RolloutResult:
        """Roll a tag out to nodes."""
        return self.run(self.planned(tag, names, **options))


def serial_of(signed: SignedStatement) -> int:
    message = decode(frame_of(signed).headers, frame_of(signed).body)
    assert isinstance(message, SiteLocked | SiteUnlocked)
    return message.serial


def lock(serial: int, **changes: Any) -> SiteLocked:
    made = SiteLocked(site=SHOP, serial=serial, holder="ann", reason="the warehouse moves", until=utc_now() + HOUR)
    return attrs.evolve(made, **changes)


def unlock(serial: int) -> SiteUnlocked:
    return SiteUnlocked(site=SHOP, serial=serial, holder="ann")


def details(result: RolloutResult) -> list[str]:
    return [report.detail for report in result.reports.values()]


@pytest.fixture
def fleet(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> Iterator[LockedFleet]:
    with LockedFleet(tmp_path, deploykit_broker.address) as made:
        yield made


def test_nodes_that_were_off_new_ones_and_replays(fleet: LockedFleet) -> None:
    """One story: agents take seconds to start."""
    fleet.push("v1")
    fleet.push("v2")
    with fleet.agent("web1") as web1:
        web1.ready()
        with fleet.agent("web2") as web2:
            web2.ready()
            assert fleet.deploy("v1", "web1", "web2").exit_code == 0

        old = fleet.state(lock(1))  # web2 is off
        wait_until(lambda: fleet.stored("web1") == {1}, "the lock at web1")
        heard: list[str] = []
        listening = fleet.bus.subscribe(fleet.desk.topics.deploy, lambda delivery: heard.append(str(delivery.message)))
        assert listening.wait_active(60)
        refused = fleet.deploy("v2", "web1")
        assert refused.exit_code == 3
        wait_until(lambda: any("SiteLocked" in each for each in heard), "the lock again, by the coordinator")
        listening.unsubscribe()
        (detail,) = details(refused)
        assert "site shop is locked by ann (key SHA256:" in detail
        assert "the warehouse moves" in detail
        assert " until 2" in detail
        (report,) = refused.reports.values()
        assert report.lock == old

        with fleet.agent("web2") as web2:
            web2.ready()
            wait_until(lambda: fleet.stored("web2") == {1}, "the lock at web2, which was off")
            both = fleet.deploy("v2", "web1", "web2")
            assert both.exit_code == 3
            assert fleet.live()[:2] == ["v1", "v1"]

        fleet.state(unlock(2))  # web2 is off again
        wait_until(lambda: fleet.stored("web1") == {1, 2}, "the unlock at web1")
        fleet.replay(old)
        with fleet.agent("web2") as web2:
            web2.ready()
            wait_until(lambda: fleet.stored("web2") == {1, 2}, "the unlock at web2")
            fleet.replay(old)
            assert fleet.deploy("v2", "web1", "web2").exit_code == 0, "a replay locks nothing"

            fleet.state(lock(3))
            wait_until(lambda: fleet.stored("web1") == fleet.stored("web2") == {1, 2, 3}, "the next lock")
            with fleet.agent("web3") as web3:  # it was never there
                web3.ready()
                wait_until(lambda: fleet.stored("web3") == {3}, "the lock at the new node")
                assert fleet.deploy("v1", "web3").exit_code == 3


def test_rollback_override_and_what_is_recorded(fleet: LockedFleet) -> None:
    fleet.push("v1")
    fleet.push("v2")
    with fleet.agent("web1") as agent:
        agent.ready()
        assert fleet.deploy("v1", "web1").exit_code == 0
        second = fleet.deploy("v2", "web1")
        assert second.exit_code == 0
        previous = {node: report.previous for node, report in second.reports.items() if report.previous is not None}

        fleet.state(lock(1, allow_rollback=False))
        wait_until(lambda: fleet.stored("web1") == {1}, "the lock")
        assert fleet.run(plan_rollback(fleet.desk, "shop", previous)).exit_code == 3
        assert fleet.live()[0] == "v2"
        fleet.state(lock(2))
        wait_until(lambda: fleet.stored("web1") == {1, 2}, "the lock that lets nodes go back")
        assert fleet.run(plan_rollback(fleet.desk, "shop", previous)).exit_code == 0
        assert fleet.live()[0] == "v1"
        assert fleet.deploy("v2", "web1").exit_code == 3

        assert report_on(fleet, fleet.ann).outcome == "refused"
        assert "lock.override" in report_on(fleet, None, override_lock="please").detail
        done = report_on(fleet, fleet.ann, override_lock="the shop burns")
        assert (done.outcome, done.overridden) == ("success", "the shop burns")
        assert done.lock is not None
        assert serial_of(done.lock) == 2
        assert fleet.live()[0] == "v2"
    audit = fleet.settings_of(NodeName("web1")).state / "audit.log"
    records = [record for record in read_records(audit) if isinstance(record, AuditRecord)]
    assert [r.details["serial"] for r in records if r.action == "site.lock"] == ["1", "2"]
    (over,) = [r for r in records if r.action == "deploy" and r.decision == "allowed" and "override_lock" in r.details]
    assert over.details["override_lock"] == "the shop burns"
    assert over.details["lock"].startswith("2 ")


def report_on(fleet: LockedFleet, key: SigningKey | None, **changes: Any) -> DeployReported:
    """Send a command of one's own for v2, and return the report on it."""
    commit = fleet.origin.push(tag="v2", files={"index.html": "v2\n"})
    now = utc_now()
    asked = DeployRequested(
        site=SHOP,
        ref=RefName("refs/tags/v2"),
        commit=commit,
        audience=(NodeName("web1"),),
        time=now,
        expires=now + timedelta(minutes=5),
        **changes,
    )
    heard: list[Message | None] = []
    with Bus(fleet.desk.broker, client_id="asker") as bus:
        subscription = bus.subscribe(fleet.desk.topics.report, lambda delivery: heard.append(delivery.message))
        assert subscription.wait_active(60)
        signer = key or load_signing_key(fleet.root / "operator.key")
        bus.publish(fleet.desk.topics.deploy, sign(encode(asked), signer))

        def report() -> DeployReported | None:
            return next((m for m in heard if isinstance(m, DeployReported) and m.request == asked.id), None)

        found = wait_until(report, "the report")
    assert found is not None
    return found


def test_a_new_node_learns_of_a_lock_on_a_real_broker(
    tmp_path: Path, real_broker: BrokerServer, unique_name: str
) -> None:
    """Its question and the answers cross topics to which an agent otherwise only listens."""
    topics = topics_below(unique_name)
    with LockedFleet(tmp_path, real_broker.address, topics=topics) as fleet, fleet.agent("web1") as web1:
        web1.ready()
        fleet.state(lock(1))
        wait_until(lambda: fleet.stored("web1") == {1}, "the lock")
        with fleet.agent("web3") as web3:
            web3.ready()
            wait_until(lambda: fleet.stored("web3") == {1}, "the lock at the new node")


def test_nodes_whose_clocks_are_an_hour_off_keep_show_and_pass_on_statements(
    tmp_path: Path, deploykit_broker: EmbeddedBroker
) -> None:
    """Commands they would refuse for their clocks; a statement neither expires nor comes from the future."""
    with LockedFleet(tmp_path, deploykit_broker.address) as fleet:
        shown: dict[str, int] = {}
        passed_on: list[str] = []

        def hear(delivery: Delivery) -> None:
            described = delivery.message
            if isinstance(described, NodeDescribed):
                for statement in (state.lock for state in described.sites if state.lock is not None):
                    shown[described.node] = serial_of(statement)

        topics = fleet.desk.topics
        assert fleet.bus.subscribe(topics.inventory, hear).wait_active(60)
        with process(fleet, "web1", "-1h") as behind, process(fleet, "web2", "+1h") as ahead:
            behind.wait("agent on web1")
            ahead.wait("agent on web2")
            old = fleet.state(lock(1, until=utc_now() + 3 * HOUR))
            wait_until(lambda: shown == {"web1": 1, "web2": 1}, "the lock, shown")
            fleet.state(unlock(2))
            wait_until(lambda: shown == {"web1": 2, "web2": 2}, "its end, shown")
            listening = fleet.bus.subscribe(topics.deploy, lambda each: passed_on.append(type(each.message).__name__))
            assert listening.wait_active(60)
            fleet.replay(old)
            wait_until(lambda: "SiteUnlocked" in passed_on, "the newer one, passed on")
            assert shown == {"web1": 2, "web2": 2}


def process(fleet: LockedFleet, name: str, offset: str) -> RunningDaemon:
    """A node's agent as a process with another wall clock, to be entered."""
    home = fleet.root / f"{name}-process"
    home.mkdir()
    daemon = RunningDaemon(home, fleet.desk.broker.address, "agent", env=other_clock(offset))
    daemon.file.write_text(
        f'node = "{name}"\nstate = "{home}/state"\nsigning_key = "{fleet.root}/{name}.key"\n'
        f'[outbox]\npath = "{home}/spool"\n[broker]\naddress = "{fleet.desk.broker.address}"\n'
        f'[trust]\nallowed_signers = "{fleet.root}/allowed_signers"\n'
        'grants = [{ principal = "ann@example.org", types = ["site.locked"] }]\n'
        f'[repositories.shop]\nurl = "{fleet.origin.path}"\n'
        f'[sites.shop]\npath = "{home}/site"\nrepo = "shop"\n'
    )
    return daemon
