"""A `deploykit watch` that runs, and how a test reads what it prints."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.support.cli import command
from tests.support.wait import wait_until


class Watching:
    """A `deploykit watch` that runs."""

    def __init__(self, directory: Path, *words: str) -> None:
        self.out, self.errors = directory / "watch.out", directory / "watch.err"
        with self.out.open("wb") as out, self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                command("watch", "-c", str(directory / "deploykit.toml"), *words), stdout=out, stderr=errors
            )

    def lines(self) -> list[str]:
        return self.out.read_text().splitlines()

    def wait(self, check: Callable[[], bool]) -> None:
        try:
            wait_until(check)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.out.read_text()}{self.errors.read_text()}") from None

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)
