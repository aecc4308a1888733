"""What settings and times a bus takes: pure. All that is wrong is said at once, never with a secret in it."""

from __future__ import annotations

import math
import re
from typing import Final

from deploykit.errors import DialectError, SettingsError, UsageError
from deploykit.messages.destinations import check_destination
from deploykit.settings.bus import BusSettings

VERSIONS: Final = ("1.0", "1.1", "1.2")
#: Seconds that are as good as for ever: no lock waits longer than 292 years.
FOREVER: Final = 1e9
_TIMES: Final = (
    "connect_timeout",
    "publish_timeout",
    "backoff_initial",
    "backoff_max",
    "stall_timeout",
    "keepalive_every",
)


def in_bounds(timeout: float) -> float:
    """A caller's timeout as every lock takes it: from 0 to `FOREVER` seconds, infinity included.

    Raises:
        UsageError: it is no number, and would never be over.
    """
    if math.isnan(timeout):
        raise UsageError("the timeout is not a number", "seconds, from 0")
    return min(max(timeout, 0.0), FOREVER)


def check_settings(settings: BusSettings) -> None:
    """Find everything in a bus's settings that makes no sense, before anything is connected.

    Raises:
        SettingsError: with all the problems in it.
    """
    problems = []
    if not settings.versions or not set(settings.versions) <= set(VERSIONS):
        problems.append(f"versions: some of {', '.join(VERSIONS)}")
    problems += [f"{name}: seconds, more than 0" for name in _TIMES if not 0 < getattr(settings, name) < FOREVER]
    if not 0 <= settings.heartbeat < 86400:
        problems.append("heartbeat: seconds, from 0")
    problems += [
        f"{name}: from 1"
        for name in ("window", "window_bytes", "in_flight", "max_frame")
        if getattr(settings, name) < 1
    ]
    if (settings.tls_cert is None) != (settings.tls_key is None):
        problems.append("tls_cert, tls_key: give both (the same path twice where one file holds both), or neither")
    for destination in settings.keepalive:
        try:
            check_destination(destination)
        except DialectError as error:
            problems.append(f"keepalive: {error}")
    texts = ("login", "passcode", "vhost", "client_id")
    problems += [
        f"{name}: holds a line break or NUL" for name in texts if re.search(r"[\r\n\x00]", getattr(settings, name))
    ]
    if problems:
        raise SettingsError(
            "; ".join(f"broker.{problem}" for problem in problems), problems=tuple(f"broker.{p}" for p in problems)
        )
