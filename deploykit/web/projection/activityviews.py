"""What queries return of pushes, builds, mirrors, refs, notices and the audit; rules as in `views`. Pure."""

from __future__ import annotations

from datetime import datetime

import attrs


@attrs.frozen(kw_only=True, slots=True)
class CommitView:
    """A commit, as far as the message told."""

    id: str
    author: str = ""
    time: str = ""
    message: str = ""


@attrs.frozen(kw_only=True, slots=True)
class PushView:
    """A ref that changed, or a Subversion revision (`revision`; then `ref` is empty and `projects` may be set).

    `source` is who announced it: `git/host`, `webhook/NAME`.
    """

    id: str
    time: datetime
    repo: str
    ref: str = ""
    kind: str = ""
    old: str = ""
    new: str = ""
    pusher: str = ""
    source: str = ""
    commits: tuple[CommitView, ...] = ()
    commit_count: int = 0
    revision: int | None = None
    projects: tuple[str, ...] = ()
    correlation: str = ""


@attrs.frozen(kw_only=True, slots=True)
class BuildView:
    """A build. `state`: requested, started, or how it ended; `time` is of that."""

    id: str
    time: datetime
    repo: str = ""
    ref: str = ""
    commit: str = ""
    job: str = ""
    number: str = ""
    url: str = ""
    state: str = ""
    signer: str = ""
    correlation: str = ""


@attrs.frozen(kw_only=True, slots=True)
class MirrorView:
    """A ref of a node's mirror, and how the last fetch of it ended."""

    node: str
    repo: str
    ref: str = ""
    commit: str = ""
    outcome: str = ""
    detail: str = ""
    seconds: float = 0.0
    time: datetime | None = None


@attrs.frozen(kw_only=True, slots=True)
class RefView:
    """A ref that nodes hold, and could deploy.

    Args:
        commit: the newest that it names on any node.
        holders: how many of the nodes that mirror the repository hold just this.
        expected: how many nodes should: those that do, and those that are known to hold another commit or none.
        missing: nodes that hold another commit or none; at most 20. Who has not listed its refs yet is not among them.
        live: sites of the repository on which it is live somewhere.
    """

    repo: str
    ref: str
    commit: str
    time: datetime | None = None
    holders: int = 0
    expected: int = 0
    missing: tuple[str, ...] = ()
    live: tuple[str, ...] = ()

    @property
    def everywhere(self) -> bool:
        """Whether every node holds it."""
        return self.holders >= self.expected


@attrs.frozen(kw_only=True, slots=True)
class NoticeView:
    """A line for people."""

    id: str
    time: datetime
    source: str = ""
    text: str = ""


@attrs.frozen(kw_only=True, slots=True)
class AuditView:
    """Who asked for what, and what was decided; refusals of the console itself too.

    Args:
        action: `deploy`, `rollback`, `abort`, `approve`, `lock`, `unlock`, `login`, …
        decision: `asked`, `done`, `failed`, `refused`.
        who: in words for people. signer: by which key; empty where nothing was signed.
        where: the node that decided, `console`, or empty.
    """

    id: str
    time: datetime
    action: str
    decision: str
    who: str = ""
    signer: str = ""
    where: str = ""
    site: str = ""
    rollout: str = ""
    detail: str = ""


@attrs.frozen(kw_only=True, slots=True)
class LatestChange:
    """What changed last: one line of the first screen, newest first. `what` is `push`, `build`, `rollout`, `lock`."""

    time: datetime
    what: str
    text: str
    by: str = ""
    site: str = ""
    rollout: str = ""
    repo: str = ""
