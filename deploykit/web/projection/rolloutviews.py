"""What queries return of rollouts, their logs and the history of sites; rules as in `views`. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

import attrs

from deploykit.web.projection.views import Paged, PartView

#: Phases of commands, in the order in which a rollout goes through them.
PHASES: Final = ("prepare", "deploy", "activate", "discard", "rollback")


def phase_order(phase: str) -> int:
    """Return the place of a phase among all; an unknown one comes last."""
    return PHASES.index(phase) if phase in PHASES else len(PHASES)


@attrs.frozen(kw_only=True, slots=True)
class StepView:
    """A step of the newest command of a phase on a node. `state`: began, done, failed, skipped."""

    name: str
    state: str
    phase: str = ""
    seconds: float = 0.0
    exit_code: int | None = None
    began: datetime | None = None


@attrs.frozen(kw_only=True, slots=True)
class RolloutNode:
    """One node in a rollout.

    Args:
        state: began, success, failure, refused, rolled-back; empty where nothing was heard.
        request: the id of the last command; names its log.
        log_lines: lines of all output in the rollout that are kept.
    """

    node: str
    state: str = ""
    phase: str = ""
    detail: str = ""
    request: str = ""
    steps: tuple[StepView, ...] = ()
    log_lines: int = 0
    began: datetime | None = None
    ended: datetime | None = None


@attrs.frozen(kw_only=True, slots=True)
class RolloutOverview:
    """A rollout, as its coordinator announces it. `counts`: nodes by state, in the coordinator's words.

    A command that belongs to no rollout is shown as one of its own, with the command's id and `single` set.

    Args:
        parts: what goes live, as of `SiteOnNode`.
    """

    rollout: str
    site: str
    kind: str = "deploy"
    ref: str = ""
    commit: str = ""
    parts: tuple[PartView, ...] = ()
    state: str = ""
    counts: Mapping[str, int] = attrs.field(factory=dict, eq=dict, hash=False)
    failed: tuple[str, ...] = ()
    requested_by: str = ""
    host: str = ""
    detail: str = ""
    began: datetime | None = None
    changed: datetime | None = None
    ended: datetime | None = None
    single: bool = False


@attrs.frozen(kw_only=True, slots=True)
class RolloutDetail:
    """A rollout with a page of its nodes, those that failed first."""

    summary: RolloutOverview
    nodes: Paged[RolloutNode]


@attrs.frozen(kw_only=True, slots=True)
class LogSlice:
    """Lines of what a node's scripts printed in a rollout.

    Args:
        first: number of the first line in `lines`, from 0.
        total: lines that there are; more may come while `open`.
        lost: lines that were cut off at the beginning, because there were too many.
        open: the node still works.
    """

    lines: tuple[str, ...] = ()
    first: int = 0
    total: int = 0
    lost: int = 0
    open: bool = False


@attrs.frozen(kw_only=True, slots=True)
class HistoryView:
    """An operation in a site's history on a node. `id` names it in links: `NODE:NUMBER`.

    Args:
        number: in the node's own history.
        parts: what it was about, as of `SiteOnNode`.
        provisional: only the node's report was heard; `number` is the time of that, until the node lists its history.
    """

    id: str
    site: str
    node: str
    number: int
    provisional: bool = False
    phase: str = ""
    outcome: str = ""
    release: str = ""
    ref: str = ""
    commit: str = ""
    parts: tuple[PartView, ...] = ()
    requested_by: str = ""
    started: datetime | None = None
    finished: datetime | None = None
    detail: str = ""
    request: str = ""
    rollout: str = ""
