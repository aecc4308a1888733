"""The rollouts of a console: begun, proposed, asked to do something, taken over from a console that is gone, left.

Rules:

* A rollout is in the ledger before anything of it is sent.
* Leases are renewed three times in their length. What another console holds no more is taken over.
* A proposal that enough people have signed begins once its time has come, unless its site has moved on since.
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
from deploykit.errors import ConnectError, DeploykitError, LedgerError, PolicyRefused, UsageError
from deploykit.fleet.controls import ControlRequest
from deploykit.fleet.journalhead import JournalHead
from deploykit.fleet.mandates import HeldMandate
from deploykit.messages import utc_now
from deploykit.operations.approval import ApprovalDesk
from deploykit.operations.deploy import load_report_trust
from deploykit.operations.keychoice import KeyChoice
from deploykit.operations.mandatefiles import blobs_of
from deploykit.operations.propose import approved, planned_of
from deploykit.operations.rolloutplan import PlannedRollout
from deploykit.settings.node import Settings
from deploykit.trust.check import Trust
from deploykit.trust.signature import BodySigner
from deploykit.web.hosting.owners import ConsoleOwner
from deploykit.web.hosting.proposing import AGAIN, ProposalAnnouncer, ProposalClock
from deploykit.web.hosting.running import HostedRun, RunPorts
from deploykit.web.ledger.leases import RolloutLease
from deploykit.web.ledger.ledger import Ledger
from deploykit.web.ledger.rollouts import KeptRollout

_log = logging.getLogger(__name__)

#: Most seconds between two looks at the leases.
_LOOK: Final = 2.0
#: Seconds for all rollouts to be left at the end.
LEAVE_SECONDS: Final = 1.8


class RolloutHost:
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
        self._settings = settings
        self._bus = bus
        self._ledger = ledger
        self._now = now
        self._seconds = settings.web.lease
        #: The console's own key: read when it is first needed, and kept.
        self.key = KeyChoice()
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
        return (*((self._cannot_look,) if self._cannot_look else ()), *runs, *waits)

    def start(self) -> None:
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

    # -- what people do ------------------------------------------------------------------------------------------------

    def begin(self, planned: PlannedRollout, by: str) -> str:
        """Begin a planned rollout, and return its id once the ledger has it.

        Args:
            planned: from `plan_deploy` and its siblings.
            by: who begins it.

        Raises:
            ConnectError: no broker is connected; nothing was sent.
            RolloutBusy: another rollout of the site runs.
            PolicyRefused: the plan lies outside of its mandate.
            LedgerError: the ledger cannot be written; nothing was sent.
        """
        head = self._head(planned, planned.mandate)
        with self._begins(planned.plan.rollout):
            self._run(self._ledger.rollouts.start(head, by, self.owner, self._seconds), resumed=False)
        return planned.plan.rollout

    def propose(self, planned: PlannedRollout, mandate: HeldMandate, by: str) -> JournalHead:
        """Keep a rollout that people must sign, and tell those who watch.

        Args:
            planned: what it would do.
            mandate: from `operations.propose.mandate_for`.
            by: who proposes it.

        Raises:
            PolicyRefused: the plan lies outside of the mandate.
            LedgerError: the ledger cannot be written.
        """
        head = self._head(planned, mandate)
        self._ledger.rollouts.propose(head, by)
        self._announcer.tell(head, self._now())
        return head

    def change_mandate(self, rollout: str, change: Callable[[HeldMandate], HeldMandate]) -> JournalHead:
        """Replace the mandate of a proposal, as when somebody has signed; tell those who watch. Then `begin_approved`.

        Raises:
            UsageError: it has begun, or was withdrawn.
            LedgerError: the ledger cannot be written.
            DeploykitError: what `change` raises.
        """
        head = self._ledger.rollouts.change_mandate(rollout, change)
        self._announcer.tell(head, self._now())
        return head

    def begin_approved(self, rollout: str) -> None:
        """Begin a proposal that enough people have signed.

        Raises:
            PolicyRefused: too few have signed it, its time is over or not come, or its site has moved on since.
            UsageError: it has begun, or was withdrawn.
            RolloutBusy, ConnectError, LedgerError, KeyFileError: it cannot begin now; nothing was sent.
        """
        kept = self._ledger.rollouts.find(rollout)
        if kept is None or kept.state != "proposed":
            raise UsageError(f"rollout {rollout[:80]!a} does not wait for people", "it has begun, or was withdrawn")
        head = kept.head()
        if head.mandate is None:
            raise PolicyRefused(f"rollout {rollout} has no mandate", "propose it anew")
        planned = approved(planned_of(self._settings, head, key=self.key), head.mandate)
        since = self._ledger.rollouts.list(site=kept.site, states=("running", "ended"), since=kept.begun, limit=1)
        if since:
            raise PolicyRefused(
                f"rollout {since[0].rollout} of {kept.site} was begun since {rollout} was proposed: "
                "what is live is not what people saw when they signed",
                "propose it anew",
            )
        with self._begins(rollout):
            made = self._head(planned, planned.mandate)
            self._run(self._ledger.rollouts.begin(made, self.owner, self._seconds), resumed=False)

    def withdraw(self, rollout: str) -> None:
        """End a proposal, and tell those who watch.

        Raises:
            UsageError: it has begun, or was withdrawn.
            LedgerError: the ledger cannot be written.
        """
        kept = self._ledger.rollouts.find(rollout)
        self._ledger.rollouts.withdraw(rollout)
        if kept is not None:
            with suppress(DeploykitError):  # one that cannot be read has nothing to tell
                self._announcer.tell(kept.head(), self._now(), withdrawn=True)

    def control(self, rollout: str, request: ControlRequest) -> bool:
        """Ask something of a rollout, here or on another console; return whether anybody coordinates it now.

        Raises:
            UsageError: it does not run.
            LedgerError: the ledger cannot be written.
        """
        self._ledger.requests.ask(rollout, request)
        with self._lock:
            run = self._runs.get(rollout)
        if run is not None:
            run.look()
            return True
        kept = self._ledger.rollouts.find(rollout)
        return kept is not None and kept.led

    # -- leases --------------------------------------------------------------------------------------------------------

    def _look_after(self) -> None:
        pause = 0.0
        while not self._ending.wait(pause):
            pause = min(self._seconds / 3, _LOOK)
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
        gone = self._owner.gone()
        for lease in self._ledger.leases.take_over(self.owner, self._seconds, gone=gone):
            _log.warning("rollout %s is gone on with here: whoever coordinated it is gone", lease.rollout)
            self._run(lease, resumed=True)
        self._owner.forget(gone)
        self._undo_half_begun()
        self._begin_due()
        self._announcer.send()

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

    def _begin_due(self) -> None:
        now = self._now()
        waiting = self._ledger.rollouts.list(states=("proposed",), limit=1000)
        self._waits = {rollout: why for rollout, why in self._waits.items() if rollout in {k.rollout for k in waiting}}
        for kept in self._proposals.due(waiting, now):
            try:
                self._begin_if_due(kept, now)
            except LedgerError:
                raise
            except DeploykitError as error:
                self._proposals.again(kept, now + AGAIN)
                self._waits[kept.rollout] = str(error)

    def _begin_if_due(self, kept: KeptRollout, now: datetime) -> None:
        head = kept.head()
        mandate = head.mandate
        self._waits.pop(kept.rollout, None)
        if mandate is None or not blobs_of(mandate) or now > mandate.message.not_after:
            self._proposals.not_again(kept, now)
        elif now < mandate.message.not_before:
            self._proposals.again(kept, mandate.message.not_before)
        elif self._missing(head, mandate, now):
            self._proposals.again(kept, now + AGAIN)
        else:
            self.begin_approved(kept.rollout)

    def _missing(self, head: JournalHead, mandate: HeldMandate, now: datetime) -> str:
        desk = ApprovalDesk.from_settings(self._settings)
        return desk.judge(desk.counting(mandate, now)[0], now)

    # -- parts ---------------------------------------------------------------------------------------------------------

    def _head(self, planned: PlannedRollout, mandate: HeldMandate | None) -> JournalHead:
        return JournalHead(
            plan=planned.plan,
            begun=self._now().timestamp(),
            evidence=planned.evidence,
            without_build=planned.without_build,
            override_lock=planned.override_lock,
            mandate=mandate,
        )

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
        )
        run = HostedRun(lease, ports, resumed=resumed)
        with self._lock:
            self._runs[lease.rollout] = run
        run.start()
        if self._ending.is_set():  # `close` may have looked already
            run.leave()

    def _over(self, run: HostedRun) -> None:
        with self._lock:
            if self._runs.get(run.rollout) is run:
                del self._runs[run.rollout]

    def _keys(self) -> tuple[BodySigner, Trust]:
        return self.key.load(self._settings), load_report_trust(self._settings)


__all__ = ["LEAVE_SECONDS", "RolloutHost"]
