"""Run the commands of a site's server: the test of its configuration, and its reload. By words, never by a shell.

Rules:

* A command has a minute. It runs in a process group of its own, which is killed as a whole once that is over. After
  its own end nothing is killed: a reload may have left a new server behind.
* Of its environment only `PATH` and a plain locale are there.
* Of what it writes some megabytes are kept on the disk at most, however much that is.
* Its last lines go into our log, without anything that looks like a hash. Nothing of them leaves this machine.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from typing import Final

from deploykit.messages import one_line

_log = logging.getLogger(__name__)

#: Seconds for one command.
COMMAND_SECONDS: Final = 60.0
_ENVIRONMENT: Final = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
_HASHES: Final = re.compile(r"\$[0-9a-zA-Z]{1,8}\$\S+")
_LAST_BYTES: Final = 4000
#: Bytes of output on the disk, and seconds between two looks at them.
_MOST_OUTPUT: Final = 16 << 20
_SLICE: Final = 0.1


def run_command(words: Sequence[str], *, seconds: float = COMMAND_SECONDS) -> str:
    """Run a command and wait for its end; return what went wrong, empty for nothing.

    Args:
        words: the full path of a program, and its arguments.
        seconds: after which it is killed.
    """
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(
                list(words),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=_ENVIRONMENT,
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            return f"cannot run {words[0]}: {error.strerror}"
        try:
            code = _wait(process, seconds, output.fileno())
        except subprocess.TimeoutExpired:
            code = None
            with contextlib.suppress(ProcessLookupError):  # it ended in this instant
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if code == 0:
            return ""
        size = output.seek(0, os.SEEK_END)
        output.seek(max(0, size - _LAST_BYTES))
        _log.error("%s: %s", words[0], printable(output.read()))
    return f"{words[0]} did not end within {seconds:g} s" if code is None else f"{words[0]} ended with {code}"


def _wait(process: subprocess.Popen[bytes], seconds: float, output: int) -> int:
    """Return the code with which a process ended; while it runs, what it has written is cut where it is too much.

    Raises:
        subprocess.TimeoutExpired: it runs on.
    """
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        with contextlib.suppress(subprocess.TimeoutExpired):  # of a slice
            return process.wait(min(left, _SLICE))
        if os.fstat(output).st_blocks * 512 > _MOST_OUTPUT:
            os.ftruncate(output, 0)  # it goes on where it was: what is before takes no room
    raise subprocess.TimeoutExpired(process.args, seconds)


def printable(output: bytes) -> str:
    """Return a program's output for a log: one line, without hashes.

    >>> printable(b"line 3: user a password $6$salt$digest\\n")
    'line 3: user a password $…'
    """
    return one_line(_HASHES.sub("$…", output.decode("utf-8", "replace")), 1000)


__all__ = ["COMMAND_SECONDS", "printable", "run_command"]
