"""The reports of nodes on one command about an access: which are believed, and who has not answered."""

from __future__ import annotations

import queue
import time
from collections.abc import Sequence

from deploykit.bus import Ack, Delivery, Verdict
from deploykit.errors import KeyFileError, MessageError, NotAddressed
from deploykit.messages import AccessReported, one_line, utc_now
from deploykit.names import NodeName
from deploykit.operations.accessmessages import AccessCommandMessage
from deploykit.trust.check import Trust
from deploykit.trust.signature import copy_digest, frame_digest
from deploykit.wire import Frame


class AccessReportHearing:
    """Collects the reports on one command.

    Args:
        trust: judges them.
        message: the command.
        frame: as it was sent.
    """

    def __init__(self, trust: Trust, message: AccessCommandMessage, frame: Frame) -> None:
        self._trust = trust
        self._message = message
        self._answers = {copy_digest(frame), frame_digest(frame)}
        self._heard: queue.SimpleQueue[AccessReported | str] = queue.SimpleQueue()

    def take(self, delivery: Delivery) -> Verdict:
        """Judge one message. Whatever it is, the broker may forget it."""
        if self._message.id.encode() in delivery.body:
            try:
                self._judge(Frame(delivery.headers, delivery.body), delivery.destination)
            except (MessageError, KeyFileError, NotAddressed) as error:
                self._heard.put(f"a report was not believed: {one_line(str(error), 200)}")
        return Ack()

    def _judge(self, frame: Frame, destination: str) -> None:
        verified = self._trust.check(frame, utc_now(), destination=destination)
        report, asked = verified.message, self._message
        if not isinstance(report, AccessReported) or report.request != asked.id:
            return
        if (report.site, report.user) != (asked.site, asked.user) or report.answers not in self._answers:
            self._heard.put(f"{report.node} answers another copy of this command: somebody sends under its id")
        elif not verified.policy.may_speak_for(verified.signer, report.node, report):
            self._heard.put(f"a report in the name of {report.node} was not believed: {verified.signer} signed it")
        else:
            self._heard.put(report)

    def collect(self, expected: Sequence[NodeName], end: float) -> tuple[dict[NodeName, AccessReported], list[str]]:
        """Return reports once all expected nodes have sent theirs, or at `end` (monotonic); and doubts."""
        reports: dict[NodeName, AccessReported] = {}
        doubts: list[str] = []
        while not reports.keys() >= set(expected):
            try:
                heard = self._heard.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                break
            if isinstance(heard, str):
                doubts.append(heard)
            else:
                reports[heard.node] = heard
        return reports, doubts


__all__ = ["AccessReportHearing"]
