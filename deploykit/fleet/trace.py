"""The way of a commit, one station a line: push, builds, mirrors, rollout, commands, and each node's release. Pure.

Rules:

* A station that was not seen, and whose effect was, is shown as not seen, with what proves it, just before the proof.
* Doubtful messages are stations of their own. They prove nothing, and complete nothing.
* Stations are in the order in which their messages were recorded, by one clock: the senders' may differ. Of equal
  times the way's own order counts.
* The same messages give the same trace, in whatever order and however often they come.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Final

import attrs

from deploykit.fleet.recordformat import RecordedMessage
from deploykit.fleet.station import Station
from deploykit.fleet.tracebuilder import TraceBuilder
from deploykit.fleet.tracekeys import MessageKeys
from deploykit.fleet.tracelinks import TraceLinks
from deploykit.fleet.tracestations import stations_of
from deploykit.fleet.tracesubject import Ambiguous, SubjectFinder, TraceSubject
from deploykit.fleet.tracetrust import TraceTrust

#: Returns the messages that a trace may be made of, again and again.
TraceSource = Callable[[], Iterable[tuple[MessageKeys, RecordedMessage]]]
#: Each pass but the last finds further ids; a push has few links, so that four are the rule.
MOST_PASSES: Final = 12
#: The states in which a rollout ends.
ENDS: Final = frozenset({"succeeded", "failed", "aborted", "rolled-back"})


@attrs.frozen(kw_only=True, slots=True)
class Trace:
    """All stations of one way, and what a reader should know of them.

    Args:
        notes: what was left out, or not believed; a line each.
        complete: there are releases, each that was asked for was reported, and each rollout has announced its end.
    """

    stations: tuple[Station, ...]
    notes: tuple[str, ...] = ()
    complete: bool = False


def make_trace(built: TraceBuilder) -> Trace:
    """Return the trace of the messages that were collected."""
    stations = sorted(stations_of(built.messages, built.folds), key=lambda one: one.order)
    return Trace(
        stations=tuple(stations),
        notes=tuple(_notes(built, stations)),
        complete=_complete(stations),
    )


def _complete(stations: Iterable[Station]) -> bool:
    counted = [one for one in stations if one.verdict is None or one.verdict.counts]
    releases = [one for one in counted if one.kind == "release" and one.seen]
    rollouts = {one.subject: one.state for one in counted if one.kind == "rollout" and one.state != "abort"}
    return (
        bool(releases)
        and not any(one.state in ("asked", "running") for one in releases)
        and all(state in ENDS for state in rollouts.values())
    )


@attrs.frozen(kw_only=True, slots=True)
class FoundTrace:
    """What became of a search for a trace.

    Args:
        subject: what the text means; None where it means nothing, or several things.
        ambiguous: where it means several.
        trace: of the subject.
    """

    subject: TraceSubject | None = None
    ambiguous: Ambiguous | None = None
    trace: Trace | None = None


def find_trace(text: str, source: TraceSource, trust: TraceTrust | None) -> FoundTrace:
    """Return the trace of an id, a commit or a ref.

    Args:
        text: what a person typed.
        source: returns all messages each time it is called, always the same ones, with their keys.
        trust: judges the signatures; None: they are not looked at.
    """
    finder = SubjectFinder(text)
    for keys, record in source():
        finder.add(keys, record.received)
    subject = finder.result()
    if not isinstance(subject, TraceSubject):
        return FoundTrace(ambiguous=subject)
    links = TraceLinks(subject)
    for _ in range(MOST_PASSES):
        built = TraceBuilder(trust)
        for keys, record in source():
            if links.belongs(keys, record.received):
                built.add(record)
        if links.ended():
            break
    trace = make_trace(built)
    more = (f"earlier pushes of {subject.name}: {subject.older}; trace them by commit",) if subject.older else ()
    cut = ("too many messages belong to it: some are not followed",) if links.full else ()
    return FoundTrace(subject=subject, trace=attrs.evolve(trace, notes=(*trace.notes, *more, *cut)))


def gaps_between(stations: Sequence[Station]) -> list[float | None]:
    """Return for each station the seconds since the one before that was seen; None for the first, and where unseen."""
    found: list[float | None] = []
    before: datetime | None = None
    for station in stations:
        if not station.seen:
            found.append(None)
            continue
        found.append(None if before is None else (station.at - before).total_seconds())
        before = station.at
    return found


def _notes(built: TraceBuilder, stations: Iterable[Station]) -> Iterable[str]:
    if built.unreadable:
        yield f"{built.unreadable} messages of this trace cannot be read"
    if built.left_out:
        yield f"{built.left_out} messages of this trace are too many, and left out"
    doubtful = sum(one.verdict is not None and not one.verdict.counts for one in stations)
    if doubtful:
        yield f"{doubtful} stations are not believed: see the reason of each"
