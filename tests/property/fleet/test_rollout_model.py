"""Rollouts under faults: answers that are late, double, out of order or missing, people who change their minds, a
coordinator that comes and goes. The books of the test are kept apart from the model, and compared with every action."""

from __future__ import annotations

import json

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from deploykit.fleet.journalformat import decode_event, decode_plan, encode_event, encode_plan
from deploykit.fleet.options import OnFailure, Preparation
from deploykit.fleet.plan import Amount, Plan, RolloutOptions
from deploykit.fleet.rollout import (
    AbortAsked,
    Ask,
    CoordinatorCameBack,
    End,
    NodeAnswered,
    PauseAsked,
    PromoteAsked,
    ResumeAsked,
    RolloutAction,
    RolloutEvent,
    SendAbort,
    TimePassed,
    WakeAt,
    outstanding_asks,
    step,
)
from deploykit.fleet.rolloutstates import NODE
from deploykit.messages.deploy import DeployOutcome, DeployPhase
from deploykit.messages.rollout import RolloutKind
from deploykit.names import NodeName
from deploykit.wire.strictjson import parse
from tests.support.rolling import NEW, OLD, Drill, folded, plan_of

_AMOUNTS = st.one_of(
    st.builds(Amount, number=st.integers(1, 4)),
    st.builds(Amount, number=st.integers(1, 100), percent=st.just(True)),
)
_BUDGETS = st.one_of(st.just(Amount(number=0)), _AMOUNTS)
_OUTCOMES: st.SearchStrategy[DeployOutcome] = st.sampled_from(
    ["success", "success", "success", "success", "failure", "rolled-back", "refused"]
)
_AFTER_DEPLOYS: tuple[OnFailure, ...] = ("stop", "rollback", "continue")
_AFTER_ROLLBACKS: tuple[OnFailure, ...] = ("stop", "continue")
_FORWARD = frozenset({"deploy", "prepare", "activate"})


@st.composite
def _plans(draw: st.DrawFn) -> Plan:
    count = draw(st.integers(1, 9))
    kind: RolloutKind = draw(st.sampled_from(["deploy", "deploy", "deploy", "rollback"]))
    prepare: Preparation = draw(st.sampled_from(["all", "batch"]))
    quorum = draw(st.one_of(st.none(), st.builds(Amount, number=st.integers(1, 100), percent=st.just(True))))
    options = RolloutOptions(
        first=draw(st.one_of(st.none(), st.builds(Amount, number=st.integers(0, 3)))),
        batch=tuple(draw(st.lists(_AMOUNTS, min_size=1, max_size=3))),
        max_failures=draw(_BUDGETS),
        pause=draw(st.sampled_from([0.0, 0.0, 40.0, "ask"])),
        bake=draw(st.sampled_from([0.0, 0.0, 25.0])),
        timeout=draw(st.sampled_from([60.0, 300.0])),
        deadline=draw(st.sampled_from([None, None, 500.0])),
        prepare=prepare,
        quorum=quorum if prepare == "all" else None,
        on_failure=draw(st.sampled_from(_AFTER_DEPLOYS if kind == "deploy" else _AFTER_ROLLBACKS)),
    )
    targets = {NodeName(f"n{number}"): NEW if number % 3 else OLD for number in range(1, count + 1)}
    return plan_of(count, options, kind=kind, target=NEW if kind == "deploy" else targets)


class RolloutMachine(RuleBasedStateMachine):
    """Keeps its own books: which commands are out and until when, who is prepared, who succeeded in what."""

    @initialize(plan=_plans())
    def begin(self, plan: Plan) -> None:
        self.drill = Drill(plan)
        self.out: dict[NodeName, float] = {}
        self.asked: list[tuple[NodeName, DeployPhase]] = []
        self.prepared: set[NodeName] = set()
        self.last: dict[NodeName, DeployPhase] = {}
        self.good: set[tuple[NodeName, DeployPhase]] = set()
        self.bad: dict[NodeName, DeployPhase] = {}
        self.skippable: set[NodeName] = set()
        self.aborted = False
        self.wake: float | None = None
        self.look(self.drill.new)

    # -- events --------------------------------------------------------------------------------------------------------

    def happens(self, event: RolloutEvent, after: float = 0.0) -> None:
        before = self.drill.model
        self.note(event, self.drill.now + after)
        self.drill.do(event, after=after)
        if before.ended:
            assert (self.drill.model, self.drill.new) == (before, ())
        for node, status in self.drill.model.nodes.items():
            self.check_change(before.nodes[node].state, status.state)
        self.look(self.drill.new)

    def note(self, event: RolloutEvent, now: float) -> None:
        """Keep the books of what the event says, before the model hears of it."""
        if self.drill.model.ended:
            return
        if isinstance(event, CoordinatorCameBack):
            self.out = {node: until + max(0.0, event.away) for node, until in self.out.items()}
        if isinstance(event, AbortAsked):
            self.aborted = True
        if isinstance(event, NodeAnswered) and self.last.get(event.node) == event.phase:
            self.note_answer(event)
        for node in [node for node, until in self.out.items() if now >= until]:
            del self.out[node]
            self.count(node)

    def note_answer(self, event: NodeAnswered) -> None:
        first = event.node in self.out
        late = not first and self.drill.model.nodes[event.node].state == "silent"
        if first or late:
            self.out.pop(event.node, None)
            if event.outcome == "success":
                self.good.add((event.node, event.phase))
                if event.phase == "prepare":
                    self.prepared.add(event.node)
            else:
                self.count(event.node)
        elif event.outcome in ("failure", "rolled-back") and self.bakes(event.node):
            self.good.discard((event.node, event.phase))
            self.count(event.node)

    def bakes(self, node: NodeName) -> bool:
        """Whether the batch of a node bakes."""
        return self.drill.task == "bake" and node in self.drill.plan.stages[self.drill.model.stage]

    def count(self, node: NodeName) -> None:
        """Count a node as failed, where its last phase went forward."""
        plan, phase = self.drill.plan, self.last[node]
        if phase in _FORWARD or plan.kind == "rollback":
            self.bad.setdefault(node, phase)
            skipped = phase == "prepare" and plan.options.quorum is not None and node not in plan.canary
            (self.skippable.add if skipped else self.skippable.discard)(node)

    @precondition(lambda self: self.drill.model.outstanding)
    @rule(data=st.data(), outcome=_OUTCOMES, after=st.sampled_from([0.0, 1.0, 50.0]), known=st.booleans())
    def answer(self, data: st.DataObject, outcome: DeployOutcome, after: float, known: bool) -> None:
        node = data.draw(st.sampled_from(self.drill.model.waiting_for), "node")
        self.answers(node, self.drill.model.outstanding[node], outcome, after, known)

    @precondition(lambda self: self.drill.model.outstanding)
    @rule(outcome=_OUTCOMES)
    def all_answer(self, outcome: DeployOutcome) -> None:
        for node, phase in self.drill.model.outstanding.items():
            self.answers(node, phase, outcome, 0.0, True)

    @rule(data=st.data(), outcome=_OUTCOMES, after=st.sampled_from([0.0, 1.0]))
    def late_or_double(self, data: st.DataObject, outcome: DeployOutcome, after: float) -> None:
        node, phase = data.draw(st.sampled_from(self.asked), "asked once")
        self.answers(node, phase, outcome, after, True)

    def answers(self, node: NodeName, phase: DeployPhase, outcome: DeployOutcome, after: float, known: bool) -> None:
        made = self.drill.made(node, outcome, phase)
        if not known:
            made = NodeAnswered(node=node, phase=phase, outcome=outcome)
        self.happens(made, after)

    @rule(seconds=st.sampled_from([0.0, 10.0, 60.0, 300.0]))
    def time_passes(self, seconds: float) -> None:
        self.happens(TimePassed(), seconds)

    @rule(by=st.sampled_from(["", "anna"]))
    def pause(self, by: str) -> None:
        self.happens(PauseAsked(by=by))

    @rule()
    def resume(self) -> None:
        self.happens(ResumeAsked(by="anna"))

    @rule()
    def promote(self) -> None:
        self.happens(PromoteAsked(by="anna"))

    @precondition(lambda self: len(self.asked) > 3)
    @rule(rollback=st.booleans())
    def abort(self, rollback: bool) -> None:
        self.happens(AbortAsked(by="anna", rollback=rollback))

    @rule(away=st.sampled_from([0.0, 30.0, 10_000.0]))
    def coordinator_comes_back(self, away: float) -> None:
        self.refold()
        self.happens(CoordinatorCameBack(away=away), away)

    # -- what must hold ------------------------------------------------------------------------------------------------

    def check_change(self, before: str, after: str) -> None:
        """A finished state never turns back, and no other change happens that the table does not know."""
        table = {str(state): {str(to) for to in turns.values()} for state, turns in NODE.items()}
        twice = {two for one in table[before] for two in table[one]}
        assert after == before or after in table[before] | twice

    def look(self, actions: tuple[RolloutAction, ...]) -> None:
        """Compare what is wanted with the books."""
        for action in actions:
            match action:
                case Ask():
                    self.look_at_command(action)
                case WakeAt():
                    self.wake = action.at
                case End():
                    assert action is actions[-1]
                case SendAbort():
                    pass
        model = self.drill.model
        assert set(model.outstanding) == set(self.out)
        assert model.failures in (len(self.bad), len(self.bad.keys() - self.skippable))
        if model.wakes_at is not None:
            assert self.wake == model.wakes_at

    def look_at_command(self, ask: Ask) -> None:
        plan, model = self.drill.plan, self.drill.model
        assert not set(ask.nodes) & set(self.out), "two phases at once"
        assert 1 <= len(ask.nodes) == len(set(ask.nodes))
        forward = ask.phase in _FORWARD or plan.kind == "rollback"
        assert not (forward and self.aborted)
        switches = ask.phase in ("activate", "deploy") or (forward and ask.phase == "rollback")
        if switches and not set(ask.nodes) <= set(plan.canary):
            assert not set(ask.nodes) & set(plan.canary)
            assert all((node, ask.phase) in self.good for node in plan.canary), "a canary is not active"
            assert not self.bad.keys() & set(plan.canary)
            if plan.options.on_failure != "continue" and plan.options.quorum is None:
                assert len(self.bad) <= plan.options.max_failures.of(len(plan.nodes)), "more failed than may"
        if ask.phase == "activate":
            assert set(ask.nodes) <= self.prepared, "not prepared"
            assert len(ask.nodes) <= max(map(len, plan.stages))
        if ask.phase == "activate" and plan.options.quorum is not None:
            ever = {node for node, phase in self.good if phase == "prepare"}
            assert len(ever) >= plan.options.quorum.of(len(plan.nodes)), "below the quorum"
        if ask.phase == "discard":
            assert set(ask.nodes) <= self.prepared, "nothing to discard"
            assert not {(node, "activate") for node in ask.nodes} & set(self.asked), "perhaps live"
        if ask.phase == "rollback" and not forward:
            assert all({(node, "activate"), (node, "deploy")} & set(self.asked) for node in ask.nodes), (
                "nothing to undo"
            )
        for node in ask.nodes:
            assert not forward or (node, ask.phase) not in self.asked, "asked twice"
            before = model.nodes[node].previous
            target = before if ask.phase == "rollback" and plan.kind == "deploy" else plan.targets[node]
            assert target is not None
            assert ask.target == target
            self.out[node] = self.drill.now + plan.options.timeout
            self.asked.append((node, ask.phase))
            self.last[node] = ask.phase

    @invariant()
    def something_is_always_due(self) -> None:
        model = self.drill.model
        assert model.ended or model.wakes_at is not None or (model.state == "paused" and not model.outstanding)
        assert model.ended == bool(self.drill.ends)
        assert len(self.drill.ends) <= 1

    @invariant()
    def what_is_out_can_be_sent_again(self) -> None:
        again = [node for ask in outstanding_asks(self.drill.plan, self.drill.model) for node in ask.nodes]
        assert sorted(again) == sorted(self.drill.model.outstanding)

    @invariant()
    def few_fail(self) -> None:
        """At most the budget and one more batch fail to activate."""
        plan = self.drill.plan
        if plan.options.on_failure != "continue" and plan.options.quorum is None:
            failed = [node for node, phase in self.bad.items() if phase != "prepare"]
            assert len(failed) <= plan.options.max_failures.of(len(plan.nodes)) + max(map(len, plan.stages))

    def refold(self) -> None:
        """The journal's events make the same model, of the journal's plan."""
        plan = decode_plan(parse(json.dumps(encode_plan(self.drill.plan)).encode()))
        lines = [(json.dumps(encode_event(event)).encode(), when) for event, when in self.drill.events]
        assert folded(plan, [(decode_event(parse(line)), when) for line, when in lines]) == self.drill.model

    def teardown(self) -> None:
        if not hasattr(self, "drill"):
            return
        for _ in range(40 + 8 * len(self.drill.plan.nodes)):
            if self.drill.model.ended:
                break
            if self.drill.model.wakes_at is None:
                self.happens(ResumeAsked(by="anna"))
            self.happens(TimePassed(), max(0.0, (self.drill.model.wakes_at or 0.0) - self.drill.now))
        model = self.drill.model
        assert model.ended, "it does not end by the passing of time alone"
        assert not {"pending", "asked"} & {status.state for status in model.nodes.values()}
        assert (self.drill.code == 0) == all(status.state == "active" for status in model.nodes.values()) or (
            self.aborted or self.drill.plan.options.on_failure == "rollback"
        )
        assert step(self.drill.plan, model, AbortAsked(), self.drill.now + 1) == (model, ())
        self.refold()


TestRollout = RolloutMachine.TestCase
TestRollout.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
