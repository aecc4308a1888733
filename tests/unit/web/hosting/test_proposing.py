"""When a proposal is looked at again, and what is announced of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from deploykit.web.hosting.proposing import ProposalClock
from deploykit.web.ledger.rollouts import ProposalMark

_NOW = datetime(2026, 1, 1, tzinfo=UTC)
_ONE, _TWO = ProposalMark(rollout="r1", length=10), ProposalMark(rollout="r2", length=10)


def test_a_proposal_is_looked_at_when_it_is_new_or_changed_and_when_its_time_comes() -> None:
    clock = ProposalClock()
    assert list(clock.due([_ONE, _TWO], _NOW)) == [_ONE, _TWO]
    clock.again(_ONE, _NOW + timedelta(hours=1))
    clock.not_again(_TWO, _NOW)
    assert list(clock.due([_ONE, _TWO], _NOW + timedelta(minutes=59))) == []
    assert list(clock.due([_ONE, _TWO], _NOW + timedelta(hours=1))) == [_ONE]
    signed = ProposalMark(rollout="r2", length=900)
    assert list(clock.due([_ONE, signed], _NOW)) == [signed]


def test_one_that_went_and_came_back_is_looked_at_anew() -> None:
    clock = ProposalClock()
    clock.not_again(_ONE, _NOW)
    assert list(clock.due([_TWO], _NOW)) == [_TWO]
    assert list(clock.due([_ONE], _NOW)) == [_ONE]
