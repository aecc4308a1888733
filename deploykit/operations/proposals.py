"""Rollouts that wait for people: proposed, signed by whoever may, then started; or left, and removed after a while.

    rollouts/ID/proposal.json      the head of the journal to be, with the mandate and the signatures so far

Rules:

* A proposal sends nothing. It is a file of its own until the rollout begins; from then on the journal counts.
* The file is replaced as a whole, under a lock: two people who sign at once lose no signature.
* What the plan would do is compared with the mandate whenever a proposal is read: a plan that was changed is refused.
* A proposal whose mandate has ended cannot be started. It is removed a week later.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import attrs

from deploykit.errors import DeploykitError, LockBusy, RolloutError, UsageError
from deploykit.fleet.journal import NAME as JOURNAL
from deploykit.fleet.journal import is_rollout_id
from deploykit.fleet.journalhead import JournalHead, decode_head, encode_head
from deploykit.fleet.mandates import HeldMandate, require_inside
from deploykit.fleet.plan import Plan
from deploykit.system.durable import replace_file, sync_directory
from deploykit.system.lock import FileLock

NAME: Final = "proposal.json"
FORMAT: Final = "deploykit-rollout-proposal"
VERSION: Final = 1
#: How long a proposal is kept after its mandate has ended.
KEPT_FOR: Final = timedelta(days=7)
_LOCK: Final = "proposal.lock"
#: Bytes of the longest proposal: a plan and a mandate of 10,000 nodes each, and build results.
_MOST: Final = 16 * 1024 * 1024
_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


@attrs.frozen(kw_only=True, slots=True)
class Proposal:
    """A rollout that waits for approval.

    Args:
        path: of its file.
        head: what its journal will begin with; `begun` is when it was proposed.
        mandate: what people sign; also in the head.
    """

    path: Path
    head: JournalHead
    mandate: HeldMandate

    @property
    def plan(self) -> Plan:
        """What the rollout would do."""
        return self.head.plan


def store_proposal(directory: Path, head: JournalHead) -> Proposal:
    """Write a new proposal below `directory`, durably, and return it.

    Args:
        directory: where rollouts are kept.
        head: with a mandate.

    Raises:
        PolicyRefused: the plan lies outside of the mandate.
        RolloutError: it cannot be written.
    """
    path = directory / head.plan.rollout / NAME
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        made = _proposal(path, head)
        replace_file(path, _encode(head), mode=0o600)
        sync_directory(directory)
    except OSError as error:
        raise _cannot("written", path, error) from error
    return made


def read_proposal(path: Path) -> Proposal:
    """Return the proposal in a file.

    Raises:
        PolicyRefused: its plan lies outside of its mandate.
        RolloutError: it cannot be read.
    """
    try:
        with os.fdopen(os.open(path, _FLAGS), "rb") as file:
            raw = file.read(_MOST)
    except OSError as error:
        raise _cannot("read", path, error) from error
    try:
        value = json.loads(raw)
        if not isinstance(value, dict) or value.get("format") != FORMAT:
            raise RolloutError(f"{path} is no proposal of a rollout")
        if value["version"] != VERSION:
            raise RolloutError(f"{path} was written by a newer deploykit", "use that one")
        head = decode_head(value)
        if head.plan.rollout != path.parent.name:
            raise ValueError("it is of another rollout than its directory")
    except RolloutError:
        raise
    except (DeploykitError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        why = str(error)[:200] or type(error).__name__
        raise RolloutError(f"{path} is damaged: {why}", "propose the rollout again") from error
    return _proposal(path, head)


def find_proposal(directory: Path, rollout: str) -> Path | None:
    """Return the proposal with this id, or with an id that begins so, or the `last` one; None where there is none.

    Raises:
        UsageError: more than one begins so.
    """
    waiting = list(proposal_paths(directory))
    if rollout == "last":
        return max(waiting, key=_modified, default=None)
    found = [path for path in waiting if path.parent.name.startswith(rollout)]
    exact = [path for path in found if path.parent.name == rollout]
    if len(exact or found) > 1:
        names = ", ".join(sorted(path.parent.name for path in found)[:5])
        raise UsageError(f"more than one proposal begins with {rollout}: {names}", "give more of its id")
    return next(iter(exact or found), None)


def proposal_paths(directory: Path) -> Iterator[Path]:
    """Yield the proposals below a directory that were not started."""
    try:
        entries = sorted(directory.iterdir())
    except OSError:
        return
    for entry in entries:
        with contextlib.suppress(OSError):  # withdrawn meanwhile, or another person's
            if is_rollout_id(entry.name) and (entry / NAME).is_file() and not (entry / JOURNAL).exists():
                yield entry / NAME


def change_mandate(path: Path, change: Callable[[HeldMandate], HeldMandate]) -> Proposal:
    """Replace the mandate of a proposal by what `change` makes of it now, and return the proposal.

    Raises:
        UsageError: the rollout has begun.
        RolloutError: somebody else changes it, or it cannot be read or written.
        PolicyRefused: the plan lies outside of the new mandate.
    """
    lock = FileLock(path.parent / _LOCK, wait=10.0, quiet=2.0, named=False)
    try:
        with lock:
            if (path.parent / JOURNAL).exists():
                raise UsageError(f"rollout {path.parent.name} has begun", "nothing is left to approve")
            found = read_proposal(path)
            made = _proposal(path, attrs.evolve(found.head, mandate=change(found.mandate)))
            replace_file(path, _encode(made.head), mode=0o600)
    except LockBusy:
        raise RolloutError(f"somebody else signs {path.parent.name} at this moment", "try again") from None
    except OSError as error:
        raise _cannot("written", path, error) from error
    return made


def withdraw(path: Path) -> None:
    """Remove a proposal. Files with its mandate stay as good as they are, until the mandate ends.

    Only the proposal's own files go: a rollout that is started at this moment keeps its journal.

    Raises:
        UsageError: the rollout has begun.
        RolloutError: it cannot be removed.
    """
    try:
        for name in (NAME, _LOCK):
            (path.parent / name).unlink(missing_ok=True)
        path.parent.rmdir()
    except OSError as error:
        if (path.parent / JOURNAL).exists():
            raise UsageError(f"rollout {path.parent.name} has begun", "abort it again: now it is ended") from error
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise _cannot("removed", path, error) from error


def prune_proposals(directory: Path, now: datetime) -> tuple[str, ...]:
    """Remove proposals whose mandates ended a week ago; return their ids. One that cannot be read stays."""
    removed = []
    for path in list(proposal_paths(directory)):
        with contextlib.suppress(DeploykitError):  # a person sees it in the list, and why it cannot be read
            if now - read_proposal(path).mandate.message.not_after > KEPT_FOR:
                withdraw(path)
                removed.append(path.parent.name)
    return tuple(removed)


def _proposal(path: Path, head: JournalHead) -> Proposal:
    mandate = head.mandate
    if mandate is None:
        raise RolloutError(f"{path} has no mandate", "propose the rollout again")
    require_inside(mandate, head.plan, without_build=head.without_build, override_lock=head.override_lock)
    return Proposal(path=path, head=head, mandate=mandate)


def _encode(head: JournalHead) -> bytes:
    value = {"format": FORMAT, "version": VERSION, **encode_head(head)}
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _cannot(what: str, path: Path, error: OSError) -> RolloutError:
    return RolloutError(
        f"{path} cannot be {what}: {error.strerror}",
        "set `rollouts` in the settings to a directory that you may write" if what != "read" else "",
    )


__all__ = [
    "KEPT_FOR",
    "NAME",
    "Proposal",
    "change_mandate",
    "find_proposal",
    "proposal_paths",
    "prune_proposals",
    "read_proposal",
    "store_proposal",
    "withdraw",
]
