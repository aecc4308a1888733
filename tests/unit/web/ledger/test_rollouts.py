"""Rollouts in the ledger: one of a site, proposals, leases, journals of whoever has the newest lease."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import attrs
import pytest
from sqlalchemy import update
from sqlalchemy.exc import OperationalError

from deploykit.errors import JournalDamaged, LedgerError, PolicyRefused, RolloutBusy, UsageError
from deploykit.fleet.controls import ControlRequest
from deploykit.fleet.journal import DoubtRecord, EndRecord, EventRecord, JournalRecord
from deploykit.fleet.journalhead import JournalHead
from deploykit.fleet.mandates import HeldMandate, approval_of
from deploykit.fleet.rolloutevents import TimePassed
from deploykit.messages import utc_now
from deploykit.names import NodeName
from deploykit.settings.web import WebSettings
from deploykit.web.ledger.database import LedgerDatabase
from deploykit.web.ledger.ledger import Ledger
from deploykit.web.ledger.tables import RECORDS, ROLLOUTS
from deploykit.wire import encode
from tests.support.ledgerchecks import LedgerClock
from tests.support.rolling import NOON, plan_of


@pytest.fixture
def clock() -> LedgerClock:
    return LedgerClock()


@pytest.fixture
def ledger(tmp_path: Path, clock: LedgerClock) -> Iterator[Ledger]:
    made = Ledger.open(WebSettings(), tmp_path, clock=clock)
    yield made
    made.close()


def head_of(rollout: str = "r1") -> JournalHead:
    return JournalHead(plan=attrs.evolve(plan_of(2), rollout=rollout), begun=NOON)


def proposal_of(rollout: str = "r1") -> JournalHead:
    head, now = head_of(rollout), utc_now()
    approved = approval_of(head.plan, now=now, not_before=now, not_after=now.replace(year=now.year + 1), source="x")
    return attrs.evolve(head, mandate=HeldMandate.of_frame(encode(approved)))


def never(error: LedgerError, failures: int) -> None:
    raise error


EVENT = EventRecord(at=NOON + 1, event=TimePassed())
DOUBT = DoubtRecord(node=NodeName("n1"), reason="no")
END = EndRecord(state="succeeded", at=NOON + 2, exit_code=0, counts={"active": 2})


def records(ledger: Ledger, rollout: str = "r1") -> tuple[JournalRecord, ...]:
    return ledger.rollouts.contents(rollout).records


# -- one rollout of a site ---------------------------------------------------------------------------------------------


def test_a_second_rollout_of_a_site_is_refused_and_the_first_is_named(ledger: Ledger) -> None:
    lease = ledger.rollouts.start(head_of(), "ann", "here", 10)
    with pytest.raises(RolloutBusy, match="rollout r1 of shop runs, begun by ann"):
        ledger.rollouts.start(head_of("r2"), "bob", "there", 10)
    assert ledger.rollouts.find("r2") is None
    ledger.journal(lease, never).append([END])
    ledger.rollouts.start(head_of("r2"), "bob", "there", 10)
    assert (running := ledger.rollouts.running("shop")) is not None
    assert running.rollout == "r2"


def test_of_two_that_begin_at_once_one_gets_it(ledger: Ledger) -> None:
    came: list[str] = []
    ready = threading.Barrier(4)

    def begin(at: int) -> None:
        ready.wait(10)
        try:
            ledger.rollouts.start(head_of(f"r{at}"), "ann", f"c{at}", 10)
            came.append("begun")
        except RolloutBusy:
            came.append("busy")

    threads = [threading.Thread(target=begin, args=(at,)) for at in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(came) == ["begun", "busy", "busy", "busy"]


# -- proposals ---------------------------------------------------------------------------------------------------------


def test_a_proposal_is_signed_and_begun_once(ledger: Ledger, clock: LedgerClock) -> None:
    ledger.rollouts.propose(proposal_of(), "ann")
    clock.pass_by(60)
    changed = ledger.rollouts.change_mandate("r1", lambda mandate: mandate)
    assert changed.head().mandate == proposal_of_kept(ledger)
    lease = ledger.rollouts.begin(changed.head(), "here", 10, was=changed.raw_head)
    assert lease is not None
    assert lease.epoch == 1
    kept = ledger.rollouts.find("r1")
    assert kept is not None
    assert (kept.state, kept.begun, kept.led) == ("running", clock.at, True)
    for too_late in (
        lambda: ledger.rollouts.begin(changed.head(), "there", 10, was=changed.raw_head),
        lambda: ledger.rollouts.change_mandate("r1", lambda mandate: mandate),
        lambda: ledger.rollouts.withdraw("r1"),
    ):
        with pytest.raises(UsageError, match="does not wait for people"):
            too_late()


def proposal_of_kept(ledger: Ledger) -> HeldMandate | None:
    kept = ledger.rollouts.find("r1")
    assert kept is not None
    return kept.head().mandate


def test_two_who_sign_at_once_lose_no_signature(ledger: Ledger) -> None:
    ledger.rollouts.propose(proposal_of(), "ann")

    def noted(word: str) -> None:
        def change(mandate: HeldMandate) -> HeldMandate:
            headers = {**mandate.frame.headers, f"x-{word}": "1"}
            return HeldMandate(message=mandate.message, frame=attrs.evolve(mandate.frame, headers=headers))

        ledger.rollouts.change_mandate("r1", change)

    threads = [threading.Thread(target=noted, args=(f"{at}",)) for at in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    mandate = proposal_of_kept(ledger)
    assert mandate is not None
    assert {name for name in mandate.frame.headers if name.startswith("x-")} == {f"x-{at}" for at in range(8)}


def test_what_is_signed_while_it_begins_is_not_lost(ledger: Ledger) -> None:
    ledger.rollouts.propose(proposal_of(), "ann")
    assert (judged := ledger.rollouts.find("r1")) is not None

    def signed(mandate: HeldMandate) -> HeldMandate:
        headers = {**mandate.frame.headers, "x-bob": "1"}
        return HeldMandate(message=mandate.message, frame=attrs.evolve(mandate.frame, headers=headers))

    ledger.rollouts.change_mandate("r1", signed)
    assert ledger.rollouts.begin(judged.head(), "here", 10, was=judged.raw_head) is None
    assert (kept := ledger.rollouts.find("r1")) is not None
    assert kept.state == "proposed"
    assert ledger.rollouts.begin(kept.head(), "here", 10, was=kept.raw_head) is not None
    mandate = proposal_of_kept(ledger)
    assert mandate is not None
    assert "x-bob" in mandate.frame.headers


def test_what_lies_outside_of_its_mandate_is_never_kept(ledger: Ledger) -> None:
    wrong = attrs.evolve(proposal_of(), plan=attrs.evolve(plan_of(2), rollout="r2"))
    with pytest.raises(PolicyRefused, match="lies outside of its mandate"):
        ledger.rollouts.propose(wrong, "ann")
    ledger.rollouts.propose(proposal_of("r2"), "ann")
    with pytest.raises(PolicyRefused, match="lies outside of its mandate"):
        ledger.rollouts.begin(attrs.evolve(proposal_of("r1"), plan=wrong.plan), "here", 10, was="")


def test_a_proposal_that_was_withdrawn_is_over(ledger: Ledger) -> None:
    ledger.rollouts.propose(proposal_of(), "ann")
    ledger.rollouts.withdraw("r1")
    assert ledger.rollouts.list(states=("proposed",)) == ()
    with pytest.raises(UsageError):
        ledger.rollouts.begin(proposal_of(), "here", 10, was="")


# -- leases ------------------------------------------------------------------------------------------------------------


def test_a_lease_that_is_over_is_taken_by_one_and_the_other_writes_nothing_more(
    ledger: Ledger, clock: LedgerClock
) -> None:
    first = ledger.rollouts.start(head_of(), "ann", "one", 10)
    journal = ledger.journal(first, never)
    journal.append([EVENT, DOUBT])
    clock.pass_by(9)
    assert ledger.leases.renew([first], 10) == frozenset()
    clock.pass_by(9)
    assert ledger.leases.take_over("two", 10) == ()
    clock.pass_by(1)
    (second,) = ledger.leases.take_over("two", 10)
    assert (second.owner, second.epoch) == ("two", 2)
    assert ledger.leases.take_over("three", 10) == ()
    with pytest.raises(RolloutBusy, match="another console coordinates rollout r1 now"):
        journal.append([EVENT, DOUBT])
    with pytest.raises(RolloutBusy):
        ledger.rollouts.abandon(first)
    ledger.leases.release(first)
    assert ledger.leases.renew([first, second], 10) == {"r1"}
    assert ledger.leases.of("two") == (second,)
    assert len(records(ledger)) == 2


def test_an_owner_that_takes_it_back_is_no_owner_of_before(ledger: Ledger, clock: LedgerClock) -> None:
    first = ledger.rollouts.start(head_of(), "one", "one", 10)
    clock.pass_by(11)
    ledger.leases.take_over("two", 10)
    clock.pass_by(11)
    (third,) = ledger.leases.take_over("one", 10)
    with pytest.raises(RolloutBusy):
        ledger.journal(first, never).append([EVENT])
    ledger.journal(third, never).append([EVENT])


def test_one_that_is_known_to_be_gone_or_gave_it_back_is_not_waited_for(ledger: Ledger) -> None:
    lease = ledger.rollouts.start(head_of(), "ann", "one", 1000)
    assert ledger.leases.take_over("two", 10) == ()
    (taken,) = ledger.leases.take_over("two", 10, gone={"one", "another"})
    ledger.leases.release(lease)
    assert ledger.leases.take_over("three", 10) == (), "what was released is not the lease any more"
    ledger.leases.release(taken)
    assert [each.owner for each in ledger.leases.take_over("three", 10)] == ["three"]


def test_a_clock_that_was_set_back_for_days_does_not_keep_a_rollout_from_going_on(
    ledger: Ledger, clock: LedgerClock
) -> None:
    ledger.rollouts.start(head_of(), "ann", "one", 10)
    clock.pass_by(-30 * 86400)
    assert [each.owner for each in ledger.leases.take_over("two", 10)] == ["two"]


# -- the journal -------------------------------------------------------------------------------------------------------


def test_records_come_back_in_their_order_and_the_end_frees_the_site(ledger: Ledger) -> None:
    lease = ledger.rollouts.start(head_of(), "ann", "one", 10)
    ledger.requests.ask("r1", ControlRequest(kind="pause", by="bob"))
    journal = ledger.journal(lease, never)
    journal.append([EVENT])
    journal.append([DOUBT], durable=False)
    assert records(ledger) == (EVENT,)
    (asked,) = journal.requests()
    assert (asked.kind, asked.by) == ("pause", "bob")
    assert records(ledger) == (EVENT, DOUBT), "what need not be durable is written with the next look"
    journal.append([EVENT, END])
    assert records(ledger) == (EVENT, DOUBT, EVENT, END)
    kept = ledger.rollouts.find("r1")
    assert kept is not None
    assert (kept.state, kept.led, ledger.rollouts.running("shop")) == ("ended", False, None)
    assert ledger.requests.waiting("r1") == ()
    with pytest.raises(UsageError, match="does not run"):
        ledger.requests.ask("r1", ControlRequest(kind="pause", by="bob"))


def test_a_request_is_handed_out_until_it_is_settled(ledger: Ledger) -> None:
    lease = ledger.rollouts.start(head_of(), "ann", "one", 10)
    journal = ledger.journal(lease, never)
    assert journal.requests() == ()
    named = ledger.requests.ask("r1", ControlRequest(kind="abort", by="bob", rollback=True))
    assert journal.requests() == (), "not looked at yet"
    journal.look()
    assert list(journal.requests()) == [named]
    journal.look()
    assert list(journal.requests()) == [named]
    journal.settle(named)
    journal.look()
    assert journal.requests() == ()


class Faults:
    """Lets writes to a ledger fail, `before` they are made or `after` they were, as often as is asked."""

    def __init__(self) -> None:
        self.before = self.after = 0

    @contextmanager
    def of(self, database: LedgerDatabase) -> Iterator[None]:
        writing = database.writing

        @contextmanager
        def faulty() -> Iterator[object]:
            if self.before:
                self.before -= 1
                raise _away()
            with writing() as connection:
                yield connection
            if self.after:
                self.after -= 1
                raise _away()

        with patch.object(database, "writing", faulty):
            yield


def _away() -> LedgerError:
    error = LedgerError("the server closed the connection")
    error.__cause__ = OperationalError("COMMIT", {}, Exception("the server closed the connection"))
    return error


@pytest.mark.parametrize(("before", "after"), [(3, 0), (0, 1), (2, 1)])
def test_a_database_that_is_away_is_waited_for_and_nothing_is_written_twice(
    ledger: Ledger, before: int, after: int
) -> None:
    lease = ledger.rollouts.start(head_of(), "ann", "one", 10)
    waited: list[int] = []
    journal = ledger.journal(lease, lambda error, failures: waited.append(failures))
    faults = Faults()
    with faults.of(ledger._database):
        faults.before, faults.after = before, after
        journal.append([EVENT, DOUBT])
        faults.before, faults.after = before, after
        journal.append([EVENT, END])
    assert waited == [*range(1, before + after + 1)] * 2
    assert records(ledger) == (EVENT, DOUBT, EVENT, END)


def test_to_be_left_while_the_database_is_away_raises_and_nothing_is_written(ledger: Ledger) -> None:
    lease = ledger.rollouts.start(head_of(), "ann", "one", 10)
    journal = ledger.journal(lease, never)
    faults = Faults()
    faults.before = 1
    with faults.of(ledger._database), pytest.raises(LedgerError, match="closed the connection"):
        journal.append([EVENT])
    assert records(ledger) == ()


def test_what_another_has_written_in_our_place_stops_us(ledger: Ledger) -> None:
    lease = ledger.rollouts.start(head_of(), "ann", "one", 10)
    journal = ledger.journal(lease, never)
    ledger.journal(lease, never).append([DOUBT])
    with pytest.raises(JournalDamaged, match="was written by another"):
        journal.append([EVENT])


# -- half begun, damaged, old ------------------------------------------------------------------------------------------


def test_a_beginning_without_a_record_is_undone(ledger: Ledger) -> None:
    lease = ledger.rollouts.start(head_of(), "ann", "one", 10)
    assert ledger.rollouts.undo(lease)
    assert (kept := ledger.rollouts.find("r1")) is not None
    assert kept.state == "withdrawn"
    ledger.rollouts.propose(proposal_of("r2"), "ann")
    waits = ledger.rollouts.find("r2")
    assert waits is not None
    begun = ledger.rollouts.begin(proposal_of("r2"), "one", 10, was=waits.raw_head)
    assert begun is not None
    assert ledger.rollouts.undo(begun)
    assert [each.rollout for each in ledger.rollouts.list(states=("proposed",))] == ["r2"], "people signed it"
    lease = ledger.rollouts.start(head_of("r3"), "ann", "one", 10)
    ledger.journal(lease, never).append([EVENT])
    assert not ledger.rollouts.undo(lease)


def test_a_damaged_record_is_named_and_the_site_can_be_freed(ledger: Ledger) -> None:
    lease = ledger.rollouts.start(head_of(), "ann", "one", 10)
    ledger.journal(lease, never).append([EVENT, DOUBT])
    with ledger._database.writing() as connection:
        connection.execute(update(RECORDS).where(RECORDS.c.number == 1).values(record='{"what": 1}'))
    with pytest.raises(JournalDamaged, match="record 1 of rollout r1 in the console's ledger is damaged"):
        ledger.rollouts.contents("r1")
    ledger.rollouts.abandon(lease)
    assert ledger.rollouts.running("shop") is None


def test_a_missing_record_and_a_damaged_head_are_errors(ledger: Ledger) -> None:
    lease = ledger.rollouts.start(head_of(), "ann", "one", 10)
    ledger.journal(lease, never).append([EVENT, DOUBT])
    with ledger._database.writing() as connection:
        connection.execute(update(RECORDS).where(RECORDS.c.number == 0).values(number=7))
    with pytest.raises(JournalDamaged, match="record 0 is missing"):
        ledger.rollouts.contents("r1")
    with ledger._database.writing() as connection:
        connection.execute(update(ROLLOUTS).values(head="{}"))
    with pytest.raises(JournalDamaged, match="the plan of rollout r1"):
        ledger.rollouts.contents("r1")


def test_old_rollouts_go_with_their_records_and_one_that_runs_stays(ledger: Ledger, clock: LedgerClock) -> None:
    ledger.journal(ledger.rollouts.start(head_of(), "ann", "one", 10), never).append([EVENT, END])
    ledger.rollouts.start(head_of("r2"), "ann", "one", 10)
    ledger.rollouts.propose(proposal_of("r3"), "ann")
    clock.pass_by(100)
    assert ledger.rollouts.prune(200) == 0
    assert ledger.rollouts.prune(50) == 2
    assert [each.rollout for each in ledger.rollouts.list()] == ["r2"]
    with pytest.raises(UsageError):
        ledger.rollouts.contents("r1")


def test_a_list_is_newest_first_and_of_what_is_asked_for(ledger: Ledger, clock: LedgerClock) -> None:
    for at in range(3):
        clock.pass_by(1)
        ledger.rollouts.propose(proposal_of(f"r{at}"), "ann")
    assert [each.rollout for each in ledger.rollouts.list()] == ["r2", "r1", "r0"]
    assert [each.rollout for each in ledger.rollouts.list(since=clock.at - 1)] == ["r2"]
    assert ledger.rollouts.list(site="blog") == ()
    assert len(ledger.rollouts.list(limit=2)) == 2
