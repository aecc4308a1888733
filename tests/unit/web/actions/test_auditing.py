"""What the audit of actions has, where many refusals come at once and where it cannot be written for a while."""

from __future__ import annotations

from deploykit.errors import ProjectionError
from deploykit.web.actions.auditing import ActionAudit
from deploykit.web.login.auditnotes import NOTES
from deploykit.web.projection.activityviews import AuditView
from deploykit.web.viewer import Viewer

ANN, EVE = Viewer(name="ann"), Viewer(name="eve")


def test_many_refusals_of_one_person_hide_none_of_another() -> None:
    lines: list[AuditView] = []
    now = 0.0
    audit = ActionAudit(lines.append, clock=lambda: now)
    for _ in range(NOTES.burst + 7):
        audit.refused(EVE, "deploy", "no")
    audit.refused(ANN, "abort", "no")
    assert [line.who for line in lines] == ["eve"] * NOTES.burst + ["ann"]
    assert "more refusals" not in lines[-1].detail
    now = NOTES.seconds
    audit.refused(EVE, "deploy", "no")
    assert lines[-1].detail == "no (and 7 more refusals)"


def test_what_could_not_be_written_is_written_later_in_its_order() -> None:
    lines: list[AuditView] = []
    away = True

    def note(line: AuditView) -> None:
        if away:
            raise ProjectionError("the database is away")
        lines.append(line)

    audit = ActionAudit(note)
    audit.done(ANN, "lock", "locked", site="shop")
    audit.refused(EVE, "deploy", "no")
    assert lines == []
    away = False
    audit.done(ANN, "unlock", "unlocked")
    assert [line.action for line in lines] == ["lock", "deploy", "unlock"]
    assert len({line.id for line in lines}) == 3
    audit.done(ANN, "abort", "asked")
    assert len(lines) == 4
