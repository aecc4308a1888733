"""A rollout is followed through whatever happens to the connection, and left when a person wants to."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import attrs
import pytest

from deploykit.errors import ActionRefused, ConsoleUnreachable
from deploykit.fleet.observer import RolloutObserver
from deploykit.fleet.rollout import RolloutModel
from deploykit.via import follower
from deploykit.via.client import ConsoleAnswer, ConsoleClient
from deploykit.via.follower import RolloutFollower, look_at
from deploykit.via.following import plan_of_shown
from deploykit.web.actions.shown import PlannedNode, PlanShown

COMMIT = "1" * 40
SHOWN = PlanShown(
    site="shop",
    kind="deploy",
    ref="refs/tags/v1",
    commit=COMMIT,
    nodes=tuple(PlannedNode(node=f"web{number}", stage=number - 1) for number in (1, 2)),
)
PLAN = plan_of_shown(SHOWN, "r-1")


def detail(state: str, *nodes: str, following: str | None = None, counts: dict[str, int] | None = None) -> object:
    items = [{"node": node, "state": "success", "phase": "activate"} for node in nodes]
    summary = {"rollout": "r-1", "site": "shop", "state": state, "counts": counts or {}}
    return {"summary": summary, "nodes": {"items": items, "next": following}}


@attrs.define
class Answers(ConsoleClient):
    """Answers in turn; an exception is raised. The last one comes for ever."""

    given: list[Any]
    asked: list[str] = attrs.Factory(list)
    after: list[str] = attrs.Factory(list)

    def get(self, path: str, query: Any = None) -> ConsoleAnswer:
        self.asked.append(path)
        self.after.append((query or {}).get("after", ""))
        value = self.given.pop(0) if len(self.given) > 1 else self.given[0]
        if isinstance(value, Exception):
            raise value
        return ConsoleAnswer(status=200, value=value)


class Seen(RolloutObserver):
    def __init__(self) -> None:
        self.states: list[str] = []
        self.problems: list[str] = []
        self.pauses: list[float | None] = []

    def changed(self, model: RolloutModel) -> None:
        self.states.append(model.state)
        self.pauses.append(model.paused_since)

    def problem(self, text: str) -> None:
        self.problems.append(text)


class Clock:
    """Time passes only where somebody waits."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()

    class Silent:
        """A stream on which no event ever comes."""

        def __init__(self, *_: object) -> None:
            pass

        def __enter__(self) -> Silent:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def wait(self, seconds: float) -> bool:
            made.now += seconds
            return False

    monkeypatch.setattr(follower, "EventWatcher", Silent)
    return made


def followed(clock: Clock, *given: Any) -> tuple[RolloutModel, Seen]:
    seen = Seen()
    made = RolloutFollower(Answers(list(given)), PLAN, seen, clock=clock, now=lambda: datetime.now(UTC))
    return made.follow(), seen


def test_it_ends_when_the_rollout_has_ended(clock: Clock) -> None:
    model, seen = followed(clock, detail("canary"), detail("rolling", "web1"), detail("succeeded", "web1", "web2"))
    assert seen.states == ["canary", "rolling", "succeeded"]
    assert model.exit_code(PLAN) == 0


def test_a_pause_is_one_pause_however_often_it_is_looked_at(clock: Clock) -> None:
    paused = detail("paused", "web1")
    _, seen = followed(clock, paused, paused, paused, detail("rolling", "web1"), paused, detail("succeeded", "web1"))
    assert seen.states == ["paused", "paused", "paused", "rolling", "paused", "succeeded"]
    begun = [pause for pause in seen.pauses if pause is not None]
    assert begun[0] == begun[1] == begun[2] != begun[3]


def test_a_console_that_is_away_is_waited_for(clock: Clock) -> None:
    away = ConsoleUnreachable("the console did not answer")
    _, seen = followed(clock, detail("canary"), away, away, detail("succeeded", "web1", "web2"))
    assert len(seen.problems) == 2
    assert "the rollout goes on" in seen.problems[0]
    with pytest.raises(ConsoleUnreachable):
        followed(clock, detail("canary"), away)
    assert clock.now > 300


def test_what_the_console_has_not_heard_of_yet_is_waited_for(clock: Clock) -> None:
    unknown = ActionRefused("there is no deploy 'r-1'", status=404)
    _, seen = followed(clock, unknown, unknown, detail("succeeded", "web1", "web2"))
    assert seen.states == ["succeeded"]
    with pytest.raises(ActionRefused):
        followed(clock, unknown)
    with pytest.raises(ActionRefused, match="not yours"):
        followed(clock, ActionRefused("not yours", status=403))


def test_the_last_reports_are_waited_for_and_not_for_ever(clock: Clock) -> None:
    counts = {"active": 2}
    early = detail("succeeded", "web1", counts=counts)
    model, _ = followed(clock, early, detail("succeeded", "web1", "web2", counts=counts))
    assert model.counts == {"active": 2}
    model, seen = followed(clock, early)
    assert model.counts == {"active": 1, "skipped": 1}
    assert seen.states == ["succeeded"]


def test_every_page_of_nodes_is_read_and_no_url_is_followed() -> None:
    first = detail("rolling", "web1", following="https://evil.example/x?after=c1&limit=9")
    answers = Answers([first, detail("rolling", "web2")])
    assert list(look_at(answers, "r/1").nodes) == ["web1", "web2"]
    assert answers.asked == ["/deploys/r%2F1", "/deploys/r%2F1"]
    assert answers.after == ["", "c1"]


def test_a_page_that_leads_to_itself_ends() -> None:
    answers = Answers([detail("rolling", "web1", following="/x?after=c1")])
    assert list(look_at(answers, "r-1").nodes) == ["web1"]
