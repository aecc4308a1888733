"""haproxy's master process: whether a reload was carried out, by its command line socket (`haproxy -W -S PATH`).

    before = show proc -> reload -> show proc, again and again -> a new worker? -> show info, answered by that worker

What haproxy 2.6 does (measured; its management guide, "Master CLI", has the commands):

* A reload is accepted at once and carried out later. While the master starts again, its socket refuses or resets.
* One that fails (an address is taken) leaves the old worker serving, with the old users: `[failed: N]` of the master
  goes up. One that works has a new worker, and the old one stands among the old workers.
* A worker may still die behind "Loading success": the new one has to answer a question itself.

Rules:

* Each question has a deadline and a limit on its answer. An answer that is no haproxy's is an error.
* Nothing of an answer is shown or kept but numbers.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

import attrs

from deploykit.errors import AccessError

#: Seconds for one question, between two of them, and until a reload must be carried out.
ASK_SECONDS: Final = 5.0
RELOAD_SECONDS: Final = 60.0
_PAUSE: Final = 0.05
#: Seconds without an answer after which a master that has ended counts as gone: a service manager may start another.
_GONE: Final = 5.0
_MOST_BYTES: Final = 1 << 20
_MASTER: Final = re.compile(
    r"(?P<pid>[0-9]{1,10})\s+master\s+(?P<reloads>[0-9]{1,10})(?:\s+\[failed: (?P<failed>[0-9]{1,10})\])?"
)
_WORKER: Final = re.compile(r"(?P<pid>[0-9]{1,10})\s+worker\s")
_SECTION: Final = re.compile(r"#\s*(?P<name>workers|old workers|programs|old programs)\s*\Z")
_FAILED: Final = (
    "haproxy did not carry the reload out, and its old process serves on with the old users: "
    "its log says why (an address that is taken, say); correct that, and ask again"
)
_LATE: Final = "haproxy's master has not shown a new worker within {seconds:g} s: look at haproxy's log, and ask again"
_ENDED: Final = "haproxy has ended during the reload: look at its log, start it, and ask again"


@attrs.frozen(kw_only=True, slots=True)
class MasterLook:
    """What `show proc` says at one moment.

    Args:
        master: its process id.
        reloads, failed: how many it was asked for, and how many failed since the last good one.
        workers: process ids of those that serve.
        old: of those that finish what they have begun.
    """

    master: int
    reloads: int
    failed: int
    workers: frozenset[int]
    old: frozenset[int] = frozenset()


def parse_look(text: str) -> MasterLook:
    """Return what an answer to `show proc` says.

    Raises:
        AccessError: no master of haproxy writes this.
    """
    found, section, pids = None, "", dict[str, set[int]]()
    for line in text.splitlines():
        if named := _SECTION.match(line):
            section = named["name"]
        elif worker := _WORKER.match(line):
            pids.setdefault(section, set()).add(int(worker["pid"]))
        else:
            found = found or _MASTER.match(line)
    if found is None:
        raise AccessError("it does not answer as a master of haproxy does", "start haproxy with -W -S PATH")
    return MasterLook(
        master=int(found["pid"]),
        reloads=int(found["reloads"]),
        failed=int(found["failed"] or 0),
        workers=frozenset(pids.get("workers", ())),
        old=frozenset(pids.get("old workers", ())),
    )


def verdict_of(before: MasterLook, now: MasterLook) -> Literal["new", "failed", "waits"]:
    """Return whether there is a new worker, the reload failed, or neither is known yet.

    Args:
        before: the look before the reload was asked for.
        now: a later one.
    """
    if new_workers(before, now):
        return "new"
    asked = now.master != before.master or now.reloads > before.reloads
    return "failed" if asked and now.failed else "waits"


def new_workers(before: MasterLook, now: MasterLook) -> frozenset[int]:
    """Return the workers that serve now and were not there before."""
    return now.workers - before.workers - before.old


class HaproxyMaster:
    """The master process of haproxy, asked over its socket.

    Args:
        path: of the socket.
        seconds: for one question.
        reload_seconds: until a reload must be carried out.
        clock, sleep: monotonic seconds.
    """

    def __init__(
        self,
        path: Path,
        *,
        seconds: float = ASK_SECONDS,
        reload_seconds: float = RELOAD_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.path = path
        self._seconds = seconds
        self._reload_seconds = reload_seconds
        self._clock = clock
        self._sleep = sleep
        self._peer = 0

    def look(self) -> MasterLook:
        """Return what the master says of its workers.

        Raises:
            AccessError: it does not answer, or not as haproxy does; the text names the socket.
        """
        try:
            return parse_look(self._ask("show proc"))
        except AccessError as error:
            raise AccessError(f"haproxy's master at {self.path}: {error.problem}", error.remedy) from error

    def ready(self) -> MasterLook:
        """Return what the master says of its workers; for a few seconds it may be starting again, by anybody's reload.

        Raises:
            AccessError: as `look`.
        """
        end = self._clock() + self._seconds
        while True:
            try:
                return self.look()
            except AccessError:
                if self._clock() >= end or not _is_there(self.path):
                    raise
            self._sleep(_PAUSE)

    def reload(self, trigger: Callable[[], str] | None = None) -> str:
        """Have haproxy take its files over; return what went wrong, empty once a new worker serves them.

        Args:
            trigger: asks for the reload, and returns what went wrong; None: the master is asked itself.
        """
        try:
            before = self.ready()
        except AccessError as error:
            return str(error)
        process = _Process(self._peer)
        try:
            problem = self._trigger() if trigger is None else trigger()
            return problem or self._outcome(before, process)
        finally:
            process.close()

    def _trigger(self) -> str:
        """Ask for a reload: since 2.7 the answer says what came of it, before that it is empty, or the end."""
        try:
            answer = self._ask("reload", seconds=self._reload_seconds)
        except AccessError:  # it starts again, and its connections end: what came of it is looked for below
            return ""
        if "Permission denied" in answer or "Unknown command" in answer:
            return f"haproxy's master at {self.path} does not take the command reload: let its socket have level admin"
        return ""

    def _outcome(self, before: MasterLook, process: _Process) -> str:
        end, silent_since = self._clock() + self._reload_seconds, self._clock()
        while (now := self._clock()) < end:
            with contextlib.suppress(AccessError):  # it starts again
                look = self.look()
                silent_since = self._clock()
                verdict = verdict_of(before, look)
                if verdict == "failed":
                    return _FAILED
                if verdict == "new" and all(self._serves(pid) for pid in new_workers(before, look)):
                    return ""
            if now - silent_since > _GONE and process.ended:
                return _ENDED
            self._sleep(_PAUSE)
        return _LATE.format(seconds=self._reload_seconds)

    def _serves(self, worker: int) -> bool:
        """Return whether a worker answers itself, and is not about to end."""
        try:
            lines = self._ask(f"@!{worker} show info").splitlines()
        except AccessError:
            return False
        return f"Pid: {worker}" in lines and "Stopping: 0" in lines

    def _ask(self, command: str, *, seconds: float | None = None) -> str:
        """Return the answer to a command.

        Raises:
            AccessError: there is none in time, or it is too long.
        """
        end = self._clock() + (self._seconds if seconds is None else seconds)
        pieces, length = list[bytes](), 0
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as one:
                one.settimeout(self._seconds)
                one.connect(str(self.path))
                self._peer = _peer(one)
                one.sendall(f"{command}\n".encode())
                one.shutdown(socket.SHUT_WR)
                while True:
                    if (left := end - self._clock()) <= 0:
                        raise TimeoutError
                    one.settimeout(left)
                    if not (piece := one.recv(65536)):
                        return b"".join(pieces).decode("utf-8", "replace")
                    pieces.append(piece)
                    length += len(piece)
                    if length > _MOST_BYTES:
                        raise AccessError(f"its answer is longer than {_MOST_BYTES} bytes", "look what listens there")
        except TimeoutError:
            raise AccessError("it does not answer", "look whether haproxy hangs") from None
        except OSError as error:
            raise AccessError(
                f"it cannot be asked: {error.strerror or error}",
                "start haproxy with -W -S PATH, and let the access daemon's user use that socket",
            ) from error


def _is_there(path: Path) -> bool:
    """Return whether there is a file; False also where we may not look: `Path.exists` raises an error there."""
    try:
        path.stat()
    except OSError:
        return False
    return True


def _peer(one: socket.socket) -> int:
    """Return the process that listens at the other end; 0 where that is not known."""
    pid: int = struct.unpack("3i", one.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))[0]
    return pid


class _Process:
    """A process that may end. Where it cannot be watched, it counts as one that runs."""

    def __init__(self, pid: int) -> None:
        self._fd = -1
        with contextlib.suppress(OSError):  # it has ended already, or is in a container of its own
            self._fd = os.pidfd_open(pid) if pid > 0 else -1

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        if self._fd < 0:
            return False
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return bool(poll.poll(0))

    def close(self) -> None:
        """Watch it no more."""
        if self._fd >= 0:
            os.close(self._fd)


__all__ = ["HaproxyMaster", "MasterLook", "new_workers", "parse_look", "verdict_of"]
