"""What happened in a version control repository."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from datetime import datetime
from itertools import islice
from typing import ClassVar, Final, Literal

import attrs

from deploykit.messages.base import Count, Message, one_line, unknown_fields
from deploykit.names import ObjectId, RefName, RepoName, is_zero, short_ref

RefChangeKind = Literal["created", "moved", "forced", "deleted"]

#: A push lists at most this many commits, newest first; `commit_count` is the true number.
MAX_COMMITS: Final = 50
#: Characters of a commit's message that are kept. With `MAX_COMMITS`, even the worst text fits a message.
COMMIT_TEXT: Final = 2000
#: Characters of a name or a date that are kept.
NAME_TEXT: Final = 200
#: A revision lists at most this many changed directories.
MAX_DIRS: Final = 200
#: Characters of the longest directory that is listed.
DIR_TEXT: Final = 500


@attrs.frozen(kw_only=True, slots=True)
class Commit:
    """One commit as people read it. `time` is the author's, as git prints it (ISO 8601, strict)."""

    id: ObjectId
    author: str
    time: str
    message: str
    extra: Mapping[str, object] = unknown_fields()


def bounded_commits(commits: Iterable[Commit]) -> tuple[Commit, ...]:
    """Return what a message may carry of a push: the first `MAX_COMMITS`, their texts cut so that they fit."""
    return tuple(
        attrs.evolve(c, message=c.message[:COMMIT_TEXT], author=c.author[:NAME_TEXT], time=c.time[:NAME_TEXT])
        for c in islice(commits, MAX_COMMITS)
    )


@attrs.frozen(kw_only=True, slots=True)
class RefUpdated(Message):
    """A git ref was created, moved, forced or deleted.

    It names what to look at, never where to fetch from: a node asks the origin in its own settings.
    `commits` holds up to 50, newest first (see `bounded_commits`); `commit_count` is the true number.
    """

    TYPE: ClassVar[str] = "deploykit.source.ref-updated.v1"

    repo: RepoName
    ref: RefName
    old: ObjectId
    new: ObjectId
    forced: bool = False
    pusher: str = ""
    commits: tuple[Commit, ...] = ()
    commit_count: Count = 0

    @property
    def kind(self) -> RefChangeKind:
        """Which of the four changes this is."""
        if is_zero(self.new):
            return "deleted"
        if is_zero(self.old):
            return "created"
        return "forced" if self.forced else "moved"

    @property
    def summary(self) -> str:
        who = f" by {self.pusher}" if self.pusher else ""
        count = f", {self.commit_count} commits" if self.commit_count > 1 else ""
        title = self.commits[0].message.partition("\n")[0] if self.commits else ""
        head = f": {title}" if title else ""
        at = "" if is_zero(self.new) else f" {self.new[:12]}"
        return one_line(f"[{self.repo}] {short_ref(self.ref)} {self.kind}{at}{who}{count}{head}")


@attrs.frozen(kw_only=True, slots=True)
class RevisionCommitted(Message):
    """A revision was committed to a Subversion repository.

    Args:
        committed: when, as the repository says.
        log: the log message, at most `COMMIT_TEXT` characters of it.
        dirs: the changed directories, each with a `/` at its end; at most `MAX_DIRS`, `dir_count` is the true number.
        projects: every project the revision touches: the path before `trunk`, `tags` or `branches`.
    """

    TYPE: ClassVar[str] = "deploykit.source.revision-committed.v1"

    repo: RepoName
    revision: Count
    author: str = ""
    committed: datetime | None = None
    log: str = ""
    dirs: tuple[str, ...] = ()
    dir_count: Count = 0
    projects: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        who = f" by {self.author}" if self.author else ""
        where = f" in {', '.join(self.projects[:5])}" if self.projects else ""
        title = self.log.partition("\n")[0]
        head = f": {title}" if title else ""
        return one_line(f"[{self.repo}] r{self.revision}{where}{who}{head}")


_LAYOUT = frozenset({"trunk", "tags", "branches"})


def svn_projects(dirs: Iterable[str], layout: Container[str] = _LAYOUT) -> tuple[str, ...]:
    """Return the projects that changed directories belong to, each once, in their order.

    A project is the last part of the path before the first `trunk`, `tags` or `branches`. A directory outside that
    layout, or a repository that is one project, names none. `layout` holds other names where a repository uses some.

    >>> svn_projects(["web/trunk/src/", "lib/net/tags/1.0/", "web/branches/b/trunk/", "trunk/", "README/"])
    ('web', 'net')
    """
    found: dict[str, None] = {}
    for directory in dirs:
        parts = directory.strip("/").split("/")
        index = next((i for i, part in enumerate(parts) if part in layout), 0)
        if index and parts[index - 1]:
            found[parts[index - 1]] = None
    return tuple(found)
