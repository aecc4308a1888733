"""`deploykit relay` as the process that a run kills and starts again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

#: What a settings file says so that things happen within a run.
_SETTINGS = """node = "chaos"
[broker]
address = "{address}"
heartbeat = 2.0
connect_timeout = 4.0
backoff_max = 0.5
publish_timeout = 15.0
stall_timeout = 8.0
{more}
[outbox]
path = "{spool}"
create = false
max_attempts = 2
pause_max = 1.0
rescan = 1.0
"""


class RelayProcess:
    """The relay of a spool, by the spool's owner.

    Args:
        directory: of its settings and its log.
        address, spool: what it works between.
        uid, group: whom it runs as; -1 for whoever we are.
        more: further lines of `[broker]`.
    """

    def __init__(self, directory: Path, *, address: str, spool: Path, uid: int, group: int, more: str = "") -> None:
        self._settings = directory / "relay.toml"
        self._settings.write_text(_SETTINGS.format(address=address, spool=spool, more=more), encoding="utf-8")
        self._settings.chmod(0o600)
        self._argv = [sys.executable, "-m", "deploykit"]
        if uid >= 0:
            self._argv = [sys.executable, "-m", "tests.chaos.become", str(uid), str(group)]
            os.chown(self._settings, uid, -1)
        self._log_path = directory / "relay.log"
        self._log = self._log_path.open("ab")
        self._process: subprocess.Popen[bytes] | None = None
        self._begin = 0
        self.deaths: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.kill()
        self._log.close()

    def start(self) -> None:
        """Start it, unless it runs; one that ended by itself is entered in `deaths`."""
        if self._process is not None:
            if self._process.poll() is None:
                return
            self.deaths.append(f"the relay ended with {self._process.returncode}: {self.last_lines()}")
        self._begin = self._log_path.stat().st_size
        self._process = subprocess.Popen(
            [*self._argv, "relay", "--config", str(self._settings)],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            cwd="/",
        )

    def wait_ready(self, timeout: float) -> bool:
        """Return whether the one that was started last says that it listens, within `timeout` seconds."""
        end = time.monotonic() + timeout
        while b"ready: " not in self._log_path.read_bytes()[self._begin :]:
            if time.monotonic() > end:
                return False
            time.sleep(0.05)
        return True

    def kill(self) -> bool:
        """Kill it with SIGKILL; return whether it ran."""
        process, self._process = self._process, None
        if process is None:
            return False
        ran = process.poll() is None
        process.kill()
        process.wait()
        if not ran:
            self.deaths.append(f"the relay ended with {process.returncode}: {self.last_lines()}")
        return ran

    def end(self) -> int:
        """End it by TERM; return its exit code."""
        assert self._process is not None
        process, self._process = self._process, None
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return -signal.SIGKILL

    def complaints(self) -> int:
        """Return how many lines of the log are warnings or errors so far."""
        text = self._log_path.read_text(encoding="utf-8", errors="replace")
        return sum(" warning " in line or " error " in line for line in text.splitlines())

    def last_lines(self) -> str:
        """Return the end of the log."""
        return " | ".join(self._log_path.read_text(encoding="utf-8", errors="replace").splitlines()[-3:])
