"""A console's host of rollouts in this process: begun, controlled, proposed, approved; a database that is away."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Self

import attrs
import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.bus import Bus, Delivery
from deploykit.errors import ConnectError, KeyFileError, PolicyRefused, RolloutBusy, UsageError
from deploykit.fleet.journalhead import JournalHead
from deploykit.fleet.mandates import HeldMandate
from deploykit.messages import DeployRequested, RolloutProposed, utc_now
from deploykit.names import NodeName, RepoName
from deploykit.operations.approval import ApprovalDesk
from deploykit.operations.propose import mandate_for
from deploykit.settings import GrantSettings, NodeSiteSettings, Settings
from deploykit.trust.check import Trust
from deploykit.trust.keyfiles import trust
from deploykit.trust.signature import BodySigner, SigningKey, add_signature
from deploykit.web.actions.hostport import RolloutDesk
from deploykit.web.actions.proposals import show_proposal
from deploykit.web.hosting.host import RolloutHost
from deploykit.web.hosting.proposing import what_next
from deploykit.web.hosting.running import HostedRun, RunPorts
from deploykit.web.ledger.ledger import Ledger
from tests.support.hosting import (
    closed_to_all,
    console_settings,
    emptied,
    hosting,
    ledger_of,
    planned_for,
    wait_ended,
)
from tests.support.postgres import running_postgres
from tests.support.rollouts import ONE_BY_ONE, plan_of
from tests.support.securitykeys import SoftwareSecurityKey
from tests.support.standins import SHOP, StandIns, names
from tests.support.wait import wait_until

WEB1, WEB2 = names(2)


@pytest.fixture
def fleet(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> Iterator[StandIns]:
    """Two nodes."""
    with StandIns(tmp_path, deploykit_broker.address, names(2)) as made:
        yield made


@pytest.fixture
def settings(fleet: StandIns) -> Settings:
    """A console, for which ann may approve what the shop asks for."""
    console = console_settings(fleet)
    grants = (
        *console.trust.grants,
        GrantSettings(principal="ops@example.org", types=("rollout.run",)),
        GrantSettings(principal="ann", types=("rollout.approved",)),
    )
    site = NodeSiteSettings(path=console.state / "shop", repo=RepoName("shop"), require="person")
    return attrs.evolve(console, trust=attrs.evolve(console.trust, grants=grants), sites={SHOP: site})


class Hold:
    """Keeps a node from hearing that it is to activate, until it is let go."""

    def __init__(self, fleet: StandIns, node: NodeName) -> None:
        self._node, self._free = node, threading.Event()
        self.reached = threading.Event()
        fleet.before = self._before

    def _before(self, node: NodeName, request: DeployRequested) -> None:
        if node == self._node and request.phase == "activate":
            self.reached.set()
            self._free.wait(60)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.let_go()

    def let_go(self) -> None:
        """Let the node hear it."""
        self._free.set()


@pytest.fixture
def ann(settings: Settings) -> SoftwareSecurityKey:
    """A person's key."""
    key = SoftwareSecurityKey.ecdsa(seed=3)
    assert settings.trust.allowed_signers is not None
    trust(settings.trust.allowed_signers, "ann", key.public_blob)
    return key


class Heard:
    """Keeps what is announced of proposals."""

    def __init__(self, fleet: StandIns) -> None:
        self.messages: list[RolloutProposed] = []
        assert fleet.bus.subscribe(fleet.settings.topics.report, self._hear).wait_active(60)

    def _hear(self, delivery: Delivery) -> None:
        if isinstance(delivery.message, RolloutProposed):
            self.messages.append(delivery.message)

    def wait(self, count: int) -> RolloutProposed:
        wait_until(lambda: len(self.messages) >= count, f"{count} announcements")
        return self.messages[count - 1]


def test_a_rollout_is_begun_in_a_thread_and_obeys(fleet: StandIns, settings: Settings) -> None:
    plan = plan_of(fleet.nodes, batch=ONE_BY_ONE, timeout=120.0)
    with Hold(fleet, WEB1) as hold, hosting(settings) as host, ledger_of(settings) as ledger:
        port: RolloutDesk = host
        port.start(planned_for(settings, fleet, plan), "ann")
        assert (running := port.running("shop")) is not None
        assert (running.rollout, running.requested_by) == (plan.rollout, "ann")
        with pytest.raises(RolloutBusy, match=f"rollout {plan.rollout} of shop runs, begun by ann"):
            port.start(planned_for(settings, fleet, plan_of(fleet.nodes)), "bob")
        looked: list[tuple[int, int]] = []
        host.on_looked = lambda running, waiting: looked.append((running, waiting))
        assert hold.reached.wait(60)
        wait_until(lambda: looked, "what the metrics show is counted")
        assert looked[-1] == (1, 0)
        port.control(plan.rollout, "abort", "bob")
        wait_until(lambda: fleet.aborts, "the nodes are asked to obey no more")
        hold.let_go()
        assert wait_ended(ledger, plan.rollout).model.state == "aborted"
        assert fleet.acted("web2") == ["prepare", "discard"]
        wait_until(lambda: host.here == (), "its thread has ended")
        assert (newest := port.newest("shop")) is not None
        assert (newest.rollout, newest.state, port.running("shop")) == (plan.rollout, "ended", None)
        with pytest.raises(UsageError, match="does not run"):
            port.control(plan.rollout, "pause", "bob")


def test_a_console_that_cannot_go_on_leaves_a_rollout_to_one_that_can(
    fleet: StandIns, settings: Settings, tmp_path: Path
) -> None:
    plan = plan_of(fleet.nodes, batch=ONE_BY_ONE, timeout=120.0)
    keyless = attrs.evolve(settings, signing_key=None)
    with (
        Hold(fleet, WEB1) as hold,
        ledger_of(settings) as ledger,
        hosting(keyless, name="two", locks=tmp_path / "two") as two,
    ):
        with hosting(settings) as one:
            one.start(planned_for(settings, fleet, plan), "ann")
            assert hold.reached.wait(60)
        wait_until(lambda: any("waits for a console" in each for each in two.problems), "it is said why nobody goes on")
        assert (left := ledger.rollouts.find(plan.rollout)) is not None
        assert (left.owner, left.state) == ("", "running")
        hold.let_go()
        with hosting(settings, name="three", locks=tmp_path / "three"):
            assert wait_ended(ledger, plan.rollout).model.state == "succeeded"
        wait_until(lambda: not two.problems, "nothing waits any more")


def test_a_lease_is_given_back_by_who_cannot_use_it(fleet: StandIns, settings: Settings) -> None:
    plan = plan_of(fleet.nodes, timeout=120.0)
    ended = threading.Event()

    def no_key() -> tuple[BodySigner, Trust]:
        raise KeyFileError("the key is gone")

    with ledger_of(settings) as ledger, Bus(settings.broker, client_id="console") as bus:
        assert bus.wait_connected(60)
        lease = ledger.rollouts.start(JournalHead(plan=plan, begun=0.0), "ann", "one", 600)
        ports = RunPorts(
            bus=bus, topics=settings.topics, ledger=ledger, keys=no_key, over=lambda _: ended.set(), patience=0.1
        )
        HostedRun(lease, ports, resumed=False).start()
        assert ended.wait(60)
        assert [each.epoch for each in ledger.leases.take_over("two", 10)] == [2]


def test_one_console_obeys_what_another_one_was_asked(fleet: StandIns, settings: Settings, tmp_path: Path) -> None:
    plan = plan_of(fleet.nodes, batch=ONE_BY_ONE, timeout=120.0)
    with (
        Hold(fleet, WEB1) as hold,
        hosting(settings) as one,
        hosting(settings, name="two", locks=tmp_path / "two") as two,
        ledger_of(settings) as ledger,
    ):
        one.start(planned_for(settings, fleet, plan), "ann")
        assert hold.reached.wait(60)
        two.control(plan.rollout, "abort", "bob")
        wait_until(lambda: fleet.aborts, "the nodes are asked to obey no more")
        hold.let_go()
        assert wait_ended(ledger, plan.rollout).model.state == "aborted"


def test_without_a_broker_nothing_is_begun(fleet: StandIns, settings: Settings) -> None:
    away = attrs.evolve(settings, broker=attrs.evolve(settings.broker, address="stomp://127.0.0.1:1"))
    ledger = Ledger.open(away.web, away.state)
    with Bus(away.broker, client_id="console") as bus:
        host = RolloutHost(away, bus, ledger)
        plan = plan_of(fleet.nodes)
        with pytest.raises(ConnectError, match=r"no broker is connected.*nothing was sent"):
            host.start(planned_for(away, fleet, plan), "ann")
        assert ledger.rollouts.find(plan.rollout) is None
        host.close()
    ledger.close()


def test_what_was_begun_while_its_console_got_an_error_is_undone(fleet: StandIns, settings: Settings) -> None:
    plan = plan_of(fleet.nodes)
    with hosting(settings) as host, ledger_of(settings) as ledger:
        head = JournalHead(plan=plan, begun=time.time())
        ledger.rollouts.start(head, "ann", host.owner, 100)  # as where the answer to the commit was lost
        wait_until(lambda: (kept := ledger.rollouts.find(plan.rollout)) and kept.state == "withdrawn", "undone")
    assert not fleet.nodes[WEB1].heard


def test_a_journal_that_cannot_be_gone_on_with_frees_its_site(
    fleet: StandIns, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    plan = plan_of(fleet.nodes)
    with ledger_of(settings) as ledger:
        ledger.rollouts.start(JournalHead(plan=plan, begun=time.time()), "ann", "gone", 0)
        with ledger._database.writing() as connection:
            connection.exec_driver_sql("UPDATE ledger_rollouts SET head = '{}'")
        with hosting(settings):
            wait_until(lambda: ledger.rollouts.running("shop") is None, "the site is free")
    assert f"rollout {plan.rollout} cannot be gone on with, and is ended" in caplog.text


# -- proposals ---------------------------------------------------------------------------------------------------------


def proposed(host: RolloutHost, fleet: StandIns, settings: Settings, **times: timedelta) -> str:
    """Propose a rollout, and return its id."""
    planned = planned_for(settings, fleet, plan_of(fleet.nodes))
    now = utc_now()
    moments = {name: now + after for name, after in times.items()}
    host.propose(planned, mandate_for(planned, now, reason="the sale", **moments), "bob")
    return planned.plan.rollout


def signing(key: BodySigner) -> Callable[[HeldMandate], HeldMandate]:
    return lambda mandate: HeldMandate(message=mandate.message, frame=add_signature(mandate.frame, key))


def test_a_proposal_is_announced_and_begins_once_it_is_signed(
    fleet: StandIns, settings: Settings, ann: SoftwareSecurityKey
) -> None:
    heard = Heard(fleet)
    with hosting(settings) as host, ledger_of(settings) as ledger:
        rollout = proposed(host, fleet, settings)
        assert (first := heard.wait(1)).rollout == rollout
        assert (first.signed, first.wanted, first.count, first.reason) == (0, 1, 2, "the sale")
        assert [each.rollout for each in host.proposals("shop")] == [rollout]
        stranger = SigningKey.generate()
        host.change_mandate(rollout, signing(stranger))
        assert heard.wait(2).signed == 1
        host.change_mandate(rollout, signing(ann))
        assert heard.wait(3).signed == 2
        assert wait_ended(ledger, rollout).model.state == "succeeded"
        mandate = ledger.rollouts.contents(rollout).head.mandate
        assert mandate is not None, "it ran under the mandate"
        assert host.proposals() == ()


def test_what_was_asked_where_it_was_proposed_counts_on_a_console_that_does_not_know_the_site(
    fleet: StandIns, settings: Settings, ann: SoftwareSecurityKey, tmp_path: Path
) -> None:
    two_people = attrs.evolve(settings, sites={SHOP: attrs.evolve(settings.sites[SHOP], signatures=2)})
    with hosting(two_people) as one:
        rollout = proposed(one, fleet, settings)
        one.change_mandate(rollout, signing(ann))
    stranger = attrs.evolve(settings, sites={})
    with hosting(stranger, name="two", locks=tmp_path / "two") as two:
        with pytest.raises(PolicyRefused, match="2 different people"):
            two.start_approved(rollout)
        kept = two.find(rollout)
        assert kept is not None
        desk = ApprovalDesk.from_settings(stranger)
        shown = [show_proposal(kept, desk.asking(asks), utc_now()).missing for asks in (None, kept.head.asks)]
        assert shown == ["", "1 more person must sign"]
        assert what_next(stranger, kept.head.mandate, utc_now(), kept.head.asks) != "begin"


def test_one_that_nobody_who_counts_has_signed_waits(
    fleet: StandIns, settings: Settings, ann: SoftwareSecurityKey
) -> None:
    with hosting(settings) as host, ledger_of(settings) as ledger:
        rollout = proposed(host, fleet, settings)
        host.change_mandate(rollout, signing(SigningKey.generate()))
        other = proposed(host, fleet, settings)
        host.change_mandate(other, signing(ann))
        wait_ended(ledger, other)
        assert [each.rollout for each in host.proposals()] == [rollout]
        looked: list[tuple[int, int]] = []
        host.on_looked = lambda running, waiting: looked.append((running, waiting))
        wait_until(lambda: (0, 1) in looked, "one waits, and none runs")


def test_one_whose_time_lies_ahead_begins_then(fleet: StandIns, settings: Settings, ann: BodySigner) -> None:
    with hosting(settings) as host, ledger_of(settings) as ledger:
        decided: list[tuple[str, str]] = []
        host.on_decided = lambda row, what: decided.append((row.rollout, what))
        rollout = proposed(host, fleet, settings, not_before=timedelta(seconds=3))
        kept = host.change_mandate(rollout, signing(ann))
        assert kept.head.mandate is not None
        ended = wait_ended(ledger, rollout)
        assert ended.model.state == "succeeded"
        wait_until(lambda: decided == [(rollout, "begin")], "it is told that it began by itself")
        assert ledger.rollouts.contents(rollout).head.begun >= kept.head.mandate.message.not_before.timestamp()


def test_one_that_its_site_has_overtaken_does_not_begin_by_itself(
    fleet: StandIns, settings: Settings, ann: SoftwareSecurityKey
) -> None:
    with hosting(settings) as host, ledger_of(settings) as ledger:
        rollout = proposed(host, fleet, settings)
        plan = plan_of(fleet.nodes)
        host.start(planned_for(settings, fleet, plan), "ann")
        wait_ended(ledger, plan.rollout)
        host.change_mandate(rollout, signing(ann))
        why = f"was begun since {rollout} was proposed"
        wait_until(lambda: any(why in each for each in host.problems), "it says so")
        assert [each.rollout for each in host.proposals()] == [rollout]


def test_one_that_is_withdrawn_is_announced_and_gone(
    fleet: StandIns, settings: Settings, ann: SoftwareSecurityKey
) -> None:
    heard = Heard(fleet)
    with hosting(settings) as host:
        rollout = proposed(host, fleet, settings)
        host.withdraw(rollout)
        assert heard.wait(2).withdrawn
        with pytest.raises(UsageError, match="does not wait for people"):
            host.change_mandate(rollout, signing(ann))


# -- a database that is away -------------------------------------------------------------------------------------------


def test_while_the_database_is_away_nothing_is_sent_and_then_it_goes_on(fleet: StandIns) -> None:
    plan = plan_of(fleet.nodes, batch=ONE_BY_ONE, timeout=120.0)
    with running_postgres() as server, Hold(fleet, WEB1) as hold:
        settings = console_settings(fleet, emptied(server), lease=60)
        with hosting(settings) as host:
            host.start(planned_for(settings, fleet, plan), "ann")
            assert hold.reached.wait(60)
            asked = dict(fleet.nodes[WEB2].heard)
            with closed_to_all(server):
                hold.let_go()
                wait_until(lambda: "activate" in fleet.acted("web1"), "the first answers")
                wait_until(lambda: any("waits" in each for each in host.problems), "it says why it waits")
                assert dict(fleet.nodes[WEB2].heard) == asked, "what is not written was sent"
            with ledger_of(settings) as ledger:
                assert wait_ended(ledger, plan.rollout).model.state == "succeeded"
            wait_until(lambda: host.problems == (), "all is well again")
