"""The threads that break things meanwhile: each goes through a schedule of its own until the time is over."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator

from tests.chaos.accounts import Accounts
from tests.chaos.schedule import Step


class Driver:
    """One such thread.

    Args:
        name: of what it breaks, for the history.
        steps: what to do, in order.
        act: does one step, and returns when it is undone.
    """

    def __init__(self, name: str, steps: Iterator[Step], act: Callable[[Step], object], accounts: Accounts) -> None:
        self.name = name
        self.done: Counter[str] = Counter()
        self.problems: list[str] = []
        self._steps = steps
        self._act = act
        self._accounts = accounts
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"chaos-{name}")

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the step that is being done."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        for step in self._steps:
            if self._over.wait(step.pause):
                return
            self._accounts.note("driver", self.name, step.kind, round(step.seconds, 3), round(step.chance, 3))
            try:
                self._act(step)
            except Exception as error:
                self.problems.append(f"driver {self.name}, {step.kind}: {type(error).__name__}: {error}")
                return
            self._accounts.note("driver", self.name, step.kind, "undone")
            self.done[step.kind] += 1
