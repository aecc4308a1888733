"""Rollouts of a console: killed, restarted, taken over by another console, on SQLite and on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.fleet.journal import CommandRecord
from deploykit.settings import Settings
from deploykit.web.ledger.ledger import Ledger
from deploykit.web.ledger.rollouts import LedgerRollout
from tests.support.chance import dice
from tests.support.hosting import HostProcess, console_settings, emptied, ledger_of, wait_ended
from tests.support.killsweep import sample_size
from tests.support.postgres import running_postgres
from tests.support.rollouts import ONE_BY_ONE, plan_of
from tests.support.standins import StandIns, names
from tests.support.wait import wait_until


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The URL of a running PostgreSQL."""
    with running_postgres() as url:
        yield url


@pytest.fixture
def fleet(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> Iterator[StandIns]:
    """Three nodes."""
    with StandIns(tmp_path, deploykit_broker.address, names(3)) as made:
        yield made


@pytest.fixture(params=["sqlite", "postgresql"])
def settings(request: pytest.FixtureRequest, fleet: StandIns) -> Settings:
    """A console with an empty ledger."""
    database = "" if request.param == "sqlite" else emptied(request.getfixturevalue("server"))
    return console_settings(fleet, database)


def check_books(fleet: StandIns, ledger: Ledger, rollout: str) -> None:
    """Every node acted once on each phase, all copies of a command were the same, and the journal holds all of them."""
    sent = {
        record.command.request.id
        for record in ledger.rollouts.contents(rollout).records
        if isinstance(record, CommandRecord)
    }
    for node, stand in fleet.nodes.items():
        phases = [phase for _, phase in stand.acted]
        assert len(phases) == len(set(phases)), f"{node} acted twice: {stand.acted}"
        assert all(len(bodies) == 1 for bodies in stand.bodies.values()), "the same command with other bytes"
        assert set(stand.heard) <= sent, "a command was sent that the ledger does not hold"


def held_at(fleet: StandIns, node: str) -> None:
    """Let a node be silent at first, so that the rollout stands in the middle."""
    fleet.nodes[names(3)[int(node[-1]) - 1]].behaves["activate"] = "silent"


def led(ledger: Ledger, rollout: str) -> LedgerRollout | None:
    """A rollout, while somebody's lease of it holds."""
    kept = ledger.rollouts.find(rollout)
    return kept if kept is not None and kept.led else None


def test_killed_in_the_middle_the_next_process_goes_on_at_once(
    fleet: StandIns, settings: Settings, tmp_path: Path
) -> None:
    held_at(fleet, "web2")
    plan = plan_of(fleet.nodes, batch=ONE_BY_ONE)
    with HostProcess(settings, tmp_path, "one", plan=plan, locks=tmp_path / "locks") as one:
        wait_until(lambda: fleet.acted("web1"), "the first node")
        wait_until(lambda: len(fleet.nodes[names(2)[1]].heard) > 1, "the second is asked")
        one.kill()
        fleet.nodes[names(2)[1]].behaves.clear()
        long = console_settings(fleet, settings.web.database, lease=600)  # nobody waits for the lease of the dead
        with HostProcess(long, tmp_path, "two", locks=tmp_path / "locks"), ledger_of(settings) as ledger:
            assert wait_ended(ledger, plan.rollout).model.state == "succeeded"
            check_books(fleet, ledger, plan.rollout)


def test_killed_in_the_middle_another_console_takes_over(fleet: StandIns, settings: Settings, tmp_path: Path) -> None:
    held_at(fleet, "web2")
    plan = plan_of(fleet.nodes, batch=ONE_BY_ONE)
    with HostProcess(settings, tmp_path, "one", plan=plan) as one, ledger_of(settings) as ledger:
        wait_until(lambda: len(fleet.nodes[names(2)[1]].heard) > 1, "the second is asked")
        # Before there is another: a busy machine may make it lose its lease.
        before = wait_until(partial(led, ledger, plan.rollout), "it is coordinated", every=0.05)
        assert before is not None
        with HostProcess(settings, tmp_path, "two"):
            one.kill()
            fleet.nodes[names(2)[1]].behaves.clear()
            assert wait_ended(ledger, plan.rollout).model.state == "succeeded"
        check_books(fleet, ledger, plan.rollout)
        assert (after := ledger.rollouts.find(plan.rollout)) is not None
        assert after.owner != before.owner


def test_left_at_its_end_the_other_console_goes_on_without_waiting(
    fleet: StandIns, settings: Settings, tmp_path: Path
) -> None:
    held_at(fleet, "web2")
    plan = plan_of(fleet.nodes, batch=ONE_BY_ONE)
    long = console_settings(fleet, settings.web.database, lease=600)
    with HostProcess(long, tmp_path, "one", plan=plan) as one, ledger_of(settings) as ledger:
        wait_until(lambda: len(fleet.nodes[names(2)[1]].heard) > 1, "the second is asked")
        one.leave()
        fleet.nodes[names(2)[1]].behaves.clear()
        with HostProcess(long, tmp_path, "two"):
            assert wait_ended(ledger, plan.rollout).model.state == "succeeded"
            check_books(fleet, ledger, plan.rollout)


def test_one_that_was_stopped_and_goes_on_sends_nothing_new(
    fleet: StandIns, settings: Settings, tmp_path: Path
) -> None:
    held_at(fleet, "web2")
    plan = plan_of(fleet.nodes, batch=ONE_BY_ONE)
    with HostProcess(settings, tmp_path, "one", plan=plan) as one, ledger_of(settings) as ledger:
        wait_until(lambda: len(fleet.nodes[names(2)[1]].heard) > 1, "the second is asked")
        # Before there is another: a busy machine may make it lose its lease.
        first = wait_until(partial(led, ledger, plan.rollout), "it is coordinated", every=0.05)

        def taken() -> bool:
            kept = ledger.rollouts.find(plan.rollout)
            return kept is not None and first is not None and kept.owner not in ("", first.owner)

        with HostProcess(settings, tmp_path, "two"):
            one.stop()
            wait_until(taken, "taken over", every=0.05)
            one.go_on()  # both hear the answers from now on
            fleet.nodes[names(2)[1]].behaves.clear()
            assert wait_ended(ledger, plan.rollout).model.state == "succeeded"
            wait_until(
                lambda: b"is lost, or it has ended" in one.log.read_bytes() or b"coordinates" in one.log.read_bytes()
            )
        check_books(fleet, ledger, plan.rollout)


_POINTS = [(when, number) for number in range(1, 12) for when in ("before", "after")]
_SAMPLE = sample_size(4)


@pytest.mark.parametrize("behaves", [{}, {"web2": {"activate": "failure"}}], ids=["success", "goes-back"])
def test_killed_at_any_write_the_next_one_ends_as_it_would_have(
    fleet: StandIns, settings: Settings, tmp_path: Path, behaves: dict[str, dict[str, str]]
) -> None:
    chosen = dice().sample(_POINTS, len(_POINTS) if _SAMPLE is None else min(1, _SAMPLE))
    for at, (when, number) in enumerate(chosen):
        fleet.reset(behaves)
        plan = plan_of(fleet.nodes, batch=ONE_BY_ONE, on_failure="rollback")
        locks = tmp_path / "locks"
        with (
            HostProcess(settings, tmp_path, f"a{at}", plan=plan, locks=locks, when=when, number=number) as one,
            ledger_of(settings) as ledger,
        ):
            over = partial(killed_or_ended, one, ledger, plan.rollout)
            wait_until(over, f"killed {when} {number}", every=0.05)
            with HostProcess(settings, tmp_path, f"b{at}", locks=locks):
                replayed = wait_ended(ledger, plan.rollout)
            assert replayed.model.state == ("rolled-back" if behaves else "succeeded"), (when, number)
            assert replayed.end is not None
            check_books(fleet, ledger, plan.rollout)


def killed_or_ended(process: HostProcess, ledger: Ledger, rollout: str) -> bool:
    kept = ledger.rollouts.find(rollout)
    return process.process.poll() is not None or (kept is not None and kept.state == "ended")
