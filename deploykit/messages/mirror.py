"""Reports of a node's mirrors."""

from __future__ import annotations

from typing import ClassVar, Literal

import attrs

from deploykit.messages.base import Message, Seconds, one_line
from deploykit.names import NodeName, ObjectId, RefName, RepoName, short_ref

MirrorOutcome = Literal["updated", "unchanged", "refused", "failed"]


@attrs.frozen(kw_only=True, slots=True)
class MirrorUpdated(Message):
    """A node fetched (or could not fetch) a ref into its mirror. `seconds` is the time the fetch took."""

    TYPE: ClassVar[str] = "deploykit.mirror.updated.v1"

    node: NodeName
    repo: RepoName
    ref: RefName
    old: ObjectId
    new: ObjectId
    outcome: MirrorOutcome
    seconds: Seconds = 0.0
    detail: str = ""

    @property
    def summary(self) -> str:
        why = f": {self.detail}" if self.detail else ""
        took = f" in {self.seconds:.2f} s"
        return one_line(f"{self.node} [{self.repo}] {short_ref(self.ref)} {self.outcome} {self.new[:12]}{took}{why}")
