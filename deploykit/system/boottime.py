"""A clock that cannot be set: the boot of the machine, and the seconds since it."""

from __future__ import annotations

import time
from pathlib import Path

import attrs


@attrs.frozen(kw_only=True, slots=True)
class BootTime:
    """An instant, comparable with others of the same boot. Sleep of the machine counts, changes of its clock do not."""

    boot: str
    seconds: float


def boot_id() -> str:
    """Return the random id of the machine's current boot; "unknown" where the kernel has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "unknown"


def boot_time() -> BootTime:
    """Return the current boot id and the seconds since that boot."""
    return BootTime(boot=boot_id(), seconds=round(time.clock_gettime(time.CLOCK_BOOTTIME), 3))
