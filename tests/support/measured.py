"""Run a command and learn what it cost: seconds, processor time, and the most memory that it held.

The kernel counts what a process held before `exec` as its own, and a child of a large test run begins as a copy of
it. So a small interpreter stands between: it starts the command, waits for it, and writes down what the kernel says.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

_BETWEEN = """
import json, os, sys
pid = os.fork()
if not pid:
    os.execv(sys.argv[2], sys.argv[2:])
_, status, used = os.wait4(pid, 0)
with open(sys.argv[1], "w") as file:
    json.dump([os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime, used.ru_maxrss], file)
"""


@attrs.frozen(kw_only=True, slots=True)
class Measured:
    """A command that has ended.

    Args:
        seconds: from its start to its end.
        cpu: seconds of processor time.
        memory: the most that was resident, in MiB.
    """

    returncode: int
    stdout: str
    stderr: str
    seconds: float
    cpu: float
    memory: float


def run_measured(
    argv: Sequence[str], *, env: Mapping[str, str], cwd: Path | None = None, timeout: float = 300.0
) -> Measured:
    """Run a program, named by its full path, to its end."""
    with tempfile.NamedTemporaryFile("r", suffix=".json") as file:
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _BETWEEN, file.name, *argv],
            cwd=cwd,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        seconds = time.perf_counter() - began
        text = file.read()
    assert text, f"the command was not run: {done.stderr}"
    code, cpu, memory = json.loads(text)
    return Measured(
        returncode=code, stdout=done.stdout, stderr=done.stderr, seconds=seconds, cpu=cpu, memory=memory / 1024
    )
