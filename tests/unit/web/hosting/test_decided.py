"""What a console does with proposals by itself stands in its audit, as what people do."""

from __future__ import annotations

import pytest

from deploykit.web.actionparts import _note_decided
from deploykit.web.actions.auditing import ActionAudit
from deploykit.web.ledger.rollouts import LedgerRollout
from deploykit.web.projection.activityviews import AuditView


@pytest.mark.parametrize(("what", "action"), [("begin", "deploy"), ("withdraw", "withdraw")])
def test_what_began_by_itself_is_in_the_audit(what: str, action: str) -> None:
    row = LedgerRollout(
        rollout="r1",
        site="shop",
        state="proposed",
        requested_by="ann",
        begun=0.0,
        ended=None,
        owner="",
        led=False,
        raw_head="{}",
    )
    lines: list[AuditView] = []
    _note_decided(ActionAudit(lines.append), row, what)
    [line] = lines
    assert (line.action, line.decision, line.who, line.site, line.rollout) == (action, "done", "ann", "shop", "r1")
    assert "by the console" in line.detail
