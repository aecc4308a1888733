"""A build and what its server did -> what is next for it. Pure.

Rules:

* An answer ends the asking: accepted, or refused for a reason that only a person can remove.
* What the server surely did not take is asked for again, with growing pauses, until `give_up_after`.
* A request without an answer may have started the build. It is looked for first. Where it is not found, and
  `ask_again_after` is over, it is asked for again; where looking is not allowed, too, and then it is doubtful.
* So many requests as `attempts` may have no answer; each of them may have started a build.
"""

from __future__ import annotations

from typing import Final

import attrs

from deploykit.daemons.jenkins.model import BuildState, QueuedBuild
from deploykit.daemons.jenkins.ports import BuildAnswer, QueueState
from deploykit.messages import RequestOutcome
from deploykit.settings.jenkins import LONGEST_PAUSE, JenkinsSettings
from deploykit.system.backoff import Backoff

_FOLLOW: Final = Backoff(initial=2.0, maximum=30.0, low=1.0)


@attrs.frozen(kw_only=True, slots=True)
class NextStep:
    """What is next for a build.

    Args:
        state: its state from now on.
        due: seconds since 1970 when it is tried again.
        answer: what to report; None where nothing is.
        problem: why it waits, for people.
        unanswered: requests for it that had no answer.
    """

    state: BuildState
    due: float = 0.0
    answer: BuildAnswer | None = None
    problem: str = ""
    unanswered: int = 0


def after_start(
    build: QueuedBuild, answer: BuildAnswer, settings: JenkinsSettings, now: float, chance: float
) -> NextStep:
    """Return what is next after a request.

    Args:
        build: as it was before the request.
        answer: the server's.
        settings: how patient to be.
        now: seconds since 1970.
        chance: 0 to 1, spreads the pauses.
    """
    if answer.accepted or not answer.retry:
        return NextStep(state="answered", answer=answer)
    unanswered = build.asks + (answer.kind == "unanswered")
    if unanswered >= settings.attempts:
        return _given_up(answer, f"asked {unanswered} times without an answer")
    if _is_over(build, settings, now):
        return _given_up(answer, _waited(build, now))
    state: BuildState = "asked" if unanswered else "waiting"
    return NextStep(
        state=state,
        due=now + max(_pause(build, settings, chance), asked_to_wait(answer)),
        problem=answer.detail,
        unanswered=unanswered,
    )


def after_look(
    build: QueuedBuild, found: BuildAnswer | None, settings: JenkinsSettings, now: float, *, blind: str = ""
) -> NextStep | None:
    """Return what is next after the server was searched for a build; None: ask for it again now.

    Args:
        build: a request for it had no answer.
        found: where it is, if it was found.
        settings: how patient to be.
        now: seconds since 1970.
        blind: why the server shows nothing; empty where it does.
    """
    if found is not None:
        return NextStep(state="answered", answer=found)
    if now < (again := build.asked + settings.ask_again_after) <= now + settings.ask_again_after:
        problem = blind or "no answer, and no such build in the queue or among the last builds: looking again"
        return NextStep(state="asked", due=again, problem=problem, unanswered=build.asks)
    return None


def after_failed_look(
    build: QueuedBuild, problem: str, settings: JenkinsSettings, now: float, chance: float
) -> NextStep:
    """Return what is next after a server that may have a build could not be searched for it."""
    if _is_over(build, settings, now):
        return _given_up(BuildAnswer(kind="unanswered", detail=problem), _waited(build, now))
    due = now + _pause(build, settings, chance)
    return NextStep(state="asked", due=due, problem=problem, unanswered=build.asks)


def after_follow(build: QueuedBuild, state: QueueState, settings: JenkinsSettings, now: float) -> NextStep:
    """Return what is next for a build in the server's queue."""
    answer = build.answer
    if answer is None or state.kind in ("gone", "hidden"):
        return NextStep(state="done")
    if state.kind == "started":
        number, url = state.number or answer.number, state.url or answer.url
        return NextStep(state="followed", answer=attrs.evolve(answer, number=number, url=url))
    if state.kind == "cancelled":
        cancelled = attrs.evolve(answer, kind="refused", detail=state.why or "it was taken out of the server's queue")
        return NextStep(state="followed", answer=cancelled)
    due = now + _FOLLOW.pause(build.tries + 1)
    if not build.answered <= due <= build.answered + settings.follow_for:
        return NextStep(state="done")
    return NextStep(state="queued", due=due)


def after_report(build: QueuedBuild, settings: JenkinsSettings, now: float) -> NextStep:
    """Return what is next for a build whose answer was reported."""
    answer = build.answer
    if build.state == "followed" or answer is None:
        return NextStep(state="done")
    if not answer.accepted:
        return NextStep(state="refused")
    if answer.kind == "scanned" or answer.queue_item is None or answer.number or not settings.follow_for:
        return NextStep(state="done")
    return NextStep(state="queued", due=now + _FOLLOW.pause(1))


def outcome_of(build: QueuedBuild) -> RequestOutcome:
    """Return the outcome that a report of a build's answer has."""
    kind = build.answer.kind if build.answer is not None else "unanswered"
    if build.state == "followed":
        return "cancelled" if kind == "refused" else "started"
    match kind:
        case "queued" | "joined" | "scanned":
            return kind
        case "refused" | "missing":
            return "refused"
    return "failed" if build.answer is None or build.answer.retry else "refused"


def asked_to_wait(answer: BuildAnswer) -> float:
    """Return the seconds that a server asked to wait, as far as that is obeyed; 0 where it did not."""
    return min(answer.retry_after or 0.0, LONGEST_PAUSE)


def _given_up(answer: BuildAnswer, why: str) -> NextStep:
    doubt = "; the server may have started it all the same" if answer.kind == "unanswered" else ""
    remedy = answer.remedy or "see whether the server is well, then: deploykit jenkins retry"
    given_up = attrs.evolve(answer, detail=f"{answer.detail}; given up: {why}{doubt}", remedy=remedy, retry=True)
    return NextStep(state="answered", answer=given_up)


def _is_over(build: QueuedBuild, settings: JenkinsSettings, now: float) -> bool:
    return now - build.created >= settings.give_up_after


def _waited(build: QueuedBuild, now: float) -> str:
    minutes = (now - build.created) / 60
    return (
        f"it has waited for {minutes:.0f} minutes" if minutes < 120 else f"it has waited for {minutes / 60:.0f} hours"
    )


def _pause(build: QueuedBuild, settings: JenkinsSettings, chance: float) -> float:
    pauses = Backoff(initial=2.0, maximum=settings.pause_max, low=0.5)
    return pauses.pause(build.tries + 1, chance)


__all__ = [
    "NextStep",
    "after_failed_look",
    "after_follow",
    "after_look",
    "after_report",
    "after_start",
    "asked_to_wait",
    "outcome_of",
]
