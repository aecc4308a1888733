"""Find and end the processes that a test run marked as its own, and do it even if the run itself was killed.

Every server a test run starts carries `MARK_VARIABLE=<mark>` in its environment, and so do all its children, whatever
process group or session they move to. A process is therefore ended because it is provably ours: never by its name,
never by a pid that may have been used again (the environment is read again after the pidfd is held).

Run as a script (`reaper.py MARK SECONDS`) this file is the watchman of one test process: it waits until its parent is
gone, its standard input closes, or SECONDS are over, and then ends what still carries the mark and removes the
directories it was told of. It imports the standard library only, so that it is up before the first broker is.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
import time
from pathlib import Path

MARK_VARIABLE = "DEPLOYKIT_TEST_MARK"


def _carries(pid: int, wanted: bytes) -> bool:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:  # gone, or another user's and so not ours
        return False
    return any(entry.startswith(wanted) for entry in environment.split(b"\0"))


def marked_processes(mark: str) -> list[int]:
    """Return the pids of living processes whose mark starts with `mark` (zombies have no environment any more)."""
    wanted = f"{MARK_VARIABLE}={mark}".encode()
    pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return [pid for pid in pids if pid != os.getpid() and _carries(pid, wanted)]


def signal_marked(mark: str, number: signal.Signals) -> None:
    """Send a signal to every process with this mark."""
    wanted = f"{MARK_VARIABLE}={mark}".encode()
    for pid in marked_processes(mark):
        try:
            held = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            if _carries(pid, wanted):
                signal.pidfd_send_signal(held, number)
        except ProcessLookupError:
            pass  # it ended by itself, which is what was wanted
        finally:
            os.close(held)


def end_marked(mark: str, *, grace: float = 0.0, bound: float = 30.0) -> list[int]:
    """End every process with this mark: TERM and `grace` seconds if given, then KILL. Return what is still alive."""
    if grace > 0:
        signal_marked(mark, signal.SIGTERM)
        _wait_until_gone(mark, grace)
    deadline = time.monotonic() + bound
    while (alive := marked_processes(mark)) and time.monotonic() < deadline:
        signal_marked(mark, signal.SIGKILL)  # again each round: a child may have been born in between
        time.sleep(0.01)
    return alive


def _wait_until_gone(mark: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while marked_processes(mark) and time.monotonic() < deadline:
        time.sleep(0.02)


def watch(mark: str, seconds: float, parent: int) -> None:
    """Wait for the parent's end or the time bound, then clean up. Lines on stdin: `+PATH`, `-PATH` (directories)."""
    directories: set[str] = set()
    deadline = time.monotonic() + seconds
    poller = select.poll()
    poller.register(0, select.POLLIN)
    held = -1
    try:
        held = os.pidfd_open(parent)
        poller.register(held, select.POLLIN)
    except ProcessLookupError:
        pass  # already gone: stdin says the same
    pending = b""
    while os.getppid() == parent and (left := deadline - time.monotonic()) > 0:
        ready = {descriptor for descriptor, _ in poller.poll(left * 1000)}
        if 0 not in ready:
            break
        if not (chunk := os.read(0, 65536)):
            break
        *lines, pending = (pending + chunk).split(b"\n")
        for line in lines:
            path = os.fsdecode(line[1:])
            (directories.add if line[:1] == b"+" else directories.discard)(path)
    if held >= 0:
        os.close(held)
    end_marked(mark)
    for path in directories:
        shutil.rmtree(path, ignore_errors=True)


if __name__ == "__main__":
    watch(sys.argv[1], float(sys.argv[2]), os.getppid())
