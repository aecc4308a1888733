"""Messages without a trusted signature: counted, and once a minute logged, recorded and answered, with fixed texts.

Rules:

* They cost no file, no record and no dead letter each. Their ids are never claimed: nobody can spend a genuine one.
* The record is made before the answer. What is wrong in particular stands in log and audit alone.
"""

from __future__ import annotations

import logging
import time
from typing import Final

from deploykit.daemons.agent.command_audit import CommandAudit
from deploykit.daemons.agent.deploy_reports import DeployReportMaker
from deploykit.daemons.agent.reports import Reporter
from deploykit.daemons.service.throttle import LogThrottle
from deploykit.errors import DeploykitError, KeyFileError, MessageError, SignatureNotEnough
from deploykit.messages import DeployRequested
from deploykit.names import NodeName
from deploykit.trust.policy import addressed_to
from deploykit.trust.signature import frame_digest
from deploykit.wire import Frame, decode

_log = logging.getLogger(__name__)

#: The answer to unverified commands.
_NOT_OBEYED: Final = "this node obeys no command without a signature by a key that it trusts"
#: The answer to those whose signature is good, by a trusted key on a security key or a passkey, and shows too little.
_SHOWS_TOO_LITTLE: Final = (
    "the signature does not show what this node asks for: that somebody touched the key, by PIN or finger where that "
    "is required, and that a web page it knows asked for it"
)


class Strangers:
    """Refuses what is not verified.

    Args:
        node: who we are.
        reporter: queues the answers.
        reports: makes them.
        audit: where refusals are recorded.
    """

    def __init__(self, node: NodeName, reporter: Reporter, reports: DeployReportMaker, audit: CommandAudit) -> None:
        self._node = node
        self._reporter = reporter
        self._reports = reports
        self._audit = audit
        self._count = LogThrottle()

    def refuse(self, frame: Frame, problem: DeploykitError) -> None:
        """Count a message. One a minute is decoded, logged, recorded, and answered if it is a command."""
        count = self._count.add(str(problem), time.monotonic())
        if not count:
            return
        request = _command_in(frame, self._node)
        unforeseen = problem.__cause__ if isinstance(problem, KeyFileError) else None
        _log.warning(
            "refused%s: %s: %s",
            f" {count} messages, the last one" if count > 1 else "",
            request.summary if request else "no command for this node",
            problem,
            exc_info=None if isinstance(unforeseen, DeploykitError | OSError) else unforeseen,
        )
        self._audit.unverified(count, str(problem), request)
        if request is None:
            return
        detail = _SHOWS_TOO_LITTLE if isinstance(problem, SignatureNotEnough) else _NOT_OBEYED
        try:
            refusal = self._reports.without_result(request, frame_digest(frame), "refused", detail=detail)
            self._reporter.report(refusal, announced=False)
        except Exception as error:  # noqa: BLE001 -- refusals may neither fill our time nor make commands come again
            _log.error("cannot report a refusal: %s", error)

    def flush(self, now: float) -> None:
        """Log and record what was counted since, where that is due; `now` in monotonic seconds."""
        count, why = self._count.flush(now)
        if count:
            _log.warning("refused %d more messages without a trusted signature; the last one: %s", count, why)
            self._audit.unverified(count, why)


def _command_in(frame: Frame, node: NodeName) -> DeployRequested | None:
    """Return the command for this node that an unverified frame claims to be; None for anything else."""
    try:
        message = decode(frame.headers, frame.body)
    except MessageError:
        return None
    return message if isinstance(message, DeployRequested) and addressed_to(message, node) else None
