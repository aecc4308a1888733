"""The spool of messages to send, and the relay that sends them."""

from __future__ import annotations

from pathlib import Path

import attrs

from deploykit.settings.problems import too_small


@attrs.frozen(kw_only=True, slots=True)
class OutboxSettings:
    """The spool of messages to send, and the relay that sends them.

    Args:
        path: the directory.
        create: make it when it is missing, mode 3770.
        group: the group of its writers, when it is made; the group of the process that makes it when empty.
        window: most records on their way to the broker at a time.
        max_attempts: a record that the broker refused so often becomes a dead letter.
        pause_max: the longest pause between two attempts, in seconds.
        rescan: seconds between two looks at the spool when no writer announces a record.
    """

    path: Path = Path("/var/spool/deploykit")
    create: bool = True
    group: str = ""
    window: int = 256
    max_attempts: int = 5
    pause_max: float = 30.0
    rescan: float = 10.0

    def problems(self) -> tuple[str, ...]:
        """Return what is wrong, one line each; empty when all is well."""
        return tuple(too_small(self, {"window": 1, "max_attempts": 1, "rescan": 0.1}))
