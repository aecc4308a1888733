"""One rollout of a console: its coordinator in a thread, begun again after what can pass.

Rules:

* A broker, a database or a key that is away is waited for. Each attempt reads the journal anew.
* Who cannot go on for the length of a lease gives it back: another console may have the broker, or the key.
* A lease that is lost ends the thread at once: another console goes on, and has the journal.
* A journal that cannot be gone on with ends the rollout, so that its site is free; nothing more is sent.
* To leave is what Ctrl-C is on the command line: nothing more is sent, the lease is given back.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import attrs

from deploykit.bus import Bus
from deploykit.errors import DeploykitError, LedgerError, PolicyRefused, RolloutBusy, RolloutError
from deploykit.fleet.coordinator import RolloutCoordinator
from deploykit.fleet.observer import RolloutObserver
from deploykit.fleet.rollout import RolloutModel
from deploykit.messages import one_line
from deploykit.messages.topics import TopicMap
from deploykit.names import NodeName
from deploykit.system.backoff import Backoff
from deploykit.trust.check import Trust
from deploykit.trust.signature import BodySigner
from deploykit.web.ledger.journal import LedgerJournal
from deploykit.web.ledger.leases import RolloutLease
from deploykit.web.ledger.ledger import Ledger

_log = logging.getLogger(__name__)

_PAUSES: Final = Backoff(initial=0.5, maximum=10.0)
#: Seconds for one look at the connection, and for the broker's answer to a subscription: so long may leaving take.
_LOOK: Final = 0.5
_SUBSCRIBE: Final = 1.5


@attrs.frozen(kw_only=True, slots=True)
class RunPorts:
    """What a run uses.

    Args:
        bus: started; shared with the console.
        topics: where commands and reports go.
        ledger: has the journal.
        keys: returns what signs commands and who is believed, as they are now.
        over: is called, on the run's thread, when that ends.
        patience: seconds without a coordinator after which the lease is given back.
    """

    bus: Bus
    topics: TopicMap
    ledger: Ledger
    keys: Callable[[], tuple[BodySigner, Trust]]
    over: Callable[[HostedRun], None]
    patience: float


class HostedRun:
    """Coordinates one rollout under a lease, until it ends, is left, or the lease is lost.

    Args:
        lease: held by this console.
        ports: what it uses.
        resumed: another process may have sent something already.
    """

    def __init__(self, lease: RolloutLease, ports: RunPorts, *, resumed: bool) -> None:
        self.lease = lease
        self._ports = ports
        self._resumed = resumed
        self._leaving = threading.Event()
        self._lost = False
        self._coordinator: RolloutCoordinator | None = None
        self._journal: LedgerJournal | None = None
        self._thread = threading.Thread(target=self._run, name=f"deploykit-{lease.rollout}"[:60], daemon=True)
        self._idle_since = time.monotonic()
        #: Why it does not go on now; empty while it does.
        self.problem = ""

    @property
    def rollout(self) -> str:
        """Its id."""
        return self.lease.rollout

    def start(self) -> None:
        """Begin, or go on."""
        self._thread.start()

    def look(self) -> None:
        """Have it look at once for what people ask of it."""
        if (journal := self._journal) is not None:
            journal.look()

    def leave(self, *, lost: bool = False) -> None:
        """Have it end soon, the rollout unfinished. `lost`: the lease is another's."""
        self._lost = self._lost or lost
        self._leaving.set()
        if (coordinator := self._coordinator) is not None:
            coordinator.leave()

    def join(self, end: float) -> bool:
        """Wait for it until a monotonic time; return whether it has ended."""
        if self._thread.ident is not None:
            self._thread.join(max(0.0, end - time.monotonic()))
        return not self._thread.is_alive()

    # -- its thread ----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        failures = 0
        try:
            while not self._leaving.is_set():
                try:
                    if self._attempt():
                        return
                except RolloutBusy as error:
                    self._lost = True
                    _log.warning("%s", error)
                    return
                except DeploykitError as error:
                    failures += 1
                    self._note(str(error))
                except Exception:  # noqa: BLE001 -- a rollout is not left half-way by an error of the program
                    failures += 1
                    _log.exception("rollout %s: tried again", self.rollout)
                    self.problem = "an error of the program, see the log"
                if time.monotonic() - self._idle_since > self._ports.patience:
                    _log.warning("rollout %s is given back: %s", self.rollout, self.problem)
                    break
                if failures:
                    self._leaving.wait(_PAUSES.pause(failures))
            if not self._lost:
                with suppress(LedgerError):  # the lease ends by itself
                    self._ports.ledger.leases.release(self.lease)
        finally:
            self._ports.over(self)

    def _attempt(self) -> bool:
        """Coordinate; return whether the rollout has ended."""
        if not self._ports.bus.wait_connected(_LOOK):
            self._note("waiting for a broker")
            return False
        key, trust = self._ports.keys()
        try:
            journal = self._ports.ledger.journal(self.lease, self._wait)
            coordinator = RolloutCoordinator(
                self._ports.bus,
                self._ports.topics,
                key,
                trust,
                journal,
                resumed=self._resumed,
                observer=_RunObserver(self),
                connect_timeout=_SUBSCRIBE,
            )
        except (RolloutError, PolicyRefused) as error:
            self._abandon(error)
            return True
        self._journal, self._coordinator = journal, coordinator
        if self._leaving.is_set():  # told so before there was a coordinator
            return False
        try:
            return coordinator.run().ended
        finally:
            self._idle_since = time.monotonic()
            self._resumed = self._resumed or coordinator.begun
            self._journal = self._coordinator = None

    def _wait(self, error: LedgerError, failures: int) -> None:
        self._note(str(error))
        if self._leaving.wait(_PAUSES.pause(failures)):
            raise error

    def _abandon(self, error: DeploykitError) -> None:
        self._ports.ledger.rollouts.abandon(self.lease)
        _log.error("rollout %s cannot be gone on with, and is ended: %s", self.rollout, error)

    def _note(self, problem: str) -> None:
        if problem != self.problem:
            self.problem = problem
            _log.warning("rollout %s waits: %s", self.rollout, problem)


class _RunObserver(RolloutObserver):
    """Writes into the log what people would see in a terminal."""

    def __init__(self, run: HostedRun) -> None:
        self._run = run
        self._state = ""

    def changed(self, model: RolloutModel) -> None:
        self._run.problem = ""
        if model.state != self._state:
            self._state = model.state
            _log.info("rollout %s: %s", self._run.rollout, one_line(f"{model.state} {model.detail}".strip()))

    def doubted(self, node: NodeName, reason: str) -> None:
        _log.warning("rollout %s: a report of %s is not believed: %s", self._run.rollout, node, one_line(reason))

    def problem(self, text: str) -> None:
        _log.warning("rollout %s: %s", self._run.rollout, one_line(text))


__all__ = ["HostedRun", "RunPorts"]
