"""A daemon of ours as a process, with a settings file that can be written anew."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.cli import command
from tests.support.wait import wait_until


class RunningDaemon:
    """`deploykit WORDS --config FILE`, started when entered; leaving it sends TERM and expects exit code 0."""

    def __init__(self, directory: Path, address: str, *words: str, env: dict[str, str] | None = None) -> None:
        self.directory = directory
        self.file = directory / "deploykit.toml"
        self.log = directory / "log"
        self._words, self._env = words, env or {}
        self._process: subprocess.Popen[bytes] | None = None
        self.write(address)

    def write(self, address: str, more: str = "") -> None:
        """Write the settings."""
        spool, state = self.directory / "spool", self.directory / "state"
        text = f'node = "web1"\nstate = "{state}"\n[outbox]\npath = "{spool}"\n'
        self.file.write_text(f'{text}[broker]\naddress = "{address}"\nbackoff_max = 0.2\n{more}')
        self.file.chmod(0o600)

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The process, once it was started."""
        assert self._process is not None
        return self._process

    def __enter__(self) -> Self:
        with self.log.open("wb") as out:
            self._process = subprocess.Popen(
                command(*self._words, "--config", str(self.file)), stdout=out, stderr=out, env=os.environ | self._env
            )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        try:
            if self.process.poll() is None and kind is None:
                assert self.term() == 0, self.log.read_text()
        finally:
            self.process.kill()
            self.process.wait()

    def term(self) -> int:
        """Ask it to end; return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def hup(self) -> None:
        """Ask it to read its settings again."""
        self.process.send_signal(signal.SIGHUP)

    def count(self, line: str) -> int:
        """How often a text was printed."""
        return self.log.read_text().count(line)

    def wait(self, line: str, count: int = 1) -> None:
        """Wait until it has printed a text so often."""
        wait_until(lambda: self.count(line) >= count or self.process.poll() is not None, f"{count} {line}", 60)
        assert self.count(line) >= count, self.log.read_text()
