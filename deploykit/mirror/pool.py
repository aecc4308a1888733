"""Many mirrors, few threads: requests in, results out, each mirror fetched by one thread at a time.

    with MirrorPool(workers=4, on_result=report) as pool:
        pool.add("site", mirror)
        pool.request("site", RefChange(...)).add_done_callback(...)

Rules: the decisions are `schedule`'s, this is the shell around it; ten requests for a mirror that is being fetched are
answered by one more fetch; a damaged mirror is cloned anew; nothing is open for a mirror that is not being fetched.
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

from deploykit.errors import DeploykitError, LockBusy, MirrorCorrupt, MirrorError, UsageError
from deploykit.mirror import upkeep
from deploykit.mirror.address import parse_address
from deploykit.mirror.mirror import Mirror
from deploykit.mirror.schedule import Asked, Schedule, what_to_fetch
from deploykit.mirror.values import FetchResult, RefChange
from deploykit.names import ObjectId, is_zero

_log = logging.getLogger(__name__)

Answer = Future[FetchResult]
#: Called in a worker thread after each fetch, with the mirror's name and what came of it.
OnResult = Callable[[str, "FetchResult | DeploykitError"], None]

_RENEW_PAUSE: Final = 600.0


class MirrorPool:
    """Fetches mirrors when they are asked for, when they are due, and again after failures.

    Args:
        workers: fetches at the same time, at most.
        every: seconds between two comparisons of a mirror with its origin.
        spread: a fetch that a message asks for starts after a random part of so many seconds.
        on_result: see `OnResult`; what it raises is logged.
        chance: numbers from 0 to 1, for tests.
    """

    def __init__(
        self,
        *,
        workers: int = 4,
        every: float = 300.0,
        spread: float = 0.0,
        on_result: OnResult | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._every = every
        self._spread = spread
        self._on_result = on_result
        self._mirrors: dict[str, Mirror] = {}
        self._renewed: dict[str, float] = {}
        self._schedule: Schedule[Answer] = Schedule(chance=chance, longest_pause=every)
        self._wake = threading.Condition()
        self._stopped = False
        self._threads = [
            threading.Thread(target=self._work, name=f"deploykit-mirror-{n}", daemon=True) for n in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> MirrorPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def add(self, name: str, mirror: Mirror, *, at_once: bool = True) -> None:
        """Keep a mirror up to date from now on; `at_once`: compare it with its origin right away."""
        address = parse_address(mirror.url, allow_http=mirror.settings.allow_http)
        with self._wake:
            self._mirrors[name] = mirror
            self._schedule.add(
                name,
                origin=address.host or address.path,
                every=self._every,
                spread=self._spread,
                now=time.monotonic(),
                at_once=at_once,
            )
            self._wake.notify()

    def remove(self, name: str) -> None:
        """Stop keeping a mirror; what is asked of it and not yet begun is cancelled."""
        with self._wake:
            self._mirrors.pop(name, None)
            for asked in self._schedule.remove(name):
                asked.token.cancel()

    def mirror(self, name: str) -> Mirror:
        """The mirror of that name.

        Raises:
            UsageError: there is none.
        """
        try:
            return self._mirrors[name]
        except KeyError:
            raise UsageError(f"no mirror {name!a} here", "add it to the settings") from None

    def request(self, name: str, told: RefChange | None = None) -> Answer:
        """Ask for a fetch: of the one ref a message told of, or of everything.

        The future's result has `confirmed` for this very request. It fails with the fetch's error; the fetch itself is
        tried again later all the same.

        Raises:
            UsageError: no such mirror, or the pool is closed.
        """
        self.mirror(name)
        answer: Answer = Future()
        with self._wake:
            if self._stopped:
                raise UsageError("the mirror pool is closed")
            self._schedule.ask(name, Asked(told, answer), time.monotonic())
            self._wake.notify()
        return answer

    def reconcile(self) -> None:
        """Compare every mirror with its origin soon, as after a reconnect."""
        with self._wake:
            self._schedule.all_soon(time.monotonic())
            self._wake.notify_all()

    def close(self, *, wait: bool = True) -> None:
        """Stop. Fetches under way are finished (`wait`: and waited for); what has not begun is cancelled."""
        with self._wake:
            self._stopped = True
            for name in list(self._mirrors):
                for asked in self._schedule.remove(name):
                    asked.token.cancel()
            self._wake.notify_all()
        if wait:
            for thread in self._threads:
                if thread is not threading.current_thread():
                    thread.join()

    # -- in the workers ----------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            with self._wake:
                if self._stopped:
                    return
                now = time.monotonic()
                job = self._schedule.start(now)
                if job is None:
                    self._wake.wait(self._schedule.wait(now))
                    continue
                mirror = self._mirrors[job[0]]
                self._wake.notify()  # something else may be due too
            self._serve(job[0], mirror, job[1])

    def _serve(self, name: str, mirror: Mirror, asked: Sequence[Asked[Answer]]) -> None:
        outcome: FetchResult | DeploykitError
        try:
            told = [each.told for each in asked]
            outcome = self._fetch(name, mirror, what_to_fetch(told, mirror.refs) if told else None)
        except DeploykitError as error:
            outcome = error
        except Exception as error:  # noqa: BLE001 - a bug must not end the worker, nor leave a caller waiting
            _log.exception("[%s] fetch failed in an unforeseen way", name)
            outcome = MirrorError(f"fetching {name} failed: {type(error).__name__}", "see the log")
        with self._wake:
            self._schedule.finished(name, ok=not isinstance(outcome, DeploykitError), now=time.monotonic())
            self._wake.notify()
        for each in asked:
            self._answer(each, outcome, mirror)
        if self._on_result is not None:
            try:
                self._on_result(name, outcome)
            except Exception:  # noqa: BLE001 - somebody else's code, in our thread
                _log.exception("[%s] the handler of a fetch's result failed", name)
        if not isinstance(outcome, DeploykitError):
            self._tidy(name, mirror)

    def _fetch(self, name: str, mirror: Mirror, told: RefChange | None) -> FetchResult:
        try:
            return mirror.fetch(told)
        except MirrorCorrupt as error:
            last = self._renewed.get(name)
            if last is not None and time.monotonic() - last < _RENEW_PAUSE:
                raise
            self._renewed[name] = time.monotonic()
            _log.error("[%s] %s; cloning anew", name, error.problem)
            aside = mirror.renew()
            _log.error("[%s] cloned anew; the damaged mirror is %s", name, aside)
            return mirror.fetch()

    def _answer(self, asked: Asked[Answer], outcome: FetchResult | DeploykitError, mirror: Mirror) -> None:
        if not asked.token.set_running_or_notify_cancel():
            return
        if isinstance(outcome, DeploykitError):
            asked.token.set_exception(outcome)
            return
        if asked.told is not None:
            held = mirror.refs.get(asked.told.ref)
            outcome = attrs.evolve(outcome, confirmed=held == _there(asked.told.new))
        asked.token.set_result(outcome)

    def _tidy(self, name: str, mirror: Mirror) -> None:
        if not upkeep.is_due(mirror.path, mirror.settings):
            return
        try:
            done = upkeep.upkeep(mirror.path, mirror.settings)
        except LockBusy:
            return
        except MirrorError as error:
            _log.warning("[%s] upkeep failed: %s", name, error)
            return
        _log.info("[%s] %d packs made %d in %.1f s", name, done.packs_before, done.packs_after, done.seconds)


def _there(oid: ObjectId) -> ObjectId | None:
    return None if is_zero(oid) else oid
