"""When a proposal is looked at again, and what is announced of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from deploykit.fleet.mandates import HeldMandate
from deploykit.trust.signature import add_signature
from deploykit.web.hosting.proposing import ProposalClock, what_next
from deploykit.web.ledger.rollouts import ProposalMark
from tests.support.approving import ApprovalWorld

_NOW = datetime(2026, 1, 1, tzinfo=UTC)
_ONE, _TWO = ProposalMark(rollout="r1", length=10), ProposalMark(rollout="r2", length=10)


def test_a_proposal_is_looked_at_when_it_is_new_or_changed_and_when_its_time_comes() -> None:
    clock = ProposalClock()
    assert list(clock.due([_ONE, _TWO], _NOW)) == [_ONE, _TWO]
    clock.again(_ONE, _NOW + timedelta(hours=1))
    clock.again(_TWO, _NOW + timedelta(days=900))
    assert list(clock.due([_ONE, _TWO], _NOW + timedelta(minutes=59))) == []
    assert list(clock.due([_ONE, _TWO], _NOW + timedelta(hours=1))) == [_ONE]
    signed = ProposalMark(rollout="r2", length=900)
    assert list(clock.due([_ONE, signed], _NOW)) == [signed]


def test_one_that_went_and_came_back_is_looked_at_anew() -> None:
    clock = ProposalClock()
    clock.again(_ONE, _NOW + timedelta(days=900))
    assert list(clock.due([_TWO], _NOW)) == [_TWO]
    assert list(clock.due([_ONE], _NOW)) == [_ONE]


def test_a_proposal_is_withdrawn_a_day_after_its_mandate_is_over(tmp_path: Path) -> None:
    world = ApprovalWorld(tmp_path, site="signatures = 1")
    unsigned = world.mandate()
    signed = HeldMandate(message=unsigned.message, frame=add_signature(unsigned.frame, world.keys["ann"]))
    over = unsigned.message.not_after
    assert what_next(world.settings, signed, over) == "begin"
    for mandate in (unsigned, signed):
        again = what_next(world.settings, mandate, over + timedelta(seconds=1))
        assert isinstance(again, datetime)
        assert what_next(world.settings, mandate, again) == "withdraw"
    assert what_next(world.settings, unsigned, over - timedelta(seconds=1)) == again, "a signature is looked at at once"
