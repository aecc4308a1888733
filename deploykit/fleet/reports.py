"""Which reports count: those of the nodes that were asked, signed by a key that may speak for them, on our very copy.

Rules:

* What is no report on a command of this rollout costs a look at it, and nothing else.
* A doubt is kept for each node, each reason once and a few of them: anybody can send any number of reports.
* A doubt is no answer: the node is waited for as before.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Container, Mapping
from datetime import datetime
from typing import Final

import attrs

from deploykit.bus import Delivery
from deploykit.errors import KeyFileError, MessageError, PolicyRefused
from deploykit.fleet.commandbook import CommandBook
from deploykit.fleet.plan import Target
from deploykit.fleet.rolloutevents import NodeAnswered
from deploykit.messages import DeployProgressed, DeployReported, RolloutReported
from deploykit.messages.base import one_line
from deploykit.names import NodeName
from deploykit.trust.check import Trust
from deploykit.trust.signature import frame_digest
from deploykit.wire import Frame

_log = logging.getLogger(__name__)

#: Most reasons against one node's reports that are kept.
MOST_DOUBTS: Final = 10


@attrs.frozen(kw_only=True, slots=True)
class Doubt:
    """Why a report in a node's name is not believed."""

    node: NodeName
    reason: str


class ReportJudge:
    """Judges reports on the commands of a rollout.

    Args:
        trust: whose signatures count.
        book: the commands.
        doubts: those of earlier processes.
        now: the wall clock, aware UTC.
    """

    def __init__(
        self,
        trust: Trust,
        book: CommandBook,
        doubts: Mapping[NodeName, tuple[str, ...]],
        now: Callable[[], datetime],
    ) -> None:
        self._trust = trust
        self._book = book
        self._now = now
        self.doubts = dict(doubts)

    def concerns(self, delivery: Delivery) -> bool:
        """Return whether a delivery claims to be a report on one of our commands. Nothing is verified."""
        try:
            message = delivery.message
        except MessageError as error:
            _log.debug("not a message on %s: %s", delivery.destination, error)
            return False
        return isinstance(message, DeployReported) and self._book.is_ours(message.request)

    def announces(self, delivery: Delivery, rollout: str, ours: Container[str]) -> bool:
        """Return whether a delivery claims to be another coordinator's announcement of our rollout.

        Args:
            delivery: of the report topic; a message.
            rollout: its id.
            ours: the ids of what we announced.
        """
        with contextlib.suppress(MessageError):
            message = delivery.message
            return isinstance(message, RolloutReported) and message.rollout == rollout and message.id not in ours
        return False

    def believe(self, delivery: Delivery) -> DeployReported | RolloutReported | Doubt | None:
        """Return the report if it is believed, why it is not where that is new, else None.

        Args:
            delivery: one that concerns us; of another coordinator's announcement only the signature is checked.
        """
        report = delivery.message
        if isinstance(report, RolloutReported):
            with contextlib.suppress(MessageError, PolicyRefused, KeyFileError):
                self._trust.check(_frame(delivery), self._now(), destination=delivery.destination)
                return report
        if not isinstance(report, DeployReported):
            return None
        command = self._book.wanted(report.node, report.request, report.outcome)
        if command is None:
            return None
        now = self._now()
        try:
            self._trust.check(_frame(delivery), now, destination=delivery.destination).believe(
                command.request,
                now,
                copy=command.copy,
                as_sent=frame_digest(command.frame) if report.outcome == "refused" else None,
            )
        except (MessageError, PolicyRefused, KeyFileError) as error:
            return self._doubt(report, one_line(str(error)))
        return report

    def shows(self, delivery: Delivery, rollout: str) -> DeployProgressed | None:
        """Return the progress of a node in our rollout, if a key that may speak for the node signed it."""
        try:
            message = delivery.message
            if not isinstance(message, DeployProgressed) or message.rollout != rollout:
                return None
            verified = self._trust.check(_frame(delivery), self._now(), destination=delivery.destination)
            if not self._trust.policy.may_speak_for(verified.signer, message.node, message):
                return None
        except (MessageError, PolicyRefused, KeyFileError) as error:
            _log.debug("progress is not shown: %s", error)
            return None
        return message

    def _doubt(self, report: DeployReported, reason: str) -> Doubt | None:
        known = self.doubts.get(report.node, ())
        if reason in known or len(known) >= MOST_DOUBTS:
            return None
        _log.warning("report not believed: %s: %s", report.summary, reason)
        self.doubts[report.node] = (*known, reason)
        return Doubt(node=report.node, reason=reason)


def answer_of(report: DeployReported) -> NodeAnswered:
    """Return what a believed report means to the rollout."""
    return NodeAnswered(
        node=report.node,
        phase=report.phase,
        outcome=report.outcome,
        previous=Target.of(report.previous),
        live=Target.of(report) if report.live_known else None,
        detail=one_line(report.detail),
    )


def _frame(delivery: Delivery) -> Frame:
    return Frame(delivery.headers, delivery.body)


__all__ = ["MOST_DOUBTS", "Doubt", "ReportJudge", "answer_of"]
