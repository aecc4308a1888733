"""Run a package manager's program: by its argument list, with its output in memory, and nothing of it left running.

Rules:

* No shell. A program gets `PATH`, `LC_ALL=C` and what the caller gives: nothing of our own environment. No
  `APT_CONFIG`, proxy or `LD_PRELOAD` of whoever started us reaches it: that belongs into the package manager's files.
* It runs in a process group of its own. At its deadline the group is killed, and what it started with it. When it ends
  by itself, what is left of the group is killed too, so a child that keeps the pipe open costs no time. What is to
  stay must leave the group (setsid, systemd).
* Of each output the first part is kept; the rest is read and dropped.
* What is shown of an output holds no credentials: of an address, what stands before `@` and behind `?` is left out.

The other ways to run a program do not fit: the hooks' (`hooking/process.py`) ends at the first failure and waits for
the pipe, the access daemon's keeps no output and lets a reloaded server live, a deploy script's mixes both outputs.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import IO, Final

import attrs

from deploykit.errors import PackageError
from deploykit.messages import one_line

#: Seconds for a question that needs no network. `apt-cache policy` has taken 2.7 s on a slow disk.
QUESTION_SECONDS: Final = 60.0

_ENVIRONMENT: Final = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
_MOST_OUTPUT: Final = 8 << 20
_CHUNK: Final = 1 << 16
#: Seconds that a killed program may take to end; one that hangs in the kernel is left there.
_DYING: Final = 5.0
_USER: Final = re.compile(r"(?<=://)\S*@")
_QUERY: Final = re.compile(r"(://[^\s?]*\?)\S+")


@attrs.frozen(kw_only=True, slots=True)
class ProgramResult:
    """How a program ended, and the first part of what it wrote.

    Args:
        code: its exit code, negative for a signal; None: it was killed.
        output: of its standard output.
        errors: of its standard error.
        whole: nothing of either was dropped.
    """

    code: int | None
    output: str = attrs.field(default="", repr=False)
    errors: str = attrs.field(default="", repr=False)
    whole: bool = True

    @property
    def how(self) -> str:
        """How it ended, for people: `ended with 100`."""
        if self.code is None:
            return "was killed at its deadline" if self.whole else "printed too much"
        return f"was killed by signal {-self.code}" if self.code < 0 else f"ended with {self.code}"


def missing_program(names: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    """Return which of some programs is not on the `PATH` that `run_program` uses, the first one; empty for none."""
    path = {**_ENVIRONMENT, **(environment or {})}["PATH"]
    return next((name for name in names if shutil.which(name, path=path) is None), "")


def run_program(
    words: Sequence[str],
    *,
    seconds: float = QUESTION_SECONDS,
    environment: Mapping[str, str] | None = None,
    limit: int = _MOST_OUTPUT,
    enough: bool = False,
) -> ProgramResult:
    """Run a program and wait for its end.

    Args:
        words: the program's name, looked up on `PATH`, and its arguments.
        seconds: after which it is killed.
        environment: variables besides `PATH` and `LC_ALL`, or in their place.
        limit: bytes kept of each of its two outputs.
        enough: kill it as soon as it has written more than that.

    Raises:
        PackageError: it cannot be started.
    """
    end = time.monotonic() + seconds
    try:
        process = subprocess.Popen(
            list(words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**_ENVIRONMENT, **(environment or {})},
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        raise PackageError(f"cannot run {words[0]}: {error.strerror}", "install it, or set packages.tool") from error
    pipes = [_Pipe(pipe, limit) for pipe in (process.stdout, process.stderr) if pipe is not None]
    try:
        ended = _wait(process.pid, pipes, end, enough)
    finally:
        # It is not reaped yet, so the group's number cannot be anybody else's.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_DYING)
        for pipe in pipes:
            pipe.drain()
    output, errors = pipes
    return ProgramResult(
        code=process.returncode if ended else None,
        output=output.text(),
        errors=errors.text(),
        whole=output.whole and errors.whole,
    )


def _wait(pid: int, pipes: Sequence[_Pipe], end: float, enough: bool) -> bool:
    """Read pipes until a process has ended; return whether it has, False when its time is over, or a pipe is full."""
    pidfd = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        readers = {pipe.fd: pipe for pipe in pipes}
        for fd in readers:
            poll.register(fd, select.POLLIN)
        while (left := end - time.monotonic()) > 0:
            for fd, _ in poll.poll(left * 1000):
                if fd == pidfd:
                    return True
                if not readers[fd].read():
                    poll.unregister(fd)
            if enough and not all(pipe.whole for pipe in pipes):
                return False
        return False
    finally:
        os.close(pidfd)


class _Pipe:
    """One output of a program: its first bytes are kept, the others dropped."""

    def __init__(self, pipe: IO[bytes], limit: int) -> None:
        self._pipe = pipe
        self._limit = limit
        self._kept = bytearray()
        self.fd = pipe.fileno()
        self.whole = True
        os.set_blocking(self.fd, False)

    def read(self) -> bool:
        """Read what is there; return False at the end of the output."""
        try:
            data = os.read(self.fd, _CHUNK)
        except BlockingIOError:
            return True
        room = self._limit - len(self._kept)
        self._kept += data[:room]
        self.whole = self.whole and len(data) <= room
        return bool(data)

    def drain(self) -> None:
        """Read what is still in the pipe, without waiting: whoever left the group may hold it open. Close it."""
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self.fd, _CHUNK):
                room = self._limit - len(self._kept)
                self._kept += data[:room]
                self.whole = self.whole and len(data) <= room
                if room <= 0:
                    break
        self._pipe.close()

    def text(self) -> str:
        return self._kept.decode("utf-8", "replace")


def lines_of(text: str) -> list[str]:
    r"""Return the lines of an output. Only a line feed ends one: a repository's words may hold others of Unicode's.

    >>> lines_of("one\x0bstill\n\ntwo\n")
    ['one\x0bstill', '', 'two']
    """
    return text.removesuffix("\n").split("\n") if text else []


def shown(text: str, limit: int = 300) -> str:
    """Return a program's words for a log or a message: one line, without credentials in addresses.

    >>> shown("E: cannot fetch http://user:secret@example.org/debian?token=abc")
    'E: cannot fetch http://***@example.org/debian?***'
    """
    return one_line(_QUERY.sub(r"\1***", _USER.sub("***@", text)), limit)


__all__ = ["QUESTION_SECONDS", "ProgramResult", "lines_of", "missing_program", "run_program", "shown"]
