"""Which of the planned changes to make, once the objects are here: history, age, what a branch may point to.

Rules:

* Objects are read through one narrow reader.
* A refused change leaves its ref where it was and states the reason; what nothing forbids is allowed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from deploykit.git.commits import History
from deploykit.mirror.model import RefChange, Refusal
from deploykit.names import ObjectId
from deploykit.settings.mirror import MirrorSettings


def judge(
    changes: Iterable[RefChange],
    settings: MirrorSettings,
    history: History,
    is_commit: Callable[[bytes], bool],
    unsigned: Callable[[str, ObjectId], str] = lambda _ref, _oid: "",
) -> tuple[tuple[RefChange, ...], tuple[Refusal, ...]]:
    """Split changes into those to make and those refused.

    Args:
        changes: what is planned.
        settings: the policies.
        history: the commits, to be looked into.
        is_commit: returns whether an object is a commit.
        unsigned: why a ref may not move to an object for want of a signature; empty when it may.
    """
    allowed: list[RefChange] = []
    refused: list[Refusal] = []
    for change in changes:
        reason = _objection(change, settings, history, is_commit)
        if not reason and change.kind != "deleted":
            reason = unsigned(change.ref, change.new)
        if reason:
            refused.append(Refusal(change.ref, change.old, change.new, reason))
        else:
            allowed.append(change)
    return tuple(allowed), tuple(refused)


def _objection(
    change: RefChange, settings: MirrorSettings, history: History, is_commit: Callable[[bytes], bool]
) -> str:
    """Return why not to make a change, or an empty string."""
    if change.kind == "deleted":
        return ""
    is_branch = change.ref.startswith("refs/heads/")
    if is_branch and not is_commit(bytes.fromhex(change.new)):
        return f"a branch that is not a commit ({change.new})"
    strict = settings.non_fast_forward == "refuse"
    if change.kind != "moved" or not (strict or settings.never_older):
        return ""
    if strict and not is_branch:
        return "a tag moved, and non_fast_forward says refuse"
    return _rewritten(change, history, strict=strict)


def _rewritten(change: RefChange, history: History, *, strict: bool) -> str:
    old, new = (history.peel(bytes.fromhex(oid)) for oid in (change.old, change.new))
    if history.contains(new, old):
        return ""
    if strict:
        return "history was rewritten, and non_fast_forward says refuse"
    if history.when(new) < history.when(old) or history.contains(old, new):
        return "it would go back to an older commit, and never_older is set"
    return ""
