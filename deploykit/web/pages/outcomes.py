"""What came of an action, for the page that is shown after it: kept for minutes, under an id that nobody can guess.

A page that is loaded again shows it again. Another console does not know it: there the page shows only what is now.
"""

from __future__ import annotations

from typing import Final

from starlette.requests import Request

from deploykit.web.actions.shown import ActionOutcome
from deploykit.web.pages.keptbriefly import BriefStore
from deploykit.web.requests import viewer_of

#: The field of an address that names one.
DONE: Final = "done"
#: Of this process, by the viewer's name.
OUTCOMES: Final = BriefStore[ActionOutcome](600.0)


def outcome_of(request: Request) -> ActionOutcome | None:
    """Return what came of the action after which a page is shown; None where it is not shown after one."""
    id_ = request.query_params.get(DONE, "")
    return OUTCOMES.find(viewer_of(request).name, id_) if id_ else None


__all__ = ["DONE", "OUTCOMES", "outcome_of"]
