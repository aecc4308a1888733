"""Messages of a trace -> its stations, those that were not seen included. Pure; `trace` has the rules."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

import attrs

from deploykit.fleet.station import Station, StationKind
from deploykit.fleet.tracebuilder import ProgressFold, TracedMessage, of_kind
from deploykit.fleet.tracereleases import release_stations
from deploykit.fleet.traceunseen import unseen_stations
from deploykit.messages import (
    BuildFinished,
    BuildRequested,
    BuildStarted,
    DeployRequested,
    MirrorUpdated,
    RefUpdated,
    RolloutAbort,
    RolloutReported,
    one_line,
)
from deploykit.messages.site import name_of

#: Ids and names that one station lists.
_LISTED: Final = 20
_BUILD_RANKS: Final = {"requested": 0, "started": 1, "finished": 2}


def stations_of(messages: Sequence[TracedMessage], folds: Sequence[ProgressFold]) -> list[Station]:
    """Return the stations, in any order.

    Args:
        messages: all but progress, in the order in which they were recorded.
        folds: the progress.
    """
    found = [
        *_pushes(messages),
        *_builds(messages),
        *_mirrors(messages),
        *_rollouts(messages),
        *_commands(messages),
        *release_stations(messages, folds),
    ]
    return [*found, *unseen_stations(found, messages, folds)]


def station(kind: StationKind, one: TracedMessage, *, subject: str, state: str, text: str, rank: int = 0) -> Station:
    """Return the station of a single message."""
    return Station(
        kind=kind,
        subject=one_line(subject),
        state=state,
        at=one.received,
        until=one.received,
        text=text,
        sent=one.message.time,
        ids=(one.message.id,),
        verdict=one.verdict,
        rank=rank,
    )


def _pushes(messages: Sequence[TracedMessage]) -> Iterator[Station]:
    for one, push in of_kind(messages, RefUpdated):
        yield station("push", one, subject=f"{push.repo} {push.ref}", state=push.kind, text=push.summary)


def _builds(messages: Sequence[TracedMessage]) -> Iterator[Station]:
    for one, build in of_kind(messages, BuildRequested):
        yield _build(one, build, "requested", build.outcome)
    for one, started in of_kind(messages, BuildStarted):
        yield _build(one, started, "started", "started")
    for one, finished in of_kind(messages, BuildFinished):
        yield _build(one, finished, "finished", finished.outcome)


def _build(one: TracedMessage, build: BuildRequested | BuildStarted | BuildFinished, part: str, state: str) -> Station:
    subject = f"{build.job} {build.number}" if build.number else build.job
    return station("build", one, subject=subject, state=state, text=build.summary, rank=_BUILD_RANKS[part])


def _mirrors(messages: Sequence[TracedMessage]) -> Iterator[Station]:
    for one, mirror in of_kind(messages, MirrorUpdated):
        yield station("mirror", one, subject=mirror.node, state=mirror.outcome, text=mirror.summary)


def _rollouts(messages: Sequence[TracedMessage]) -> Iterator[Station]:
    """Yield a station for each state that a rollout announced, and for each abort: equal states in a row are one."""
    runs: dict[tuple[str, str, str], list[Station]] = defaultdict(list)
    for one, announced in of_kind(messages, RolloutReported):
        found = station("rollout", one, subject=announced.rollout, state=announced.state, text=announced.summary)
        run = runs[announced.rollout, one.verdict.standing, one.verdict.signer]
        if run and run[-1].state == announced.state:
            ids = (*run[-1].ids, announced.id)[:_LISTED]
            run[-1] = attrs.evolve(run[-1], until=one.received, text=announced.summary, ids=ids)
        else:
            run.append(found)
    for run in runs.values():
        yield from run
    for one, abort in of_kind(messages, RolloutAbort):
        yield station("rollout", one, subject=abort.rollout, state="abort", text=abort.summary, rank=1)


def _commands(messages: Sequence[TracedMessage]) -> Iterator[Station]:
    """Yield a station for each phase that a rollout asks for, however many commands it takes, and for each other
    command."""
    groups: dict[tuple[str, ...], list[tuple[TracedMessage, DeployRequested]]] = defaultdict(list)
    for one, asked in of_kind(messages, DeployRequested):
        what = (
            asked.rollout or "",
            "" if asked.rollout else asked.id,
            asked.phase,
            asked.site,
            asked.ref or "",
            asked.commit,
        )
        groups[*what, one.verdict.standing, one.verdict.signer].append((one, asked))
    for asked_in in groups.values():
        (first, command), (last, _) = asked_in[0], asked_in[-1]
        nodes = sorted({node for _, each in asked_in for node in each.audience})
        places = ", ".join(nodes[:3]) + (f" and {len(nodes) - 3} more" if len(nodes) > 3 else "")
        text = command.summary
        if len(asked_in) > 1:
            text = one_line(
                f"{command.phase} {command.site} {name_of(command)} on {places} requested "
                f"in {len(asked_in)} commands over {(last.received - first.received).total_seconds():.1f} s"
            )
        made = station("command", first, subject=command.rollout or command.id, state=command.phase, text=text)
        yield attrs.evolve(made, until=last.received, ids=tuple(each.id for _, each in asked_in[:_LISTED]))
