"""The deploy command and its reply."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import ClassVar, Final, Literal

import attrs

from deploykit.errors import MessageError
from deploykit.messages.base import (
    ABSENT_BY_DEFAULT,
    KEEPS_LAST,
    UNLESS_PARTS,
    Base64,
    Identifier,
    Message,
    Seconds,
    one_line,
    unknown_fields,
)
from deploykit.messages.node import AgentInstance
from deploykit.messages.site import (
    SiteParts,
    SiteRelease,
    Version,
    check_parts,
    id_of,
    name_of,
    named,
    version_of,
)
from deploykit.messages.statement import SignedStatement
from deploykit.names import NodeName, ObjectId, RefName, SiteName

DeployPhase = Literal["deploy", "prepare", "activate", "rollback", "discard"]
DeployOutcome = Literal["success", "failure", "rolled-back", "refused"]
#: Most build results that a command may carry; a receiver refuses a command with more.
MAX_EVIDENCE: Final = 16


@attrs.frozen(kw_only=True, slots=True)
class BuildEvidence:
    """A signed `BuildFinished` that a deploy command carries: its exact body and its signature."""

    body: Base64 = attrs.field(repr=False)
    signature: Base64 = attrs.field(repr=False)
    extra: Mapping[str, object] = unknown_fields()


def _id_of_parts(request: DeployRequested) -> ObjectId:
    if not request.parts:
        raise MessageError("commit: is missing, and there are no parts")
    return id_of(request.parts)


@attrs.frozen(kw_only=True, slots=True)
class DeployRequested(Message):
    """A command: put `commit` (which `ref` names) live on `site`. Nodes act on it only when it is signed.

    In every phase `ref` and `commit`, or `parts`, are what goes live, or is prepared: a node that cannot do that
    refuses. On the wire there is either of the two forms, never both; older readers refuse `parts`.

    Args:
        ref: None with `parts`.
        parts: what goes live of each repository, where the site is made of several.
        commit: the id of the parts where there are some; it is made from them.
        audience: the nodes it is for; any other node ignores it. Never empty.
        expires: after this instant no node acts on it; a receiver caps how far ahead it may lie.
        phase: all of a deploy, only its preparation, only its activation, or the way back. For `activate` the node
            must have prepared exactly this ref and commit, for `rollback` it must have had exactly this release.
            `discard` removes what was prepared of exactly this ref and commit and was never live.
        evidence: signed build results for a node that may not know them; at most 16. Each is verified as if it had
            come by itself.
        without_build: deploy although no build succeeded; a node obeys only where a grant allows the signer just that.
        rollout: the id of the rollout that this command is part of; None for a command by itself.
        mandate: which `RolloutApproved` allows it: hex SHA-256 of its body; None for none.
        override_lock: why it is to be obeyed although the site is locked; empty where it is not.
    """

    TYPE: ClassVar[str] = "deploykit.deploy.requested.v1"

    site: SiteName
    ref: RefName | None = attrs.field(default=None, metadata=UNLESS_PARTS)
    parts: SiteParts = attrs.field(default=(), metadata=ABSENT_BY_DEFAULT, validator=check_parts)
    commit: ObjectId = attrs.field(default=attrs.Factory(_id_of_parts, takes_self=True), metadata=UNLESS_PARTS)
    audience: tuple[NodeName, ...]
    expires: datetime
    phase: DeployPhase = "deploy"
    requested_by: str = ""
    evidence: tuple[BuildEvidence, ...] = attrs.field(default=(), metadata=ABSENT_BY_DEFAULT)
    without_build: bool = attrs.field(default=False, metadata=ABSENT_BY_DEFAULT)
    rollout: Identifier | None = attrs.field(default=None, metadata=ABSENT_BY_DEFAULT)
    mandate: Identifier | None = attrs.field(default=None, metadata=ABSENT_BY_DEFAULT)
    override_lock: str = attrs.field(default="", metadata=ABSENT_BY_DEFAULT)

    def __attrs_post_init__(self) -> None:
        if self.ref is None and not self.parts:
            raise MessageError("ref: is missing, and there are no parts")

    @property
    def summary(self) -> str:
        who = f" by {self.requested_by}" if self.requested_by else ""
        who += " without a build" if self.without_build else ""
        who += " over the lock" if self.override_lock else ""
        nodes = ", ".join(self.audience)
        return one_line(f"{self.phase} {self.site} {name_of(self)} on {nodes} requested{who}")


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
    """A node's reply to a `DeployRequested`. What was asked for is in that message; this one names what *is*.

    Args:
        request: that message's id.
        answers: names what is answered, the body and the keys that signed it (`trust.signature.copy_digest`): whoever
            copies a request's id into one of their own gets answers that fit only theirs.
        release, ref, commit, parts: what is live when the operation has ended, read from the site; never copied from
            the request. Empty and None where nothing is live. With `parts`, `commit` is their id.
        live_known: the site was read. Where it is false (refused before the node read it, unreadable records),
            `release`, `ref`, `commit`, `parts` and `previous` are empty and mean nothing.
        target: the release the operation made, prepared, put live or took back; None where there was none.
        previous: the last good release before the live one, on disk or not: what a rollback would name. None where
            there is none.
        instance, host: the agent that did it, see `AgentInstance`.
        twins: other agents that answer under this node's name: the report is true of one machine only.
        lock: the signed lock for which the command was refused, or which it overrode.
        overridden: why that lock was overridden; empty where it was not.
    """

    TYPE: ClassVar[str] = "deploykit.deploy.reported.v1"

    node: NodeName
    site: SiteName
    request: Identifier
    answers: str = ""
    phase: DeployPhase
    outcome: DeployOutcome
    ref: RefName | None = None
    commit: ObjectId | None = None
    parts: SiteParts = attrs.field(default=(), metadata=ABSENT_BY_DEFAULT, validator=check_parts)
    release: str = ""
    live_known: bool = False
    target: SiteRelease | None = None
    previous: SiteRelease | None = None
    detail: str = ""
    steps: tuple[StepReport, ...] = attrs.field(default=(), metadata=KEEPS_LAST)

    instance: str = ""
    host: str = ""
    twins: tuple[AgentInstance, ...] = ()
    lock: SignedStatement | None = attrs.field(default=None, metadata=ABSENT_BY_DEFAULT)
    overridden: str = attrs.field(default="", metadata=ABSENT_BY_DEFAULT)

    @property
    def achieved(self) -> Version:
        """The version that a success reports: of the prepared release, or of the live one.

        A success of `discard` reports none: it says that nothing of that version waits to be activated.
        """
        if self.phase == "discard":
            return None, None, ()
        if self.phase == "prepare":
            return version_of(self.target) if self.target is not None else (None, None, ())
        return version_of(self)

    @property
    def summary(self) -> str:
        live = named(self.ref, self.commit, self.release, parts=self.parts)
        if not self.live_known or (self.outcome == "success" and self.phase not in ("prepare", "discard")):
            what, now = live, ""
        else:
            what, now = str(self.target or ""), f", live is {live}" if live else ", nothing is live"
        why = f": {self.detail}" if self.detail else ""
        if self.twins:
            why = f" ({len(self.twins) + 1} agents answer under this name){why}"
        return one_line(f"{self.node} {self.phase} {self.site} {what} {self.outcome}{now}{why}")
