"""A build in the daemon's own queue: how far it has come, and its form in the file."""

from __future__ import annotations

import json
from typing import Any, Final, Literal

import attrs

from deploykit.daemons.jenkins.ports import BuildAnswer, BuildOrder
from deploykit.daemons.jenkins.rules import WantedBuild

#: `waiting` not asked for, or surely not accepted; `asked` a request may be on its way; `answered` to be reported;
#: `queued` followed until it has a number; `followed` that is to be reported; `done`; `refused` reported as not built.
BuildState = Literal["waiting", "asked", "answered", "queued", "followed", "done", "refused"]
#: States in which a build still needs its server, or its start's report.
UNSETTLED: Final[tuple[BuildState, ...]] = ("waiting", "asked", "answered")
#: States in which only its number is missing.
FOLLOWED: Final[tuple[BuildState, ...]] = ("queued", "followed")


@attrs.frozen(kw_only=True, slots=True)
class QueuedBuild:
    """One build in the queue. Times are seconds since 1970.

    Args:
        wanted: the build.
        state: how far it has come.
        created: when its event came.
        tries: how often it was tried since it came into its state.
        asked: when the server was last asked for it; 0: never.
        asks: requests for it that had no answer, one that is on its way included.
        doubtful: it was asked for again although an earlier request may have started it.
        answer: the server's, once there is one.
        answered: when it came.
        problem: why it still waits, for people.
    """

    wanted: WantedBuild
    state: BuildState = "waiting"
    created: float = 0.0
    tries: int = 0
    asked: float = 0.0
    asks: int = 0
    doubtful: bool = False
    answer: BuildAnswer | None = None
    answered: float = 0.0
    problem: str = ""

    @property
    def label(self) -> str:
        """The job and what it is for, for a log line."""
        subject = self.wanted.subject
        if self.wanted.commit:
            subject = subject.replace(self.wanted.commit, self.wanted.commit[:12])
        return f"{self.wanted.order.server}: {self.wanted.order.job} for {subject}"


def wait_text(number: int) -> str:
    """Return how many builds wait, for people.

    >>> wait_text(1), wait_text(12)
    ('1 build waits', '12 builds wait')
    """
    return "1 build waits" if number == 1 else f"{number} builds wait"


def builds_text(number: int) -> str:
    """Return a number of builds, for people.

    >>> builds_text(1), builds_text(12)
    ('1 build', '12 builds')
    """
    return "1 build" if number == 1 else f"{number} builds"


def wanted_text(wanted: WantedBuild) -> str:
    """Return a build as text for the file; `wanted_of` is the other direction."""
    data = attrs.asdict(wanted, recurse=False)
    data["order"] = {
        "server": wanted.order.server,
        "job": wanted.order.job,
        "parameters": dict(wanted.order.parameters),
        "correlation_id": wanted.order.correlation_id,
    }
    return json.dumps(data)


def wanted_of(text: str) -> WantedBuild:
    """Return the build that `wanted_text` wrote."""
    data: dict[str, Any] = json.loads(text)
    return WantedBuild(**{**data, "order": BuildOrder(**data["order"])})


def answer_text(answer: BuildAnswer | None) -> str:
    """Return an answer as text for the file; `answer_of` is the other direction."""
    return "" if answer is None else json.dumps(attrs.asdict(answer))


def answer_of(text: str) -> BuildAnswer | None:
    """Return the answer that `answer_text` wrote."""
    return BuildAnswer(**json.loads(text)) if text else None


__all__ = [
    "FOLLOWED",
    "UNSETTLED",
    "BuildState",
    "QueuedBuild",
    "answer_of",
    "answer_text",
    "builds_text",
    "wait_text",
    "wanted_of",
    "wanted_text",
]
