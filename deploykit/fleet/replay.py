"""How a rollout stands, from its journal alone. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs

from deploykit.errors import RolloutError
from deploykit.fleet.commandbook import CommandBook
from deploykit.fleet.commands import SentAbort
from deploykit.fleet.journal import (
    AbortRecord,
    CommandRecord,
    DoubtRecord,
    EndRecord,
    EventRecord,
    JournalContents,
)
from deploykit.fleet.rollout import RolloutModel, start, step
from deploykit.fleet.rolloutevents import NodeAnswered, RolloutAction, SendAbort
from deploykit.names import NodeName


@attrs.frozen(kw_only=True, slots=True)
class Replay:
    """What a journal comes to.

    Args:
        model: after all events.
        at: wall-clock seconds of the last one.
        book: all commands, and which answers are still wanted.
        abort_wanted: the nodes are to be asked to obey no more.
        abort: as it was sent, or was about to be.
        controls: the requests that were carried out.
        doubts: why reports were not believed, by node.
        end: how it ended; None where it has not.
    """

    model: RolloutModel
    at: float
    book: CommandBook
    abort_wanted: bool
    abort: SentAbort | None
    controls: frozenset[str]
    doubts: Mapping[NodeName, tuple[str, ...]]
    end: EndRecord | None


def replay(contents: JournalContents) -> Replay:
    """Fold the events of a journal again.

    Raises:
        RolloutError: they do not fit together: the journal is of another version, or was edited.
    """
    plan, at = contents.head.plan, contents.head.begun
    book, controls = CommandBook(), set[str]()
    doubts: dict[NodeName, tuple[str, ...]] = {}
    abort, end = None, None
    try:
        model, actions = start(plan, at)
        abort_wanted = _aborts(actions)
        for record in contents.records:
            match record:
                case EventRecord():
                    at = record.at
                    model, actions = step(plan, model, record.event, at)
                    abort_wanted |= _aborts(actions)
                    controls.add(record.control)
                    if isinstance(record.event, NodeAnswered):
                        book.answered(record.event.node, record.event.phase, record.event.outcome)
                case CommandRecord():
                    book.add(record.command)
                case AbortRecord():
                    abort = record.abort
                case DoubtRecord():
                    doubts[record.node] = (*doubts.get(record.node, ()), record.reason)
                case EndRecord():
                    end = record
    except (KeyError, ValueError, AssertionError) as error:
        raise RolloutError(
            f"the journal of {plan.rollout} does not fit together: {error!r}",
            "look at the nodes with `deploykit status --all`, and begin a new rollout",
        ) from error
    return Replay(
        model=model,
        at=at,
        book=book,
        abort_wanted=abort_wanted,
        abort=abort,
        controls=frozenset(controls - {""}),
        doubts=doubts,
        end=end,
    )


def _aborts(actions: Iterable[RolloutAction]) -> bool:
    return any(isinstance(action, SendAbort) for action in actions)


__all__ = ["Replay", "replay"]
