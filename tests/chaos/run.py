"""What every chaos run has: a target, the books, a time to shoot, and a broker that dies and comes back."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from tests.chaos.accounts import Accounts
from tests.chaos.driver import Driver
from tests.chaos.options import Options
from tests.chaos.recorder import Recorder
from tests.chaos.schedule import Step
from tests.chaos.targets import Target


class ChaosRun:
    """The part that runs have in common; what a run enters into `_stack` is closed when the run is left."""

    def __init__(
        self, target: Target, options: Options, accounts: Accounts, directory: Path, *, name: str, victim: str
    ) -> None:
        self._target = target
        self._options = options
        self._accounts = accounts
        self._directory = directory
        self._name = name
        self._stack = ExitStack()
        self._over = threading.Event()
        self._recorder = Recorder(accounts, options.sabotage, victim=victim)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stack.close()

    def _shoot(self, drivers: Sequence[Driver]) -> None:
        """Break things for the time of the options; return when the last one has ended."""
        for driver in drivers:
            driver.start()
        time.sleep(self._options.seconds)
        self._over.set()
        for driver in drivers:
            driver.stop()

    def _kill_broker(self, step: Step) -> None:
        """Kill the broker, and start it again after the step's time."""
        self._note_kill()
        self._over.wait(step.seconds)
        self._target.start()

    def _note_kill(self) -> None:
        """Kill the broker, and enter between which times it died."""
        begin = time.monotonic()
        self._target.kill()
        self._accounts.kills.append((begin, time.monotonic()))


def new_name() -> str:
    """Return a name that no other run uses on its broker."""
    return f"chaos-{secrets.token_hex(4)}"
