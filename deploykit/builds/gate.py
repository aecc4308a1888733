"""Required jobs, a commit, and the results that are known of it -> the gate is open, or why it is not. Pure.

Rules:

* Every required job needs a success of exactly this commit of exactly this repository.
* Of a job the highest build number counts, in whatever order the results came: a re-run that fails closes the gate.
* Results of the same number that differ: the worse counts.
* A result that does not count (see `judge`) opens and closes nothing. It is named where nothing better is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final

import attrs

from deploykit.builds.judge import KnownResult
from deploykit.messages import BuildFinished
from deploykit.names import ObjectId, RepoName

_VERBS: Final = {"success": "succeeded", "failure": "failed", "unstable": "was unstable", "aborted": "was aborted"}
#: Later ones are worse: of two outcomes of one number the later in this list counts.
_ORDER: Final = ("success", "unstable", "aborted", "failure")


@attrs.frozen(kw_only=True, slots=True)
class GateDecision:
    """What the gate says: it is open where there is no refusal.

    Args:
        passed: the result that counts, for each job that has a success.
        refusals: a line for each job that has none.
    """

    passed: tuple[BuildFinished, ...] = ()
    refusals: tuple[str, ...] = ()

    @property
    def open(self) -> bool:
        """Whether the commit may go live."""
        return not self.refusals


def decide(
    required: Sequence[str], repo: RepoName, commit: ObjectId, known: Iterable[KnownResult], now: datetime
) -> GateDecision:
    """Return whether a commit may go live.

    Args:
        required: the jobs; none leave the gate open.
        repo: the site's repository.
        commit: what would go live.
        known: results of any job, repository and commit.
        now: aware; for the texts.
    """
    about = [each for each in known if (each.result.repo, each.result.commit) == (repo, commit)]
    passed, refusals = list[BuildFinished](), list[str]()
    for job in dict.fromkeys(required):
        of_job = [each for each in about if each.result.job == job]
        best = _counting([each for each in of_job if not each.objection])
        if best is not None and best.outcome == "success":
            passed.append(best)
        else:
            refusals.append(f"no successful build of {job} for {commit[:8]}; {_why(of_job, best, now)}")
    return GateDecision(passed=tuple(passed), refusals=tuple(refusals))


def _counting(known: Sequence[KnownResult]) -> BuildFinished | None:
    """Return the worst result of the highest number."""
    return max(known, key=_rank).result if known else None


def _rank(known: KnownResult) -> tuple[int, int, datetime, str, str]:
    """Return what decides between results; the last three only so that no order of arrival does."""
    result = known.result
    return result.number, _ORDER.index(result.outcome), result.time, result.id, known.objection


def _why(known: Sequence[KnownResult], best: BuildFinished | None, now: datetime) -> str:
    if best is not None:
        same = {each.result.outcome for each in known if not each.objection and each.result.number == best.number}
        twice = ", and was reported as a success too" if "success" in same else ""
        return f"{_ended(best, now)}{twice}"
    if not known:
        return "none is known"
    last = max(known, key=_rank)
    return f"{_ended(last.result, now)}, but {last.objection}"


def _ended(result: BuildFinished, now: datetime) -> str:
    return f"number {result.number} {_VERBS[result.outcome]} {ago(now - result.time)}"


def ago(age: timedelta) -> str:
    """Return how long ago something was, in its largest unit.

    >>> ago(timedelta(minutes=5, seconds=20)), ago(timedelta(days=1)), ago(timedelta(seconds=-3))
    ('5 minutes ago', '1 day ago', 'just now')
    """
    seconds = age.total_seconds()
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1)):
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "just now"
