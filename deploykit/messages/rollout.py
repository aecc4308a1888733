"""Rollouts: the command that ends one, and what its coordinator announces."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import ClassVar, Literal

import attrs

from deploykit.messages.base import NOTHING, Identifier, Message, one_line
from deploykit.names import NodeName, ObjectId, RefName, SiteName, short_ref

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
class RolloutReported(Message):
    """A rollout began, changed its state or ended. For people who watch; signed by the key of its coordinator.

    Args:
        ref, commit: what goes live; None for a rollback, where nodes may go back to different commits.
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
    state: RolloutState
    nodes: Mapping[str, object] = attrs.field(default=NOTHING, eq=dict, hash=False)
    failed: tuple[NodeName, ...] = ()
    requested_by: str = ""
    host: str = ""
    detail: str = ""

    @property
    def summary(self) -> str:
        what = f" {short_ref(self.ref)}" if self.ref is not None else ""
        counts = ", ".join(f"{count} {state}" for state, count in self.nodes.items())
        why = f": {self.detail}" if self.detail else ""
        return one_line(f"rollout {self.kind} {self.site}{what} {self.state} ({counts or 'no nodes'}){why}")
