"""What happened, before any forge puts it into its own form: a push of made-up commits to a made-up project."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import attrs

ZERO: Final = "0" * 40
#: Where every clone URL of a payload leads: to no place that a receiver should ever ask.
ELSEWHERE: Final = "https://elsewhere.invalid"


class ForgedCommit(NamedTuple):
    """One commit of a forged push."""

    id: str
    message: str = "Serve the new page\n"
    author: str = "Ada Byron"
    mail: str = "ada@example.org"
    time: str = "2026-11-30T09:15:00+00:00"


class ForgedChange(NamedTuple):
    """One ref of a forged push: full name, what it was, what it is; zeros where there is none."""

    ref: str
    old: str
    new: str

    @property
    def short(self) -> str:
        """The ref without what is before the branch's or tag's name."""
        return self.ref.split("/", 2)[-1]

    @property
    def kind(self) -> str:
        """Whether it is a branch or a tag."""
        return "tag" if self.ref.startswith("refs/tags/") else "branch"


@attrs.frozen(kw_only=True, slots=True)
class ForgedEvent:
    """What happened, before any forge puts it into its own form.

    Args:
        repository: the forge's name; `group/sub/name` for GitLab, `PROJECT/name` for Azure and Bitbucket DC.
        changes: of refs; forges that send a request for each take the first.
        commits: oldest first.
        total: how many commits there were, where a forge lists fewer.
        checkout: the commit of an annotated tag; empty: the new id itself.
    """

    repository: str
    changes: Sequence[ForgedChange]
    commits: Sequence[ForgedCommit]
    total: int
    pusher: str
    forced: bool
    checkout: str
    delivery: str
    title: str = "Serve the new page"

    @property
    def name(self) -> str:
        """The last part of the repository's name."""
        return self.repository.rpartition("/")[2]

    @property
    def group(self) -> str:
        """All but the last part of the repository's name."""
        return self.repository.rpartition("/")[0]


__all__ = ["ELSEWHERE", "ZERO", "ForgedChange", "ForgedCommit", "ForgedEvent"]
