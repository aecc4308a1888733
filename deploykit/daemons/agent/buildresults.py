"""The agent's build results: a signed one is verified and kept, and a success has its repository fetched.

    BuildFinished -> judge -> audit -> store (signed and granted) -> fetch (a success, where fetch_on = "build") -> Ack

Rules:

* A result is on disk before its message is acknowledged. While the disk or the trusted files fail, it comes again.
* Unsigned results, those of the original and those of keys without a grant start a fetch, and open no gate.
* What is not kept costs a log line a minute at most: anybody can send it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from deploykit.builds import BuildStore, SignedResult, judge_to_keep
from deploykit.bus import Ack, Delivery, Reject, Retry, Verdict
from deploykit.daemons.agent.mirrors import BUILT_WORKERS, MirrorHandler
from deploykit.daemons.agent.result_audit import ResultAudit
from deploykit.daemons.service.throttle import LogThrottle
from deploykit.errors import AuditError, BuildStoreError, KeyFileError, MessageError
from deploykit.messages import BuildFinished, utc_now
from deploykit.settings.node import Settings
from deploykit.trust.check import Trust
from deploykit.trust.signature import HEADER
from deploykit.wire import Frame, decode

_log = logging.getLogger(__name__)

#: Seconds until a result is tried again that could not be verified or kept, or that an ending agent left.
_RETRY_AFTER: Final = 30.0
#: How often one result is tried: for as long as a full disk or a broken file may take to be repaired.
ATTEMPTS: Final = 10_000
#: How often one is tried that meets an unforeseen failure; then it is a dead letter.
_TRIES: Final = 3
#: Message handlers that run at the same time.
WORKERS: Final = BUILT_WORKERS


def wants_builds(settings: Settings) -> bool:
    """Return whether a node must hear of builds: a repository is fetched after them, or a site requires one."""
    fetched = any(chosen.fetch_on == "build" for chosen in settings.repositories.values())
    return fetched or any(site.gated for site in settings.sites.values())


class BuildResultHandler:
    """Handles `BuildFinished` on one node.

    Args:
        settings: what is remembered.
        trust: judges the results.
        store: keeps the good ones.
        mirrors: fetches after a success.
        audit: where it is recorded which results count.
        now: the wall clock, aware UTC.
    """

    def __init__(
        self,
        settings: Settings,
        trust: Trust,
        store: BuildStore,
        mirrors: MirrorHandler,
        audit: ResultAudit,
        *,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._remember = timedelta(seconds=settings.builds.remember)
        self._trust = trust
        self._store = store
        self._mirrors = mirrors
        self._audit = audit
        self._now = now
        self._not_kept = LogThrottle()
        self._delayed = LogThrottle()

    def handle(self, delivery: Delivery) -> Verdict:
        """Keep a result and have its repository fetched. What is no build result is acknowledged and left alone."""
        try:
            message = decode(delivery.headers, delivery.body, delivery.destination)
        except MessageError as error:
            self._leave(f"no message: {error}")
            return Ack()
        if not isinstance(message, BuildFinished):
            return Ack()
        try:
            self._keep(message, Frame(delivery.headers, delivery.body))
            handed_on = self._fetch(message)
        except (AuditError, BuildStoreError, KeyFileError) as error:
            if count := self._delayed.add(str(error), time.monotonic()):
                _log.error("cannot handle build results, retrying %d: %s", count, error)
            return Retry(after=_RETRY_AFTER)
        except Exception as error:  # noqa: BLE001 -- a message that meets a bug must not come for ever
            _log.exception("cannot handle a build result: %s", message.summary)
            why = f"unforeseen: {type(error).__name__}"
            return Retry(after=_RETRY_AFTER) if delivery.attempt < _TRIES else Reject(why)
        return Ack() if handed_on else Retry(after=_RETRY_AFTER)

    def prune(self) -> None:
        """Drop what is older than is remembered."""
        try:
            self._store.prune(self._now() - self._remember - self._trust.policy.skew)
        except BuildStoreError as error:
            _log.warning("cannot prune old build results: %s", error)

    def _keep(self, message: BuildFinished, frame: Frame) -> None:
        """Verify a result and keep it.

        Raises:
            AuditError, BuildStoreError, KeyFileError: not now.
        """
        if HEADER not in frame.headers:
            self._leave(f"it is not signed: {message.summary}")
            return
        try:
            signed = SignedResult.from_frame(frame)
            known = judge_to_keep(signed, self._trust, self._now(), remember=self._remember)
        except MessageError as error:
            self._refuse(f"{error}: {message.summary}")
            return
        if known.objection:
            self._refuse(f"{known.objection}: {message.summary}")
            return
        self._audit.counts(signed, known)
        if self._store.put(signed, known.result, known.signer, self._now()):
            _log.info("kept: %s", known.result.summary)

    def _fetch(self, message: BuildFinished) -> bool:
        if message.outcome != "success" or message.repo is None:
            return True
        reason = message.correlation_id or message.id
        return self._mirrors.fetch_built(message.repo, message.ref, message.commit, reason=reason)

    def _refuse(self, why: str) -> None:
        self._audit.refused(why)
        self._leave(why)

    def _leave(self, why: str) -> None:
        if count := self._not_kept.add(why, time.monotonic()):
            _log.info("%d build results open no gate; the last one: %s", count, why)
