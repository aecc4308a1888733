"""Rollouts: who approved one, the command that ends one, and what its coordinator announces."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import ClassVar, Literal

import attrs

from deploykit.messages.base import ABSENT_BY_DEFAULT, NOTHING, Count, Identifier, ManyNodes, Message, one_line
from deploykit.messages.deploy import DeployPhase
from deploykit.messages.site import SiteParts, check_parts, name_of, named
from deploykit.names import NodeName, ObjectId, RefName, SiteName

RolloutKind = Literal["deploy", "rollback"]
RolloutState = Literal[
    "planned",
    "preparing",
    "prepared",
    "canary",
    "rolling",
    "paused",
    "aborting",
    "rolling-back",
    "succeeded",
    "failed",
    "aborted",
    "rolled-back",
]


@attrs.frozen(kw_only=True, slots=True)
class RolloutAbort(Message):
    """A command: obey no further command of this rollout but `discard` and `rollback`.

    Nodes act on it only when it is signed. It counts for the commands of whoever signed it; for those of others only
    where the grant `rollout.abort` allows.

    Args:
        rollout: the id that its commands carry.
        audience: the nodes it is for; None for all.
        expires: after this instant no node acts on it.
    """

    TYPE: ClassVar[str] = "deploykit.rollout.abort.v1"

    site: SiteName
    rollout: Identifier
    audience: tuple[NodeName, ...] | None = None
    expires: datetime
    requested_by: str = ""
    reason: str = ""

    @property
    def summary(self) -> str:
        who = f" by {self.requested_by}" if self.requested_by else ""
        why = f": {self.reason}" if self.reason else ""
        return one_line(f"abort of rollout {self.rollout} of {self.site} requested{who}{why}")


@attrs.frozen(kw_only=True, slots=True)
class RolloutApproved(Message):
    """A mandate: people let a coordinator run this rollout, and nothing else. Nodes heed it only when it is signed.

    Every command of the rollout names it by its digest and must lie inside it. It may carry several signatures.

    Args:
        rollout: the id that the commands carry.
        ref, commit: what may go live; both None where nodes may only go back.
        parts: what may go live of each repository, where the site is made of several; `commit` is their id.
        nodes: the nodes that may obey, at most 10,000.
        phases: what may be asked of them: some of `deploy`, `prepare`, `activate`; empty where they may only go back.
        allow_rollback: a node may be told to go back to its own previous release.
        not_before, not_after: when commands may be obeyed.
        without_build: the commands may leave out the builds that the site requires.
        override_lock: why the commands may override a lock of the site; empty where they may not.
        requested_by: who asks for the rollout, in words for a person.
        reason: why, in words for a person.
    """

    TYPE: ClassVar[str] = "deploykit.rollout.approved.v1"

    site: SiteName
    rollout: Identifier
    ref: RefName | None = None
    commit: ObjectId | None = None
    parts: SiteParts = attrs.field(default=(), metadata=ABSENT_BY_DEFAULT, validator=check_parts)
    nodes: ManyNodes
    phases: tuple[DeployPhase, ...] = ()
    allow_rollback: bool = False
    not_before: datetime
    not_after: datetime
    without_build: bool = False
    override_lock: str = ""
    requested_by: str = ""
    reason: str = ""

    @property
    def summary(self) -> str:
        what = name_of(self) if self.commit else "the way back"
        why = f": {self.reason}" if self.reason else ""
        count = "1 node" if len(self.nodes) == 1 else f"{len(self.nodes)} nodes"
        until = f"until {self.not_after:%Y-%m-%d %H:%M} UTC"
        return one_line(f"rollout {self.rollout} of {self.site} {what} approved for {count} {until}{why}")


@attrs.frozen(kw_only=True, slots=True)
class RolloutProposed(Message):
    """A rollout waits for people to approve it. For people who watch; signed by the key of whoever will coordinate it.

    Args:
        ref, commit: what goes live; None for a rollback, where nodes may go back to different commits.
        parts: what goes live of each repository, where the site is made of several; `commit` is their id.
        count: how many nodes it is for.
        signed: how many signatures the mandate has so far.
        wanted: how many people must sign, as far as that is known where it was proposed; 0 where it is not.
        not_after: when the mandate ends.
        digest: of the mandate's body.
        url: where it can be looked at; empty for none.
        withdrawn: it does not wait any more, and has not begun.
    """

    TYPE: ClassVar[str] = "deploykit.rollout.proposed.v1"

    site: SiteName
    rollout: Identifier
    kind: RolloutKind
    ref: RefName | None = None
    commit: ObjectId | None = None
    parts: SiteParts = attrs.field(default=(), metadata=ABSENT_BY_DEFAULT, validator=check_parts)
    count: Count = 0
    signed: Count = 0
    wanted: Count = 0
    not_after: datetime
    digest: str = ""
    requested_by: str = ""
    reason: str = ""
    url: str = ""
    withdrawn: bool = False

    @property
    def summary(self) -> str:
        called = named(self.ref, None, parts=self.parts)
        what = f" {called}" if called else ""
        of = f" of {self.wanted}" if self.wanted else ""
        state = "is withdrawn" if self.withdrawn else f"waits for approval ({self.signed}{of} signed)"
        why = f": {self.reason}" if self.reason else ""
        return one_line(f"rollout {self.kind} {self.site}{what} {state}{why}")


@attrs.frozen(kw_only=True, slots=True)
class ApprovalWanted(Message):
    """A node has a command whose mandate it lacks, and asks the coordinator for it. Signed as that node.

    Args:
        mandate: the digest that the command names.
        request: the id of the command.
    """

    TYPE: ClassVar[str] = "deploykit.rollout.approval-wanted.v1"

    node: NodeName
    site: SiteName
    rollout: Identifier
    mandate: Identifier
    request: Identifier

    @property
    def summary(self) -> str:
        return one_line(f"{self.node} lacks the approval of rollout {self.rollout} of {self.site}")


@attrs.frozen(kw_only=True, slots=True)
class RolloutReported(Message):
    """A rollout began, changed its state or ended. For people who watch; signed by the key of its coordinator.

    Args:
        ref, commit: what goes live; None for a rollback, where nodes may go back to different commits.
        parts: what goes live of each repository, where the site is made of several; `commit` is their id.
        state: `planned` to `rolling-back` while it runs; `succeeded`, `failed`, `aborted`, `rolled-back` are ends.
        nodes: how many nodes are in which state, e.g. `{"active": 3, "failed": 1}`.
        failed: nodes that failed, refused or were silent, at most 100.
        host: where the coordinator runs, in words for a person.
    """

    TYPE: ClassVar[str] = "deploykit.rollout.reported.v1"

    site: SiteName
    rollout: Identifier
    kind: RolloutKind
    ref: RefName | None = None
    commit: ObjectId | None = None
    parts: SiteParts = attrs.field(default=(), metadata=ABSENT_BY_DEFAULT, validator=check_parts)
    state: RolloutState
    nodes: Mapping[str, object] = attrs.field(default=NOTHING, eq=dict, hash=False)
    failed: tuple[NodeName, ...] = ()
    requested_by: str = ""
    host: str = ""
    detail: str = ""

    @property
    def summary(self) -> str:
        called = named(self.ref, None, parts=self.parts)
        what = f" {called}" if called else ""
        counts = ", ".join(f"{count} {state}" for state, count in self.nodes.items())
        why = f": {self.detail}" if self.detail else ""
        return one_line(f"rollout {self.kind} {self.site}{what} {self.state} ({counts or 'no nodes'}){why}")
