"""One process of a chain: started, killed and started again; one log for all its lives."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.brokers.process import current_run
from tests.brokers.reaper import MARK_VARIABLE
from tests.support.wait import wait_until


class Member:
    """A daemon.

    Args:
        name: of its log.
        argv: how it is started.
        root: where the log is.
        ready: what it prints once it works; empty: nothing is waited for.
        env: more variables.
    """

    def __init__(
        self, name: str, argv: Sequence[str], root: Path, *, ready: str = "", env: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.log = root / f"{name}.log"
        self._argv = list(argv)
        self._ready = ready
        #: Marked: it is ended with the test process, however that ends.
        self._env = {**os.environ, MARK_VARIABLE: f"{current_run().mark}.chain", **(env or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._before = 0

    def start(self) -> None:
        """Start it; return when it says that it is ready."""
        self.spawn()
        self.wait_ready()

    def spawn(self) -> None:
        """Start it, and return at once."""
        self._before = self.output.count(self._ready)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._env
            )

    def wait_ready(self) -> None:
        """Wait until it says that it is ready, if it ever says so."""
        if self._ready:
            wait_until(lambda: self.ended or self.output.count(self._ready) > self._before, f"{self.name} is ready")
            assert not self.ended, self.output[-2000:]

    @property
    def ended(self) -> bool:
        """Whether it does not run."""
        return self._process is None or self._process.poll() is not None

    @property
    def output(self) -> str:
        """What it has printed in all its lives."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def signal(self, number: int) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def wait_printed(self, text: str, count: int = 1) -> None:
        """Wait until it has printed a text so often, in all its lives."""
        wait_until(lambda: self.ended or self.output.count(text) >= count, f"{self.name} prints {text!r}")
        assert not self.ended, self.output[-2000:]

    def kill(self) -> None:
        """Send SIGKILL, and wait for its end."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> int:
        """Send SIGTERM and return the exit code."""
        assert self._process is not None
        self._process.terminate()
        try:
            return self._process.wait(60)
        finally:
            self.kill()
