"""A coordinator's side of a test: plans of stand-in nodes, run against them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self

from deploykit.bus import Bus
from deploykit.fleet.observer import RolloutObserver
from deploykit.fleet.plan import Amount, Plan, RolloutOptions, Target, make_plan
from deploykit.fleet.rollout import RolloutModel
from deploykit.messages import DeployProgressed, DeployReported
from deploykit.names import NodeName, ObjectId, RefName
from deploykit.operations.deploy import load_report_trust
from deploykit.operations.rollout import RolloutResult, resume_rollout, start_rollout
from deploykit.operations.rolloutplan import PlannedRollout, new_rollout_id
from deploykit.settings import Settings
from tests.support.standins import SHOP, StandIns
from tests.support.wait import wait_until

NEW = Target(ref=RefName("refs/tags/v1"), commit=ObjectId("ab" * 20))
ONE_BY_ONE = (Amount(number=1),)


class Seen(RolloutObserver):
    """Remembers what it is shown."""

    def __init__(self) -> None:
        self.models: list[RolloutModel] = []
        self.reports: list[DeployReported] = []
        self.doubts: list[tuple[NodeName, str]] = []
        self.progress: list[DeployProgressed] = []
        self.problems: list[str] = []
        self.on_change: Callable[[RolloutModel], object] = lambda model: None
        self.on_tick: Callable[[], object] = lambda: None

    def changed(self, model: RolloutModel) -> None:
        self.models.append(model)
        self.on_change(model)

    def reported(self, report: DeployReported) -> None:
        self.reports.append(report)

    def doubted(self, node: NodeName, reason: str) -> None:
        self.doubts.append((node, reason))

    def progressed(self, progress: DeployProgressed) -> None:
        self.progress.append(progress)

    def problem(self, text: str) -> None:
        self.problems.append(text)

    def tick(self) -> None:
        self.on_tick()

    @property
    def states(self) -> list[str]:
        """The states of the rollout, each once in a row."""
        found: list[str] = []
        for model in self.models:
            if not found or found[-1] != model.state:
                found.append(model.state)
        return found

    def wait(self, check: Callable[[RolloutModel], bool], what: str, timeout: float = 60.0) -> RolloutModel:
        """Wait for a state of the rollout."""
        wait_until(lambda: any(check(model) for model in self.models), what, timeout)
        return next(model for model in self.models if check(model))


def plan_of(nodes: Iterable[NodeName], **options: Any) -> Plan:
    """Return a plan that puts `NEW` live."""
    options = {"timeout": 60.0, **options}
    return make_plan(
        site=SHOP,
        nodes=nodes,
        target=NEW,
        options=RolloutOptions(**options),
        rollout=new_rollout_id(SHOP),
        requested_by="ada",
    )


def planned(fleet: StandIns, plan: Plan | None = None, **options: Any) -> PlannedRollout:
    """Return a plan for all nodes of a fleet, or that plan, ready to be started."""
    return PlannedRollout(
        settings=fleet.settings,
        plan=plan or plan_of(fleet.nodes, **options),
        key=fleet.operator,
        trust=load_report_trust(fleet.settings),
    )


def roll_out(fleet: StandIns, plan: Plan | None = None, *, seen: Seen | None = None, **options: Any) -> RolloutResult:
    """Run a rollout to its end."""
    with Bus(fleet.settings.broker, client_id="operator") as bus:
        assert bus.wait_connected(60)
        return start_rollout(planned(fleet, plan, **options), bus, observer=seen)


def go_on(
    fleet: StandIns, where: Any, *, seen: Seen | None = None, settings: Settings | None = None, **keywords: Any
) -> RolloutResult:
    """Resume a rollout, and run it to its end; with other settings, as on another machine."""
    with Bus(fleet.settings.broker, client_id="operator") as bus:
        assert bus.wait_connected(60)
        return resume_rollout(settings or fleet.settings, bus, where, observer=seen, **keywords)


class Rolling:
    """A rollout in a thread of its own, for a test that meets it half-way."""

    def __init__(self, fleet: StandIns, plan: Plan | None = None, **options: Any) -> None:
        self.seen = Seen()
        self.plan = plan or plan_of(fleet.nodes, **options)
        self._result: RolloutResult | BaseException | None = None
        self._fleet = fleet
        self._thread = threading.Thread(target=self._run, name="rolling")

    def _run(self) -> None:
        try:
            self._result = roll_out(self._fleet, self.plan, seen=self.seen)
        except BaseException as error:
            self._result = error

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._thread.join(60)

    def result(self, timeout: float = 60.0) -> RolloutResult:
        """Return the end."""
        self._thread.join(timeout)
        assert not self._thread.is_alive(), self.seen.states
        if isinstance(self._result, BaseException):
            raise self._result
        assert self._result is not None
        return self._result
