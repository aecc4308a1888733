"""The answer to a deploy command: one final report in the outbox, and then its id is done.

Rules:

* A report that was given before is given again, byte for byte.
* A refusal that claims no id is for the very frame that came: anybody can put another certificate of the same key into
  a copy, with fewer rights, and the answer to that must not pass for the answer to the genuine one.
* A copy with other signatures is the same command. It gets the same report, which then names that copy.
* A report that cannot be made with its steps goes out without them.
* The id is done only when the report is in the outbox.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime

import attrs

from deploykit.bus import Verdict
from deploykit.daemons.agent.deploy_decisions import DeployDecision
from deploykit.daemons.agent.deploy_reports import DeployReportMaker
from deploykit.daemons.agent.reports import Reporter
from deploykit.errors import MessageError
from deploykit.ids import IdStore
from deploykit.messages import DeployReported, DeployRequested
from deploykit.release import DeployResult
from deploykit.trust.check import Verified
from deploykit.trust.signature import frame_digest
from deploykit.wire import CONTENT_TYPE, Frame, decode

_log = logging.getLogger(__name__)


class DeployAnswerer:
    """Reports what was decided on a node's commands.

    Args:
        reporter: queues the reports.
        reports: makes them.
        ids: where a command's id is marked done.
        now: the wall clock, aware UTC.
    """

    def __init__(
        self, reporter: Reporter, reports: DeployReportMaker, ids: IdStore, now: Callable[[], datetime]
    ) -> None:
        self._reporter = reporter
        self._reports = reports
        self._ids = ids
        self._now = now

    def answer(
        self, decided: DeployDecision, request: DeployRequested, command: Verified, *, with_steps: bool
    ) -> Verdict:
        """Report what was decided, and mark its id done.

        Args:
            decided: the answer; notes what is in the outbox.
            request: the command.
            command: the signed copy that is answered.
            with_steps: False after a report with the steps failed again and again.

        Raises:
            IdStoreError, OutboxError: there is no room. Try again.
        """
        if decided.stored is not None:
            self._report_again(decided.stored, request, command)
        elif decided.result is not None:
            if decided.reported is None:
                decided.reported = self._report(decided, decided.result, request, command, with_steps=with_steps).body
            if decided.claimed:
                self._ids.done(command.keys, request.id, decided.reported, self._now())
        return decided.verdict

    def _report_again(self, stored: bytes, request: DeployRequested, command: Verified) -> None:
        try:
            message = decode({"content-type": CONTENT_TYPE}, stored)
            if isinstance(message, DeployReported) and message.answers != command.copy:
                self._reporter.report(self._reports.for_copy(message, command.copy), announced=False)
            else:
                self._reporter.report_again(stored)
        except MessageError as error:
            _log.error("cannot repeat the stored report: %s: %s", request.summary, error)
            detail = "it was answered before, and that report is damaged: see `deploykit release list`"
            again = self._reports.without_result(request, command.copy, "failure", detail=detail)
            self._reporter.report(again, announced=False)

    def _report(
        self,
        decided: DeployDecision,
        result: DeployResult,
        request: DeployRequested,
        command: Verified,
        *,
        with_steps: bool,
    ) -> Frame:
        """Queue the final report and return its frame; without the steps where a report with them cannot be made."""
        unclaimed = result.outcome == "refused" and not decided.claimed
        copy = frame_digest(command.frame) if unclaimed else command.copy
        if with_steps:
            try:
                report = decided.complete(self._reports.with_steps(request, copy, result))
                (frame,) = self._reporter.report(report)
            except MessageError as error:
                _log.error("cannot encode the report, leaving its steps out: %s: %s", request.summary, error)
            else:
                return frame
        detail = f"{result.detail}; " if result.detail else ""
        detail += "the steps could not be reported"
        short = attrs.evolve(result, detail=detail)
        (frame,) = self._reporter.report(decided.complete(self._reports.without_steps(request, copy, short)))
        return frame
