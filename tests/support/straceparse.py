"""Reading what strace recorded: which calls change something, what kind of call one is, which points to try. Pure."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

_OPENING = ("open", "openat", "openat2", "creat")
_WRITING = ("write", "pwrite64", "writev", "pwritev", "pwritev2", "sendfile", "copy_file_range", "splice")
_SENDING = ("sendto", "sendmsg", "sendmmsg")
_NAMING = (
    *("rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat", "unlink", "unlinkat", "rmdir"),
    *("mkdir", "mkdirat", "mknod", "mknodat"),
)
_CHANGING = (
    *("truncate", "ftruncate", "fallocate", "fsync", "fdatasync", "sync_file_range"),
    *("chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "fchown", "lchown", "fchownat"),
    *("utimensat", "utimes", "futimesat", "setxattr", "lsetxattr", "fsetxattr"),
)
#: Every call that can change a file, a directory or a peer's state. Writes to a shared mapping cannot be seen.
STATE_CHANGING = (*_OPENING, *_WRITING, *_SENDING, *_NAMING, *_CHANGING)
#: Calls that a full disk can make fail.
NEEDS_SPACE = (*_OPENING, *_WRITING, *(c for c in _NAMING if not c.startswith(("unlink", "rmdir"))))
#: Calls that write back to the disk, where a broken one shows.
NEEDS_DISK = ("fsync", "fdatasync", "sync_file_range")

CALL = re.compile(r"^(?P<pid>\d+)\s+(?P<call>[a-z_0-9]+)\((?P<args>.*)$")
_RESUMED = re.compile(r"^(?P<pid>\d+)\s+<\.\.\. (?P<call>[a-z_0-9]+) resumed>")
_SOCKET = re.compile(r"^\d+<(socket|TCP|TCPv6|UNIX)\b")
_RESULT = re.compile(r"\)\s+= .*$| <unfinished .*$")
_FAILED = re.compile(r"\)\s+= -1 E[A-Z]+ [^=]*$")
_COMPILED = re.compile(r'openat\([^"]*"[^"]*\.pyc\.\d+", [^)]*O_CREAT')
_NUMBERS = re.compile(r"[0-9a-f]{4,}|\d+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """The `nth` time that a thread calls `call`; `line` is how it looked in the recording."""

    call: str
    nth: int
    line: str

    @property
    def kind(self) -> str:
        """The call without what differs from run to run: results, numbers, random names."""
        return kind_of(self.call, self.line)

    def __str__(self) -> str:
        return f"{self.call}#{self.nth} {self.line[:160]}"


def kind_of(call: str, args: str) -> str:
    """Name a call without what differs from run to run.

    >>> kind_of("unlinkat", '10</spool>, "0179-1f190b5c.done", 0) = 0')
    'unlinkat(#</spool>, "#-#.done", #'
    """
    return f"{call}({_NUMBERS.sub('#', _RESULT.sub('', args))}"


def call_made(trace: str, point: Point) -> str:
    """The kind of the call at which a run was disturbed: the nth of its thread, or what strace says it injected."""
    counts: Counter[str] = Counter()
    found = ""
    for line in trace.splitlines():
        match = CALL.match(line)
        if match is None or match["call"] != point.call:
            continue
        counts[match["pid"]] += 1
        if counts[match["pid"]] == point.nth or "(INJECTED)" in line:
            found = kind_of(point.call, match["args"])
            if "(INJECTED)" in line:
                return found
    return found


def meant(trace: str, roots: Sequence[str]) -> bool:
    """Whether the first error that strace injected met a call that is a point: no disk is too full to be read.

    Calls are counted whatever file they name, and a thread may have opened one more or less than in the recording:
    the error then meets what a real one never would, such as a module that is imported late.

    >>> meant('7 openat(AT_FDCWD</r>, "/r/a", O_WRONLY|O_CREAT) = -1 ENOSPC (No space) (INJECTED)', ["/r"])
    True
    >>> meant('7 openat(AT_FDCWD</w>, "/lib/_ctypes.so", O_RDONLY) = -1 ENOSPC (No space) (INJECTED)', ["/r"])
    False
    """
    begun: dict[str, str] = {}
    for line in trace.splitlines():
        if (match := CALL.match(line)) is not None:
            call, begun[match["pid"]] = match["call"], match["args"]
        elif (resumed := _RESUMED.match(line)) is not None:
            call = resumed["call"]
        else:
            continue
        if "(INJECTED)" in line:
            args = begun.get(line.split(maxsplit=1)[0], "")
            return _changes(call, _RESULT.sub("", args), roots, network=False)
    return False


def points_in(trace: str, roots: Sequence[str], *, network: bool) -> list[Point]:
    """Find the points in a recorded trace (`strace -f -y`). Pure.

    >>> points_in('7 openat(AT_FDCWD</r>, "a", O_RDONLY) = 3\\n7 openat(AT_FDCWD</r>, "b", O_WRONLY|O_CREAT, 0600) = 3',
    ...           ["/r"], network=False)[0].nth
    2
    """
    counts: Counter[tuple[str, str]] = Counter()
    found: dict[tuple[str, int], Point] = {}
    for line in trace.splitlines():
        match = CALL.match(line)
        if match is None:
            continue
        pid, call, args = match["pid"], match["call"], match["args"]
        counts[pid, call] += 1
        nth = counts[pid, call]
        if (call, nth) not in found and _changes(call, args, roots, network=network):
            found[call, nth] = Point(call=call, nth=nth, line=args)
    return list(found.values())


def compiles(trace: str) -> bool:
    """Return whether a recorded command wrote a compiled Python module: another run of it would open other files.

    >>> compiles('7 openat(AT_FDCWD</r>, "/r/__pycache__/m.cpython-311.pyc.140", O_WRONLY|O_CREAT|O_EXCL, 0644) = 3')
    True
    """
    return any(_COMPILED.search(line) and not _FAILED.search(line) for line in trace.splitlines())


def _changes(call: str, args: str, roots: Sequence[str], *, network: bool) -> bool:
    if _FAILED.search(args):
        return False
    if call in ("open", "openat", "openat2") and "O_CREAT" not in args and "O_TRUNC" not in args:
        return False
    if call in _SENDING or (call in _WRITING and _SOCKET.match(args)):
        return network
    return any(root in args for root in roots)


def draw(points: Sequence[Point], sample: int | None, seed: int) -> list[Point]:
    """Draw `sample` points at random, each kind of call at least once as far as it goes; keep their order."""
    if sample is None or sample >= len(points):
        return list(points)
    shuffled = random.Random(seed).sample(list(points), len(points))
    first = {point.call: point for point in reversed(shuffled)}
    one_each = [point for point in shuffled if first[point.call] is point]
    rest = [point for point in shuffled if first[point.call] is not point]
    wanted = {(point.call, point.nth) for point in (one_each + rest)[:sample]}
    return [point for point in points if (point.call, point.nth) in wanted]
