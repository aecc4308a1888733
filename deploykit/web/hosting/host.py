"""The rollouts of a console: begun, proposed, asked to do something, taken over from a console that is gone, left.

Rules:

* A rollout is in the ledger before anything of it is sent.
* Leases are renewed three times in their length. What another console holds no more is taken over, by who can go on.
* A proposal that enough people have signed begins once its time has come, unless its site has moved on since.
  A day after its mandate is over it is withdrawn.
* At the end all rollouts are left and their leases given back: the next process, or another console, goes on at once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Final

from deploykit.bus import Bus
from deploykit.bus.events import BusState
from deploykit.errors import ConnectError, DeploykitError, JournalDamaged, LedgerError, PolicyRefused, UsageError
from deploykit.fleet.controls import ControlKind, ControlRequest
from deploykit.fleet.mandates import HeldMandate
from deploykit.messages import utc_now
from deploykit.operations.deploy import load_report_trust
from deploykit.operations.keychoice import KeyChoice
from deploykit.operations.propose import approved, planned_of
from deploykit.operations.rolloutplan import PlannedRollout
from deploykit.operations.siteasks import asked_here, strictest
from deploykit.settings.node import Settings
from deploykit.trust.check import Trust
from deploykit.trust.signature import BodySigner
from deploykit.web.actions.hostport import ConsoleRollout
from deploykit.web.hosting.lookup import RolloutLookup, console_rollout
from deploykit.web.hosting.owners import ConsoleOwner
from deploykit.web.hosting.proposing import (
    AGAIN,
    ProposalAnnouncer,
    ProposalClock,
    head_of,
    what_next,
)
from deploykit.web.hosting.running import HostedRun, RunPorts
from deploykit.web.ledger.leases import RolloutLease
from deploykit.web.ledger.ledger import Ledger
from deploykit.web.ledger.rollouts import LedgerRollout, ProposalMark

_log = logging.getLogger(__name__)

#: Most seconds between two looks at the leases.
_LOOK: Final = 2.0
#: The same while no broker is connected: what is left is gone on with once one is.
_SOON: Final = 0.5
#: Seconds for all rollouts to be left at the end.
LEAVE_SECONDS: Final = 1.8


class RolloutHost(RolloutLookup):
    """Coordinates rollouts in threads. Use it from any thread.

    Args:
        settings: of this machine.
        bus: started by the time `start` is called.
        ledger: open.
        locks: where consoles that share a directory show each other that they are alive.
        now: the wall clock, aware UTC.

    Raises:
        LedgerError: `locks` cannot be used.
    """

    def __init__(
        self,
        settings: Settings,
        bus: Bus,
        ledger: Ledger,
        *,
        locks: Path | None = None,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        super().__init__(ledger.rollouts)
        self._settings = settings
        self._bus = bus
        self._ledger = ledger
        self._now = now
        self._seconds = settings.web.lease
        #: The console's own key: read when it is first needed, and kept.
        self.key = KeyChoice()
        #: Is called with a proposal that began, or was withdrawn, by itself, and which of both: for the audit.
        self.on_decided: Callable[[LedgerRollout, str], object] = lambda _row, _what: None
        #: Is called after each look with how many rollouts run here, and how many proposals wait: for the metrics.
        self.on_looked: Callable[[int, int], object] = lambda _running, _waiting: None
        self._owner = ConsoleOwner(locks if locks is not None else settings.state / "web" / "consoles")
        self._lock = threading.Lock()
        self._runs: dict[str, HostedRun] = {}
        self._beginning: set[str] = set()
        self._ending = threading.Event()
        self._proposals = ProposalClock()
        self._announcer = ProposalAnnouncer(settings, bus, lambda: self.key.load(settings))
        self._thread = threading.Thread(target=self._look_after, name="deploykit-web-rollouts", daemon=True)
        self._cannot_look = ""
        self._waits: dict[str, str] = {}
        self._left: tuple[str, ...] = ()

    # -- its life ------------------------------------------------------------------------------------------------------

    @property
    def owner(self) -> str:
        """The name under which this console holds leases."""
        return self._owner.name

    @property
    def here(self) -> tuple[str, ...]:
        """The rollouts that this console coordinates now."""
        with self._lock:
            return tuple(self._runs)

    @property
    def problems(self) -> tuple[str, ...]:
        """What a person should know, a line each."""
        with self._lock:
            runs = [f"rollout {run.rollout} waits: {run.problem}" for run in self._runs.values() if run.problem]
        waits = [f"proposal {rollout} cannot begin: {why}" for rollout, why in sorted(self._waits.items())]
        return (*((self._cannot_look,) if self._cannot_look else ()), *runs, *self._left, *waits)

    def serve(self) -> None:
        """Go on with what is left, and look after leases from now on."""
        self._thread.start()

    def close(self, seconds: float = LEAVE_SECONDS) -> None:
        """Leave all rollouts, and give their leases back. What takes longer is left to the end of its lease."""
        end = time.monotonic() + seconds
        self._ending.set()
        with self._lock:
            runs = list(self._runs.values())
        for run in runs:
            run.leave()
        for run in runs:
            if not run.join(end):
                _log.warning("rollout %s is not left in time; its lease ends by itself", run.rollout)
        if self._thread.ident is not None:
            self._thread.join(max(0.0, end - time.monotonic()))
        self._owner.close()

    # -- what people do: `web.actions.hostport.RolloutDesk` ------------------------------------------------------------

    def start(self, planned: PlannedRollout, by: str) -> None:
        """Begin a rollout that nobody must sign; it is in the ledger when this returns.

        Args:
            planned: from `plan_deploy` and its siblings.
            by: who begins it.

        Raises:
            ConnectError: no broker is connected; nothing was sent.
            RolloutBusy: another rollout of the site runs.
            LedgerError: the ledger cannot be written; nothing was sent.
        """
        head = head_of(planned, planned.mandate, self._now())
        with self._begins(planned.plan.rollout):
            self._run(self._ledger.rollouts.start(head, by, self.owner, self._seconds), resumed=False)

    def start_approved(self, rollout: str) -> None:
        """Begin a proposal that enough people have signed; it is in the ledger when this returns.

        Raises:
            PolicyRefused: too few have, its time is over or not come, or its site has moved on since.
            UsageError: it was withdrawn, or begun before.
            ConnectError, RolloutBusy, KeyFileError, LedgerError: it cannot begin now; nothing was sent.
        """
        while not self._start_as_it_is(rollout):
            pass  # somebody has signed in this moment: that signature goes out, too

    def _start_as_it_is(self, rollout: str) -> bool:
        """Begin a proposal with the signatures that it has now; return whether it stayed as it was meanwhile."""
        row = self._ledger.rollouts.find(rollout)
        if row is None or row.state != "proposed":
            raise UsageError(f"rollout {rollout[:80]!a} does not wait for people", "it has begun, or was withdrawn")
        head = row.head()
        if head.mandate is None:
            raise PolicyRefused(f"rollout {rollout} has no mandate", "propose it anew")
        planned = approved(planned_of(self._settings, head, key=self.key), head.mandate)
        since = self._ledger.rollouts.list(site=row.site, states=("running", "ended"), since=row.begun, limit=1)
        if since:
            raise PolicyRefused(
                f"rollout {since[0].rollout} of {row.site} was begun since {rollout} was proposed: "
                "what is live is not what people saw when they signed",
                "propose it anew, or withdraw it",
            )
        with self._begins(rollout):
            begun = head_of(planned, planned.mandate, self._now(), head.asks)
            lease = self._ledger.rollouts.begin(begun, self.owner, self._seconds, was=row.raw_head)
            if lease is not None:
                self._run(lease, resumed=False)
        return lease is not None

    def propose(self, planned: PlannedRollout, mandate: HeldMandate, by: str) -> None:
        """Keep a rollout that people must sign, and tell those who watch.

        Args:
            planned: what it would do.
            mandate: from `operations.propose.mandate_for`.
            by: who proposes it.

        Raises:
            PolicyRefused: the plan lies outside of the mandate.
            LedgerError: the ledger cannot be written.
        """
        asks = strictest((asked_here(self._settings, planned.plan.site), planned.asks))
        head = head_of(planned, mandate, self._now(), asks)
        self._ledger.rollouts.propose(head, by)
        self._announcer.tell(head, self._now())

    def change_mandate(self, rollout: str, change: Callable[[HeldMandate], HeldMandate]) -> ConsoleRollout:
        """Replace the mandate of a proposal, as when somebody has signed; tell those who watch.

        Raises:
            UsageError: it has begun, or was withdrawn.
            LedgerError: the ledger cannot be written.
            DeploykitError: what `change` raises.
        """
        row = self._ledger.rollouts.change_mandate(rollout, change)
        kept = console_rollout(row)
        self._announcer.tell(kept.head, self._now())
        return kept

    def withdraw(self, rollout: str) -> None:
        """End a proposal, and tell those who watch.

        Raises:
            UsageError: it has begun, or was withdrawn.
            LedgerError: the ledger cannot be written.
        """
        row = self._ledger.rollouts.find(rollout)
        self._ledger.rollouts.withdraw(rollout)
        if row is not None:
            with suppress(JournalDamaged):  # what cannot be read has nothing to announce
                self._announcer.tell(row.head(), self._now(), withdrawn=True)

    def control(self, rollout: str, kind: ControlKind, by: str, *, rollback: bool = False) -> None:
        """Leave a request for whoever coordinates a rollout, here or on another console.

        Raises:
            UsageError: it does not run.
            LedgerError: the ledger cannot be written.
        """
        self._ledger.requests.ask(rollout, ControlRequest(kind=kind, by=by, rollback=rollback))
        with self._lock:
            run = self._runs.get(rollout)
        if run is not None:
            run.look()

    # -- leases --------------------------------------------------------------------------------------------------------

    def _look_after(self) -> None:
        pause = 0.0
        while not self._ending.wait(pause):
            pause = min(self._seconds / 3, _LOOK if self._bus.state is BusState.CONNECTED else _SOON)
            try:
                self._look()
            except LedgerError as error:
                if not self._cannot_look:
                    _log.error("%s", error)
                self._cannot_look = str(error)
            except Exception:  # noqa: BLE001 -- leases must be renewed; the next look may work
                _log.exception("cannot look after the rollouts of this console")
                self._cannot_look = "cannot look after rollouts, see the log"
            else:
                self._cannot_look = ""

    def _look(self) -> None:
        with self._lock:
            runs = dict(self._runs)
        for rollout in self._ledger.leases.renew([run.lease for run in runs.values()], self._seconds) if runs else ():
            _log.warning("the lease of rollout %s is lost, or it has ended", rollout)
            runs[rollout].leave(lost=True)
        if why := self._cannot_go_on():
            left = self._ledger.rollouts.list(states=("running",))
            self._left = tuple(f"rollout {each.rollout} waits for a console: {why}" for each in left if not each.led)
        else:
            self._left = ()
            self._take_over()
        self._undo_half_begun()
        self.on_looked(len(self.here), self._begin_due())
        self._announcer.send()

    def _take_over(self) -> None:
        gone = self._owner.gone()
        for lease in self._ledger.leases.take_over(self.owner, self._seconds, gone=gone):
            _log.warning("rollout %s is gone on with here: whoever coordinated it is gone", lease.rollout)
            self._run(lease, resumed=True)
        self._owner.forget(gone)

    def _cannot_go_on(self) -> str:
        """Return why this console could go on with no rollout: another one may; empty where it could."""
        if self._bus.state is not BusState.CONNECTED:
            return "no broker is connected"
        try:
            self._keys()
        except DeploykitError as error:
            return str(error)
        return ""

    def _undo_half_begun(self) -> None:
        """Undo what this console holds and does not run: whoever began it got an error."""
        with self._lock:
            known = {*self._runs, *self._beginning}
        for lease in self._ledger.leases.of(self.owner):
            if lease.rollout in known:
                continue
            with self._lock:  # it may have begun since
                if lease.rollout in self._runs or lease.rollout in self._beginning:
                    continue
            if not self._ledger.rollouts.undo(lease):
                self._run(lease, resumed=True)

    def _begin_due(self) -> int:
        """Begin the proposals that enough people have signed, once their time has come; return how many there were."""
        now = self._now()
        marks = self._ledger.rollouts.waiting()
        known = {mark.rollout for mark in marks}
        self._waits = {rollout: why for rollout, why in self._waits.items() if rollout in known}
        for mark in self._proposals.due(marks, now):
            self._waits.pop(mark.rollout, None)
            try:
                self._begin_if_due(mark, now)
            except LedgerError:
                raise
            except DeploykitError as error:
                self._proposals.again(mark, now + AGAIN)
                self._waits[mark.rollout] = str(error)
        return len(marks)

    def _begin_if_due(self, mark: ProposalMark, now: datetime) -> None:
        row = self._ledger.rollouts.find(mark.rollout)
        if row is None:
            return
        head = row.head()
        found = what_next(self._settings, head.mandate, now, head.asks)
        if isinstance(found, datetime):
            self._proposals.again(mark, found)
            return
        (self.start_approved if found == "begin" else self.withdraw)(mark.rollout)
        self.on_decided(row, found)

    # -- parts ---------------------------------------------------------------------------------------------------------

    @contextmanager
    def _begins(self, rollout: str) -> Iterator[None]:
        """Accept that a rollout begins here now, and keep `_undo_half_begun` from it meanwhile."""
        if self._ending.is_set():
            raise LedgerError("the console ends: nothing is begun", "try again in a moment")
        if self._bus.state is not BusState.CONNECTED:
            problem = self._bus.problem
            why = f": {problem.problem}" if problem is not None else ""
            raise ConnectError(f"no broker is connected{why}: nothing was sent", "try again when one is")
        with self._lock:
            self._beginning.add(rollout)
        try:
            yield
        finally:
            with self._lock:
                self._beginning.discard(rollout)

    def _run(self, lease: RolloutLease, *, resumed: bool) -> None:
        ports = RunPorts(
            bus=self._bus,
            topics=self._settings.topics,
            ledger=self._ledger,
            keys=self._keys,
            over=self._over,
            patience=self._seconds,
        )
        run = HostedRun(lease, ports, resumed=resumed)
        with self._lock:
            self._runs[lease.rollout] = run
        try:
            run.start()
        except RuntimeError as error:  # no thread can be made: `_undo_half_begun` or another console takes it
            self._over(run)
            raise LedgerError(f"rollout {lease.rollout} cannot be coordinated now: {error}", "try again") from error
        if self._ending.is_set():  # `close` may have looked already
            run.leave()

    def _over(self, run: HostedRun) -> None:
        with self._lock:
            if self._runs.get(run.rollout) is run:
                del self._runs[run.rollout]

    def _keys(self) -> tuple[BodySigner, Trust]:
        return self.key.load(self._settings), load_report_trust(self._settings)


__all__ = ["LEAVE_SECONDS", "RolloutHost"]
