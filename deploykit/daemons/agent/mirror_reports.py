"""What a node reports about a mirror after a fetch. Pure: the fetch's outcome goes in, reports come out.

Rules:

* Each message that asked for the fetch is answered once, under its own correlation id.
* An answer names what the mirror holds, never what the message claims.
* A ref that nobody asked about is reported when it moved.
* A problem that lasts is reported once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from deploykit.errors import DeploykitError
from deploykit.messages import MirrorOutcome, one_line
from deploykit.mirror import FetchResult, RefChange
from deploykit.mirror.model import zero_like
from deploykit.names import ObjectId, RefName, is_zero


@attrs.frozen(slots=True)
class RefProblem:
    """Why a ref is not where it should be: in the mirror, or in a directory.

    Args:
        of_fetch: a fetch found it, and only another fetch of the ref shows that it is gone.
    """

    outcome: MirrorOutcome
    detail: str
    of_fetch: bool = False


@attrs.frozen(slots=True)
class FetchAsked:
    """One request for a fetch: the change its message claims, if any, and the correlation id to answer under."""

    claim: RefChange | None
    reason: str


@attrs.frozen(slots=True)
class RefReport:
    """One report: a ref, its old and new object id, and the outcome."""

    ref: RefName
    old: ObjectId
    new: ObjectId
    outcome: MirrorOutcome
    detail: str = ""
    reason: str = ""


#: The problems that were reported, each with the object id its ref had.
Reported = Mapping[RefName, tuple[RefProblem, ObjectId]]


def reports_after(
    outcome: FetchResult | DeploykitError,
    asked: Sequence[FetchAsked],
    held: Mapping[RefName, ObjectId],
    problems: Mapping[RefName, RefProblem],
    reported: Reported,
) -> tuple[list[RefReport], Reported]:
    """Decide what to report.

    Args:
        outcome: of the fetch.
        asked: the requests that it answers.
        held: the mirror's refs now.
        problems: refs whose directory does not show what the mirror holds, or that lack objects of Git LFS.
        reported: what the last call returned.

    Returns:
        The reports, and the problems that count as reported once these are queued.
    """
    changes: dict[RefName, RefChange] = {}
    now = dict(problems)
    if isinstance(outcome, FetchResult):
        changes = {change.ref: change for change in outcome.changes}
        for refusal in outcome.refused:
            if refusal.ref is not None:  # see `left_out` for the others
                here = _of(refusal.ref, held)
                changes[refusal.ref] = RefChange(refusal.ref, refusal.old or here, refusal.new or here)
                now[refusal.ref] = RefProblem("refused", refusal.reason, of_fetch=True)
    known = now.keys() | changes.keys()
    earlier = {ref: each for ref, each in _not_looked_at(outcome, asked, reported).items() if ref not in known}
    now |= {ref: problem for ref, (problem, _) in earlier.items()}
    reports: list[RefReport] = []
    for each in asked:
        if each.claim is not None:
            reports += _answer(each.claim, outcome, changes, held, now, each.reason)
    done = {report.ref for report in reports}
    reason = asked[0].reason if asked else ""
    for ref, change in changes.items():
        if ref not in done and (ref not in now or reported.get(ref) != (now[ref], change.new)):
            reports.append(_report(ref, change.old, change.new, now.get(ref), reason))
    done |= changes.keys()
    for ref in now.keys() - done - earlier.keys():
        if reported.get(ref) != (now[ref], _of(ref, held)):
            reports.append(_report(ref, _of(ref, held), _of(ref, held), now[ref], reason))
    for ref in sorted(reported.keys() - now.keys() - done):
        if ref in held:
            reports.append(RefReport(ref, held[ref], held[ref], "unchanged", "the problem is gone", reason))
    counted = {ref: (problem, changes[ref].new if ref in changes else _of(ref, held)) for ref, problem in now.items()}
    return reports, counted | earlier


def lfs_problems(outcome: FetchResult | DeploykitError) -> dict[RefName, RefProblem]:
    """Return the refs that lack objects of Git LFS after a fetch: each fetch looks at all of them."""
    gaps = outcome.lfs.gaps if isinstance(outcome, FetchResult) else ()
    return {gap.ref: RefProblem("failed", gap.reason, of_fetch=True) for gap in gaps}


def _not_looked_at(outcome: FetchResult | DeploykitError, asked: Sequence[FetchAsked], reported: Reported) -> Reported:
    """Return the problems of earlier fetches that this one says nothing about."""
    earlier = {ref: each for ref, each in reported.items() if each[0].of_fetch}
    if isinstance(outcome, DeploykitError):
        return earlier
    if outcome.confirmed is None:  # it looked at every ref
        return {}
    claimed = {each.claim.ref for each in asked if each.claim is not None}
    return {ref: each for ref, each in earlier.items() if each[0].outcome == "refused" and ref not in claimed}


def _answer(
    claim: RefChange,
    outcome: FetchResult | DeploykitError,
    changes: Mapping[RefName, RefChange],
    held: Mapping[RefName, ObjectId],
    problems: Mapping[RefName, RefProblem],
    reason: str,
) -> list[RefReport]:
    ref = claim.ref
    if isinstance(outcome, DeploykitError):
        here = held.get(ref) or zero_like(claim.new)  # what the message claims is not verified
        return [RefReport(ref, here, here, "failed", one_line(str(outcome)), reason)]
    if ref in changes:
        return [_report(ref, changes[ref].old, changes[ref].new, problems.get(ref), reason)]
    if held.get(ref) == (None if is_zero(claim.new) else claim.new):
        if ref in problems:
            return [_report(ref, claim.old, claim.new, problems[ref], reason)]
        return [RefReport(ref, claim.old, claim.new, "unchanged", "", reason)]
    return []  # neither here nor at the origin: nothing to report


def _report(ref: RefName, old: ObjectId, new: ObjectId, problem: RefProblem | None, reason: str) -> RefReport:
    if problem is None:
        return RefReport(ref, old, new, "updated", "", reason)
    return RefReport(ref, old, new, problem.outcome, one_line(problem.detail), reason)


def _of(ref: RefName, held: Mapping[RefName, ObjectId]) -> ObjectId:
    return held.get(ref) or zero_like(next(iter(held.values()), ObjectId("")))


def word_for(outcome: FetchResult | DeploykitError) -> MirrorOutcome:
    """Return the outcome of a whole fetch in one word: the worst of what it did."""
    if isinstance(outcome, DeploykitError) or outcome.lfs.gaps:
        return "failed"
    if outcome.refused:
        return "refused"
    return "updated" if outcome.changes else "unchanged"


def left_out(outcome: FetchResult | DeploykitError, reported: frozenset[str]) -> tuple[str, frozenset[str]]:
    """Return one line about the origin's refs whose names no message may hold. It is for people and never parsed.

    Args:
        outcome: of the fetch.
        reported: what the last call returned.

    Returns:
        The line, empty where all of it was reported before; and what counts as reported from now on.
    """
    if isinstance(outcome, DeploykitError) or outcome.confirmed is not None:  # it did not look at every ref
        return "", reported
    found = frozenset(refusal.shown for refusal in outcome.refused if refusal.ref is None)
    if found <= reported:
        return "", found
    first, *more = sorted(found - reported)
    others = f" and {len(more)} more" if more else ""
    return f"left out, not acceptable as the name of a ref: {first}{others}", found
