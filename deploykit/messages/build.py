"""Builds: requested, started, finished."""

from __future__ import annotations

from typing import ClassVar, Literal

import attrs

from deploykit.messages.base import Count, Message, Seconds, one_line
from deploykit.names import ObjectId, RefName, RepoName, short_ref

BuildOutcome = Literal["success", "failure", "unstable", "aborted"]


@attrs.frozen(kw_only=True, slots=True)
class Build(Message):
    """What all build messages hold. `repo`, `ref` and `commit` are None where the build server does not report them.

    Args:
        job: the job's name as the build server knows it.
        number: of the build in its job; 0 while there is none.
        url: of the build, or of the job while there is none. For people: nothing fetches it.
        project: the part of the repository that is built, where one repository holds several (SVN).
    """

    job: str
    number: Count = 0
    url: str = ""
    repo: RepoName | None = None
    ref: RefName | None = None
    commit: ObjectId | None = None
    project: str = ""

    def _line(self, verb: str) -> str:
        number = f" {self.number}" if self.number else ""
        where = f" [{self.repo}]" if self.repo else ""
        what = "".join((f" {short_ref(self.ref)}" if self.ref else "", f" {self.commit[:12]}" if self.commit else ""))
        part = f" {self.project}" if self.project else ""
        return one_line(f"{self.job}{number}{where}{part}{what} {verb}")


@attrs.frozen(kw_only=True, slots=True)
class BuildRequested(Build):
    """A build was requested; the build server accepted the request, and gave no number yet."""

    TYPE: ClassVar[str] = "deploykit.build.requested.v1"

    @property
    def summary(self) -> str:
        return self._line("build requested")


@attrs.frozen(kw_only=True, slots=True)
class BuildStarted(Build):
    """A build runs."""

    TYPE: ClassVar[str] = "deploykit.build.started.v1"

    @property
    def summary(self) -> str:
        return self._line("build started")


@attrs.frozen(kw_only=True, slots=True)
class BuildFinished(Build):
    """A build ended. Where its success opens a gate, it is believed only when signed."""

    TYPE: ClassVar[str] = "deploykit.build.finished.v1"

    outcome: BuildOutcome
    seconds: Seconds = 0.0

    @property
    def summary(self) -> str:
        return self._line(f"build {self.outcome}")
