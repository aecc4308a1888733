"""Coordinate a rollout: fold what happens through the pure core, and do what it asks for, the journal first.

    report, request of another process, time -> event -> core -> journal, synced -> commands -> each node's own topic

Rules:

* The report topic is subscribed before anything is sent, so no report can be missed.
* An event and the commands that follow from it are in the journal before a command is sent.
* A plan that lies outside of its mandate is refused. The mandate goes out before the first command.
* A report counts only if a key that may speak for its node signed it, on this very copy of the command.
* A lost connection is waited for: deadlines run. A broker that is down at the start is an error, and nothing was sent.
* A process that is killed loses nothing: whoever runs the journal again ends in the same state.
* Time is monotonic: a clock that is set while a rollout runs moves no deadline.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

from deploykit.bus import Bus, Delivery
from deploykit.bus.events import Connected, ConnectionLost, Event
from deploykit.errors import BusError, KeyUnavailable
from deploykit.fleet.announcement import announcement, counts_of, kept_report
from deploykit.fleet.clock import SteadyClock
from deploykit.fleet.commandbook import CommandBook
from deploykit.fleet.commands import CommandMaker, SentCommand
from deploykit.fleet.controls import ControlRequest
from deploykit.fleet.inbox import RolloutInbox
from deploykit.fleet.journal import (
    AbortRecord,
    CommandRecord,
    DoubtRecord,
    EndRecord,
    EventRecord,
    JournalHead,
    JournalRecord,
)
from deploykit.fleet.journalport import JournalPort
from deploykit.fleet.lockwatch import LockWatch
from deploykit.fleet.mandatedesk import MandateDesk
from deploykit.fleet.mandates import require_inside
from deploykit.fleet.observer import RolloutObserver
from deploykit.fleet.replay import replay
from deploykit.fleet.reports import Doubt, ReportJudge, answer_of
from deploykit.fleet.rollout import RolloutModel, outstanding_asks, step
from deploykit.fleet.rolloutevents import (
    AbortAsked,
    Announce,
    Ask,
    CoordinatorCameBack,
    End,
    PauseAsked,
    PromoteAsked,
    ResumeAsked,
    RolloutAction,
    RolloutEvent,
    SendAbort,
    TimePassed,
)
from deploykit.fleet.sender import CommandSender
from deploykit.messages import ApprovalWanted, DeployReported, RolloutReported, one_line, utc_now
from deploykit.messages.topics import TopicMap
from deploykit.names import NodeName
from deploykit.trust.agentkey import needs_touch
from deploykit.trust.check import Trust
from deploykit.trust.signature import BodySigner, sign
from deploykit.wire import encode

#: Most seconds between two looks at the requests of other processes.
_LOOK: Final = 0.2
#: Seconds after the end in which the broker may confirm the abort.
_GRACE: Final = 10.0
#: Most hosts whose claim to coordinate this rollout is shown: every trusted key can sign any number of claims.
_MOST_RIVALS: Final = 5


class RolloutCoordinator:
    """Runs one rollout, from its journal, until it ends.

    Args:
        bus: connected.
        topics: where commands and reports go.
        key: signs the commands.
        trust: judges the reports.
        journal: of the rollout, open.
        resumed: another process has begun it, and is gone: the time since then counts to no deadline.
        observer: is shown what happens.
        connect_timeout: seconds to wait for the broker at the start.
        wall: the wall clock for signatures and expiries, aware UTC.

    Raises:
        PolicyRefused: the journal's plan lies outside of its mandate.
    """

    def __init__(
        self,
        bus: Bus,
        topics: TopicMap,
        key: BodySigner,
        trust: Trust,
        journal: JournalPort,
        *,
        resumed: bool = False,
        observer: RolloutObserver | None = None,
        connect_timeout: float = 30.0,
        wall: Callable[[], datetime] = utc_now,
    ) -> None:
        head = journal.contents.head
        require_inside(head.mandate, head.plan, without_build=head.without_build, override_lock=head.override_lock)
        self.plan = head.plan
        self._bus = bus
        self._topics = topics
        self._key = key
        self._journal = journal
        self._observer = observer or RolloutObserver()
        self._wall = wall
        self._maker = _maker(head, key, trust.policy.max_expiry)
        self._resumed = resumed
        self._replayed = replay(journal.contents)
        self._clock = SteadyClock(lambda: wall().timestamp(), not_before=self._replayed.at)
        self._book: CommandBook = self._replayed.book
        self._judge = ReportJudge(trust, self._book, self._replayed.doubts, wall)
        self._sender = CommandSender(bus, topics, self._observer.problem)
        self._mandates = MandateDesk(head.mandate, self._sender, trust, self._book, wall)
        self._locks = LockWatch(head.plan.site, bus, topics, trust)
        self._inbox = RolloutInbox(bus, topics, self._concerns, connect_timeout)
        self._announced: set[str] = set()
        self._rivals: set[str] = set()
        self._handled = set(self._replayed.controls)
        self._lost = self._leaving = False
        #: Whether anything was sent, or would be by whoever goes on.
        self.begun = resumed
        #: How the rollout stands.
        self.model: RolloutModel = self._replayed.model
        #: What nodes reported since this process began, by node.
        self.reports: dict[NodeName, DeployReported] = {}

    @property
    def doubts(self) -> dict[NodeName, tuple[str, ...]]:
        """Why reports were not believed, by node."""
        return self._judge.doubts

    def run(self) -> RolloutModel:
        """Carry the rollout out, or go on with it; return how it ended, or how it stands after `leave`.

        Raises:
            ConnectError: no broker is connected; nothing was sent.
            RolloutError, LedgerError: the journal cannot be written; nothing was sent that it does not hold.
            KeyUnavailable: the next command is not signed. What was sent is in the journal: it can be resumed.
            BusError: the bus cannot subscribe, or was stopped.
        """
        with self._inbox:
            self.begun = True
            self._observer.changed(self.model)
            self._begin()
            while not self.model.ended and not self._leaving:
                self._turn()
            self._see_abort_off()
        return self.model

    def leave(self) -> None:
        """Have `run` return soon, the rollout unfinished: whoever opens the journal next goes on. Thread-safe."""
        self._leaving = True

    def _concerns(self, delivery: Delivery) -> bool:
        """Return whether a delivery on the report topic is kept: a report, a question, another's announcement."""
        if self._judge.concerns(delivery) or self._mandates.concerns(delivery):
            return True
        return self._judge.announces(delivery, self.plan.rollout, self._announced)

    # -- one round of the loop -----------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Send what is asked and not answered; note that a coordinator came back, where there was one before."""
        if self.model.ended:  # the other process was killed before it noted the end
            self._journal.append(self._end_records())
            return
        asked = outstanding_asks(self.plan, self.model)
        self._mandates.publish(time.monotonic())
        if self._resumed:
            self._fold(CoordinatorCameBack(away=max(0.0, self._clock() - self._replayed.at)))
        if self._replayed.abort_wanted and not self.model.ended:
            self._send_abort()
        for ask in asked:
            self._ask(ask)
        self._announce()

    def _turn(self) -> None:
        """Wait for something to happen, and take it; then do what time alone asks for."""
        now = time.monotonic()
        self._mandates.step(now, self._wall(), self._owes)
        if news := self._mandates.news(self._wall()):
            self._observer.problem(news)
        again = self._sender.step(now, self._wall(), self._owes)
        due = self.model.wakes_at
        left = due - self._clock() if due is not None else _LOOK
        items = list(self._inbox.arrivals(max(0.005, min(_LOOK, again - now, left))))
        for request in self._journal.requests():  # first: a pause that was asked for must not be late
            self._obey(request)
        for item in items:
            if self.model.ended or self._leaving:
                return
            self._take(item)
        for delivery in self._inbox.progress():
            progress = self._judge.shows(delivery, self.plan.rollout)
            if progress is not None:
                self._observer.progressed(progress)
        due = self.model.wakes_at
        if due is not None and not self.model.ended and self._clock() >= due:
            self._fold(TimePassed())
        self._observer.tick()

    def _take(self, item: Delivery | Event) -> None:
        if isinstance(item, Connected) and self._lost:
            self._lost = False
            self._observer.problem("connected again")
        if isinstance(item, ConnectionLost):
            self._lost = True
            self._observer.problem(f"connection lost, waiting for the broker: {item.reason}")
        elif isinstance(item, Event):
            self._sender.hurry(time.monotonic())
        elif isinstance(item.message, ApprovalWanted):
            self._mandates.hear(item, time.monotonic())
        else:
            self._hear(item)

    def _hear(self, delivery: Delivery) -> None:
        """Judge a report, and fold it if it is believed."""
        match self._judge.believe(delivery):
            case DeployReported() as report:
                self._book.answered(report.node, report.phase, report.outcome)
                self.reports[report.node] = kept_report(report, len(self.plan.nodes))
                self._observer.reported(report)
                self._locks.hear(report.lock, self._wall(), time.monotonic())
                self._fold(answer_of(report))
            case RolloutReported() as rival if rival.host not in self._rivals and len(self._rivals) < _MOST_RIVALS:
                self._rivals.add(rival.host)
                host = one_line(rival.host)
                text = f"another process coordinates this rollout too, on {host}: end one of them with Ctrl-C"
                self._observer.problem(text)
            case Doubt() as doubt:
                self._journal.append([DoubtRecord(node=doubt.node, reason=doubt.reason)], durable=False)
                self._observer.doubted(doubt.node, doubt.reason)

    def _obey(self, request: ControlRequest) -> None:
        """Carry out a request of another process, once."""
        if self.model.ended:
            return
        if request.name not in self._handled:
            self._handled.add(request.name)
            self._fold(_event_of(request), control=request.name)
        self._journal.settle(request)

    def _owes(self, node: NodeName, command: SentCommand) -> bool:
        """Return whether a node is still waited for, and has not answered this command."""
        request = command.request
        return self.model.outstanding.get(node) == request.phase and self._book.wanted(node, request.id) is command

    # -- what the core asks for ----------------------------------------------------------------------------------------

    def _fold(self, event: RolloutEvent, *, control: str = "") -> None:
        """Take an event: journal it with all that follows from it, then send."""
        now = self._clock()
        model, actions = step(self.plan, self.model, event, now)
        if model == self.model and not actions and not control:
            return
        self.model = model
        records: list[JournalRecord] = [EventRecord(at=now, event=event, control=control)]
        commands = [command for action in actions if isinstance(action, Ask) for command in self._commands(action)]
        records += [CommandRecord(command=command) for command in commands]
        abort = self._maker.abort(model.detail, self._wall()) if _has(actions, SendAbort) else None
        records += [AbortRecord(abort=abort)] if abort is not None else []
        records += self._end_records() if _has(actions, End) else []
        self._journal.append(records, durable=len(records) > 1 or bool(control))
        for command in commands:
            self._send(command, command.request.audience)
        if abort is not None:
            self._sender.abort(abort)
        if _has(actions, Announce):
            self._announce()
        self._observer.changed(model)

    def _commands(self, ask: Ask) -> list[SentCommand]:
        return list(self._maker.deploys(ask.phase, ask.target, ask.nodes, self._wall()))

    def _send(self, command: SentCommand, nodes: Sequence[NodeName], *, again: bool = False) -> None:
        if not again:
            self._book.add(command)
        self._sender.send(command, nodes, time.monotonic(), again=again)

    def _ask(self, ask: Ask) -> None:
        """Send what a journal has asked for: the same bytes where nodes still obey them, else a new command."""
        now = self._wall()
        usable: dict[str, tuple[SentCommand, list[NodeName]]] = {}
        others: list[NodeName] = []
        for node in ask.nodes:
            if self.model.outstanding.get(node) != ask.phase:
                continue  # its time was over when we came back
            command = self._book.usable(node, ask, now)
            if command is None:
                others.append(node)
            else:
                usable.setdefault(command.request.id, (command, []))[1].append(node)
        new = list(self._maker.deploys(ask.phase, ask.target, others, now))
        if new:
            self._journal.append([CommandRecord(command=command) for command in new])
        for command, nodes in usable.values():
            self._send(command, nodes, again=True)
        for command in new:
            self._send(command, command.request.audience)

    def _send_abort(self) -> None:
        """Send the abort of a coordinator that is gone: the same bytes where nodes still obey them."""
        abort = self._replayed.abort
        if abort is not None and self._wall() < abort.message.expires:
            self._sender.abort(abort, again=True)
            return
        abort = self._maker.abort(self.model.detail, self._wall())
        self._journal.append([AbortRecord(abort=abort)])
        self._sender.abort(abort)

    def _end_records(self) -> list[JournalRecord]:
        model = self.model
        code = model.exit_code(self.plan)
        return [EndRecord(state=model.state, at=self._clock(), exit_code=code, counts=counts_of(model))]

    def _announce(self) -> None:
        """Publish how the rollout stands, signed, for people who watch. Nothing waits for it, no touch is asked for."""
        if needs_touch(self._key):
            return
        message = announcement(self.plan, self.model, self._wall())
        self._announced.add(message.id)
        try:
            frame = sign(encode(message), self._key)
        except KeyUnavailable as error:  # the next command fails by it, if there is one
            self._observer.problem(f"nobody else is shown how the rollout stands: {error}")
            return
        with contextlib.suppress(BusError):  # people who watch see the next one
            self._bus.publish_nowait(self._topics.report, frame)

    def _see_abort_off(self) -> None:
        """Wait a moment until the broker has confirmed an abort: a node that was away must hear of it."""
        end = time.monotonic() + _GRACE
        while self._sender.abort_pending and not self._leaving and (now := time.monotonic()) < end:
            self._sender.step(now, self._wall(), self._owes)
            self._observer.tick()
            time.sleep(0.02)  # the sender makes a new future at each attempt, so there is none to wait for


def _maker(head: JournalHead, key: BodySigner, max_expiry: timedelta) -> CommandMaker:
    plan = head.plan
    return CommandMaker(
        rollout=plan.rollout,
        site=plan.site,
        requested_by=plan.requested_by,
        correlation_id=plan.correlation_id or plan.rollout,
        key=key,
        expires_in=min(timedelta(seconds=plan.options.timeout), max_expiry),
        evidence=head.evidence,
        without_build=head.without_build,
        override_lock=head.override_lock,
        mandate=head.mandate,
    )


def _event_of(request: ControlRequest) -> RolloutEvent:
    match request.kind:
        case "pause":
            return PauseAsked(by=request.by)
        case "resume":
            return ResumeAsked(by=request.by)
        case "promote":
            return PromoteAsked(by=request.by)
        case "abort":
            return AbortAsked(by=request.by, rollback=request.rollback)


def _has(actions: Sequence[RolloutAction], kind: type[RolloutAction]) -> bool:
    return any(isinstance(action, kind) for action in actions)


__all__ = ["RolloutCoordinator"]
