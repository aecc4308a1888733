"""Several services as one: started in turn, ended at the same time, on one bus or each on its own.

Rules:

* An error says which service it is about, where there are several.
* One that fails ends all: a process never does half of what it was started for.
* Services end first, the bus that they share ends last.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from types import TracebackType
from typing import Self

from deploykit.bus import Bus
from deploykit.daemons.service.service import STOP_SECONDS, Service
from deploykit.errors import DeploykitError, ServiceFailed
from deploykit.messages import one_line


class ServiceGroup:
    """Services that live and end together.

    Args:
        services: not yet started.
        bus: what they share, not yet started; None: each has its own.
    """

    def __init__(self, services: Sequence[Service], *, bus: Bus | None = None) -> None:
        self.services = tuple(services)
        self._bus = bus
        self._connected = False
        self._announced: set[str] = set()

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            if self._bus is not None:
                self._bus.start()
                undo.callback(self._bus.stop, STOP_SECONDS)
            for service in self.services:
                undo.callback(service.discard)  # also of those that are not started: a bus holds descriptors
            for service in self.services:
                self._of(service, undo.enter_context, service)
            undo.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        try:
            _all_at_once([partial(one.__exit__, None, None, None) for one in self.services])
        finally:
            if self._bus is not None:
                self._bus.stop(STOP_SECONDS)

    def discard(self) -> None:
        """Free what services hold that were made and never started: the descriptors of a bus."""
        for service in self.services:
            service.discard()
        if self._bus is not None:
            self._bus.stop(0)

    def check(self) -> None:
        """Make sure that every service can do its work, as far as that is known.

        Raises:
            LoginRefused: no broker accepts the credentials, and none ever did.
            DeploykitError: a service has failed for good.
        """
        for service in self.services:
            self._of(service, service.check)
            if not self._connected:
                self._of(service, service.wait_connected, 0)
        self._connected = self._connected or all(service.connected for service in self.services)

    def newly_ready(self) -> list[str]:
        """Return the names of the services that do their work now, each once."""
        found = [one.name for one in self.services if one.name not in self._announced and one.working]
        self._announced.update(found)
        return found

    @property
    def all_ready(self) -> bool:
        """Whether `newly_ready` has returned every name."""
        return len(self._announced) == len(self.services)

    @property
    def status(self) -> str:
        """One line for people: what each is doing, and what they should know."""
        parts = (("; ".join((one.status, *one.problems)), one) for one in self.services)
        alone = len(self.services) == 1
        return one_line(" | ".join(text if alone else f"{one.name}: {text}" for text, one in parts))

    def not_ready(self) -> tuple[str, ...]:
        """Return what keeps the services from their work, one line each. Call it after `check`."""
        several = len(self.services) > 1
        return tuple(f"{one.name}: {line}" if several else line for one in self.services for line in _not_ready(one))

    def notes(self) -> tuple[str, ...]:
        """Return what a person should know although the services work, one line each. Call it after `check`."""
        several = len(self.services) > 1
        return tuple(
            f"{one.name}: {line}" if several else line
            for one in self.services
            for line in one.problems
            if line not in one.blocking
        )

    @property
    def busy(self) -> str:
        """What the end waits for, however long that takes; empty: nothing."""
        return ", ".join(filter(None, (one.busy for one in self.services)))

    @property
    def finished(self) -> bool:
        """Whether one service has done all it was made for."""
        return any(one.finished for one in self.services)

    def stuck(self, now: float) -> str:
        """Return which service does not go on, and what of it; empty while all do."""
        return "; ".join(f"{one.name}: {text}" for one in self.services if (text := one.stuck(now)))

    def _of(self, service: Service, action: Callable[..., object], *args: object) -> None:
        """Do something of one service; where that fails and there are several, say which service it was."""
        try:
            action(*args)
        except DeploykitError as error:
            if len(self.services) > 1:
                name_in(error, service.name)
            raise
        except Exception as error:
            if len(self.services) == 1:
                raise
            raise ServiceFailed(f"{service.name}: {type(error).__name__}: {error}") from error


def _not_ready(service: Service) -> Iterator[str]:
    if not service.connected:
        yield "waiting for a broker"
    elif not service.working and not service.problems:
        yield "connected, and not at work yet"
    yield from service.blocking


def name_in(error: DeploykitError, name: str) -> None:
    """Put the name of a service before the text of an error, and before each of its problems."""
    problem, error.problem = error.problem, f"{name}: {error.problem}"
    problems = getattr(error, "problems", ())
    if problems == (problem,):
        error.problems = (error.problem,)  # type: ignore[attr-defined]  # SettingsError and the like


def _all_at_once(actions: Sequence[Callable[[], object]]) -> None:
    """Do all, each in a thread of its own but for a single one; raise the first error once all are done."""
    if len(actions) == 1:
        actions[0]()
        return
    errors: list[BaseException] = []

    def do(action: Callable[[], object]) -> None:
        try:
            action()
        except BaseException as error:  # noqa: BLE001 -- raised below
            errors.append(error)

    threads = [threading.Thread(target=do, args=(a,), name="deploykit-end", daemon=True) for a in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
