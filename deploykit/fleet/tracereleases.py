"""The last stations of a trace: what became of each command on each node, progress folded in. Pure.

A node that was asked and has not reported is a station too: `asked`, or `running` where its progress was seen. Where a
later phase of the same rollout was reported by it, the report is not seen, and was there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime

import attrs

from deploykit.fleet.station import Station
from deploykit.fleet.tracebuilder import ProgressFold, TracedMessage
from deploykit.fleet.tracetrust import SignatureVerdict
from deploykit.messages import DeployReported, DeployRequested, one_line


@attrs.frozen(kw_only=True, slots=True)
class _Asked:
    """One node in one command."""

    at: datetime
    command: DeployRequested
    verdict: SignatureVerdict


def release_stations(messages: Sequence[TracedMessage], folds: Sequence[ProgressFold]) -> Iterator[Station]:
    """Yield a station for each node and command.

    Args:
        messages: all but progress, in the order in which they were recorded.
        folds: the progress.
    """
    waiting = _asked(messages)
    progress: dict[tuple[str, str], list[ProgressFold]] = defaultdict(list)
    for fold in folds:
        progress[fold.head.node, fold.head.request].append(fold)
    reported: set[tuple[str, str]] = set()
    answers: set[tuple[str, str, str, str]] = set()
    rollout_of = {one.command.id: one.command.rollout for one in waiting.values()}
    later: dict[tuple[str, str], datetime] = {}
    for one in messages:
        report = one.message
        if not isinstance(report, DeployReported):
            continue
        place = str(report.node), report.request
        first_counts = one.verdict.counts and place not in reported
        own = [fold for fold in progress[place] if fold.verdict.counts] if first_counts else []
        if one.verdict.counts:
            answer = (*place, report.id, report.outcome)
            if answer in answers:
                continue  # it answered again: the same, encoded or signed anew
            answers.add(answer)
            reported.add(place)
            if rollout := rollout_of.get(report.request):
                later[report.node, rollout] = max(one.received, later.get((report.node, rollout), one.received))
        yield _reported(one, report, own)
    for each in sorted(set(waiting) | set(progress)):
        if each in reported:
            yield from (_running(fold) for fold in progress[each] if not fold.verdict.counts)
        else:
            yield from _open(each, waiting.get(each), progress[each], rollout_of, later)


def _asked(messages: Sequence[TracedMessage]) -> dict[tuple[str, str], _Asked]:
    """Return who was asked for what by commands that count, each once."""
    found: dict[tuple[str, str], _Asked] = {}
    for one in messages:
        if isinstance(one.message, DeployRequested) and one.verdict.counts:
            for node in one.message.audience:
                place = node, one.message.id
                if place not in found:
                    found[place] = _Asked(at=one.received, command=one.message, verdict=one.verdict)
    return found


def _reported(one: TracedMessage, report: DeployReported, folds: Sequence[ProgressFold]) -> Station:
    first = min((fold.first for fold in folds), default=one.received)
    about = []
    if report.steps:
        about.append("1 step" if len(report.steps) == 1 else f"{len(report.steps)} steps")
    if (seconds := (one.received - first).total_seconds()) > 0:
        about.append(f"{seconds:.1f} s since its first step")
    if lost := sum(fold.missing for fold in folds):
        about.append(f"{lost} events of its progress not seen")
    remarks = f" ({', '.join(about)})" if about else ""
    return Station(
        kind="release",
        subject=report.node,
        state=report.outcome,
        at=one.received,
        until=one.received,
        text=one_line(f"{report.summary}{remarks}"),
        sent=report.time,
        ids=(report.id,),
        verdict=one.verdict,
    )


def _open(
    place: tuple[str, str],
    asked: _Asked | None,
    folds: Sequence[ProgressFold],
    rollout_of: dict[str, str | None],
    later: dict[tuple[str, str], datetime],
) -> Iterator[Station]:
    """Yield the station of a node that has not reported on a command."""
    node, request = place
    rollout = rollout_of.get(request)
    after = later.get((node, rollout)) if rollout else None
    for fold in folds:
        yield _running(fold)
    if asked is None or any(fold.verdict.counts for fold in folds):
        return
    command = asked.command
    if after is not None and after > asked.at:
        yield Station(
            kind="release",
            subject=node,
            state="not seen",
            at=after,
            until=after,
            text=f"{node} {command.phase} {command.site} reported",
            seen=False,
            because=f"{node} reports a later phase of {rollout}",
            rank=-1,
        )
        return
    yield Station(
        kind="release",
        subject=node,
        state="asked",
        at=asked.at,
        until=asked.at,
        text=one_line(f"{node} {command.phase} {command.site}: no report seen"),
        ids=(request,),
        verdict=asked.verdict,
    )


def _running(fold: ProgressFold) -> Station:
    head = fold.head
    steps = fold.steps()
    step, state = steps[-1]
    gap = f", {fold.missing} events not seen" if fold.missing else ""
    text = f"{head.node} {head.phase} {head.site}: step {step} {state}, no report seen{gap}"
    return Station(
        kind="release",
        subject=head.node,
        state="running",
        at=fold.first,
        until=fold.last,
        text=one_line(text),
        sent=head.time,
        ids=(head.request,),
        verdict=fold.verdict,
    )
