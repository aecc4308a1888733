"""The deploy command and its reply."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import ClassVar, Literal

import attrs

from deploykit.messages.base import Identifier, Message, Seconds, one_line, unknown_fields
from deploykit.messages.node import AgentInstance
from deploykit.names import NodeName, ObjectId, RefName, SiteName, short_ref

DeployPhase = Literal["deploy", "prepare", "activate", "rollback"]
DeployOutcome = Literal["success", "failure", "rolled-back", "refused"]


@attrs.frozen(kw_only=True, slots=True)
class DeployRequested(Message):
    """A command: put `commit` (which `ref` names) live on `site`. Nodes act on it only when it is signed.

    Args:
        audience: the nodes it is for; any other node ignores it. Never empty.
        expires: after this instant no node acts on it; a receiver caps how far ahead it may lie.
        phase: all of a deploy, only its preparation, only its activation, or the way back.
    """

    TYPE: ClassVar[str] = "deploykit.deploy.requested.v1"

    site: SiteName
    ref: RefName
    commit: ObjectId
    audience: tuple[NodeName, ...]
    expires: datetime
    phase: DeployPhase = "deploy"
    requested_by: str = ""

    @property
    def summary(self) -> str:
        who = f" by {self.requested_by}" if self.requested_by else ""
        nodes = ", ".join(self.audience)
        return one_line(f"{self.phase} {self.site} {short_ref(self.ref)} {self.commit[:12]} on {nodes} requested{who}")


@attrs.frozen(kw_only=True, slots=True)
class StepReport:
    """One step of a deploy: its name, outcome, the exit code where a script ran, and its capped output."""

    name: str
    outcome: Literal["done", "failed", "skipped"]
    seconds: Seconds = 0.0
    exit_code: int | None = None
    output: str = ""
    extra: Mapping[str, object] = unknown_fields()


@attrs.frozen(kw_only=True, slots=True)
class DeployReported(Message):
    """A node's reply to a `DeployRequested`.

    Args:
        request: that message's id.
        answers: names the very copy that is answered, body and signature (`wire.signature.copy_digest`): whoever
            copies a request's id into one of their own gets answers that fit only theirs.
        release: the directory's name.
        instance, host: which run of an agent did it, see `AgentInstance`.
        twins: other agents that answer under this node's name: what is reported is true of one machine only.
    """

    TYPE: ClassVar[str] = "deploykit.deploy.reported.v1"

    node: NodeName
    site: SiteName
    request: Identifier
    answers: str = ""
    phase: DeployPhase
    outcome: DeployOutcome
    ref: RefName
    commit: ObjectId
    release: str = ""
    detail: str = ""
    steps: tuple[StepReport, ...] = ()
    instance: str = ""
    host: str = ""
    twins: tuple[AgentInstance, ...] = ()

    @property
    def summary(self) -> str:
        why = f": {self.detail}" if self.detail else ""
        if self.twins:
            why = f" ({len(self.twins) + 1} agents answer under this name){why}"
        return one_line(
            f"{self.node} {self.phase} {self.site} {short_ref(self.ref)} {self.commit[:12]} {self.outcome}{why}"
        )
