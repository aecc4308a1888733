"""Run the commands of a site's server: the test of its configuration, and its reload. By words, never by a shell.

Rules:

* A command has a minute. It runs in a process group of its own, which is killed as a whole once that is over. After
  its own end nothing is killed: a reload may have left a new server behind.
* Of its environment only `PATH` and a plain locale are there.
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
from collections.abc import Sequence
from typing import Final

from deploykit.messages import one_line

_log = logging.getLogger(__name__)

#: Seconds for one command.
COMMAND_SECONDS: Final = 60.0
_ENVIRONMENT: Final = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
_HASHES: Final = re.compile(r"\$[0-9a-zA-Z]{1,8}\$\S+")
_LAST_BYTES: Final = 4000


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
            code = process.wait(seconds)
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
    how = f"{words[0]} did not end within {seconds:g} s" if code is None else f"{words[0]} ended with {code}"
    return f"{how} (its output is in the log of the access daemon)"  # not on the bus: it may hold anything


def printable(output: bytes) -> str:
    """Return a program's output for a log: one line, without hashes.

    >>> printable(b"line 3: user a password $6$salt$digest\\n")
    'line 3: user a password $…'
    """
    return one_line(_HASHES.sub("$…", output.decode("utf-8", "replace")), 1000)


__all__ = ["COMMAND_SECONDS", "printable", "run_command"]
