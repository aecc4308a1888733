"""What settings and times a bus takes. All problems are reported at once, never with a secret in them."""

from __future__ import annotations

import math
from typing import Final

import attrs

from deploykit.bus.passcode import read_passcode
from deploykit.errors import SettingsError, UsageError
from deploykit.settings.bus import BusSettings

#: Seconds that are as good as for ever: no lock waits longer than 292 years.
FOREVER: Final = 1e9


def in_bounds(timeout: float) -> float:
    """Return a caller's timeout as every lock takes it: from 0 to `FOREVER` seconds, infinity included.

    Raises:
        UsageError: it is no number, and would never be over.
    """
    if math.isnan(timeout):
        raise UsageError("the timeout is not a number", "seconds, from 0")
    return min(max(timeout, 0.0), FOREVER)


def checked(settings: BusSettings | str, *, client_id: str) -> BusSettings:
    """Return the settings of a bus; refuse what makes no sense, before anything is connected.

    Args:
        settings: an address alone stands for `BusSettings(address=...)`.
        client_id: for `settings.client_id`, where that is empty.

    Raises:
        SettingsError: with all the problems in it; or the passcode file cannot be used.
    """
    if isinstance(settings, str):
        settings = BusSettings(address=settings)
    if client_id and not settings.client_id:
        settings = attrs.evolve(settings, client_id=client_id)
    problems = settings.problems()
    if problems:
        raise SettingsError("; ".join(problems), problems=problems)
    read_passcode(settings)
    return settings
