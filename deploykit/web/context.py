"""What every view of the console needs, in one value."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import attrs

from deploykit.messages import utc_now
from deploykit.settings.node import Settings
from deploykit.web.actions.ports import ConsoleActions
from deploykit.web.api.repeats import AnswerBook
from deploykit.web.live.events import EventRing
from deploykit.web.projection.queries import Queries
from deploykit.web.signing.desk import SigningDesk


@attrs.frozen(kw_only=True, slots=True)
class ConsoleContext:
    """What every view needs.

    Args:
        settings: of this machine.
        queries: what the bus has told.
        events: what changes now.
        now: the wall clock, aware UTC.
        actions: what can be done; None: this console only shows.
        signing: passkeys that sign; None: there are none.
        answers: to API calls with an Idempotency-Key; None: they are remembered as long as the process.
    """

    settings: Settings
    queries: Queries
    events: EventRing
    now: Callable[[], datetime] = utc_now
    actions: ConsoleActions | None = None
    signing: SigningDesk | None = None
    answers: AnswerBook | None = None
