"""Time that cannot be set: which boot of the machine this is, and how long it has lasted."""

from __future__ import annotations

import time
from pathlib import Path

import attrs


@attrs.frozen(kw_only=True, slots=True)
class BootTime:
    """An instant that can be compared with another of the same boot: the machine's sleep counts, set clocks do not."""

    boot: str
    seconds: float


def boot_id() -> str:
    """Return the id of this boot of the machine, which no other boot has."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "unknown"


def boot_time() -> BootTime:
    """Return the current boot id and the seconds since boot."""
    return BootTime(boot=boot_id(), seconds=round(time.clock_gettime(time.CLOCK_BOOTTIME), 3))
