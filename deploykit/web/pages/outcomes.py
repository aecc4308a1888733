"""What came of an action, for the page that is shown after it: kept for minutes, under an id that nobody can guess.

A page that is loaded again shows it again. Another console does not know it: there the page shows only what is now.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from starlette.requests import Request

from deploykit.web.actions.shown import ActionOutcome
from deploykit.web.requests import viewer_of

#: How many are kept, and for how many seconds.
_MOST: Final = 1000
_SECONDS: Final = 600.0
#: The field of an address that names one.
DONE: Final = "done"


class KeptOutcomes:
    """Outcomes by id, each for the viewer whose it is. Use it from any thread.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, tuple[float, str, ActionOutcome]] = OrderedDict()

    def keep(self, viewer: str, outcome: ActionOutcome) -> str:
        """Return the id under which an outcome is kept."""
        id_ = secrets.token_urlsafe(12)
        with self._lock:
            self._kept[id_] = (self._clock(), viewer, outcome)
            while len(self._kept) > _MOST:
                self._kept.popitem(last=False)
        return id_

    def find(self, viewer: str, id_: str) -> ActionOutcome | None:
        """Return the outcome of an id; None where it is unknown, too old, or somebody else's."""
        with self._lock:
            kept, whose, outcome = self._kept.get(id_, (0.0, "", None))
        return outcome if outcome is not None and whose == viewer and self._clock() < kept + _SECONDS else None


#: Of this process.
OUTCOMES: Final = KeptOutcomes()


def outcome_of(request: Request) -> ActionOutcome | None:
    """Return what came of the action after which a page is shown; None where it is not shown after one."""
    id_ = request.query_params.get(DONE, "")
    return OUTCOMES.find(viewer_of(request).name, id_) if id_ else None


__all__ = ["DONE", "OUTCOMES", "KeptOutcomes", "outcome_of"]
