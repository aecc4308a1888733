"""The rollouts of this machine: found by id, listed, asked to do something, removed when they are old.

Rules:

* Reading needs no lock: a rollout is shown while another process coordinates it.
* Whether a coordinator runs is asked of the kernel: it holds the lock of the journal.
* An old rollout is removed once it has ended; one that runs never is.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Final, Literal

import attrs

from deploykit.errors import DeploykitError, RolloutError, UsageError
from deploykit.fleet import controls
from deploykit.fleet.journal import (
    NAME,
    EndRecord,
    JournalContents,
    at_time,
    is_rollout_id,
    journal_path,
    read_journal,
    read_summary,
)
from deploykit.fleet.journalfile import JournalFile, is_written
from deploykit.fleet.plan import Plan
from deploykit.fleet.replay import replay
from deploykit.fleet.rollout import RolloutModel
from deploykit.fleet.sitelock import LockHolder, lock_path, read_holder
from deploykit.messages.rollout import RolloutState
from deploykit.messages.site import name_of
from deploykit.names import NodeName, SiteName
from deploykit.operations.deploy import user_name
from deploykit.operations.mandatefiles import blobs_of
from deploykit.operations.proposals import find_proposal, proposal_paths, read_proposal
from deploykit.settings.node import Settings

#: Rollouts that are kept, the newest first, and for how many seconds.
KEPT: Final = 100
KEPT_FOR: Final = 90 * 86400.0


@attrs.frozen(kw_only=True, slots=True)
class RolloutEntry:
    """A rollout in a list.

    Args:
        state: as its journal has it; `proposed` where it has none yet.
        running: a process on this machine coordinates it now.
        begun, ended: times; None for one that has not ended.
        counts: how many nodes are in which state.
        signatures, until: of one that only was proposed: how many have signed it, and when its mandate ends.
        problem: why its journal cannot be read; then the rest but the id means nothing.
    """

    rollout: str
    site: SiteName | None = None
    kind: str = ""
    target: str = ""
    requested_by: str = ""
    state: RolloutState | Literal["proposed"] = "planned"
    running: bool = False
    begun: datetime | None = None
    ended: datetime | None = None
    nodes: int = 0
    counts: Mapping[str, int] = attrs.field(factory=dict, eq=dict, hash=False)
    signatures: int = 0
    until: datetime | None = None
    problem: str = ""


@attrs.frozen(kw_only=True, slots=True)
class StoredRollout:
    """A rollout, read from its journal.

    Args:
        contents: of the journal.
        model: how it stands.
        at: when the last event was folded.
        doubts: why reports were not believed, by node.
        end: how it ended, if it has.
        running: a process on this machine coordinates it now.
        holder: that process, in words for a person; None where none runs, or where it is not known.
        requests: what other processes have asked of it and nobody has carried out yet.
        later: the id of a rollout of the same site that was begun after it; empty where there is none.
    """

    path: Path
    contents: JournalContents
    model: RolloutModel
    at: datetime
    doubts: Mapping[NodeName, tuple[str, ...]]
    end: EndRecord | None
    running: bool
    holder: LockHolder | None
    requests: tuple[controls.ControlRequest, ...]
    later: str = ""

    @property
    def plan(self) -> Plan:
        """What the rollout is to do."""
        return self.contents.head.plan

    @property
    def exit_code(self) -> int:
        """The exit code of `rollout show`: the rollout's own, 0 while it runs, 1 where nobody goes on with it."""
        if self.model.ended:
            return self.model.exit_code(self.plan)
        return 0 if self.running else 1


def list_rollouts(settings: Settings) -> tuple[RolloutEntry, ...]:
    """Return the rollouts that were begun or proposed on this machine, newest first."""
    directory = settings.rollouts_directory
    entries = [_entry(path) for path in _journals(directory)]
    entries += [_proposed(path) for path in proposal_paths(directory)]
    return tuple(sorted(entries, key=lambda entry: (entry.begun is not None, entry.begun, entry.rollout), reverse=True))


def read_rollout(settings: Settings, rollout: str) -> StoredRollout:
    """Return a rollout by its id, the beginning of it that no other one shares, or `last`.

    Raises:
        UsageError: there is none, or more than one.
        RolloutError: its journal cannot be read.
    """
    return read_stored(settings.rollouts_directory, find_journal(settings.rollouts_directory, rollout))


def read_stored(directory: Path, path: Path) -> StoredRollout:
    """Return the rollout of a journal.

    Raises:
        RolloutError: the journal cannot be read.
    """
    contents = read_journal(path)
    replayed = replay(contents)
    running = is_written(path)
    holder = read_holder(lock_path(directory, contents.head.plan.site)) if running else None
    return StoredRollout(
        path=path,
        contents=contents,
        model=replayed.model,
        at=at_time(replayed.at),
        doubts=replayed.doubts,
        end=replayed.end,
        running=running,
        holder=holder if holder is not None and holder.rollout == contents.head.plan.rollout else None,
        requests=controls.waiting(path.parent),
        later=later_of(directory, contents.head.plan, contents.head.begun) or "",
    )


def find_journal(directory: Path, rollout: str) -> Path:
    """Return the journal of the rollout with this id, or with an id that begins so; `last` is the newest one.

    Raises:
        UsageError: there is none, or more than one.
        RolloutError: the directory cannot be read.
    """
    if rollout == "last":
        newest = max(_journals(directory), key=_begun, default=None)
        if newest is None:
            raise UsageError(f"there is no rollout in {directory}", "see `deploykit rollout list`")
        return newest
    if not is_rollout_id(rollout):
        raise UsageError(f"not the id of a rollout: {rollout[:80]!a}", "see `deploykit rollout list`")
    exact = journal_path(directory, rollout)
    if os.path.lexists(exact):
        return exact
    found = [path for path in _journals(directory) if path.parent.name.startswith(rollout)]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(sorted(path.parent.name for path in found)[:5])
        raise UsageError(f"more than one rollout begins with {rollout}: {names}", "give more of its id")
    proposal = find_proposal(directory, rollout)
    if proposal is not None:
        name = proposal.parent.name
        raise UsageError(f"rollout {name} is proposed, and has not begun", f"see `deploykit rollout show {name}`")
    raise UsageError(f"there is no rollout {rollout} in {directory}", "see `deploykit rollout list`")


def ask_rollout(
    settings: Settings, rollout: str, kind: controls.ControlKind, *, rollback: bool = False
) -> StoredRollout:
    """Ask whoever coordinates a rollout, now or later, to do something; return the rollout as it stood before.

    The request is on the disk when this returns. Where `running` is false, nobody carries it out yet.

    Args:
        settings: of this machine.
        rollout: the id, or its beginning.
        kind: `pause`, `resume`, `promote` or `abort`.
        rollback: of an abort: nodes that have the new release go back.

    Raises:
        UsageError: there is no such rollout, or it has ended.
        RolloutError: its journal cannot be read, or the request cannot be written.
    """
    found = read_rollout(settings, rollout)
    if found.model.ended:
        raise UsageError(f"rollout {found.plan.rollout} has ended: {found.model.state}", "there is nothing to do")
    controls.ask(found.path.parent, controls.ControlRequest(kind=kind, by=user_name(), rollback=rollback))
    return found


def unfinished(directory: Path, site: SiteName, *, but: str = "") -> tuple[RolloutEntry, ...]:
    """Return the rollouts of a site that have not ended and that nobody coordinates, newest first."""
    entries = (_entry(path) for path in _journals(directory) if path.parent.name != but)
    found = [e for e in entries if e.site == site and e.ended is None and not e.running and not e.problem]
    return tuple(sorted(found, key=lambda entry: entry.rollout, reverse=True))


def later_of(directory: Path, plan: Plan, begun: float) -> str | None:
    """Return the id of a rollout of the same site that was begun after this one; None where there is none."""
    for path in _journals(directory):
        with contextlib.suppress(RolloutError):
            head, _ = read_summary(path)
            if head.plan.site == plan.site and head.plan.rollout != plan.rollout and head.begun > begun:
                return head.plan.rollout
    return None


def begun_since(settings: Settings, plan: Plan, proposal: Path) -> str:
    """Return the id of a rollout of the site that was begun here after a proposal was made; empty where none was."""
    return later_of(settings.rollouts_directory, plan, read_proposal(proposal).head.begun) or ""


def begun_after(settings: Settings, plan: Plan) -> str:
    """Return the id of a rollout of the site that was begun here after this one; empty where none is known."""
    with contextlib.suppress(RolloutError):
        head, _ = read_summary(journal_path(settings.rollouts_directory, plan.rollout))
        return later_of(settings.rollouts_directory, plan, head.begun) or ""
    return ""


def prune(directory: Path, now: float) -> tuple[str, ...]:
    """Remove old rollouts that nobody coordinates; return their ids.

    One that has ended goes when 100 newer ones are kept, or after 90 days. One that has not goes after 90 days.
    """
    removed = []
    for at, path in enumerate(sorted(_journals(directory), key=_begun, reverse=True)):
        old = now - _begun(path) > KEPT_FOR
        if not (old or (at >= KEPT and _has_ended(path))):
            continue
        with contextlib.suppress(OSError, RolloutError), JournalFile.hold(path):  # busy: it is coordinated now
            shutil.rmtree(path.parent)
            removed.append(path.parent.name)
    return tuple(removed)


def _journals(directory: Path) -> Iterator[Path]:
    try:
        entries = sorted(directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        remedy = "run this as the user that began the rollouts"
        raise RolloutError(f"{directory} cannot be read: {error.strerror}", remedy) from error
    for entry in entries:
        if is_rollout_id(entry.name) and _may_have_journal(entry):
            yield entry / NAME


def _may_have_journal(directory: Path) -> bool:
    try:
        return (directory / NAME).exists()
    except OSError:
        return True  # another user's: whoever reads it is told


def _begun(path: Path) -> float:
    try:
        return read_summary(path)[0].begun
    except RolloutError:
        with contextlib.suppress(OSError):
            return path.stat().st_mtime
        return time.time()


def _has_ended(path: Path) -> bool:
    try:
        return read_summary(path)[1] is not None
    except RolloutError:
        return False  # a person may want to look at it


def _entry(path: Path) -> RolloutEntry:
    try:
        head, end = read_summary(path)
        if end is not None:
            state, counts = end.state, dict(end.counts)
        else:
            model = replay(read_journal(path)).model
            state, counts = model.state, {str(state): count for state, count in model.counts.items()}
    except RolloutError as error:
        return RolloutEntry(rollout=path.parent.name, problem=str(error), running=is_written(path))
    plan = head.plan
    return RolloutEntry(
        rollout=plan.rollout,
        site=plan.site,
        kind=plan.kind,
        target=target_of(plan),
        requested_by=plan.requested_by,
        state=state,
        running=end is None and is_written(path),
        begun=at_time(head.begun),
        ended=at_time(end.at) if end is not None else None,
        nodes=len(plan.nodes),
        counts=counts,
    )


def _proposed(path: Path) -> RolloutEntry:
    try:
        found = read_proposal(path)
    except DeploykitError as error:
        return RolloutEntry(rollout=path.parent.name, state="proposed", problem=str(error))
    plan = found.plan
    return RolloutEntry(
        rollout=plan.rollout,
        site=plan.site,
        kind=plan.kind,
        target=target_of(plan),
        requested_by=plan.requested_by,
        state="proposed",
        begun=at_time(found.head.begun),
        nodes=len(plan.nodes),
        signatures=len(blobs_of(found.mandate)),
        until=found.mandate.message.not_after,
    )


def target_of(plan: Plan) -> str:
    """Return what a plan puts live, in words for a person."""
    return name_of(plan.releases[0]) if len(plan.releases) == 1 else f"{len(plan.releases)} releases"
