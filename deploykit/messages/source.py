"""What happened in a version control repository."""

from __future__ import annotations

from typing import ClassVar, Literal

import attrs

from deploykit.messages.base import Message, one_line
from deploykit.names import ObjectId, RefName, RepoName, is_zero, short_ref

RefChangeKind = Literal["created", "moved", "forced", "deleted"]


@attrs.frozen(kw_only=True, slots=True)
class Commit:
    """One commit as a person would tell of it. `time` is the author's, as git prints it (ISO 8601, strict)."""

    id: ObjectId
    author: str
    time: str
    message: str


@attrs.frozen(kw_only=True, slots=True)
class RefUpdated(Message):
    """A git ref was created, moved, forced or deleted.

    It names what to look at, never where to fetch from: a node asks the origin in its own settings.
    `commits` holds up to 50, newest first; `commit_count` is the true number.
    """

    TYPE: ClassVar[str] = "deploykit.source.ref-updated.v1"

    repo: RepoName
    ref: RefName
    old: ObjectId
    new: ObjectId
    forced: bool = False
    pusher: str = ""
    commits: tuple[Commit, ...] = ()
    commit_count: int = 0

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
        head = f": {self.commits[0].message.partition(chr(10))[0]}" if self.commits else ""
        at = "" if is_zero(self.new) else f" {self.new[:12]}"
        return one_line(f"[{self.repo}] {short_ref(self.ref)} {self.kind}{at}{who}{count}{head}")
