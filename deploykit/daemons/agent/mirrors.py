"""The agent's mirrors and the directories made of them: a pushed ref is fetched at once, all are compared now and then.

    RefUpdated -> pool: fetch -> checkouts -> MirrorUpdated into the outbox -> Ack

Rules: a message names what to look at; where to fetch from stands in the settings alone. A fetch that fails is
reported and tried again with growing pauses, so a lost message or an origin that was away costs time, never a ref. An
origin that says nothing holds up no message but its own.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Final

from deploykit.bus import Ack, Delivery, Reject, Retry, Verdict
from deploykit.checkouts import Checkouts
from deploykit.daemons.agent.mirror_reports import LogLine, Said, Told, Trouble, left_out, lines_of
from deploykit.daemons.agent.owed import PendingReports
from deploykit.daemons.agent.reports import Reporter
from deploykit.errors import (
    DeploykitError,
    MessageError,
    MirrorCorrupt,
    MirrorError,
    TreeDamaged,
    UsageError,
)
from deploykit.git.transport.address import parse_address
from deploykit.messages import Message, MirrorOutcome, MirrorUpdated, Notice, RefUpdated, one_line
from deploykit.mirror import FetchResult, Mirror, RefChange
from deploykit.mirror.pool import Answer, MirrorPool
from deploykit.mirror.schedule import FetchRequest
from deploykit.names import ObjectId, RefName, RepoName, path_component
from deploykit.settings.node import Settings
from deploykit.wire import decode

_log = logging.getLogger(__name__)

#: Handlers of messages that run at the same time, and how many of them may wait for a fetch.
WORKERS: Final = 16
_SEATS: Final = 12
#: Seconds a handler waits for its fetch; less than the agent's end takes.
_PATIENCE: Final = 8.0
#: So many messages are kept for one fetch; it looks at every ref after that, and the rest get no report of their own.
_MOST_WAITING: Final = 1000
#: Seconds until a message that an ending agent left is tried again: by the next agent. As long as a bus waits: each
#: time counts as an attempt, and an agent may take long to end.
_LATER: Final = 900.0
#: Seconds until a message is tried again that could not be handed to the pool, and how often.
_AGAIN: Final = 5.0
_TRIES: Final = 3


def mirror_path(settings: Settings, repo: RepoName) -> Path:
    """Tell where this node keeps the mirror of `repo`."""
    return settings.state / "mirrors" / f"{path_component(repo)}.git"


class MirrorHandler:
    """Keeps the mirrors of one node, and the directories their settings ask for.

    Raises:
        UsageError: a repository's address is not allowed.
        SettingsError: a checkout cannot be made as the settings say.
    """

    def __init__(self, settings: Settings, reporter: Reporter) -> None:
        self._settings = settings
        self._owed = PendingReports(reporter)
        self._checkouts = {repo: _checkouts_of(settings, repo) for repo in settings.repositories}
        self._said: dict[RepoName, Said] = {}
        self._left_out: dict[RepoName, frozenset[str]] = {}
        self._seats = threading.BoundedSemaphore(_SEATS)
        self._pool = MirrorPool(
            every=settings.reconcile_every, spread=settings.fetch_spread, on_result=self._after_fetch
        )

    def start(self) -> None:
        """Compare every mirror with its origin, now and from now on. Until then nothing is touched."""
        for repo, chosen in self._settings.repositories.items():
            self._pool.add(repo, Mirror(mirror_path(self._settings, repo), chosen.url, chosen.mirror))

    def stop(self) -> None:
        """Begin nothing more. What is being fetched may end, or be cut off: the next start goes on from there."""
        self._pool.close(wait=False)
        self._owed.stop()

    def mirror(self, repo: RepoName) -> Mirror:
        """Open (or make) the mirror of a repository in the settings, for one piece of work; close it after."""
        chosen = self._settings.repositories[repo]
        return Mirror.open(mirror_path(self._settings, repo), chosen.url, chosen.mirror)

    def handle(self, delivery: Delivery) -> Verdict:
        """Fetch what a `RefUpdated` names. Any other message, and any other repository, is none of our business.

        It is acknowledged when the fetch was reported. Where that takes long it is acknowledged before: the pool knows
        of it, and after a crash every mirror is compared with its origin anyway.
        """
        try:
            message = decode(delivery.headers, delivery.body, delivery.destination)
        except MessageError as error:
            return Reject(str(error))
        if not isinstance(message, RefUpdated) or message.repo not in self._settings.repositories:
            return Ack()
        told: RefChange | None = RefChange(ref=message.ref, old=message.old, new=message.new)
        try:
            waiting = self._pool.waiting(message.repo)
            if waiting > _MOST_WAITING:
                return Ack()
            if waiting == _MOST_WAITING:
                _log.warning("[%s] messages pile up: the next fetch looks at every ref instead", message.repo)
                told = None
            answer = self._pool.request(message.repo, told, reason=message.correlation_id or message.id)
            if self._seats.acquire(blocking=False):
                try:
                    answer.exception(_PATIENCE)
                finally:
                    self._seats.release()
        except TimeoutError:
            _log.info("[%s] the origin takes its time; its message is acknowledged", message.repo)
        except (CancelledError, UsageError):
            return Retry(after=_LATER)  # the agent is ending: handed back
        except Exception:  # noqa: BLE001 -- the mirror is compared anyway: no dead letter is worth more than that
            _log.exception("[%s] a message could not be handed on", message.repo)
            return Retry(after=_AGAIN) if delivery.attempt < _TRIES else Ack()
        return Ack()

    def sync(self, repo: RepoName, *, correlation_id: str = "") -> bool:
        """Fetch one mirror, report each ref that moved, and tell whether the origin answered."""
        try:
            self._pool.request(repo, reason=correlation_id).result()
        except (DeploykitError, CancelledError):
            return False  # reported, and logged
        return True

    def renew_if_damaged(self, repo: RepoName, error: BaseException | None) -> None:
        """Have the mirror cloned anew where an error, or what is behind it, says that it is damaged. Raises nothing."""
        while error is not None and not isinstance(error, TreeDamaged | MirrorCorrupt):
            error = error.__cause__
        if error is not None:
            self._renew(repo)

    def _renew(self, repo: RepoName) -> None:
        try:
            self._pool.reclone(repo)
        except Exception as problem:  # noqa: BLE001 -- of no weight beside what the caller has to report
            _log.warning("[%s] the damaged mirror is not cloned anew yet: %s", repo, problem)

    def reconcile_soon(self) -> None:
        """Compare every mirror with its origin now: after a (re)connect, messages may have been missed."""
        self._pool.reconcile()

    # -- after a fetch, in a thread of the pool ------------------------------------------------------------------------

    def _after_fetch(
        self, name: str, outcome: FetchResult | DeploykitError, asked: Sequence[FetchRequest[Answer]]
    ) -> None:
        """Let the directories follow, then report. One call at a time for a repository."""
        repo = RepoName(name)
        if isinstance(outcome, DeploykitError):
            _log.warning("[%s] fetch failed: %s", repo, outcome)
        troubles: dict[RefName, Trouble] = {}
        held: dict[RefName, ObjectId] = {}
        try:
            mirror = self._pool.mirror(repo)
            held = mirror.refs
            for checkouts in self._checkouts[repo]:
                troubles |= self._show(repo, mirror, held, checkouts)
        except (MirrorError, OSError) as error:
            _log.warning("[%s] cannot read the mirror: %s", repo, error)
        except Exception:  # noqa: BLE001 -- what moved was fetched, and nobody would ever hear of it
            _log.exception("[%s] the directories could not follow", repo)
        told = [Told(each.change, each.reason) for each in asked]
        lines, said = lines_of(outcome, told, held, troubles, self._said.get(repo, {}))
        nameless, known = left_out(outcome, self._left_out.get(repo, frozenset()))
        seconds = outcome.seconds if isinstance(outcome, FetchResult) else 0.0
        reports: list[Message] = [self._message(repo, line, seconds) for line in lines]
        if nameless:
            _log.warning("[%s] %s", repo, nameless)
            text = one_line(f"{self._settings.node} [{repo}] {nameless}")
            reports.append(Notice(source=f"agent/{self._settings.node}", text=text))
        # From here on they are owed: only then does what they say count as said.
        self._owed.say(reports)
        self._said[repo], self._left_out[repo] = said, known

    def _show(
        self, repo: RepoName, mirror: Mirror, held: Mapping[RefName, ObjectId], checkouts: Checkouts
    ) -> dict[RefName, Trouble]:
        """Let directories show what the mirror holds, whatever came of the fetch; tell of the refs for which not."""
        where = f"checkout {checkouts.settings.target}"
        try:
            result = checkouts.update(mirror)
        except DeploykitError as error:
            _log.error("[%s] %s: %s", repo, where, error)
            self.renew_if_damaged(repo, error)
            return dict.fromkeys(_refs_of(checkouts, mirror, held), Trouble("failed", f"{where}: {error}"))
        except Exception as error:  # noqa: BLE001 -- a bug here must not cost the mirror's report
            _log.exception("[%s] %s failed in an unforeseen way", repo, where)
            trouble = Trouble("failed", f"{where}: {type(error).__name__}")
            return dict.fromkeys(_refs_of(checkouts, mirror, held), trouble)
        if result.damaged:
            self._renew(repo)
        outcomes: tuple[tuple[MirrorOutcome, Mapping[str, str]], ...] = (
            ("refused", result.refused),
            ("failed", result.failed),
        )
        return {
            RefName(ref): Trouble(outcome, f"{where}: {why}") for outcome, refs in outcomes for ref, why in refs.items()
        }

    def _message(self, repo: RepoName, line: LogLine, seconds: float) -> MirrorUpdated:
        return MirrorUpdated(
            source=f"agent/{self._settings.node}",
            correlation_id=line.reason,
            node=self._settings.node,
            repo=repo,
            ref=line.ref,
            old=line.old,
            new=line.new,
            outcome=line.outcome,
            seconds=round(seconds, 3),
            detail=line.detail,
        )


def _refs_of(checkouts: Checkouts, mirror: Mirror, held: Mapping[RefName, ObjectId]) -> Sequence[RefName]:
    """The refs whose directory is not right: those that have one here; all, where not even that can be found out."""
    try:
        return checkouts.refs(mirror)
    except Exception:  # noqa: BLE001 -- a second failure must not turn the first into a success
        return tuple(held)


def _checkouts_of(settings: Settings, repo: RepoName) -> tuple[Checkouts, ...]:
    """The checkouts of a repository; its address is looked at too: what cannot work is told before anything runs."""
    chosen = settings.repositories[repo]
    parse_address(chosen.url, allow_http=chosen.mirror.allow_http)
    return tuple(Checkouts(each) for each in chosen.checkouts)
