"""The difference between two commits of a site, from this machine's mirror. Few at a time: each costs seconds."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from deploykit.errors import InvalidName, MirrorError, RefNotFound
from deploykit.names import parse_repo_name
from deploykit.operations.compare import CommitComparison, compare
from deploykit.web.api.operation import ApiCall, ApiOperation
from deploykit.web.api.parameters import Parameter
from deploykit.web.api.problems import SHOWN, RequestRefused
from deploykit.web.projection.views import SiteSummary

_log = logging.getLogger(__name__)

#: Comparisons at a time; that run or wait, for each takes a thread of the console; seconds that one waits.
AT_A_TIME: Final = 2
WAITING: Final = 8
PATIENCE: Final = 5.0
#: In the place of an operation: what is live.
LIVE: Final = "live"

_turns = threading.BoundedSemaphore(AT_A_TIME)
_queue = threading.BoundedSemaphore(WAITING)


@contextmanager
def _one_of_few() -> Iterator[None]:
    if not _queue.acquire(blocking=False):
        raise _busy()
    try:
        if not _turns.acquire(timeout=PATIENCE):
            raise _busy()
        try:
            yield
        finally:
            _turns.release()
    finally:
        _queue.release()


def _busy() -> RequestRefused:
    return RequestRefused(503, "other comparisons are at work", retry_after=5)


def _compare(call: ApiCall, site: SiteSummary, old: str, new: str) -> CommitComparison:
    for name, value in (("from", old), ("to", new)):
        if not value:
            raise RequestRefused(404, f"{name}: nothing is live on {site.site[:SHOWN]!a}, or its commit is unknown")
    try:
        repo = parse_repo_name(site.repo)
        with _one_of_few():
            return compare(call.context.settings, repo, old, new, limit=call.query.number("limit", 200))
    except InvalidName:
        raise RequestRefused(404, f"the repository of {site.site[:SHOWN]!a} is not known") from None
    except RefNotFound as error:
        raise RequestRefused(404, str(error)) from error
    except MirrorError as error:  # it names paths of this machine: they are for those who read its log
        _log.warning("cannot compare %a with %a: %s", old, new, error)
        problem = f"the mirror of {repo} cannot be read; the console's log says why"
        raise RequestRefused(503, problem, retry_after=60) from error


def _site_diff(call: ApiCall) -> object:
    site = call.context.queries.site(call.viewer, call.path["site"])
    if site is None:
        return None
    return _compare(call, site, call.query.text("from") or site.commit, call.query.text("to"))


def _history_diff(call: ApiCall) -> object:
    name = call.query.text("site")
    site = call.context.queries.site(call.viewer, name)
    if site is None:
        raise RequestRefused(404, f"there is no site {name[:SHOWN]!a}")
    old = _commit_of(call, site, call.query.text("from"))
    return _compare(call, site, old, _commit_of(call, site, call.query.text("to") or LIVE))


def _commit_of(call: ApiCall, site: SiteSummary, point: str) -> str:
    """Return the commit that an operation took live, or that is live now."""
    if point == LIVE:
        return site.commit
    operation = call.context.queries.operation(call.viewer, site.site, point)
    if operation is None or not operation.commit:
        raise RequestRefused(404, f"there is no operation {point[:SHOWN]!a} with a commit; expected NODE:NUMBER")
    return operation.commit


_LIMIT: Final = Parameter(
    name="limit",
    description="Most commits of each direction, and most files, that are listed.",
    least=1,
    most=1000,
    default=200,
)
SITE_DIFF: Final = ApiOperation(
    name="site_diff",
    path="/sites/{site}/diff",
    summary="Commits and files between what is live on a site and another ref, from a mirror of this machine",
    answer=CommitComparison,
    view=_site_diff,
    query=(
        Parameter(name="from", description="A ref, tag, branch or commit; by default what is live."),
        Parameter(name="to", description="A ref, tag, branch or commit.", example="refs/tags/v2", required=True),
        _LIMIT,
    ),
)
HISTORY_DIFF: Final = ApiOperation(
    name="history_diff",
    path="/history/diff",
    summary="Commits and files between two operations on a site",
    answer=CommitComparison,
    view=_history_diff,
    query=(
        Parameter(name="site", description="The site.", required=True),
        Parameter(name="from", description="An operation, NODE:NUMBER, or `live`.", example="web1:7", required=True),
        Parameter(name="to", description="As `from`; by default `live`."),
        _LIMIT,
    ),
)

__all__ = ["HISTORY_DIFF", "SITE_DIFF"]
