"""The pages of one process, over all reloads: what its main thread found at its last look, and where they are served.

Rules:

* The main thread looks at the services now and then, and the pages' thread shows what it found: neither waits for the
  other, and nothing of a service is called from two threads.
* A main thread that does not look any more is an answer of its own: the daemon hangs, and `/live` says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Self

import attrs

from deploykit.daemons.service.group import ServiceGroup
from deploykit.daemons.service.health import HealthServer
from deploykit.daemons.service.metrics import Metrics
from deploykit.settings.node import Settings

#: Seconds without a look after which the main thread counts as stuck. Reading settings takes less, and starting, too.
MOST_SILENCE: Final = 60.0
#: Least seconds between two questions whether the services go on.
_ASK_EVERY: Final = 1.0


@attrs.frozen(kw_only=True, slots=True)
class Look:
    """What the main thread found: when (monotonic), what does not go on, what stops the work, and what does not."""

    at: float
    stuck: str = ""
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Pages:
    """The pages of a process. A context manager: leaving it closes them.

    Args:
        daemon: whose address of the settings counts: `agent`, `relay` …, `run` for several services; empty: there are
            no pages, whatever the settings say.
        metrics: what the services count in.
        clock: monotonic seconds.
    """

    def __init__(self, daemon: str, metrics: Metrics, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._daemon = daemon
        self._clock = clock
        self._look = Look(at=clock(), problems=("starting",))
        self._asked = float("-inf")
        self.server = HealthServer(self, metrics)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.close()

    @contextmanager
    def opening(self, settings: Settings) -> Iterator[None]:
        """Serve at the address in the settings once the body of the `with` has ended without an error.

        Raises:
            UsageError: that is not possible; the body does not begin, and the pages stay where they were.
        """
        with self.server.opening(settings.service.address(self._daemon) if self._daemon else None):
            yield

    # -- in the main thread --------------------------------------------------------------------------------------------

    def look(self, group: ServiceGroup) -> None:
        """Look at services that run."""
        now = self._clock()
        stuck = self._look.stuck
        if now >= self._asked + _ASK_EVERY:
            self._asked, stuck = now, group.stuck(now)
        self._look = Look(at=now, stuck=stuck, problems=group.not_ready(), notes=group.notes())

    def wait_for(self, what: str) -> None:
        """Note that no service works now, and what for: the pages say that."""
        self._look = Look(at=self._clock(), problems=(what,))

    # -- in the pages' thread ------------------------------------------------------------------------------------------

    def stuck(self) -> Sequence[str]:
        """Return what does not go on. A thread that failed is not among it: it ends the process."""
        look, now = self._look, self._clock()
        silence = now - look.at
        hangs = f"the main thread has not looked at its services for {silence:.0f} s"
        return tuple(filter(None, (look.stuck, hangs if silence > MOST_SILENCE else "")))

    def problems(self) -> Sequence[str]:
        """Return what stops the work."""
        return (*self.stuck(), *self._look.problems)

    def notes(self) -> Sequence[str]:
        """Return what a person should know although the work goes on."""
        return self._look.notes
