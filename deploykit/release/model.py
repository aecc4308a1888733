"""A site's releases and operations, and the result of a deploy. Values only.

`outcome` has the words of the reply on the bus: `success`, `failure` (the old release is live as before),
`rolled-back` (the new one was live and was taken back), `refused` (nothing was touched).
"""

from __future__ import annotations

from typing import Final, Literal

import attrs

from deploykit.composition import composition_name
from deploykit.errors import DeploykitError, PreflightRefused, ReleaseError
from deploykit.names import ObjectId, RefName, RepoName, short_ref
from deploykit.settings.site import SCRIPTS as SCRIPTS  # noqa: PLC0414 -- handed on
from deploykit.system.boottime import BootTime

#: In the reason of a script that failed: where a shell finds its output. A page that shows it leaves this out.
OUTPUT_SHOWN: Final = "its output is in `deploykit release show`"

Phase = Literal["deploy", "prepare", "activate", "rollback", "discard"]
Outcome = Literal["success", "failure", "rolled-back", "refused"]
StepOutcome = Literal["done", "failed", "skipped"]
#: prepared: whole, never live. good: was or is live, all steps passed. failed: a step failed. interrupted: cut off by
#: a crash. withdrawn: was live and was rolled back from. discarded: was prepared, and removed before it was ever live.
Status = Literal["prepared", "good", "failed", "interrupted", "withdrawn", "discarded"]

#: The steps in their order. Those in SCRIPTS run a program of that name when there is one.
STEPS = (
    "preflight",
    "export",
    "pre-deploy",
    "link-shared",
    "pre-link",
    "finalize",
    "activate",
    "post-deploy",
    "health-check",
    "health-url",
)


@attrs.frozen(kw_only=True, slots=True)
class StepRecord:
    """One step: its outcome, how long it took, the exit code and capped output where a program ran."""

    name: str
    outcome: StepOutcome
    seconds: float = 0.0
    exit_code: int | None = None
    output: str = ""


@attrs.frozen(kw_only=True, slots=True)
class ReleasePart:
    """What one repository contributed to a release.

    Args:
        path: its subdirectory of the release.
        ref, commit: what was taken from it.
    """

    repo: RepoName
    path: str
    ref: RefName
    commit: ObjectId


@attrs.frozen(kw_only=True, slots=True)
class ReleaseVersion:
    """What a release is made from. Releases of the same version have the same files.

    Args:
        ref, commit: of its repository. With `parts`, `ref` is empty and `commit` is their id (`composition_id`).
        parts: of several repositories, in the order of their names.
    """

    ref: str
    commit: str
    parts: tuple[ReleasePart, ...] = ()

    @property
    def tag(self) -> str:
        """What people call it: its tag or branch, those of all parts (`v3+v7`), or the start of its commit."""
        if self.parts:
            return composition_name({part.repo: part for part in self.parts})
        return short_ref(RefName(self.ref)) or self.commit[:12]


@attrs.frozen(kw_only=True, slots=True)
class Release:
    """One release of a site.

    Args:
        seq: counts up, never reused; the order of releases, whatever the clock says.
        name: its directory below `releases/`.
        ref, tag, commit, tree: what it was made from; `tag` is the ref as people call it. With `parts`, `ref` is empty,
            `tag` has their refs (`v3+v7`) and `commit` is their id (`composition_id`).
        parts: of several repositories, in the order of their names.
        present: its directory is on disk.
        spare: it is beyond the keep-limit and will become the next release, or one after that.
        pinned: never pruned.
        created, activated: ISO 8601, UTC; `activated` is empty when it was never live.
        left, left_boot: when it stopped being live, in seconds since that boot of the machine: set clocks do not
            change it, and no reader outlives its boot. `left_boot` is empty while it is live, or never was.
    """

    seq: int
    name: str
    ref: str
    tag: str
    commit: str
    tree: str
    status: Status
    present: bool = True
    spare: bool = False
    pinned: bool = False
    created: str = ""
    activated: str = ""
    requested_by: str = ""
    request: str = ""
    detail: str = ""
    left: float = 0.0
    left_boot: str = ""
    parts: tuple[ReleasePart, ...] = ()

    @property
    def version(self) -> ReleaseVersion:
        """What it was made from."""
        return ReleaseVersion(ref=self.ref, commit=self.commit, parts=self.parts)

    def rested(self, now: BootTime, grace: float) -> bool:
        """Return whether it has not been live for `grace` seconds, so that readers have had time to leave it."""
        return self.left_boot != now.boot or now.seconds - self.left >= grace


@attrs.frozen(kw_only=True, slots=True)
class Operation:
    """One deploy, preparation, activation, rollback or discard, as the history keeps it.

    Args:
        outcome: empty while it runs.
        rollout: the id of the rollout that asked for it, or empty.
    """

    number: int
    phase: Phase
    release: str
    ref: str = ""
    commit: str = ""
    request: str = ""
    requested_by: str = ""
    node: str = ""
    started: str = ""
    finished: str = ""
    outcome: Outcome | Literal["interrupted", ""] = ""
    detail: str = ""
    rollout: str = ""


@attrs.frozen(kw_only=True, slots=True)
class DeployResult:
    """The result of an operation.

    Args:
        release: the directory's name; empty when none was made.
        steps: each step in order, a script's with its exit code and output.
        detail: one line: why it failed or was refused, or what is worth knowing.
        error: the error behind a failure or refusal, for a caller that wants to raise it.
        again: the answer to a request that was carried out before; nothing was done now.
        seen: the site was read when the operation had ended; else the next three mean nothing.
        about: the release of that name, as the site has it on record.
        live: the release that is live when the operation has ended, whatever was asked for; None where none is.
        previous: the release that a rollback would go to then: the last good one before the live one.
    """

    outcome: Outcome
    release: str = ""
    steps: tuple[StepRecord, ...] = ()
    detail: str = ""
    error: DeploykitError | None = None
    again: bool = False
    seen: bool = False
    about: Release | None = None
    live: Release | None = None
    previous: Release | None = None

    @property
    def exit_code(self) -> int:
        """0 done, 1 failed, 3 refused by policy (2: wrong usage or settings)."""
        if self.outcome == "success":
            return 0
        return self.error.exit_code if self.error is not None else 1

    def check(self) -> DeployResult:
        """Return the result of a success; raise the error of anything else."""
        if self.outcome == "success":
            return self
        raise self.error or (PreflightRefused if self.outcome == "refused" else ReleaseError)(self.detail)


def refused(error: DeploykitError) -> DeployResult:
    """Return the result of a refusal: nothing was touched."""
    return DeployResult(outcome="refused", detail=str(error), error=error)
