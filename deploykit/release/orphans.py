"""End the script of a deploy that was cut off: it may still run, and must not run beside its second try.

How it is recognised, although process numbers may be in use again:

* Before a script starts, the journal holds a mark that cannot be guessed, and the boot id; the mark is in the
  script's environment. Right after the start the journal holds the process's number and when the kernel started it.
* A script leads a session of its own, and that is what is ended: first politely, then for good, each process by a
  descriptor (pidfd) that cannot come to mean another one, and what forks meanwhile is found by looking again.
* While the leader lives, number and start time prove the session to be ours. When it is gone its number may have been
  given out again, so each process of the session must carry the mark.
* A service that left the session on purpose (setsid, the service manager) is not the script any more and is left alone,
  mark or no mark.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import attrs

from deploykit.errors import ReleaseError
from deploykit.system.boottime import boot_id

_log = logging.getLogger(__name__)

#: The variable that carries the mark.
MARK: Final = "DEPLOYKIT_RUN"
_GRACE: Final = 5.0
_PATIENCE: Final = 30.0
#: A process shows no environment for an instant while it begins another program: looked at again this many times.
_LOOKS: Final = 5
_PAUSE: Final = 0.02


@attrs.frozen(kw_only=True, slots=True)
class ScriptProcess:
    """What the journal holds of the process of a script.

    Args:
        mark: in its environment.
        boot: the boot it was started in.
        pid, started: its number, and its start in clock ticks since that boot; 0 where the crash came before they were
            written down.
    """

    mark: str
    boot: str
    pid: int = 0
    started: int = 0


class _Process(NamedTuple):
    pid: int
    state: str
    session: int
    started: int


def start_time_of(pid: int) -> int:
    """Return when the kernel started a process, in clock ticks since boot; 0 where there is no such process."""
    found = _look_at(pid)
    return found.started if found is not None else 0


def end_orphan(script: ScriptProcess, step: str, *, grace: float = _GRACE, patience: float = _PATIENCE) -> int:
    """End what still runs of a script, and return how many processes it ended; none is left then.

    Args:
        step: what to call it.
        grace: seconds between asking and killing.
        patience: seconds after that until it gives up.

    Raises:
        ReleaseError: it cannot be ended.
    """
    if script.boot != boot_id():
        return 0
    ended: set[tuple[int, int]] = set()
    start = time.monotonic()
    session = 0
    while left := _survivors(script, session):
        session = left[0].session
        waited = time.monotonic() - start
        if waited > grace + patience:
            numbers = ", ".join(str(p.pid) for p in left)
            raise ReleaseError(
                f"{step} of a deploy that was cut off still runs (process {numbers}) and cannot be ended",
                "end it, then deploy again",
            )
        if not ended:
            _log.warning("%s of a deploy that was cut off still runs: ending it before anything else is done", step)
        ended |= {(p.pid, p.started) for p in left}
        _signal_and_wait(left, signal.SIGTERM if waited < grace else signal.SIGKILL, max(0.2, grace - waited))
    return len(ended)


def _survivors(script: ScriptProcess, session: int) -> list[_Process]:
    """Return the living processes of the script's session; look again where one shows no environment just now."""
    found: list[_Process] = []
    for look in range(_LOOKS):
        if look:
            time.sleep(_PAUSE)
        found, unsure = _scan(script, session)
        if found or not unsure:
            break
    return found


def _scan(script: ScriptProcess, session: int) -> tuple[list[_Process], bool]:
    """Return what is left, and whether a process that shows no environment may belong to it."""
    every = list(_processes())
    session = script.pid or session
    marked: list[_Process] = []
    unsure = False
    for process in every:
        if process.state in "ZX" or (session and process.session != session):
            continue
        environment = _environment(process)
        if environment is None:
            continue
        if not environment:
            unsure = True
        elif f"{MARK}={script.mark}".encode() in environment.split(b"\0"):
            marked.append(process)
    if not session:
        # The crash came before the number was noted, so the script had hardly begun: what began first is the script.
        if not marked:
            return [], unsure
        session = min(marked, key=lambda p: p.started).session
        marked = [p for p in marked if p.session == session]
    leader = next((p for p in every if p.pid == session), None)
    ours = leader is not None and (
        leader.started == script.started if script.pid else any(p.pid == session for p in marked)
    )
    if ours:
        return [p for p in every if p.session == session and p.state not in "ZX"], False
    return marked, unsure


def _signal_and_wait(processes: Iterable[_Process], number: int, timeout: float) -> None:
    """Send a signal to each, and wait until all have ended or the time is over."""
    with contextlib.ExitStack() as stack:
        poll = select.poll()
        waiting: set[int] = set()
        for process in processes:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                fd = os.pidfd_open(process.pid)
                stack.callback(os.close, fd)
                if start_time_of(process.pid) != process.started:
                    continue  # it ended, and the number is another process's by now
                signal.pidfd_send_signal(fd, number)
                poll.register(fd, select.POLLIN)
                waiting.add(fd)
        if not waiting:
            time.sleep(_PAUSE)
        deadline = time.monotonic() + timeout
        while waiting and (rest := deadline - time.monotonic()) > 0:
            for fd, _ in poll.poll(rest * 1000):
                poll.unregister(fd)
                waiting.discard(fd)


def _processes() -> Iterator[_Process]:
    with os.scandir("/proc") as found:
        for entry in found:
            if entry.name.isdecimal():
                process = _look_at(int(entry.name))
                if process is not None and process.session:  # the kernel's own threads have none
                    yield process


def _look_at(pid: int) -> _Process | None:
    try:
        raw = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = raw.rpartition(b")")[2].split()  # a program's name may hold anything, blanks and brackets too
    return _Process(pid=pid, state=fields[0].decode(), session=int(fields[3]), started=int(fields[19]))


def _environment(process: _Process) -> bytes | None:
    """Return a process's environment; None where it may not be read."""
    try:
        return Path(f"/proc/{process.pid}/environ").read_bytes()
    except OSError:
        return None
