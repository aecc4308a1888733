"""The stations of a trace that were not seen, and whose effects were: what the bus lost, or nobody recorded. Pure.

Only messages that count prove anything. Each such station stands just before the first proof.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from deploykit.fleet.station import Station, StationKind
from deploykit.fleet.tracebuilder import ProgressFold, TracedMessage, of_kind
from deploykit.messages import (
    BuildFinished,
    BuildRequested,
    BuildStarted,
    DeployReported,
    DeployRequested,
    MirrorUpdated,
    RolloutReported,
    one_line,
)


def unseen_stations(
    found: Sequence[Station], messages: Sequence[TracedMessage], folds: Sequence[ProgressFold]
) -> list[Station]:
    """Return the stations that were not seen.

    Args:
        found: the stations that were.
        messages: all but progress, in the order in which they were recorded.
        folds: the progress.
    """
    counted = [one for one in messages if one.verdict.counts]
    by_time = sorted((each for each in folds if each.verdict.counts), key=lambda one: (one.first, one.head.node))
    return [
        *_unseen_pushes(found),
        *_unseen_builds(counted),
        *_unseen_mirrors(counted),
        *_unseen_rollouts(counted, by_time),
        *_unseen_commands(counted, by_time),
    ]


def _not_seen(kind: StationKind, at: datetime, subject: str, text: str, because: str, *, rank: int = 0) -> Station:
    """Return a station that was not seen; `at` is when its proof was recorded."""
    return Station(
        kind=kind,
        subject=one_line(subject),
        state="not seen",
        at=at,
        until=at,
        text=one_line(text),
        seen=False,
        because=one_line(because),
        rank=rank,
    )


def _unseen_pushes(found: Sequence[Station]) -> Iterator[Station]:
    if any(one.kind == "push" for one in found):
        return
    effects = [one for one in found if one.kind != "rollout" and one.verdict is not None and one.verdict.counts]
    if effects:
        first = min(effects, key=lambda one: one.order)
        because = f"{first.kind} {first.subject} {first.state}"
        yield _not_seen("push", first.at, "", "push", because)


def _unseen_builds(messages: Sequence[TracedMessage]) -> Iterator[Station]:
    started = {(build.job, build.number) for _, build in of_kind(messages, BuildStarted)}
    requested = {build.job for _, build in of_kind(messages, BuildRequested)}
    asked: set[str] = set()
    for one, build in sorted(
        [*of_kind(messages, BuildStarted), *of_kind(messages, BuildFinished)], key=lambda pair: pair[0].received
    ):
        name = f"{build.job} {build.number}"
        verb = "started" if isinstance(build, BuildStarted) else "ended"
        if build.job not in requested | asked:
            asked.add(build.job)
            yield _not_seen("build", one.received, build.job, f"{build.job} build requested", f"{name} {verb}")
        if verb == "ended" and (build.job, build.number) not in started:
            started.add((build.job, build.number))
            yield _not_seen("build", one.received, name, f"{name} build started", f"{name} ended", rank=1)


def _unseen_mirrors(messages: Sequence[TracedMessage]) -> Iterator[Station]:
    have = {mirror.node for _, mirror in of_kind(messages, MirrorUpdated) if mirror.outcome in ("updated", "unchanged")}
    for one, report in of_kind(messages, DeployReported):
        if report.node not in have and report.outcome == "success" and report.phase in ("deploy", "prepare"):
            have.add(report.node)
            because = f"{report.node} reports {report.phase} {report.outcome}"
            yield _not_seen("mirror", one.received, report.node, f"{report.node} fetched it", because)


def _unseen_rollouts(messages: Sequence[TracedMessage], folds: Sequence[ProgressFold]) -> Iterator[Station]:
    known = {announced.rollout for _, announced in of_kind(messages, RolloutReported)}
    for one, asked in of_kind(messages, DeployRequested):
        if asked.rollout and asked.rollout not in known:
            known.add(asked.rollout)
            text = f"rollout {asked.rollout} of {asked.site}"
            yield _not_seen("rollout", one.received, asked.rollout, text, f"its command {asked.id}")
    for fold in folds:
        head = fold.head
        if head.rollout and head.rollout not in known:
            known.add(head.rollout)
            text, because = f"rollout {head.rollout} of {head.site}", f"{head.node} carries out a command of it"
            yield _not_seen("rollout", fold.first, head.rollout, text, because)


def _unseen_commands(messages: Sequence[TracedMessage], folds: Sequence[ProgressFold]) -> Iterator[Station]:
    known = {asked.id for _, asked in of_kind(messages, DeployRequested)}
    for fold in folds:
        head = fold.head
        if head.request not in known:
            known.add(head.request)
            text, because = f"{head.phase} {head.site} requested", f"{head.node} carries it out"
            yield _not_seen("command", fold.first, head.request, text, because)
    for one, report in of_kind(messages, DeployReported):
        if report.request not in known:
            known.add(report.request)
            text, because = f"{report.phase} {report.site} requested", f"{report.node} reports {report.outcome}"
            yield _not_seen("command", one.received, report.request, text, because)
