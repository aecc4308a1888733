"""Start programs from a hook: they get an allow-list of our environment, and none outlives its deadline.

Rules:

* Nothing here waits without a deadline, even if a program reads nothing, prints nothing, or closes its output and goes
  on.
* Each program has a process group of its own, which is killed whole.
* `posix_spawn` and pipes start it: `subprocess` would cost every push a third of an interpreter start.
* Linux only, as the outbox is.
"""

from __future__ import annotations

import os
import select
from collections.abc import Mapping, Sequence
from contextlib import suppress
from time import monotonic, sleep

from deploykit.errors import HookError

#: The variables of our environment that a program gets. No GIT_*, no LD_*, no PYTHON*: whoever can set a variable of
#: the hook must not be able to choose a library, a repository or a command with it.
KEPT = ("HOME", "PATH", "TMPDIR", "USER", "LOGNAME")

#: Where programs are searched if the environment has no PATH: Subversion gives its hooks none.
DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin"

_SIGPIPE, _SIGKILL = 13, 9
_CHUNK = 1 << 18
_MAX_OBJECT = 1 << 16
#: Seconds that a killed program may take to end; one that hangs in the kernel is left there.
_DYING = 1.0


class NoAnswer(HookError):
    """A program is not installed, or took too long. Go on without its output."""


def child_environment(environ: Mapping[str, str], extra: dict[str, str]) -> dict[str, str]:
    """Return the environment for a program we start."""
    kept = {name: environ[name] for name in KEPT if name in environ}
    kept["PATH"] = ":".join(part for part in kept.get("PATH", "").split(":") if part.startswith("/")) or DEFAULT_PATH
    return kept | {"LC_ALL": "C.UTF-8"} | extra


def find_program(name: str, env: Mapping[str, str]) -> str:
    """Return the path of a program.

    Raises:
        NoAnswer: it is not installed, or not on PATH.
    """
    for directory in env["PATH"].split(":"):
        path = f"{directory}/{name}"
        if directory.startswith("/") and os.access(path, os.X_OK):
            return path
    raise NoAnswer(f"{name} is not on PATH ({env['PATH']})", f"install {name}")


class Program:
    """A running program, its output on a pipe (a context manager: leaving it ends the program).

    Args:
        argv: the program's name, looked up on `env["PATH"]`, and its arguments.
        env: its whole environment.
        deadline: the instant (`time.monotonic`) at which it is killed.
        stdin: all of its input; None keeps its input open for `ask`.

    Raises:
        HookError: it cannot be started.
    """

    def __init__(
        self, argv: Sequence[str], *, env: Mapping[str, str], deadline: float, stdin: bytes | None = None
    ) -> None:
        path = find_program(argv[0], env)
        self.name = f"{argv[0]} {argv[1]}" if len(argv) > 1 else argv[0]
        self._deadline = deadline
        self._buffer = b""
        self._at = 0  # where the unread part of the buffer begins
        self._code: int | None = None
        self._in = -1
        self._unsent = memoryview(b"")
        self._out, child_out = os.pipe()
        self._err = os.memfd_create("stderr")
        if stdin is None:
            child_in, self._in = os.pipe()
            os.set_blocking(self._in, False)
        else:
            child_in = os.memfd_create("stdin")
            view = memoryview(stdin)
            while view:
                view = view[os.write(child_in, view) :]
            os.lseek(child_in, 0, os.SEEK_SET)
        actions = [
            (os.POSIX_SPAWN_DUP2, child_in, 0),
            (os.POSIX_SPAWN_DUP2, child_out, 1),
            (os.POSIX_SPAWN_DUP2, self._err, 2),
        ]
        try:
            self._pid = os.posix_spawn(path, list(argv), env, file_actions=actions, setpgroup=0, setsigdef=[_SIGPIPE])
        except OSError as error:
            self._pid = 0
            raise HookError(f"cannot start {path}: {error.strerror}") from error
        finally:
            os.close(child_in)
            os.close(child_out)
            if not self._pid:
                self._close()
        self._poll = select.poll()
        self._poll.register(self._out, select.POLLIN)

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        if self._code is None:
            self._kill()
        self._close()

    def _close(self) -> None:
        for fd in (self._in, self._out, self._err):
            if fd >= 0:
                os.close(fd)
        self._in = self._out = self._err = -1

    def _kill(self) -> None:
        with suppress(OSError):
            os.killpg(self._pid, _SIGKILL)  # it is not reaped yet, so the number is its own
        if not self._ends_by(monotonic() + _DYING):
            self._code = -_SIGKILL

    def _ends_by(self, instant: float) -> bool:
        """Wait for the program's end, at most until `instant`; return whether it has ended."""
        pause = 0.0
        while self._code is None:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
            elif monotonic() >= instant:
                return False
            else:
                sleep(pause)
                pause = min(pause + 0.0002, 0.02)
        return True

    def _late(self) -> HookError:
        self._kill()
        return NoAnswer(f"{self.name} took too long", "raise `timeout` in the hook's settings")

    def _more(self) -> bytes:
        """Return the next block of output, b"" at its end; meanwhile write as much input as the program takes."""
        while True:
            ready = dict(self._poll.poll(max(0.0, self._deadline - monotonic()) * 1000))
            if not ready:
                raise self._late()
            if self._in in ready:
                self._feed()
            if self._out in ready:
                return os.read(self._out, _CHUNK)

    def _feed(self) -> None:
        """Write as much of the unsent input as the pipe takes now."""
        try:
            self._unsent = self._unsent[os.write(self._in, self._unsent) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._unsent = self._unsent[:0]  # it reads no more; its output and exit code show why
        if not self._unsent:
            self._poll.unregister(self._in)

    def output(self, limit: int) -> bytes:
        """Return all that the program prints, and wait for its end.

        Raises:
            HookError: it failed, took too long, or printed more than `limit` bytes.
        """
        parts, size = [self._buffer[self._at :]], 0
        while block := self._more():
            parts.append(block)
            size += len(block)
            if size > limit:
                raise HookError(f"{self.name} printed more than {limit} bytes")
        self._end()
        return b"".join(parts)

    def _end(self) -> None:
        if not self._ends_by(self._deadline):
            raise self._late()
        if self._code != 0:
            raise HookError(f"{self.name} failed ({self._code}): {self._first_error_line()}")

    def _first_error_line(self) -> str:
        text = os.pread(self._err, 4096, 0).decode("utf-8", "replace").strip()
        return text.splitlines()[0] if text else "it gave no reason"

    # -- requests in lines, answers as `git cat-file --batch` gives them -----------------------------------------------

    def ask(self, requests: Sequence[str]) -> list[tuple[str, str, bytes]]:
        """Return (id, type, the first 64 KiB) of each object, as `git cat-file --batch` answers; type "" if missing.

        Raises:
            HookError: the program ended, or took too long.
        """
        if not requests:
            return []
        # All requests are offered at once and written while answers are read: whatever the pipes hold, neither side
        # waits for the other.
        self._unsent = memoryview("".join(f"{request}\n" for request in requests).encode())
        self._poll.register(self._in, select.POLLOUT)
        return [self._answer() for _ in requests]

    def _answer(self) -> tuple[str, str, bytes]:
        while (end := self._buffer.find(b"\n", self._at)) < 0:
            self._fill()
        head = self._buffer[self._at : end].decode("ascii", "replace").split(" ")
        self._at = end + 1
        if len(head) != 3 or not head[2].isdigit():
            return head[0], "", b""
        return head[0], head[1], self._take(int(head[2]))

    def _fill(self) -> None:
        block = self._more()
        if not block:
            self._end()
            raise HookError(f"{self.name} ended too early: {self._first_error_line()}")
        self._buffer = self._buffer[self._at :] + block
        self._at = 0

    def _take(self, size: int) -> bytes:
        """Read an object and the newline behind it from the stream; return its first 64 KiB, in bounded memory."""
        kept = b""
        left = size + 1
        while (have := len(self._buffer) - self._at) < left:
            kept = (kept + self._buffer[self._at :])[:_MAX_OBJECT]
            left -= have
            self._at = len(self._buffer)
            self._fill()
        end = self._at + left
        kept = (kept + self._buffer[self._at : end])[: min(size, _MAX_OBJECT)]
        self._at = end
        return kept


def run_program(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    deadline: float,
    stdin: bytes = b"",
    limit: int = 256 << 20,
) -> bytes:
    """Run a program to its end and return its output.

    Raises:
        HookError: it is missing, failed, took too long, or printed more than `limit` bytes.
    """
    with Program(argv, env=env, deadline=deadline, stdin=stdin) as program:
        return program.output(limit)


def spawn_detached(argv: Sequence[str], env: Mapping[str, str]) -> None:
    """Start a program and do not wait for it: own session, nothing inherited, so that a pusher's ssh closes at once.

    Raises:
        OSError: it cannot be started.
    """
    null = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
    # git and sshd pass on descriptors that are not closed on exec; one left open would hold the pusher's connection.
    inherited = sorted(int(fd) for fd in os.listdir("/proc/self/fd") if int(fd) > 2)
    actions = [*null, *((os.POSIX_SPAWN_CLOSE, fd) for fd in inherited)]
    os.posix_spawn(argv[0], list(argv), env, file_actions=actions, setsid=True, setsigdef=[_SIGPIPE])
