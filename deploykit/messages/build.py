"""Builds: requested, started, finished."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, Final, Literal

import attrs

from deploykit.messages.base import Count, Message, Seconds, one_line
from deploykit.names import ObjectId, RefName, RepoName, short_ref

BuildOutcome = Literal["success", "failure", "unstable", "aborted"]
#: What became of a request for a build; see `BuildRequested`.
RequestOutcome = Literal["queued", "joined", "scanned", "started", "cancelled", "refused", "failed"]
_REQUESTED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "queued": "build requested",
        "joined": "build requested, joined one that was queued",
        "scanned": "build requested, its branches are being scanned",
        "started": "build left the queue",
        "cancelled": "build cancelled in the queue",
        "refused": "build refused",
        "failed": "build given up",
    }
)


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
    """A build was requested, and what became of the request. Not what becomes of the build: `BuildStarted` follows.

    Args:
        server: name of the build server, as the settings of who asked have it.
        outcome: `queued` the server accepted it; `joined` an equal build was queued already and serves both; `scanned`
            a multibranch project looks for the branch; `started` a queued build has its number now; `cancelled`
            somebody took it out of the queue; `refused` the server does not accept it; `failed` given up after
            many tries. Each request has one event of these, and a queued one may have `started` or `cancelled` as well.
        queue_item: its number in the server's queue; 0 where there is none.
        perhaps_twice: an earlier request for the same build had no answer, and may have started it too.
        detail: what the server answered and what to change, in one line; empty where all went well.
    """

    TYPE: ClassVar[str] = "deploykit.build.requested.v1"

    server: str = ""
    outcome: RequestOutcome = "queued"
    queue_item: Count = 0
    perhaps_twice: bool = False
    detail: str = ""

    @property
    def summary(self) -> str:
        doubt = ", perhaps twice" if self.perhaps_twice else ""
        detail = f": {self.detail}" if self.detail else ""
        return self._line(f"{_REQUESTED.get(self.outcome, self.outcome)}{doubt}{detail}")


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
