"""What is said of a mirror after a fetch. Pure: what came of it goes in, lines to report come out.

Rules: every message that asked is answered once, under its own correlation id, with what the mirror holds and never
with what the message claims; what nobody asked about is said when it moved; what goes on being wrong is said once.
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
class Trouble:
    """Why a ref is not where it should be: in the mirror, or in a directory."""

    outcome: MirrorOutcome
    detail: str


@attrs.frozen(slots=True)
class Told:
    """One request: what its message claimed (None: nothing), and the correlation id to answer under."""

    claim: RefChange | None
    reason: str


@attrs.frozen(slots=True)
class LogLine:
    """One report: a ref, what it was and is, and how it went."""

    ref: RefName
    old: ObjectId
    new: ObjectId
    outcome: MirrorOutcome
    detail: str = ""
    reason: str = ""


#: Troubles that were said, each with the id that had it.
Said = Mapping[RefName, tuple[Trouble, ObjectId]]


def lines_of(
    outcome: FetchResult | DeploykitError,
    asked: Sequence[Told],
    held: Mapping[RefName, ObjectId],
    troubles: Mapping[RefName, Trouble],
    said: Said,
) -> tuple[list[LogLine], Said]:
    """Decide what to report.

    Args:
        outcome: of the fetch.
        asked: the requests that it answers.
        held: the mirror's refs now.
        troubles: refs whose directory does not show what the mirror holds.
        said: what the last call returned.

    Returns:
        The lines, and the troubles that count as said from now on.
    """
    changes: dict[RefName, RefChange] = {}
    now = dict(troubles)
    if isinstance(outcome, FetchResult):
        changes = {change.ref: change for change in outcome.changes}
        for refusal in outcome.refused:
            if refusal.ref is not None:  # see `left_out` for the others
                here = _of(refusal.ref, held)
                changes[refusal.ref] = RefChange(refusal.ref, refusal.old or here, refusal.new or here)
                now[refusal.ref] = Trouble("refused", refusal.reason)
    lines: list[LogLine] = []
    for told in asked:
        if told.claim is not None:
            lines += _answer(told.claim, outcome, changes, held, now, told.reason)
    done = {line.ref for line in lines}
    reason = asked[0].reason if asked else ""
    for ref, change in changes.items():
        if ref not in done and (ref not in now or said.get(ref) != (now[ref], change.new)):
            lines.append(_line(ref, change.old, change.new, now.get(ref), reason))
    done |= changes.keys()
    for ref in now.keys() - done:
        if said.get(ref) != (now[ref], _of(ref, held)):
            lines.append(_line(ref, _of(ref, held), _of(ref, held), now[ref], reason))
    for ref in sorted(said.keys() - now.keys() - done):
        if ref in held:
            lines.append(LogLine(ref, held[ref], held[ref], "unchanged", "what was wrong is right again", reason))
    saying = {ref: (trouble, changes[ref].new if ref in changes else _of(ref, held)) for ref, trouble in now.items()}
    return lines, saying


def _answer(
    claim: RefChange,
    outcome: FetchResult | DeploykitError,
    changes: Mapping[RefName, RefChange],
    held: Mapping[RefName, ObjectId],
    troubles: Mapping[RefName, Trouble],
    reason: str,
) -> list[LogLine]:
    ref = claim.ref
    if isinstance(outcome, DeploykitError):
        here = held.get(ref) or zero_like(claim.new)  # what the message claims nobody has seen
        return [LogLine(ref, here, here, "failed", one_line(str(outcome)), reason)]
    if ref in changes:
        return [_line(ref, changes[ref].old, changes[ref].new, troubles.get(ref), reason)]
    if held.get(ref) == (None if is_zero(claim.new) else claim.new):
        trouble = troubles.get(ref, Trouble("unchanged", ""))
        return [_line(ref, claim.old, claim.new, trouble, reason)]
    return []  # neither here nor at the origin: there is nothing to say of it


def _line(ref: RefName, old: ObjectId, new: ObjectId, trouble: Trouble | None, reason: str) -> LogLine:
    trouble = trouble or Trouble("updated", "")
    return LogLine(ref, old, new, trouble.outcome, one_line(trouble.detail), reason)


def _of(ref: RefName, held: Mapping[RefName, ObjectId]) -> ObjectId:
    return held.get(ref) or zero_like(next(iter(held.values()), ObjectId("")))


def left_out(outcome: FetchResult | DeploykitError, said: frozenset[str]) -> tuple[str, frozenset[str]]:
    """Word the refs of the origin that no message may name. Their names are made for people here, and stay that.

    Args:
        outcome: of the fetch.
        said: what the last call returned.

    Returns:
        One line, empty where all of it was said before; and what counts as said from now on.
    """
    if isinstance(outcome, DeploykitError) or outcome.confirmed is not None:  # it did not look at every ref
        return "", said
    found = frozenset(refusal.shown for refusal in outcome.refused if refusal.ref is None)
    if found <= said:
        return "", found
    first, *more = sorted(found - said)
    others = f" and {len(more)} more" if more else ""
    return f"left out, not acceptable as the name of a ref: {first}{others}", found
