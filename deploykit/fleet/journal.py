"""The journal of a rollout: its plan, every event that was folded, every command before it was sent.

Rules:

* A command is on the disk before it is sent: whoever resumes sends the same bytes, and no node acts twice.
* An event and the commands that follow from it are one write: what a crash leaves is a beginning of it.
* Folding the events again gives the same rollout, on this or another machine. Nothing else is needed to go on.
* The last record of a rollout that has ended is its end: a list of rollouts reads no more than that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeAlias, get_args

import attrs

from deploykit.errors import DeploykitError, JournalDamaged, RolloutError
from deploykit.fleet import controls
from deploykit.fleet.commands import SentAbort, SentCommand
from deploykit.fleet.journalfile import JournalFile, Record, damaged, read_ends, read_lines
from deploykit.fleet.journalformat import decode_event, encode_event
from deploykit.fleet.journalhead import (
    JournalHead,
    decode_frame,
    decode_head,
    encode_frame,
    encode_head,
    is_rollout_id,
    seconds,
)
from deploykit.fleet.rolloutevents import RolloutEvent
from deploykit.messages.rollout import RolloutState
from deploykit.names import NodeName, parse_node_name

#: The journal's name in the directory of its rollout.
NAME: Final = "journal.jsonl"


@attrs.frozen(kw_only=True, slots=True)
class EventRecord:
    """An event that was folded, and when.

    Args:
        at: wall-clock seconds; never less than in the record before.
        event: what happened.
        control: the name of the request that it comes from; empty for none.
    """

    at: float
    event: RolloutEvent
    control: str = ""


@attrs.frozen(kw_only=True, slots=True)
class CommandRecord:
    """A command that is about to be sent."""

    command: SentCommand


@attrs.frozen(kw_only=True, slots=True)
class AbortRecord:
    """An abort that is about to be sent."""

    abort: SentAbort


@attrs.frozen(kw_only=True, slots=True)
class DoubtRecord:
    """Why a report in a node's name was not believed."""

    node: NodeName
    reason: str


@attrs.frozen(kw_only=True, slots=True)
class EndRecord:
    """How the rollout ended.

    Args:
        at: wall-clock seconds.
        counts: how many nodes are in which state.
    """

    state: RolloutState
    at: float
    exit_code: int
    counts: Mapping[str, int] = attrs.field(eq=dict, hash=False)


JournalRecord: TypeAlias = EventRecord | CommandRecord | AbortRecord | DoubtRecord | EndRecord


@attrs.frozen(kw_only=True, slots=True)
class JournalContents:
    """A journal, read."""

    head: JournalHead
    records: tuple[JournalRecord, ...]


class RolloutJournal:
    """The journal of the rollout that this process coordinates.

    Args:
        file: open for writing.
        path: of the file.
        contents: what it held when it was opened.
    """

    def __init__(self, file: JournalFile, path: Path, contents: JournalContents) -> None:
        self._file = file
        self.path = path
        self.contents = contents

    @classmethod
    def create(cls, directory: Path, head: JournalHead) -> Self:
        """Make the journal of a new rollout below `directory`, durably.

        Raises:
            RolloutError: it cannot be written, or the rollout has one.
        """
        path = journal_path(directory, head.plan.rollout)
        file = JournalFile.create(path, encode_head(head))
        return cls(file, path, JournalContents(head=head, records=()))

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a journal to go on with its rollout.

        Raises:
            RolloutBusy: another process coordinates it.
            JournalDamaged, RolloutError: it cannot be read.
        """
        file, lines = JournalFile.open(path)
        try:
            contents = _decode(lines.head, lines.records, str(path))
        except BaseException:
            file.close()
            raise
        return cls(file, path, contents)

    @property
    def directory(self) -> Path:
        """The directory of the rollout."""
        return self.path.parent

    def append(self, records: Iterable[JournalRecord], *, durable: bool = True) -> None:
        """Append records in one write; with `durable` they are on the disk when it returns.

        Raises:
            RolloutError: the disk refused. Nothing that they announce may be sent.
        """
        self._file.append(map(encode_record, records), durable=durable)

    @property
    def place(self) -> str:
        """The path of the file."""
        return str(self.path)

    def requests(self) -> Sequence[controls.ControlRequest]:
        """Return what other processes ask of the rollout, oldest first."""
        return controls.waiting(self.directory)

    def settle(self, request: controls.ControlRequest) -> None:
        """Remove a request that stands in the journal."""
        controls.remove(self.directory, request)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._file.close()


def journal_path(directory: Path, rollout: str) -> Path:
    """Return where the journal of a rollout is.

    Raises:
        RolloutError: the id is no name of a directory: the journal was made elsewhere, by something else.
    """
    if not is_rollout_id(rollout):
        raise RolloutError(f"{rollout[:80]!a} is no id of a rollout", "expected letters, digits, `.`, `_` and `-`")
    return directory / rollout / NAME


def read_journal(path: Path) -> JournalContents:
    """Return what a journal holds, also while another process writes it.

    Raises:
        JournalDamaged, RolloutError: it cannot be read.
    """
    lines = read_lines(path)
    return _decode(lines.head, lines.records, str(path))


def read_summary(path: Path) -> tuple[JournalHead, EndRecord | None]:
    """Return the head of a journal and the end of its rollout; None where it has not ended.

    Raises:
        JournalDamaged, RolloutError: it cannot be read.
    """
    head, last = read_ends(path)
    contents = _decode(head, () if last is None or "end" not in last else (last,), str(path))
    end = contents.records[-1] if contents.records else None
    return contents.head, end if isinstance(end, EndRecord) else None


# -- records as JSON values --------------------------------------------------------------------------------------------


def encode_record(record: JournalRecord) -> Record:
    """Return a record as a JSON value."""
    match record:
        case EventRecord():
            value: dict[str, object] = {"event": encode_event(record.event), "at": record.at}
            return {**value, "control": record.control} if record.control else value
        case CommandRecord():
            request = record.command.request
            what = {"id": request.id, "phase": request.phase, "nodes": list(request.audience)}
            until = {"expires": request.expires.isoformat()}
            return {"command": {**what, **until, **encode_frame(record.command.frame)}}
        case AbortRecord():
            message = record.abort.message
            what = {"id": message.id, "expires": message.expires.isoformat()}
            return {"abort": {**what, **encode_frame(record.abort.frame)}}
        case DoubtRecord():
            return {"doubt": {"node": record.node, "reason": record.reason}}
        case EndRecord():
            return {
                "end": {
                    "state": record.state,
                    "at": record.at,
                    "exit_code": record.exit_code,
                    "counts": dict(record.counts),
                }
            }


def decode_record(value: Record) -> JournalRecord:
    """Return the record that a JSON value stands for.

    Raises:
        DeploykitError, ValueError, TypeError, KeyError: it is none.
    """
    match value:
        case {"event": event, "at": int() | float() as at}:
            return EventRecord(at=seconds(at), event=decode_event(event), control=str(value.get("control", "")))
        case {"command": {"headers": headers, "body": body}}:
            return CommandRecord(command=SentCommand.of_frame(decode_frame(headers, body)))
        case {"abort": {"headers": headers, "body": body}}:
            return AbortRecord(abort=SentAbort.of_frame(decode_frame(headers, body)))
        case {"doubt": {"node": str() as node, "reason": str() as reason}}:
            return DoubtRecord(node=parse_node_name(node), reason=reason)
        case {
            "end": {"state": state, "at": int() | float() as at, "exit_code": int() as code, "counts": dict() as counts}
        }:
            if state not in get_args(RolloutState):
                raise ValueError(f"unknown state {state!a}")
            return EndRecord(
                state=state, at=seconds(at), exit_code=code, counts={str(k): int(v) for k, v in counts.items()}
            )
    raise ValueError(f"unknown record {', '.join(map(ascii, value))[:80]}")


def _decode(head: Record, records: Iterable[Record], name: str) -> JournalContents:
    found: list[JournalRecord] = []
    line = 1
    try:
        decoded = decode_head(head)
        for record in records:
            line += 1
            found.append(decode_record(record))
    except JournalDamaged as error:
        raise JournalDamaged(f"{name}: line {line}: {error.problem}", error.remedy) from error
    except (DeploykitError, ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise damaged(name, line, str(error) or type(error).__name__) from error
    return JournalContents(head=decoded, records=tuple(found))


def at_time(seconds: float) -> datetime:
    """Return a journal's time as a date, in UTC."""
    return datetime.fromtimestamp(seconds, UTC)


__all__ = [
    "AbortRecord",
    "CommandRecord",
    "DoubtRecord",
    "EndRecord",
    "EventRecord",
    "JournalContents",
    "JournalHead",
    "JournalRecord",
    "RolloutJournal",
    "at_time",
    "is_rollout_id",
    "journal_path",
    "read_journal",
    "read_summary",
]
