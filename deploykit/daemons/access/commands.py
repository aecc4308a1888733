"""The access daemon's commands: a signed one is obeyed once, and answered with one report.

    Trust.check -> authorize -> decisions -> claim the id -> audit -> keeper: file, test, reload, read back
                -> audit -> report into the outbox -> mark the id done -> Ack

Rules:

* A claimed id that is redelivered goes the same way again: the second time finds the file as it should be.
* A done id is answered again and not acted on.
* Unverified messages cost no file and no record. One a minute is logged, recorded and answered, with a fixed text.
* What cannot be recorded, claimed or reported is left at the broker, and comes again.
* The original's messages are obeyed only with `access.legacy`. Each costs a warning, for everybody to see.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from datetime import datetime
from typing import Final

from deploykit.bus import Ack, Delivery, Reject, Retry, Verdict
from deploykit.daemons.access.accessaudit import AccessAudit, AccessCommand
from deploykit.daemons.access.accessreports import AccessReportMaker
from deploykit.daemons.access.decisions import change_of
from deploykit.daemons.access.keeper import AccessKeeper
from deploykit.daemons.access.legacymessages import is_legacy, read_legacy
from deploykit.daemons.access.sitefile import AccessChange
from deploykit.daemons.agent.reports import Reporter
from deploykit.daemons.service.throttle import KeyedThrottle, LogThrottle
from deploykit.errors import (
    AccessError,
    AuditError,
    DeploykitError,
    IdForgotten,
    IdStoreError,
    KeyFileError,
    MessageError,
    NotAddressed,
    OutboxError,
    PolicyRefused,
    SignatureError,
)
from deploykit.ids import Claim, IdStore
from deploykit.messages import (
    AccessGrantRequested,
    AccessReported,
    AccessRevokeRequested,
    Notice,
)
from deploykit.names import NodeName
from deploykit.settings.access import AccessSettings
from deploykit.trust.check import Trust, Verified
from deploykit.trust.policy import addressed_to
from deploykit.trust.signature import body_digest, frame_digest
from deploykit.wire import CONTENT_TYPE, Frame, decode

_log = logging.getLogger(__name__)

#: Seconds until a message comes again that could not be recorded, or that this daemon leaves to its successor.
_RETRY_AFTER: Final = 5.0
_HAND_BACK_AFTER: Final = 900.0
#: How often a message waits for files of keys that cannot be read, and how often an unforeseen failure is tried.
_TRIES: Final = 3
_BUG_TRIES: Final = 5
#: Whose ids those of the original's messages are.
_LEGACY: Final = "legacy"
_NOT_OBEYED: Final = "this node obeys no command without a signature by a key that it trusts"


class AccessCommandHandler:
    """Obeys grants and revocations on one node. Use it from any thread.

    Args:
        node: who we are.
        settings: the protected sites.
        trust: judges the messages.
        ids: remembers which commands were acted on.
        keeper: changes the files.
        reporter: queues the reports.
        audit: where decisions are recorded.
        ending: set when the daemon ends.
        now: the wall clock, aware UTC.
    """

    def __init__(
        self,
        node: NodeName,
        settings: AccessSettings,
        *,
        trust: Trust,
        ids: IdStore,
        keeper: AccessKeeper,
        reporter: Reporter,
        audit: AccessAudit,
        ending: threading.Event,
        now: Callable[[], datetime],
    ) -> None:
        self._node = node
        self._settings = settings
        self._trust = trust
        self._ids = ids
        self._keeper = keeper
        self._reporter = reporter
        self._reports = AccessReportMaker(node=node)
        self._audit = audit
        self._ending = ending
        self._now = now
        self._clear_text = LogThrottle()
        self._delayed = LogThrottle()
        self._unreadable = KeyedThrottle()

    def handle(self, delivery: Delivery) -> Verdict:
        """Act on one delivery. What is not for this node, or is no command on an access, is acknowledged."""
        if self._ending.is_set():
            return Retry(after=_HAND_BACK_AFTER)
        frame = Frame(delivery.headers, delivery.body)
        try:
            if is_legacy(frame):
                return self._handle_legacy(frame, delivery.destination)
            return self._handle_signed(frame, delivery)
        except (AuditError, IdStoreError, OutboxError) as error:
            if count := self._delayed.add(str(error), time.monotonic()):
                _log.error("%d commands wait at the broker: %s", count, error)
            return Retry(after=_RETRY_AFTER)
        except (AccessError, CancelledError):  # the keeper has ended: the next daemon's work
            return Retry(after=_HAND_BACK_AFTER)
        except Exception as error:
            if delivery.attempt < _BUG_TRIES:
                raise
            _log.exception("given up: a command on an access")
            return Reject(f"unforeseen failure: {type(error).__name__}; see the log of the access daemon")

    def flush(self, now: float) -> None:
        """Record what was counted since; `now` in monotonic seconds, infinite at the end."""
        self._audit.flush(now)

    # -- signed --------------------------------------------------------------------------------------------------------

    def _handle_signed(self, frame: Frame, delivery: Delivery) -> Verdict:
        try:
            signed = self._trust.check(frame, self._now(), destination=delivery.destination)
        except (MessageError, KeyFileError, NotAddressed) as error:
            return self._leave(frame, error, delivery.attempt)
        command = signed.message
        if isinstance(command, AccessGrantRequested | AccessRevokeRequested) and command.site in self._settings.sites:
            return self._obey(command, signed)
        return Ack()

    def _leave(self, frame: Frame, problem: MessageError | KeyFileError | NotAddressed, attempt: int) -> Verdict:
        """Do with a frame what its problem asks for."""
        match problem:
            case NotAddressed():
                return Ack()
            case SignatureError():
                return self._refuse_stranger(frame, problem)
            case KeyFileError():
                if attempt >= _TRIES:
                    return self._refuse_stranger(frame, problem)
                _log.warning("cannot check signatures, retrying: %s", problem)
                return Retry(after=_RETRY_AFTER)
            case _:
                return self._keep_unreadable(frame, problem)

    def _keep_unreadable(self, frame: Frame, problem: MessageError) -> Verdict:
        """Dead-letter what a known key signed and we cannot read, each body once a minute: anybody can send a copy."""
        digest = body_digest(frame.body)
        if not self._unreadable.due(digest, time.monotonic()):
            return Ack()
        self._audit.unreadable(digest, str(problem))
        return Reject(str(problem))

    def _obey(self, command: AccessCommand, signed: Verified) -> Verdict:
        now, keys = self._now(), signed.keys
        try:
            claimed_at = self._ids.claimed_at(keys, command.id)
            authorized = signed.authorize(now, claimed_at=claimed_at)
            reply = self._ids.reply(keys, command.id) if claimed_at is not None else None
            change = None if reply is not None else self._change(command, claimed_at or now)
            claim = self._ids.claim(keys, command.id, signed.digest, now, keep_until=authorized.keep_until)
        except (PolicyRefused, IdForgotten) as error:
            _log.warning("refused: %s: %s: %s", signed.signer, command.summary, error)
            self._audit.denied(command, signed, str(error))
            self._reporter.report(self._reports.refused(command, frame_digest(signed.frame), str(error)))
            return Ack()
        if claim is Claim.CONFLICT:
            why = "the id of this request was used for another one: a replay, or a broken sender"
            self._audit.denied(command, signed, why)
            return Reject(why)
        if claim is Claim.DONE or change is None:
            return self._answer_again(reply or b"", command, signed)
        report = self._carry_out(command, signed, signed.copy, change, resumed=claim is Claim.RESUME)
        (queued,) = self._reporter.report(report)
        self._ids.done(keys, command.id, queued.body, self._now())
        return Ack()

    def _change(self, command: AccessCommand, now: datetime) -> AccessChange:
        return change_of(command, self._settings, now, self._keeper.revoked_at(command.site, command.user))

    def _carry_out(
        self, command: AccessCommand, signed: Verified | None, copy: str, change: AccessChange, *, resumed: bool
    ) -> AccessReported:
        """Make a change, and return the report on it.

        Raises:
            AuditError: it could not be recorded, so nothing was done.
            AccessError: the keeper has ended.
        """
        self._audit.allowed(command, signed, resumed=resumed)
        outcome = self._keeper.submit(command.site, change).result()
        self._audit.ended(command, signed, outcome)
        return self._reports.of_outcome(command, copy, outcome)

    def _answer_again(self, stored: bytes, command: AccessCommand, signed: Verified) -> Verdict:
        try:
            message = decode({"content-type": CONTENT_TYPE}, stored) if stored else None
            if isinstance(message, AccessReported) and message.answers != signed.copy:
                self._reporter.report(self._reports.for_copy(message, signed.copy), announced=False)
            elif stored:
                self._reporter.report_again(stored)
        except MessageError as error:
            _log.error("cannot repeat the stored report: %s: %s", command.summary, error)
        return Ack()

    # -- unsigned ------------------------------------------------------------------------------------------------------

    def _refuse_stranger(
        self, frame: Frame, problem: DeploykitError, command: AccessGrantRequested | None = None
    ) -> Verdict:
        """Count a message. One a minute is logged and recorded; if it is a command for this node, it is answered.

        Args:
            frame: as it came.
            problem: why it is refused.
            command: what it asks of this node, where the caller has read it already; None: look for it.
        """
        count = self._audit.unverified(str(problem))
        if not count:
            return Ack()
        asked = command or self._command_in(frame)
        claims = asked.summary if asked is not None else "no command for this node"
        _log.warning("refused%s: %s: %s", f" {count} messages, the last one" if count > 1 else "", claims, problem)
        if asked is not None:
            try:
                self._reporter.report(self._reports.refused(asked, frame_digest(frame), _NOT_OBEYED))
            except DeploykitError as error:  # refusals may not make commands come again
                _log.error("cannot report a refusal: %s", error)
        return Ack()

    def _command_in(self, frame: Frame) -> AccessCommand | None:
        try:
            message = decode(frame.headers, frame.body)
        except MessageError:
            return None
        if not isinstance(message, AccessGrantRequested | AccessRevokeRequested):
            return None
        here = addressed_to(message, self._node) and message.site in self._settings.sites
        return message if here else None

    # -- the original's ------------------------------------------------------------------------------------------------

    def _handle_legacy(self, frame: Frame, destination: str) -> Verdict:
        try:
            command = read_legacy(frame, destination, self._now(), self._settings)
        except MessageError:
            return Ack()  # lines of other programs share the topic
        if command is None or command.site not in self._settings.sites:
            return Ack()
        if not self._settings.legacy:
            problem = SignatureError("a grant in clear text", "set access.legacy to obey it")
            return self._refuse_stranger(frame, problem, command)
        return self._obey_legacy(command, frame)

    def _obey_legacy(self, command: AccessGrantRequested, frame: Frame) -> Verdict:
        now, copy = self._now(), frame_digest(frame)
        if count := self._clear_text.add(command.summary, time.monotonic()):
            text = (
                f"{self._node}: {count} accesses asked for in clear text that nobody signed, the last one for "
                f"{command.user} on {command.site}: whoever reads the bus knows the password (access.legacy is on)"
            )
            _log.warning("%s", text)
            self._reporter.report(Notice(source=f"access/{self._node}", text=text))
        try:
            change = self._change(command, now)
        except PolicyRefused as error:
            self._audit.denied(command, None, str(error))
            self._reporter.report(self._reports.refused(command, copy, str(error)))
            return Ack()
        claim = self._ids.claim(_LEGACY, command.id, body_digest(frame.body), now)
        if claim not in (Claim.FRESH, Claim.RESUME):
            return Ack()
        report = self._carry_out(command, None, copy, change, resumed=claim is Claim.RESUME)
        (queued,) = self._reporter.report(report)
        self._ids.done(_LEGACY, command.id, queued.body, self._now())
        return Ack()


__all__ = ["AccessCommandHandler"]
