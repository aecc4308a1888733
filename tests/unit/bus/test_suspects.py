"""Who made the broker hang up: the tables, and that the code follows them."""

from __future__ import annotations

import enum
import runpy
from collections.abc import Mapping
from pathlib import Path

import attrs
import pytest

from deploykit.bus.suspects import (
    BLAME,
    CONNECTION,
    DESTINATION,
    MESSAGE,
    OUTLIVED,
    SENDING,
    SHUT,
    SUBSCRIPTION,
    Blame,
    ConnectionState,
    DestinationState,
    Evidence,
    MessageState,
    MessageSuspects,
    SendingState,
    SubscriptionState,
    SubscriptionSuspects,
    is_suspect,
)

DOCS = Path(__file__).parents[3] / "docs"
TABLES: list[tuple[type[enum.Enum], Mapping[enum.Enum, Mapping[Evidence, enum.Enum]]]] = [
    (MessageState, MESSAGE),  # type: ignore[list-item]  # a mapping's key type is not covariant
    (DestinationState, DESTINATION),  # type: ignore[list-item]
    (SendingState, SENDING),  # type: ignore[list-item]
    (SubscriptionState, SUBSCRIPTION),  # type: ignore[list-item]
    (ConnectionState, CONNECTION),  # type: ignore[list-item]
]


@attrs.define(eq=False)
class Sent:
    """A message without a receipt, or a subscription."""

    seq: int = 1
    destination: str = "/queue/q"
    out: bool = True
    losses: int = 0
    last_error: str = ""


def suspects(state: SendingState) -> MessageSuspects:
    """In a state of sending, brought there by what leads to it."""
    way = {
        SendingState.FREELY: (),
        SendingState.FREELY_PROVED: (Evidence.ANSWERED,),
        SendingState.UNPROVED: (Evidence.SUSPICION,),
        SendingState.PROVING: (Evidence.SUSPICION, Evidence.ASKED),
        SendingState.ONE_BY_ONE: (Evidence.SUSPICION, Evidence.ANSWERED),
    }
    made = MessageSuspects()
    for evidence in way[state]:
        made.see(evidence)
    assert made.sending is state
    return made


# -- the tables --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("states", "table"), TABLES, ids=lambda value: getattr(value, "__name__", ""))
def test_every_state_is_in_its_table_and_can_be_reached(
    states: type[enum.Enum], table: Mapping[enum.Enum, Mapping[Evidence, enum.Enum]]
) -> None:
    assert set(table) == set(states)
    reached = {next(iter(states))}
    while more := {after for state in reached for after in table[state].values()} - reached:
        reached |= more
    assert reached == set(states)


def test_every_piece_of_evidence_is_in_a_table() -> None:
    assert {seen for _, table in TABLES for step in table.values() for seen in step} == set(Evidence)


def test_it_is_said_for_every_connection_whom_its_end_counts_against() -> None:
    assert set(BLAME) == set(ConnectionState)


def test_the_documentation_shows_the_tables_as_they_are() -> None:
    """`python docs/suspectstable.py` prints them."""
    markdown_tables = runpy.run_path(str(DOCS / "suspectstable.py"))["markdown_tables"]
    assert markdown_tables() in (DOCS / "bus.md").read_text(encoding="utf-8")


# -- messages ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [state for state in MessageState if state is not MessageState.GIVEN_UP])
def test_the_first_of_several_is_noted_as_the_table_says(state: MessageState) -> None:
    first, second = Sent(losses=state), Sent(seq=2)
    outcome = suspects(SendingState.FREELY).ended([first, second], 0.0, blame=True)
    assert first.losses == MESSAGE[state][Evidence.ENDED_FIRST]
    assert second.losses == 0
    assert outcome.given_up == ((first,) if first.losses == MessageState.GIVEN_UP else ())


@pytest.mark.parametrize("state", [state for state in MessageState if state is not MessageState.GIVEN_UP])
def test_the_only_one_is_noted_as_the_table_says(state: MessageState) -> None:
    only, waiting = Sent(losses=state), Sent(seq=2, out=False)
    outcome = suspects(SendingState.ONE_BY_ONE).ended([only, waiting], 0.0, blame=True)
    assert only.losses == MESSAGE[state][Evidence.ENDED_ALONE]
    assert outcome.given_up == ((only,) if only.losses == MessageState.GIVEN_UP else ())


def test_an_end_that_is_not_the_brokers_counts_against_no_message() -> None:
    only = Sent()
    suspects(SendingState.ONE_BY_ONE).ended([only], 0.0, blame=False)
    assert only.losses == 0


def test_what_was_not_under_way_is_not_blamed() -> None:
    waiting = Sent(out=False)
    suspects(SendingState.ONE_BY_ONE).ended([waiting], 0.0, blame=True)
    suspects(SendingState.FREELY).ended([], 0.0, blame=True)
    assert waiting.losses == 0


@pytest.mark.parametrize("state", SendingState)
@pytest.mark.parametrize("evidence", Evidence)
def test_sending_follows_its_table(state: SendingState, evidence: Evidence) -> None:
    made = suspects(state)
    made.see(evidence)
    assert made.sending is SENDING[state].get(evidence, state)
    assert made.careful is (made.sending not in (SendingState.FREELY, SendingState.FREELY_PROVED))
    assert made.proved is (made.sending in (SendingState.FREELY_PROVED, SendingState.ONE_BY_ONE))


@pytest.mark.parametrize("state", SendingState)
def test_proof_is_asked_for_once_a_connection(state: SendingState) -> None:
    made = suspects(state)
    assert made.needs_proof() is (state is SendingState.UNPROVED)
    assert not made.needs_proof()


def test_two_ends_make_a_suspect_and_it_is_sent_alone_until_it_is_gone() -> None:
    made, first, second, later = MessageSuspects(), Sent(), Sent(seq=2), Sent(seq=3, out=False)
    for _ in range(2):
        assert not made.careful
        made.ended([first, second], 0.0, blame=True)
    assert made.careful
    made.see(Evidence.ANSWERED)
    made.look(second, [second, later])
    assert made.careful, "it was under way when the connection ended, too"
    made.look(later, [later])
    assert not made.careful


def test_a_destination_is_shut_longer_each_time_and_open_again_with_a_receipt() -> None:
    made, now = suspects(SendingState.ONE_BY_ONE), 0.0
    closed: list[float] = []
    made.ended([Sent(losses=MessageState.SUSPECT_TWICE_ALONE)], now, blame=True)
    assert [blamed.state for blamed in made.blamed.values()] == [DestinationState.BLAMED]
    assert made.is_open("/queue/q", now), "one message does not shut it"
    for _ in range(10):
        made.see(Evidence.ANSWERED)
        first, same, other = Sent(), Sent(seq=2, out=False), Sent(seq=3, out=False, destination="/queue/other")
        outcome = made.ended([first, same, other], now, blame=True)
        assert (outcome.given_up, outcome.held) == ((first,), (same,))
        assert made.blamed["/queue/q"].state is DestinationState.SHUT
        assert not made.is_open("/queue/q", now)
        assert made.is_open("/queue/other", now)
        closed.append(made.blamed["/queue/q"].until - now)
        now += closed[-1]
    assert closed[:6] == [1, 2, 4, 8, 16, SHUT]
    assert closed[-1] == SHUT
    assert made.is_open("/queue/q", now)
    made.confirmed([Sent()])
    assert made.blamed == {}


@pytest.mark.parametrize("state", list(DestinationState))
def test_a_message_that_is_given_up_blames_its_destination(state: DestinationState) -> None:
    made = suspects(SendingState.ONE_BY_ONE)
    if state is not DestinationState.OPEN:
        made.ended([Sent(losses=MessageState.SUSPECT_TWICE_ALONE)], 0.0, blame=True)
        made.see(Evidence.ANSWERED)
    if state is DestinationState.SHUT:
        made.ended([Sent()], 0.0, blame=True)
    many = [Sent(losses=MessageState.SUSPECT_TWICE_ALONE), Sent(seq=2)]
    made.ended(many, 0.0, blame=True)
    assert made.blamed["/queue/q"].state is DESTINATION[state][Evidence.GAVE_UP]


# -- subscriptions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("losses", range(5))
def test_a_subscription_that_waits_is_noted_as_the_table_says(losses: int) -> None:
    made, waiting = SubscriptionSuspects[Sent](), Sent(losses=losses)
    made.asked("sub-1", waiting)
    made.ended(0.0, by_broker=True)
    state = SubscriptionState(min(losses, SubscriptionState.SUSPECT))
    assert min(waiting.losses, SubscriptionState.SUSPECT) == SUBSCRIPTION[state][Evidence.ENDED]
    assert is_suspect(waiting) is (losses >= 1)


def test_a_subscription_with_its_receipt_is_not_blamed() -> None:
    made, one, two = SubscriptionSuspects[Sent](), Sent(), Sent()
    made.asked("sub-1", one)
    made.asked("sub-2", two)
    assert made.confirmed("sub-1") is one
    assert (made.waits(one), made.waits(two)) == (False, True)
    assert (made.waits_for("sub-1"), made.waits_for("sub-2")) == (False, True)
    made.ended(0.0, by_broker=True)
    assert (one.losses, two.losses) == (0, 1)
    assert not made


def test_an_error_that_names_nothing_makes_the_connection_doubtful_for_a_while() -> None:
    made = SubscriptionSuspects[Sent]()
    assert made.unnamed_error(0.0, alone=True) is None
    assert made.state(0.0) is ConnectionState.SURE, "nothing waits that it could be about"
    made.asked("sub-1", Sent())
    made.asked("sub-2", Sent())
    assert made.unnamed_error(0.0, alone=True) is None
    assert made.state(0.0) is ConnectionState.DOUBTFUL
    assert made.unnamed_error(OUTLIVED / 2, alone=True) is None
    assert made.doubt(OUTLIVED / 2) == OUTLIVED / 2, "a second one makes it no longer"
    assert made.state(OUTLIVED) is ConnectionState.SURE
    made.unnamed_error(OUTLIVED, alone=True)
    made.begin()
    assert made.state(OUTLIVED) is ConnectionState.SURE


def test_the_only_one_that_waits_is_accused_and_blamed_although_it_waits_no_more() -> None:
    made, only = SubscriptionSuspects[Sent](), Sent()
    made.asked("sub-1", only)
    assert made.unnamed_error(0.0, alone=False) is None, "it may be about a message"
    assert made.unnamed_error(0.0, alone=True) is only
    assert not made.waits(only)
    assert made.ended(0.1, by_broker=True) is Blame.SUBSCRIPTIONS
    assert only.losses == 1


@pytest.mark.parametrize(
    ("by_broker", "waits", "error", "blame"),
    [
        (False, True, True, Blame.NOBODY),
        (True, True, False, BLAME[ConnectionState.SURE]),
        (True, True, True, BLAME[ConnectionState.DOUBTFUL]),
        (True, False, True, Blame.MESSAGE_AND_SUBSCRIPTIONS),
    ],
)
def test_an_end_counts_against_those_whom_the_table_names(
    by_broker: bool, waits: bool, error: bool, blame: Blame
) -> None:
    made = SubscriptionSuspects[Sent]()
    if waits:
        made.asked("sub-1", Sent())
    if error:
        made.unnamed_error(0.0, alone=False)
    assert made.ended(0.5, by_broker=by_broker) is blame
