"""What is shown of what somebody asks for: plans, proposals, outcomes. The API answers with the same classes."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import attrs

from deploykit.messages.rollout import RolloutKind
from deploykit.operations.compare import CommitComparison


@attrs.frozen(kw_only=True, slots=True)
class PlannedNode:
    """A node of a plan.

    Args:
        stage: 0 for the canaries, else the number of the batch.
        live_ref, live_commit, live_release: what it has now; empty where that is not known.
        to_ref, to_commit: what it gets.
        why: of a way back: where its target comes from, e.g. "its previous release, live until 14:03 UTC".
        holds: its mirror has the ref; None where that is not known.
        warning: what a person should know before they press; empty for nothing.
    """

    node: str
    stage: int
    live_ref: str = ""
    live_commit: str = ""
    live_release: str = ""
    to_ref: str = ""
    to_commit: str = ""
    why: str = ""
    holds: bool | None = None
    warning: str = ""


@attrs.frozen(kw_only=True, slots=True)
class PlannedScript:
    """A script that nodes would run, as the release has it. `text` is cut at 4,000 characters."""

    step: str
    path: str
    text: str = ""


@attrs.frozen(kw_only=True, slots=True)
class LeftOutNode:
    """A node that was meant and is not in the plan, and why."""

    node: str
    why: str


@attrs.frozen(kw_only=True, slots=True)
class PlanShown:
    """What would be done; nothing was sent.

    Args:
        nodes: in the order in which they are asked.
        needs: how many people must sign a mandate; 0: the console's own key does.
        needs_person: they must show presence: passkeys or security keys.
        locked: who keeps the site locked and why, in one line; empty where it is not locked.
        running: the rollout of the site that runs now; empty for none.
        comparison: commits and files between what is live (where all nodes have the same) and the target.
        digest: of all that decides what is done; see `DeployAsked.plan`.
        command: the line that does the same from a shell.
        notes, warnings: lines for the person.
    """

    site: str
    kind: RolloutKind
    ref: str = ""
    commit: str = ""
    nodes: tuple[PlannedNode, ...]
    left_out: tuple[LeftOutNode, ...] = ()
    needs: int = 0
    needs_person: bool = False
    locked: str = ""
    running: str = ""
    comparison: CommitComparison | None = None
    scripts: tuple[PlannedScript, ...] = ()
    digest: str = ""
    command: str = ""
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@attrs.frozen(kw_only=True, slots=True)
class SignatureShown:
    """A signature under a mandate. `problem`: why it does not count; empty where it does."""

    fingerprint: str
    signer: str = ""
    problem: str = ""


@attrs.frozen(kw_only=True, slots=True)
class ProposalShown:
    """A rollout that waits for people.

    Args:
        body: the very bytes to sign, in base64; all else here that they say is decoded from them.
        text: what the bytes say, a line each.
        missing: what the site asks for and the signatures do not give; empty: it can begin.
        command: the line that signs it from a shell.
    """

    rollout: str
    site: str
    kind: RolloutKind
    ref: str = ""
    commit: str = ""
    nodes: tuple[str, ...] = ()
    not_before: datetime
    not_after: datetime
    requested_by: str = ""
    reason: str = ""
    body: str
    text: tuple[str, ...] = ()
    signatures: tuple[SignatureShown, ...] = ()
    missing: str = ""
    problems: tuple[str, ...] = ()
    command: str = ""


@attrs.frozen(kw_only=True, slots=True)
class ActionOutcome:
    """What came of an action.

    Args:
        state: `started`, `proposed` (people must sign), `asked` (whoever coordinates it will do it), `done`.
        rollout: which it is about; empty for none.
        detail: a line for the person.
        notes: further ones.
    """

    state: Literal["started", "proposed", "asked", "done"]
    rollout: str = ""
    site: str = ""
    detail: str = ""
    notes: tuple[str, ...] = ()


@attrs.frozen(kw_only=True, slots=True)
class LockState:
    """What nodes show of a site's lock now: what it takes to sign the next statement elsewhere.

    Args:
        serial: of the next statement, at least.
        locks: each lock in force, in one line, and what does not count.
        body, signature: of the lock that an unlock lifts, in base64 and as its header has it; empty for none.
        nodes: how many nodes with the site answered.
    """

    site: str
    serial: int
    locks: tuple[str, ...] = ()
    body: str = ""
    signature: str = ""
    nodes: int = 0


@attrs.frozen(kw_only=True, slots=True)
class AccessRow:
    """Who may see a site. `state` of each node: `granted`, `asked` (no answer yet), `failed`, …

    Args:
        problems: of nodes that did not do what was asked last: the node, and why. It may still have an older access.
    """

    site: str
    user: str
    until: datetime | None = None
    requested_by: str = ""
    nodes: tuple[tuple[str, str], ...] = ()
    problems: tuple[tuple[str, str], ...] = ()


@attrs.frozen(kw_only=True, slots=True)
class AccessGranted:
    """A grant that was asked for. The password is shown this once; we keep only that it was made.

    Nothing is granted before the nodes' reports are here: see `AccessRow`.
    """

    row: AccessRow
    password: str = attrs.field(repr=False)


@attrs.frozen(kw_only=True, slots=True)
class PersonPresent:
    """Somebody who has a page open from which this site can be changed, since when, and what they do there."""

    name: str
    what: str
    since: datetime


__all__ = [
    "AccessGranted",
    "AccessRow",
    "ActionOutcome",
    "LeftOutNode",
    "LockState",
    "PersonPresent",
    "PlanShown",
    "PlannedNode",
    "PlannedScript",
    "ProposalShown",
    "SignatureShown",
]
