"""Many mirrors, few threads: requests in, results out, each mirror fetched by one thread at a time.

    with MirrorPool(on_result=report) as pool:
        pool.add("site", mirror)
        pool.request("site", RefChange(...)).add_done_callback(...)

Rules:

* `schedule` decides; this is the shell around it.
* Ten requests for a mirror that is being fetched are answered by one more fetch, each after `on_result` returned.
* A damaged mirror is cloned anew.
* Nothing is open for a mirror that is not being fetched.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Final

import attrs

from deploykit.errors import DeploykitError, LockBusy, MirrorCorrupt, MirrorError, OriginError, UsageError
from deploykit.git.transport.address import parse_origin_url
from deploykit.mirror import upkeep
from deploykit.mirror.mirror import Mirror
from deploykit.mirror.model import FetchResult, LfsFetched, RefChange
from deploykit.mirror.schedule import FetchRequest, Schedule, refs_to_fetch, what_to_fetch
from deploykit.names import ObjectId, RefName, is_zero

_log = logging.getLogger(__name__)

Answer = Future[FetchResult]
#: Called in a worker thread after each fetch, with the mirror's name, its outcome, and the requests it answers.
OnResult = Callable[[str, "FetchResult | DeploykitError", "Sequence[FetchRequest[Answer]]"], None]

_RECLONE_PAUSE: Final = 600.0
#: Requests that are kept for the fetch after one that failed, at most.
_MOST_AGAIN: Final = 1000


class MirrorPool:
    """Fetches mirrors when requested, when they are due, and again after failures.

    Args:
        workers: fetches at the same time, at most; a thread is started when there is something for it to do.
        per_origin: fetches from one origin at the same time, at most: one that stalls leaves room for the others.
        every: seconds between two comparisons of a mirror with its origin.
        spread: a fetch that a message asks for starts after a random part of so many seconds.
        on_result: see `OnResult`; what it raises is logged.
        chance: numbers from 0 to 1, for tests.
    """

    def __init__(
        self,
        *,
        workers: int = 32,
        per_origin: int = 4,
        every: float = 300.0,
        spread: float = 0.0,
        on_result: OnResult | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._every = every
        self._spread = spread
        self._on_result = on_result
        self._mirrors: dict[str, Mirror] = {}
        self._recloned: dict[str, float] = {}
        self._damaged: set[str] = set()
        self._on_request: set[str] = set()
        self._again: dict[str, list[RefChange | None]] = {}
        self._schedule: Schedule[Answer] = Schedule(chance=chance, longest_pause=every, per_origin=per_origin)
        self._wake = threading.Condition()
        self._tidying = threading.Lock()
        self._stopped = False
        self._workers = workers
        self._threads: list[threading.Thread] = []
        self._idle = 0

    def __enter__(self) -> MirrorPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def add(self, name: str, mirror: Mirror, *, at_once: bool = True, unasked: bool = True) -> None:
        """Keep a mirror up to date from now on.

        Args:
            name: for requests.
            mirror: what is fetched.
            at_once: compare it with its origin right away.
            unasked: compare it now and then, and when `reconcile` is called; else only when requested.
        """
        address = parse_origin_url(mirror.url, allow_http=mirror.settings.allow_http)
        with self._wake:
            self._mirrors[name] = mirror
            if not unasked:
                self._on_request.add(name)
            self._schedule.add(
                name,
                origin=f"{address.host}:{address.port or address.scheme}" if address.host else address.path,
                every=self._every if unasked else float("inf"),
                spread=self._spread,
                now=time.monotonic(),
                at_once=at_once,
            )
            self._look()

    def remove(self, name: str) -> None:
        """Stop keeping a mirror; requests for it that have not begun are cancelled."""
        with self._wake:
            self._mirrors.pop(name, None)
            for request in self._schedule.remove(name):
                request.token.cancel()

    def mirror(self, name: str) -> Mirror:
        """Return the mirror of that name.

        Raises:
            UsageError: there is none.
        """
        try:
            return self._mirrors[name]
        except KeyError:
            raise UsageError(f"no mirror {name!a} here", "add it to the settings") from None

    def request(
        self,
        name: str,
        change: RefChange | None = None,
        *,
        reason: str = "",
        cause: str = "",
        pushed: float | None = None,
    ) -> Answer:
        """Ask for a fetch. The fetch is tried again later where it fails, whatever the future says.

        Args:
            change: what a message claims about one ref; None: compare all refs.
            reason: what the fetch is for, for `on_result` (a correlation id).
            cause: the caller's own word for what asks, for `on_result` too.
            pushed: when the push was made that it follows, in seconds since 1970, for `on_result`.

        Returns:
            A future: its result has `confirmed` for this very request; it fails with the fetch's error.

        Raises:
            UsageError: no such mirror, or the pool is closed.
        """
        self.mirror(name)
        answer: Answer = Future()
        with self._wake:
            self._must_be_open()
            asked = FetchRequest(change, answer, reason, cause, pushed)
            self._schedule.ask(name, asked, time.monotonic())
            self._look()
        return answer

    def waiting(self, name: str) -> int:
        """Return how many requests wait for the next fetch of a mirror.

        Raises:
            UsageError: no such mirror, or the pool is closed.
        """
        self.mirror(name)
        with self._wake:
            self._must_be_open()
            return self._schedule.waiting(name)

    def awaited(self, name: str, ref: RefName | None, *, cause: str | None = None) -> bool:
        """Return whether a request that waits for the next fetch asks for this ref, or for all.

        Args:
            name: of the mirror.
            ref: None: for all.
            cause: only requests with this one count; None: any.

        Raises:
            UsageError: no such mirror, or the pool is closed.
        """
        self.mirror(name)
        with self._wake:
            self._must_be_open()
            return self._schedule.awaited(name, ref, cause)

    def reclone(self, name: str) -> None:
        """Clone a mirror anew soon, because a reader found it damaged. At most once in ten minutes."""
        with self._wake:
            self._damaged.add(name)
        self.request(name)

    def reconcile(self) -> None:
        """Compare every mirror with its origin soon, as after a reconnect."""
        with self._wake:
            self._schedule.all_soon(time.monotonic())
            self._look()

    def close(self, *, wait: bool = True) -> None:
        """Stop the workers. Fetches under way are finished (`wait`: and waited for); the others are cancelled."""
        with self._wake:
            self._stopped = True
            for name in list(self._mirrors):
                for request in self._schedule.remove(name):
                    request.token.cancel()
            self._wake.notify_all()
        if wait:
            for thread in self._threads:
                if thread is not threading.current_thread():
                    thread.join()

    # -- in the workers ----------------------------------------------------------------------------------------------

    def _must_be_open(self) -> None:
        if self._stopped:
            raise UsageError("the mirror pool is closed")

    def _look(self) -> None:
        """Let a worker look at the schedule, a new one where all are at work. Call it with the lock held."""
        if self._idle:
            self._wake.notify()
        elif len(self._threads) < self._workers and not self._stopped:
            name = f"deploykit-mirror-{len(self._threads)}"
            self._threads.append(threading.Thread(target=self._work, name=name, daemon=True))
            self._threads[-1].start()
            self._idle += 1

    def _work(self) -> None:
        while True:
            with self._wake:
                while not self._stopped:
                    now = time.monotonic()
                    job = self._schedule.start(now)
                    if job is not None:
                        break
                    self._wake.wait(self._schedule.wait(now))
                else:
                    return
                mirror = self._mirrors[job[0]]
                self._idle -= 1
                self._look()  # something else may be due too, or fall due while this one is fetched
            self._serve(job[0], mirror, job[1])
            with self._wake:
                self._idle += 1

    def _serve(self, name: str, mirror: Mirror, requests: Sequence[FetchRequest[Answer]]) -> None:
        outcome: FetchResult | DeploykitError
        try:
            outcome = self._fetch_requested(name, mirror, [each.change for each in requests])
        except DeploykitError as error:
            outcome = error
        except Exception as error:  # noqa: BLE001 - a bug must not end the worker, nor leave a caller waiting
            _log.exception("[%s] fetch failed unexpectedly", name)
            outcome = MirrorError(f"fetching {name} failed: {type(error).__name__}", "see the log")
        if self._on_result is not None:
            try:
                self._on_result(name, outcome, requests)
            except Exception:  # noqa: BLE001 - foreign code in this thread
                _log.exception("[%s] the handler of a fetch's result failed", name)
        failed = isinstance(outcome, DeploykitError)
        with self._wake:
            here = not isinstance(outcome, OriginError)
            self._schedule.finished(name, ok=not failed, here=here, now=time.monotonic())
            self._look()
        for each in requests:
            self._answer(each, outcome, mirror)
        if not failed:
            self._tidy(name, mirror)

    def _fetch_requested(self, name: str, mirror: Mirror, changes: list[RefChange | None]) -> FetchResult:
        """Fetch what requests name; in a mirror that is fetched on request alone, nothing else moves."""
        if name not in self._on_request:
            return self._fetch(name, mirror, what_to_fetch(changes, mirror.refs) if changes else None)
        changes = [*self._again.get(name, ()), *changes]
        self._again[name] = changes[-_MOST_AGAIN:]  # for the next fetch, should this one fail
        single = refs_to_fetch(changes)
        results = [self._fetch(name, mirror, change) for change in (single if single is not None else (None,))]
        del self._again[name]
        return results[0] if len(results) == 1 else _joined(results)

    def _fetch(self, name: str, mirror: Mirror, change: RefChange | None) -> FetchResult:
        with self._wake:
            damaged = name in self._damaged
            self._damaged.discard(name)
        try:
            if damaged:
                raise MirrorCorrupt(f"objects are missing or damaged in {mirror.path}")
            return mirror.fetch(change)
        except MirrorCorrupt as error:
            last = self._recloned.get(name)
            if last is not None and time.monotonic() - last < _RECLONE_PAUSE:
                raise
            self._recloned[name] = time.monotonic()
            _log.error("[%s] %s; cloning anew", name, error.problem)
            aside = mirror.reclone()
            _log.error("[%s] cloned anew; the damaged mirror is %s", name, aside)
            return mirror.fetch()

    def _answer(self, request: FetchRequest[Answer], outcome: FetchResult | DeploykitError, mirror: Mirror) -> None:
        if not request.token.set_running_or_notify_cancel():
            return
        if isinstance(outcome, DeploykitError):
            request.token.set_exception(outcome)
            return
        try:
            if request.change is not None:
                held = mirror.refs.get(request.change.ref)
                outcome = attrs.evolve(outcome, confirmed=held == _there(request.change.new))
        except (MirrorError, OSError) as error:
            request.token.set_exception(error if isinstance(error, MirrorError) else _gone(mirror, error))
            return
        request.token.set_result(outcome)

    def _tidy(self, name: str, mirror: Mirror) -> None:
        try:
            due = upkeep.is_due(mirror.path, mirror.settings)
        except OSError as error:
            _log.warning("[%s] %s", name, _gone(mirror, error))
            return
        if not due or not self._tidying.acquire(blocking=False):
            return  # one at a time: it costs a processor. The next fetch looks again
        try:
            done = upkeep.upkeep(mirror.path, mirror.settings)
        except LockBusy:
            return
        except (MirrorError, OSError) as error:
            _log.warning("[%s] upkeep failed: %s", name, error)
            return
        finally:
            self._tidying.release()
        _log.info("[%s] %d packs made %d in %.1f s", name, done.packs_before, done.packs_after, done.seconds)


def _joined(results: Sequence[FetchResult]) -> FetchResult:
    """Return the fetches of single refs as one."""
    return FetchResult(
        changes=tuple(change for result in results for change in result.changes),
        refused=tuple(refusal for result in results for refusal in result.refused),
        seconds=sum(result.seconds for result in results),
        objects=sum(result.objects for result in results),
        received=sum(result.received for result in results),
        head=results[-1].head,
        confirmed=all(result.confirmed for result in results),
        gap=any(result.gap for result in results),
        lfs=_joined_lfs([result.lfs for result in results]),
    )


def _joined_lfs(results: Sequence[LfsFetched]) -> LfsFetched:
    """Return fetches of objects, one after the other, as one: the last has looked at every ref."""
    objects, received = sum(each.objects for each in results), sum(each.received for each in results)
    return attrs.evolve(results[-1], objects=objects, received=received)


def _there(oid: ObjectId) -> ObjectId | None:
    return None if is_zero(oid) else oid


def _gone(mirror: Mirror, error: OSError) -> MirrorError:
    """Return the error for a mirror that was moved or removed after its fetch."""
    return MirrorError(f"cannot read {mirror.path}: {error.strerror}", "the next fetch makes it anew")
