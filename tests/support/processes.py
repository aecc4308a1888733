"""Whether a process is still there: a signal that was sent takes its time, and a zombie has ended."""

from __future__ import annotations

from pathlib import Path

from tests.support.wait import wait_until


def is_running(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def wait_gone(pid: int) -> None:
    """Wait until a process has ended.

    Raises:
        AssertionError: it runs on.
    """
    wait_until(lambda: not is_running(pid), f"the end of process {pid}")
