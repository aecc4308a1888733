"""The daemons that a soak runs, and each as a process. A new daemon is a line in `DAEMONS`."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import attrs

from deploykit.cli import COMMANDS
from deploykit.daemons.service.registry import SERVICES
from tests.support.wait import wait_until


@attrs.frozen(slots=True)
class DaemonKind:
    """A daemon: its command, and what of the load it takes (`push`, `deploy`, `build`, `spool`)."""

    words: tuple[str, ...]
    takes: frozenset[str]


DAEMONS: Final[Mapping[str, DaemonKind]] = {
    "agent": DaemonKind(("agent",), frozenset({"push", "deploy"})),
    "jenkins": DaemonKind(("jenkins",), frozenset({"push", "build"})),
    "relay": DaemonKind(("relay",), frozenset({"spool"})),
    "run": DaemonKind(
        ("run", *(name for name in ("agent", "jenkins") if name in SERVICES)),
        frozenset({"push", "deploy", "build", "spool"}),
    ),
}


def available() -> tuple[str, ...]:
    """Return the daemons that this version has."""
    return tuple(name for name, kind in DAEMONS.items() if kind.words[0] in COMMANDS)


class DaemonProcess:
    """One daemon as a process of its own; what it prints goes to a file.

    Args:
        name: of the daemon in the table.
        config: its settings.
        log: the file.
    """

    def __init__(self, name: str, config: Path, log: Path) -> None:
        self.name = name
        self._log = log
        argv = [sys.executable, "-P", "-m", "deploykit", *DAEMONS[name].words, "--config", str(config)]
        kept = {key: os.environ[key] for key in ("PATH", "PYTHONPATH", "TMPDIR") if key in os.environ}
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                cwd="/",
                env={**kept, "HOME": "/nonexistent", "LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1"},
            )
        self.pid = self._process.pid

    def check(self) -> None:
        """Make sure that it runs.

        Raises:
            AssertionError: it has ended; the text has the end of its log.
        """
        code = self._process.poll()
        assert code is None, f"{self.name} ended with {code}:\n{self.log_tail()}"

    def wait_ready(self) -> None:
        """Wait until each of its services says that it is ready."""
        services = max(1, len(DAEMONS[self.name].words) - 1)

        def ready() -> bool:
            self.check()
            return len(re.findall(r"^ready: ", self._log.read_text(errors="replace"), re.MULTILINE)) >= services

        wait_until(ready, f"{self.name} is ready:\n{self.log_tail()}", 120)

    def reload(self) -> None:
        """Have it read its settings again."""
        self._process.send_signal(signal.SIGHUP)

    def log_tail(self, lines: int = 20) -> str:
        """Return the last lines that it printed."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])

    def stop(self) -> int:
        """End it by TERM, and by KILL where that takes too long; return its exit code."""
        if self._process.poll() is None:
            self._process.terminate()
        try:
            return self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
