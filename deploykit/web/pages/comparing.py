"""Comparisons for pages: a few at a time, and those of two fixed commits kept, for they never change."""

from __future__ import annotations

import logging
import re
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import attrs

from deploykit.errors import DeploykitError, InvalidName, RefNotFound, WebError
from deploykit.names import OBJECT_ID_PATTERN, parse_repo_name
from deploykit.operations.compare import CommitComparison, compare
from deploykit.settings.node import Settings

_log = logging.getLogger(__name__)

#: Comparisons that run at once; that run or wait (other pages need threads, too); that are kept; seconds to wait.
_AT_ONCE: Final = 2
_WAITING: Final = 8
_KEPT: Final = 64
_PATIENCE: Final = 15.0
#: Commits of each direction, and files, that a page lists.
LISTED: Final = 200
_ID: Final = re.compile(OBJECT_ID_PATTERN)

Compare = Callable[..., CommitComparison]


@attrs.frozen(kw_only=True, slots=True)
class ComparisonOutcome:
    """A comparison, or why there is none and what to do about it."""

    found: CommitComparison | None = None
    problem: str = ""
    remedy: str = ""


class Comparisons:
    """Compares commits for pages. Use it from any thread.

    Args:
        compare: as `operations.compare.compare`.
    """

    def __init__(self, compare: Compare = compare) -> None:
        self._compare = compare
        self._seats = threading.BoundedSemaphore(_AT_ONCE)
        self._queue = threading.BoundedSemaphore(_WAITING)
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, str, str], CommitComparison] = OrderedDict()

    def between(self, settings: Settings, repo: str, old: str, new: str) -> ComparisonOutcome:
        """Return what lies between two refs or commits; a reason in words where that cannot be said."""
        if not repo:
            return ComparisonOutcome(problem="it is not known which repository the site is deployed from")
        if not old or not new:
            return ComparisonOutcome(problem="there is nothing to compare with: one side has no commit")
        key = (repo, old, new)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return ComparisonOutcome(found=self._kept[key])
        try:
            found = self._in_turn(settings, repo, old, new)
        except (RefNotFound, InvalidName, WebError) as error:
            return ComparisonOutcome(problem=error.problem, remedy=error.remedy)
        except DeploykitError as error:  # it names paths of this machine: they are for those who read its log
            _log.warning("cannot compare %a with %a: %s", old, new, error)
            problem = f"the mirror of {repo} cannot be read"
            return ComparisonOutcome(problem=problem, remedy="the console's log says why")
        if found.commits_complete and found.files_complete and _ID.fullmatch(old) and _ID.fullmatch(new):
            with self._lock:
                self._kept[key] = found
                while len(self._kept) > _KEPT:
                    self._kept.popitem(last=False)
        return ComparisonOutcome(found=found)

    def _in_turn(self, settings: Settings, repo: str, old: str, new: str) -> CommitComparison:
        if not self._queue.acquire(blocking=False):
            raise _busy()
        try:
            if not self._seats.acquire(timeout=_PATIENCE):
                raise _busy()
            try:
                return self._compare(settings, parse_repo_name(repo), old, new, limit=LISTED)
            finally:
                self._seats.release()
        finally:
            self._queue.release()


def _busy() -> WebError:
    return WebError("too many comparisons run at this moment", "load the page again")


__all__ = ["LISTED", "ComparisonOutcome", "Comparisons"]
