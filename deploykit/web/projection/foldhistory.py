"""What nodes and their reports say of the operations on a site."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from deploykit.messages import DeployReported, SiteOperation, SiteState
from deploykit.web.projection.cells import Row, clean, digest, micros, micros_or_none
from deploykit.web.projection.folding import asked_by, at_of
from deploykit.web.projection.heard import Heard
from deploykit.web.projection.rows import WorkingRows, new_row
from deploykit.web.projection.tables import HISTORY


def fold_operations(rows: WorkingRows, heard: Heard, node: str, state: SiteState, known: Row) -> Row:
    """Keep the operations that a site's own history lists, and return the cells that say which are kept.

    Nodes list the same operations again and again: those that ended and are kept are not looked at.

    Args:
        rows: of this transaction.
        heard, node, state: the description.
        known: the row of the site on the node.
    """
    first, last = known["history_first"], known["history_last"]
    news = _news(state, known)
    _fold_operations(rows, heard, node, state, news)
    ended = [number for number, each in news.items() if each.outcome]
    if not ended:
        return {}
    # Only a range without a gap is remembered; what lies outside is looked at when it is listed again.
    span = (min(ended), max(ended))
    overlap = max(0, min(span[1], last) - max(span[0], first) + 1) if last else 0
    whole = len(ended) + overlap == span[1] - span[0] + 1
    if whole and last and span[0] <= last + 1 and span[1] >= first - 1:
        span = (min(first, span[0]), max(last, span[1]))
    elif not whole:
        span = (span[1], span[1])
    return {"history_first": span[0], "history_last": span[1]}


def load_operations(rows: WorkingRows, node: str, states: Iterable[tuple[SiteState, Row]]) -> None:
    """Read at once which operations of a node are kept, where it lists new ones of several sites.

    Args:
        rows: of this transaction.
        node: the node.
        states: its sites, each with its known row.
    """
    sites = [(clean(state.site), clean(node)) for state, known in states if _news(state, known)]
    rows.load(HISTORY, ("site", "node"), sites, node=clean(node))


def _news(state: SiteState, known: Row) -> dict[int, SiteOperation]:
    listed = {each.number: each for each in (*state.history, *((state.last,) if state.last is not None else ()))}
    first, last = known["history_first"], known["history_last"]
    return {number: each for number, each in listed.items() if not first <= number <= last or not last}


def _fold_operations(
    rows: WorkingRows, heard: Heard, node: str, state: SiteState, listed: Mapping[int, SiteOperation]
) -> None:
    if not listed:
        return
    before = rows.select(HISTORY, site=clean(state.site), node=clean(node))
    numbered = {row["number"]: row for row in before if not row["provisional"]}
    provisional = {row["request"]: row["key"] for row in before if row["provisional"]}
    for number, operation in listed.items():
        row = numbered.get(number)
        if row is None:
            key = digest(state.site, node, number)
            row = new_row(HISTORY, key=key, at=0, site=clean(state.site), node=clean(node), number=number)
            rows.put_new(HISTORY, row | _cells(operation, heard, row))
            reported = provisional.get(clean(operation.request)) if operation.request else None
            if reported is not None:
                rows.remove(HISTORY, reported)
        elif operation.outcome or not row["outcome"]:
            rows.put(HISTORY, row | _cells(operation, heard, row))


def _cells(operation: SiteOperation, heard: Heard, row: Row) -> Row:
    received = micros(heard.received)
    finished = micros_or_none(operation.finished or operation.started)
    return {
        "at": min(finished, received) if finished is not None else (row["at"] or received),
        "phase": clean(operation.phase),
        "outcome": clean(operation.outcome),
        "release": clean(operation.release),
        "ref": clean(operation.ref),
        "commit": clean(operation.commit),
        "requested_by": clean(operation.requested_by, 300),
        "detail": clean(operation.detail),
        "request": clean(operation.request),
        "rollout": clean(operation.rollout),
        "started": micros_or_none(operation.started),
        "finished": micros_or_none(operation.finished),
    }


def fold_reported(rows: WorkingRows, heard: Heard, message: DeployReported, command: Row | None) -> None:
    """Keep the operation that a report is about, until the site's own history lists it.

    Args:
        rows: of this transaction.
        heard, message: the report.
        command: the row of the command, if it was heard.
    """
    node, request = clean(message.node), clean(message.request)
    if message.outcome == "refused":
        return
    if any(row["request"] == request for row in rows.select(HISTORY, site=clean(message.site), node=node)):
        return
    ref, commit, parts = message.achieved
    if ref is None and not parts and message.target is not None:
        ref, commit = message.target.ref, message.target.commit
    row = new_row(
        HISTORY,
        key=digest(message.site, node, "request", request),
        at=at_of(heard),
        site=clean(message.site),
        node=node,
        number=micros(message.time),
        phase=message.phase,
        outcome=message.outcome,
        release=clean(message.target.release if message.target is not None else message.release),
        ref=clean(ref),
        commit=clean(commit),
        requested_by=asked_by(command),
        detail=clean(message.detail),
        request=request,
        rollout=command["rollout"] if command is not None and command["rollout"] != request else "",
        finished=micros(message.time),
        provisional=True,
    )
    rows.put(HISTORY, row)
