"""The agent's mirrors and checkouts: a pushed ref is fetched at once, and every mirror is compared now and then.

    RefUpdated -> pool: fetch -> checkouts -> MirrorUpdated into the outbox -> Ack
    BuildFinished, a success -> the same, for repositories with fetch_on = "build"

Rules:

* A message names what to fetch. The address to fetch from stands in the settings alone.
* A fetch that fails is reported and tried again with growing pauses: a lost message costs time, never a ref.
* A silent origin holds up no message but its own.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Final

from deploykit.builds.store import builds_of
from deploykit.bus import Ack, Delivery, Reject, Retry, Verdict
from deploykit.checkouts import Checkouts
from deploykit.daemons.agent.builtfetches import BUILT, BuiltFetches, Refs
from deploykit.daemons.agent.damage import damaged_among
from deploykit.daemons.agent.mirror_reports import (
    FetchAsked,
    RefProblem,
    RefReport,
    Reported,
    left_out,
    lfs_problems,
    reports_after,
    word_for,
)
from deploykit.daemons.agent.pending_reports import PendingReports
from deploykit.daemons.agent.reports import Reporter
from deploykit.daemons.agent.submodules import SubmoduleCheckouts
from deploykit.daemons.service.metrics import Metrics
from deploykit.errors import (
    DeploykitError,
    MessageError,
    MirrorError,
    UsageError,
)
from deploykit.git.transport.address import parse_origin_url
from deploykit.messages import Message, MirrorOutcome, MirrorUpdated, Notice, RefUpdated, one_line
from deploykit.mirror import FetchResult, Mirror, RefChange
from deploykit.mirror.model import zero_like
from deploykit.mirror.pool import Answer, MirrorPool
from deploykit.mirror.schedule import FetchRequest
from deploykit.names import ObjectId, RefName, RepoName, path_component
from deploykit.settings.node import Settings
from deploykit.wire import decode

_log = logging.getLogger(__name__)

#: Message handlers that run at the same time, and how many of them may wait for a fetch.
WORKERS: Final = 16
_SEATS: Final = 12
#: The same for build results. One handler never waits: what a gate is to know does not stand behind a silent origin.
BUILT_WORKERS: Final = 4
#: Seconds a handler waits for its fetch; less than the agent's end takes.
_PATIENCE: Final = 8.0
#: Most messages kept for one fetch. Then it looks at every ref, and further messages get no report of their own.
_MOST_WAITING: Final = 1000
#: Seconds until a message that an ending agent left comes again, to the next agent: as long as a bus waits. Each time
#: counts as an attempt, and an agent may take long to end.
_HAND_BACK_AFTER: Final = 900.0
#: Seconds until a message is tried again that the pool did not accept, and how often.
_RETRY_AFTER: Final = 5.0
_TRIES: Final = 3


def mirror_path(settings: Settings, repo: RepoName) -> Path:
    """Return the path of this node's mirror of `repo`."""
    return settings.state / "mirrors" / f"{path_component(repo)}.git"


class MirrorHandler:
    """Keeps the mirrors of one node, and the directories their settings ask for.

    Args:
        settings: the repositories.
        reporter: queues the reports.
        metrics: counts the fetches.

    Raises:
        UsageError: a repository's address is not allowed.
        SettingsError: a checkout cannot be made as the settings say.
    """

    def __init__(self, settings: Settings, reporter: Reporter, *, metrics: Metrics | None = None) -> None:
        self._settings = settings
        self._metrics = metrics or Metrics()
        self._pending = PendingReports(reporter)
        self._built = BuiltFetches(settings, builds_of(settings.state))
        self._checkouts = {repo: _checkouts_of(settings, repo) for repo in settings.repositories}
        self._submodules = SubmoduleCheckouts(settings, self.mirror, self._fetch_soon, self.reclone)
        self._reported: dict[RepoName, Reported] = {}
        self._left_out: dict[RepoName, frozenset[str]] = {}
        self._at_start: dict[RepoName, list[Answer]] = {}
        self._seats = threading.BoundedSemaphore(_SEATS)
        self._built_seats = threading.BoundedSemaphore(BUILT_WORKERS - 1)
        self._pool = MirrorPool(
            every=settings.reconcile_every, spread=settings.fetch_spread, on_result=self._after_fetch
        )

    def start(self) -> None:
        """Compare every mirror with its origin, now and from now on. Until then nothing is touched.

        What is fetched after builds alone is fetched now only if a success, or the mirror, is missing.
        """
        for repo, chosen in self._settings.repositories.items():
            path, built = mirror_path(self._settings, repo), repo in self._built
            self._pool.add(repo, Mirror(path, chosen.url, chosen.mirror), at_once=not built, unasked=not built)
            if built:
                owed = self._built.at_start(repo, has_mirror=(path / "HEAD").exists())
                changes = [self._change(repo, ref, commit) for ref, commit in owed.items()]
                self._at_start[repo] = [self._pool.request(repo, change) for change in changes]

    def stop(self) -> None:
        """Start no further fetch. A running one may end or be cut off: the next start goes on from there."""
        self._pool.close(wait=False)
        self._pending.stop()

    def mirror(self, repo: RepoName) -> Mirror:
        """Open or make the mirror of a repository in the settings, for one piece of work. The caller closes it."""
        chosen = self._settings.repositories[repo]
        return Mirror.open(mirror_path(self._settings, repo), chosen.url, chosen.mirror)

    def handle(self, delivery: Delivery) -> Verdict:
        """Fetch what a `RefUpdated` names. Other messages and other repositories are acknowledged and left alone.

        The message is acknowledged when the fetch was reported, or after some seconds: the pool knows of it, and after
        a crash every mirror is compared with its origin anyway.
        """
        try:
            message = decode(delivery.headers, delivery.body, delivery.destination)
        except MessageError as error:
            return Reject(str(error))
        if not isinstance(message, RefUpdated) or message.repo not in self._settings.repositories:
            return Ack()
        return Ack() if message.repo in self._built else self._fetch_pushed(message, delivery)

    def _fetch_pushed(self, message: RefUpdated, delivery: Delivery) -> Verdict:
        change: RefChange | None = RefChange(ref=message.ref, old=message.old, new=message.new)
        try:
            waiting = self._pool.waiting(message.repo)
            if waiting >= _MOST_WAITING:
                if self._pool.awaited(message.repo, None):
                    return Ack()
                _log.warning("[%s] %d messages wait: the next fetch looks at every ref instead", message.repo, waiting)
                change = None
            reason, pushed = message.correlation_id or message.id, message.time.timestamp()
            _wait_for(self._pool.request(message.repo, change, reason=reason, pushed=pushed), self._seats, message.repo)
        except (CancelledError, UsageError):
            return Retry(after=_HAND_BACK_AFTER)  # the agent is ending: handed back
        except Exception:  # noqa: BLE001 -- the mirror is compared anyway, so a dead letter would tell no more
            _log.exception("[%s] cannot hand a message to the pool", message.repo)
            return Retry(after=_RETRY_AFTER) if delivery.attempt < _TRIES else Ack()
        return Ack()

    def fetch_built(self, repo: RepoName, ref: RefName | None, commit: ObjectId | None, *, reason: str) -> bool:
        """Ask for the fetch that follows a build's success, if the repository waits for builds.

        Args:
            repo: that was built.
            ref, commit: what was built, where the result says so: only this ref is fetched then.
            reason: its correlation id.

        Returns:
            False where the agent is ending: the message must come again. Otherwise when the fetch was reported, or
            after some seconds: what is not reported when the agent is killed is asked for once more by the message.

        Raises:
            BuildStoreError: it cannot be noted that a fetch is owed. Take the message again later.
        """
        if repo not in self._built:
            return True
        try:
            many = self._pool.waiting(repo) >= _MOST_WAITING
            if many and self._pool.awaited(repo, ref, cause=BUILT):
                return True  # the fetch that it waits for serves this success too
            change = None if many else self._change(repo, ref, commit)
            self._built.begin(repo, change)
            try:
                answer = self._pool.request(repo, change, reason=reason, cause=BUILT)
            except UsageError:
                self._built.abandon(repo, change)
                raise
            _wait_for(answer, self._built_seats, repo)
        except (CancelledError, UsageError):
            return False
        return True

    def _change(self, repo: RepoName, ref: RefName | None, commit: ObjectId | None) -> RefChange | None:
        """Return the change that has this one ref fetched, whatever the mirror holds; None for all refs."""
        if ref is None or commit is None:
            return None
        try:
            held = self._pool.mirror(repo).refs.get(ref)
        except (MirrorError, OSError):
            return None
        return RefChange(ref=ref, old=held or zero_like(commit), new=commit)

    def sync(
        self, repo: RepoName, *, ref: RefName | None = None, commit: ObjectId | None = None, correlation_id: str = ""
    ) -> bool:
        """Fetch one mirror, report each ref that moved, and return whether the origin answered.

        Args:
            repo: whose mirror.
            ref, commit: what is needed: only this ref is fetched, where the repository waits for builds.
            correlation_id: for the reports.
        """
        change = self._change(repo, ref, commit) if repo in self._built else None
        try:
            self._pool.request(repo, change, reason=correlation_id).result()
        except (DeploykitError, CancelledError):
            return False  # reported, and logged
        return True

    def sync_all(self, end: float) -> dict[RepoName, str]:
        """Fetch every mirror and update its directories, until a monotonic time; return why for each where that failed.

        Of what is fetched after builds alone, only what was owed at the start. Reports are queued as after any fetch.
        """
        repos = self._settings.repositories
        answers = [(r, self._pool.request(r)) for r in repos if r not in self._built]
        answers += [(repo, answer) for repo, owed in self._at_start.items() for answer in owed]
        failed: dict[RepoName, str] = {}
        for repo, answer in answers:
            try:
                answer.result(max(0.0, end - time.monotonic()))
            except TimeoutError:
                failed[repo] = "its origin has not answered in time"
            except (DeploykitError, CancelledError) as error:
                failed[repo] = str(error)
            else:
                refs = self._reported.get(repo, {})
                if refs:
                    failed[repo] = "; ".join(f"{ref}: {problem.detail}" for ref, (problem, _) in refs.items())
        return failed

    def reclone(self, repo: RepoName) -> None:
        """Have a mirror cloned again that is damaged. Raises nothing."""
        try:
            self._pool.reclone(repo)
        except Exception as problem:  # noqa: BLE001 -- the caller has more important things to report
            _log.warning("[%s] cannot clone the damaged mirror again yet: %s", repo, problem)

    def reconcile_soon(self) -> None:
        """Compare every mirror with its origin now: after a (re)connect, messages may have been missed."""
        self._pool.reconcile()

    def retry_directories(self) -> None:
        """Fetch anew where a directory could not follow a build: nothing else would, before the next success."""
        for repo, changes in self._built.take_behind().items():
            with contextlib.suppress(UsageError):  # the agent is ending, and what is owed stands on disk
                for change in changes:
                    self._pool.request(repo, change)

    # -- after a fetch, in a thread of the pool ------------------------------------------------------------------------

    def _after_fetch(
        self, name: str, outcome: FetchResult | DeploykitError, asked: Sequence[FetchRequest[Answer]]
    ) -> None:
        """Update the checkouts, then report. There is one call at a time for a repository."""
        repo = RepoName(name)
        pushed = min((each.pushed for each in asked if each.pushed is not None), default=None)
        self._metrics.mirror_fetched(repo, word_for(outcome), pushed)
        if isinstance(outcome, DeploykitError):
            _log.warning("[%s] fetch failed: %s", repo, outcome)
        follows = self._built.ended(repo, asked, ok=not isinstance(outcome, DeploykitError))
        problems: dict[RefName, RefProblem] = {}
        held: dict[RefName, ObjectId] = {}
        try:
            mirror = self._pool.mirror(repo)
            held = mirror.refs
            for checkouts in self._checkouts[repo] if follows is None or follows else ():
                problems |= self._update_checkouts(repo, mirror, held, checkouts, follows)
        except (MirrorError, OSError) as error:
            _log.warning("[%s] cannot read the mirror: %s", repo, error)
        except Exception:  # noqa: BLE001 -- the refs did move, and that must be reported
            _log.exception("[%s] cannot update the checkouts", repo)
        failed = {ref for ref, problem in problems.items() if problem.outcome == "failed" and ref in held}
        lacking = lfs_problems(outcome)
        failed |= {ref for ref in lacking if ref in held and (follows is None or ref in follows)}
        problems |= lacking
        self._built.owe(repo, [RefChange(ref=ref, old=held[ref], new=held[ref]) for ref in sorted(failed)])
        before = self._reported.get(repo, {})
        if follows is not None:  # what was not tried has not gone
            earlier = {ref: problem for ref, (problem, _) in before.items() if not problem.of_fetch}
            problems |= {ref: problem for ref, problem in earlier.items() if ref not in follows}
        requests = [FetchAsked(each.change, each.reason) for each in asked]
        found, reported = reports_after(outcome, requests, held, problems, before)
        nameless, known = left_out(outcome, self._left_out.get(repo, frozenset()))
        seconds = outcome.seconds if isinstance(outcome, FetchResult) else 0.0
        reports: list[Message] = [self._message(repo, each, seconds) for each in found]
        if nameless:
            _log.warning("[%s] %s", repo, nameless)
            text = one_line(f"{self._settings.node} [{repo}] {nameless}")
            reports.append(Notice(source=f"agent/{self._settings.node}", text=text))
        # Only now they are sure to go out: only then what they name counts as reported.
        self._pending.add(reports)
        self._reported[repo], self._left_out[repo] = reported, known
        news = isinstance(outcome, FetchResult) and bool(outcome.changes or outcome.lfs.objects)
        self._submodules.fetched(repo, news=news)

    def _update_checkouts(
        self, repo: RepoName, mirror: Mirror, held: Mapping[RefName, ObjectId], checkouts: Checkouts, only: Refs
    ) -> dict[RefName, RefProblem]:
        """Update directories to what the mirror holds, whatever the fetch did; return the refs where that failed."""
        where = f"checkout {checkouts.settings.target}"
        try:
            result = self._submodules.update(repo, mirror, checkouts, only)
        except DeploykitError as error:
            _log.error("[%s] %s: %s", repo, where, error)
            for damaged in damaged_among({repo: mirror}, error):
                self.reclone(damaged)
            return dict.fromkeys(_refs_of(checkouts, mirror, held), RefProblem("failed", f"{where}: {error}"))
        except Exception as error:  # noqa: BLE001 -- a bug here must not cost the mirror's report
            _log.exception("[%s] %s: unforeseen failure", repo, where)
            problem = RefProblem("failed", f"{where}: {type(error).__name__}")
            return dict.fromkeys(_refs_of(checkouts, mirror, held), problem)
        outcomes: tuple[tuple[MirrorOutcome, Mapping[str, str]], ...] = (
            ("refused", result.refused),
            ("failed", result.failed),
        )
        return {
            RefName(ref): RefProblem(outcome, f"{where}: {why}")
            for outcome, refs in outcomes
            for ref, why in refs.items()
        }

    def _fetch_soon(self, repo: RepoName) -> None:
        """Ask for a fetch that nobody waits for, unless only builds are to start one."""
        if repo not in self._built:
            with contextlib.suppress(UsageError):  # the agent is ending
                self._pool.request(repo)

    def _message(self, repo: RepoName, report: RefReport, seconds: float) -> MirrorUpdated:
        return MirrorUpdated(
            source=f"agent/{self._settings.node}",
            correlation_id=report.reason,
            node=self._settings.node,
            repo=repo,
            ref=report.ref,
            old=report.old,
            new=report.new,
            outcome=report.outcome,
            seconds=round(seconds, 3),
            detail=report.detail,
        )


def _wait_for(answer: Answer, seats: threading.BoundedSemaphore, repo: RepoName) -> None:
    """Wait until a fetch is reported, for some seconds, if there is a seat; whatever came of it.

    Raises:
        CancelledError: the agent is ending.
    """
    if not seats.acquire(blocking=False):
        return
    try:
        answer.exception(_PATIENCE)
    except TimeoutError:
        _log.info("[%s] the origin is slow: its message is acknowledged before the fetch ends", repo)
    finally:
        seats.release()


def _refs_of(checkouts: Checkouts, mirror: Mirror, held: Mapping[RefName, ObjectId]) -> Sequence[RefName]:
    """Return the refs whose directory is not right: those that have one; all, where that cannot be found out."""
    try:
        return checkouts.refs(mirror)
    except Exception:  # noqa: BLE001 -- a second failure must not turn the first into a success
        return tuple(held)


def _checkouts_of(settings: Settings, repo: RepoName) -> tuple[Checkouts, ...]:
    """Return the checkouts of a repository. Its address is checked too: what cannot work fails before anything runs."""
    chosen = settings.repositories[repo]
    parse_origin_url(chosen.url, allow_http=chosen.mirror.allow_http)
    lfs = [repo for repo, other in settings.repositories.items() if other.mirror.lfs]
    made = (Checkouts(each, lfs if each.submodules == "mirror" else ()) for each in chosen.checkouts)
    return tuple(each for each in made if each.rule.patterns)  # mode normal: the mirror alone
