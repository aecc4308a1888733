"""The agent's mirrors: a pushed ref is fetched at once, and every mirror is compared with its origin now and then.

Rules: a message names what to look at; where to fetch from stands in the settings alone. A fetch that fails is
reported and tried again with growing pauses, so a lost message or an origin that was away costs time, never a ref.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from pathlib import Path

from deploykit.bus import Ack, Delivery, Reject, Verdict
from deploykit.daemons.reporting import Reporter
from deploykit.errors import LockBusy, MessageError, MirrorError, OutboxError
from deploykit.messages import MirrorOutcome, MirrorUpdated, RefUpdated, one_line
from deploykit.mirror import FetchResult, Mirror, RefChange, Refusal
from deploykit.names import RefName, RepoName, path_component
from deploykit.settings import Settings
from deploykit.wire import decode

_log = logging.getLogger(__name__)

#: The first pause after a failed fetch, in seconds; doubled each time, up to `Settings.reconcile_every`.
_FIRST_PAUSE = 2.0


def mirror_path(settings: Settings, repo: RepoName) -> Path:
    """Tell where this node keeps the mirror of `repo`."""
    return settings.state / "mirrors" / f"{path_component(repo)}.git"


class Mirroring:
    """Keeps the mirrors of one node."""

    def __init__(self, settings: Settings, reporter: Reporter) -> None:
        self._settings = settings
        self._reporter = reporter
        self._wake = threading.Condition()
        now = time.monotonic()
        self._due = dict.fromkeys(settings.repositories, now)
        self._failures = dict.fromkeys(settings.repositories, 0)

    def mirror(self, repo: RepoName) -> Mirror:
        """Open (or make) the mirror of a repository in the settings, for one piece of work; close it after."""
        chosen = self._settings.repositories[repo]
        path = mirror_path(self._settings, repo)
        path.parent.mkdir(parents=True, exist_ok=True)
        return Mirror.open(path, chosen.url, chosen.mirror)

    def handle(self, delivery: Delivery) -> Verdict:
        """Fetch what a `RefUpdated` names. Any other message, and any other repository, is none of our business."""
        try:
            message = decode(delivery.headers, delivery.body, delivery.destination)
        except MessageError as error:
            return Reject(str(error))
        if isinstance(message, RefUpdated) and message.repo in self._settings.repositories:
            expected = RefChange(ref=message.ref, old=message.old, new=message.new)
            self.sync(message.repo, expected, correlation_id=message.correlation_id or message.id)
        return Ack()

    def sync(self, repo: RepoName, expected: RefChange | None = None, *, correlation_id: str = "") -> bool:
        """Fetch one mirror and report each ref that moved. Tells whether the origin answered."""
        began = time.monotonic()
        try:
            with self.mirror(repo) as mirror:
                result = mirror.fetch(expected)
        except (MirrorError, LockBusy, OSError) as error:
            self._report_failure(repo, expected, error, time.monotonic() - began, correlation_id)
            self._schedule(repo, failed=True)
            return False
        self._report(repo, result, correlation_id)
        if result.gap:
            # An earlier message was missed, so other refs may be behind too: look at all of them now.
            _log.info("[%s] a message was missed: comparing every ref", repo)
            return self.sync(repo, correlation_id=correlation_id)
        self._schedule(repo, failed=False)
        return True

    def reconcile_soon(self) -> None:
        """Compare every mirror with its origin now: after a (re)connect, messages may have been missed."""
        with self._wake:
            self._due = dict.fromkeys(self._due, time.monotonic())
            self._wake.notify()

    def run(self, stop: threading.Event) -> None:
        """Compare mirrors with their origins as each falls due, until `stop` is set and `wake` was called."""
        while not stop.is_set():
            with self._wake:
                repo = min(self._due, key=self._due.__getitem__, default=None)
                pause = self._settings.reconcile_every if repo is None else self._due[repo] - time.monotonic()
                if pause > 0 or repo is None:
                    self._wake.wait(min(max(pause, 0.01), 1.0))
                    continue
            try:
                self.sync(repo)
            except Exception:  # noqa: BLE001 -- a node that no longer looks at its origins is worse than any error
                _log.exception("[%s] comparing with the origin failed", repo)
                self._schedule(repo, failed=True)

    def wake(self) -> None:
        """Let `run` look at its stop event."""
        with self._wake:
            self._wake.notify()

    def _schedule(self, repo: RepoName, *, failed: bool) -> None:
        with self._wake:
            self._failures[repo] = self._failures[repo] + 1 if failed else 0
            every = self._settings.reconcile_every
            pause = min(_FIRST_PAUSE * 2 ** min(self._failures[repo] - 1, 30), every) if failed else every
            self._due[repo] = time.monotonic() + pause * random.uniform(0.8, 1.2)  # noqa: S311 -- spreads load only
            self._wake.notify()

    def _report(self, repo: RepoName, result: FetchResult, correlation_id: str) -> None:
        updates = [self._update(repo, change, "updated", result.seconds, correlation_id) for change in result.changes]
        updates += [
            self._update(repo, refusal, "refused", result.seconds, correlation_id, refusal.reason)
            for refusal in result.refused
        ]
        self._say(*updates)

    def _say(self, *updates: MirrorUpdated) -> None:
        """Report. The refs stand where they stand: without room for the report, the mirror is right all the same."""
        try:
            if updates:
                self._reporter.say(*updates)
        except OutboxError as error:
            _log.error("a mirror's update could not be reported: %s", error)

    def _report_failure(
        self, repo: RepoName, expected: RefChange | None, error: Exception, seconds: float, correlation_id: str
    ) -> None:
        _log.warning("[%s] fetch failed: %s", repo, error)
        if expected is not None:
            self._say(self._update(repo, expected, "failed", seconds, correlation_id, one_line(str(error))))

    def _update(
        self,
        repo: RepoName,
        change: RefChange | Refusal,
        outcome: MirrorOutcome,
        seconds: float,
        correlation_id: str,
        detail: str = "",
    ) -> MirrorUpdated:
        return MirrorUpdated(
            source=f"agent/{self._settings.node}",
            correlation_id=correlation_id,
            node=self._settings.node,
            repo=repo,
            ref=RefName(change.ref),
            old=change.old,
            new=change.new,
            outcome=outcome,
            seconds=round(seconds, 3),
            detail=detail,
        )
