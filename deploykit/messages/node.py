"""Discovery: which nodes exist, and what they hold."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import ClassVar, Literal

import attrs

from deploykit.messages.base import (
    ABSENT_BY_DEFAULT,
    NOTHING,
    Count,
    Identifier,
    Message,
    UserName,
    one_line,
    unknown_fields,
)
from deploykit.messages.site import SiteParts, SiteRelease, SiteRepos, check_parts
from deploykit.messages.statement import SignedStatement
from deploykit.names import NodeName, ObjectId, RefName, RepoName, SiteName

NodeDetail = Literal["facts", "sites", "refs", "drift", "history", "access"]


@attrs.frozen(kw_only=True, slots=True)
class NodeQueried(Message):
    """A question to nodes: which of them run, and what do they hold?

    Args:
        audience: the nodes that should answer; None asks all.
        details: what to describe beyond the name. `facts` includes the classes. `drift` compares live releases with
            their manifests, `history` lists the last operations of sites; both include `sites`. `access` lists who
            may see protected sites.
        repo: list only this repository's refs.
        site: describe only this site.
        refs_limit: how many refs of a repository to list, newest first.
        history_limit: how many operations of a site to list, newest first.
        expires: no node answers after it.
    """

    TYPE: ClassVar[str] = "deploykit.node.queried.v1"

    audience: tuple[NodeName, ...] | None = None
    details: tuple[NodeDetail, ...] = ("facts", "sites")
    repo: RepoName | None = None
    site: SiteName | None = None
    refs_limit: Count = 20
    history_limit: Count = 20
    expires: datetime | None = None

    @property
    def summary(self) -> str:
        whom = "all nodes" if self.audience is None else ", ".join(self.audience) or "nobody"
        return one_line(f"{whom} asked for {', '.join(self.details) or 'presence'}")


@attrs.frozen(kw_only=True, slots=True)
class SiteOperation:
    """One deploy, preparation, activation, rollback or discard, as the site's own history has it.

    Args:
        number: counts up within the site.
        outcome: empty while it runs; `interrupted` where a crash cut it off.
        started, finished: by the node's clock.
        request, rollout: of the command that asked for it, if one did.
        parts: what it was about, where that is several repositories; `commit` is their id.
    """

    number: Count
    phase: str
    outcome: str = ""
    release: str = ""
    ref: RefName | None = None
    commit: ObjectId | None = None
    requested_by: str = ""
    started: datetime | None = None
    finished: datetime | None = None
    detail: str = ""
    request: str = ""
    rollout: str = ""
    parts: SiteParts = attrs.field(default=(), metadata=ABSENT_BY_DEFAULT, validator=check_parts)
    extra: Mapping[str, object] = unknown_fields()


@attrs.frozen(kw_only=True, slots=True)
class SiteState:
    """A site on a node: what is live there, read from the site.

    Args:
        repo: that its releases are made from; of several repositories the first by name.
        repos: all of them, in the order of their names, where they are several.
        release, ref, commit, since: of the live release; empty and None where nothing is live.
        parts: what the live release was made from, where that is several repositories; `commit` is their id.
        previous: the last good release before the live one, on disk or not: what a rollback would name. None where
            there is none.
        prepared: the newest release that waits to be activated.
        last: the last operation that ended.
        modified: how many paths of the live release differ from its manifest; None where nobody looked.
        history: newest first.
        problem: why the site's own records cannot be read.
        lock: the newest signed statement on the site's lock that the node knows: `SiteLocked` or `SiteUnlocked`.
        require: `person`: commands must lie inside a mandate that people signed by keys that show presence. A reader
            takes any other text that is not empty for the same.
        signatures: how many different people must sign the mandate; with 1 and no `require` the node asks for none.
    """

    site: SiteName
    repo: RepoName
    release: str = ""
    ref: RefName | None = None
    commit: ObjectId | None = None
    since: datetime | None = None
    previous: SiteRelease | None = None
    prepared: SiteRelease | None = None
    last: SiteOperation | None = None
    modified: Count | None = None
    history: tuple[SiteOperation, ...] = ()
    problem: str = ""
    lock: SignedStatement | None = attrs.field(default=None, metadata=ABSENT_BY_DEFAULT)
    require: str = attrs.field(default="", metadata=ABSENT_BY_DEFAULT)
    signatures: Count = attrs.field(default=1, metadata=ABSENT_BY_DEFAULT)
    repos: SiteRepos = attrs.field(default=(), metadata=ABSENT_BY_DEFAULT)
    parts: SiteParts = attrs.field(default=(), metadata=ABSENT_BY_DEFAULT, validator=check_parts)
    extra: Mapping[str, object] = unknown_fields()


@attrs.frozen(kw_only=True, slots=True)
class HeldRef:
    """A ref that a node's mirror holds: it can be deployed there now. `commit` is the one it names, a tag peeled."""

    repo: RepoName
    ref: RefName
    commit: ObjectId
    time: datetime | None = None
    extra: Mapping[str, object] = unknown_fields()


@attrs.frozen(kw_only=True, slots=True)
class SiteAccess:
    """Who may see a protected site of a node, and until when; None: for ever, by somebody else's hand."""

    site: SiteName
    user: UserName
    until: datetime | None = None
    requested_by: str = ""
    extra: Mapping[str, object] = unknown_fields()


@attrs.frozen(kw_only=True, slots=True)
class AgentInstance:
    """One run of an agent: a random id that no copy of its disk has, and where it runs, in words for a person."""

    instance: Identifier
    host: str = ""
    extra: Mapping[str, object] = unknown_fields()

    def __str__(self) -> str:
        return one_line(f"{self.instance} on {self.host or 'an unknown host'}", 200)


@attrs.frozen(kw_only=True, slots=True)
class NodeDescribed(Message):
    """A node's answer.

    Args:
        request: the id of the `NodeQueried`; empty where the node describes itself unasked. On a node's own topic: the
            id of the `NodeDescribed` of another agent of the same name that this one answers.
        answers: names the very copy of the question that is answered, as `DeployReported.answers` does.
        instance, host: which run of an agent describes the node, see `AgentInstance`.
        twins: other agents that answer under this node's name.
        version: of deploykit there.
        facts: flat names and values, by which selectors choose nodes.
        classes: what configuration management says the node is.
        refs: newest first; `refs_count` is the true number where not all are listed.
        protects: the protected sites of the node, where `deploykit access` runs.
        access: who may see them; the last that `deploykit access` has written down.
        cut: what was left out because it was too much, a line each.
    """

    TYPE: ClassVar[str] = "deploykit.node.described.v1"

    node: NodeName
    request: Identifier | None = None
    answers: str = ""
    instance: str = ""
    host: str = ""
    twins: tuple[AgentInstance, ...] = ()
    version: str = ""
    facts: Mapping[str, object] = attrs.field(default=NOTHING, eq=dict, hash=False)
    classes: tuple[str, ...] = ()
    sites: tuple[SiteState, ...] = ()
    refs: tuple[HeldRef, ...] = ()
    refs_count: Count = 0
    protects: tuple[SiteName, ...] = attrs.field(default=(), metadata=ABSENT_BY_DEFAULT)
    access: tuple[SiteAccess, ...] = attrs.field(default=(), metadata=ABSENT_BY_DEFAULT)
    cut: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        live = ", ".join(f"{s.site} {s.release or 'empty'}" for s in self.sites[:20])
        return one_line(f"{self.node} is here{': ' if live else ''}{live}")
