"""Plans and events in a journal: what was written is read, and whatever else stands there is refused in clear words."""

from __future__ import annotations

import copy
import json
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploykit.errors import JournalDamaged
from deploykit.fleet.journalformat import FORMAT, decode_event, decode_plan, encode_event, encode_plan
from deploykit.fleet.plan import Amount, RolloutOptions
from deploykit.fleet.rollout import (
    AbortAsked,
    CoordinatorCameBack,
    NodeAnswered,
    PauseAsked,
    PromoteAsked,
    ResumeAsked,
    RolloutEvent,
    TimePassed,
)
from deploykit.messages.deploy import DeployOutcome, DeployPhase
from deploykit.names import NodeName
from deploykit.wire.strictjson import parse
from tests.support.rolling import NEW, OLD, names, options, plan_of

PLANS = [
    plan_of(1),
    plan_of(5),
    plan_of(2500, options(batch="100%")),
    plan_of(9, options(first="20%", batch="1,2,30%", order="random", seed=5, max_failures="1%", quorum="90%")),
    plan_of(4, options(first_nodes=frozenset(names(2, 3)), pause="ask", bake=1.5, deadline=3600.0, timeout=60.0)),
    plan_of(4, options(prepare="batch", on_failure="rollback", pause=0.25)),
    plan_of(3, kind="rollback", target={NodeName("n1"): OLD, NodeName("n2"): NEW, NodeName("n3"): OLD}),
]
TARGETS = st.sampled_from([None, OLD, NEW])
PHASES: tuple[DeployPhase, ...] = ("deploy", "prepare", "activate", "rollback", "discard")
OUTCOMES: tuple[DeployOutcome, ...] = ("success", "failure", "rolled-back", "refused")
EVENTS: st.SearchStrategy[RolloutEvent] = st.one_of(
    st.builds(
        NodeAnswered,
        node=st.sampled_from(names(1, 2, 3)),
        phase=st.sampled_from(PHASES),
        outcome=st.sampled_from(OUTCOMES),
        previous=TARGETS,
        live=TARGETS,
        detail=st.text(st.characters(exclude_categories=["Cs"])),
    ),
    st.just(TimePassed()),
    st.builds(PauseAsked, by=st.text(st.characters(exclude_categories=["Cs"]))),
    st.builds(ResumeAsked, by=st.just("anna")),
    st.builds(PromoteAsked, by=st.just("anna")),
    st.builds(AbortAsked, by=st.just("anna"), rollback=st.booleans()),
    st.builds(CoordinatorCameBack, away=st.floats(-1e9, 1e9)),
)


def through_json(value: object) -> object:
    """The value as a reader of the file sees it."""
    return parse(json.dumps(value).encode())


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: f"{plan.kind}-{len(plan.nodes)}")
def test_a_plan_is_read_as_it_was_written(plan: Any) -> None:
    made = decode_plan(through_json(encode_plan(plan)))
    assert made == plan
    assert made.options == plan.options
    assert list(made.nodes) == list(plan.nodes)


def test_a_plan_writes_each_target_once() -> None:
    assert json.dumps(encode_plan(plan_of(500))).count(NEW.commit) == 1


@given(EVENTS)
def test_an_event_is_read_as_it_was_written(event: RolloutEvent) -> None:
    assert decode_event(through_json(encode_event(event))) == event


@pytest.mark.parametrize("read", [decode_plan, decode_event])
def test_a_newer_format_is_refused_with_the_way_out(read: Any) -> None:
    written = encode_plan(plan_of(2)) if read is decode_plan else encode_event(TimePassed())
    with pytest.raises(JournalDamaged, match=r"written in format 2; this version reads 1.*began the rollout"):
        read(written | {"format": FORMAT + 1})
    for wrong in (True, "1", None, 1.0):
        with pytest.raises(JournalDamaged, match="format"):
            read(written | {"format": wrong})


#: What may stand in the place of any value.
NONSENSE: list[object] = [
    None,
    True,
    -1,
    10**40,
    float("nan"),
    float("inf"),
    -1.5,
    "",
    "../../etc/passwd",
    "x" * 2_000_000,
    [],
    [[]],
    {},
    {"ref": "HEAD", "commit": "zz"},
    "n1\x1b[31m",
]


def places(value: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value inside a JSON value."""
    found = [path] if path else []
    if isinstance(value, dict):
        for key, one in value.items():
            found += places(one, (*path, key))
    elif isinstance(value, list):
        for index, one in enumerate(value):
            found += places(one, (*path, index))
    return found


def replaced(value: Any, path: tuple[Any, ...], by: object) -> Any:
    """A copy in which one value is another; left out where `by` is the class `object`."""
    made = copy.deepcopy(value)
    inner = made
    for step in path[:-1]:
        inner = inner[step]
    if by is object:
        del inner[path[-1]]
    else:
        inner[path[-1]] = by
    return made


WRITTEN: list[Any] = [
    encode_plan(PLANS[4]),
    encode_plan(PLANS[6]),
    encode_event(NodeAnswered(node=names(1)[0], phase="prepare", outcome="success", previous=OLD, live=NEW)),
    encode_event(AbortAsked(by="anna")),
    encode_event(CoordinatorCameBack(away=3.0)),
]


@pytest.mark.parametrize("written", WRITTEN)
def test_nonsense_in_any_place_is_refused_in_a_short_line_or_is_acceptable_in_itself(written: Any) -> None:
    read: Any = decode_event if "event" in written else decode_plan
    assert read(written)
    errors = []
    for path in places(written):
        for nonsense in [object, *NONSENSE]:
            try:
                made = read(replaced(written, path, nonsense))
            except JournalDamaged as error:
                errors.append(str(error))
            else:
                assert read is decode_event or made.problems() == ()
    assert len(errors) > 5 * len(places(written))
    assert all(len(text) < 400 and text.isprintable() for text in errors)


@pytest.mark.parametrize("value", [None, [], "plan", 3, {}, {"format": 1}])
def test_what_is_no_plan_and_no_event_is_refused(value: object) -> None:
    for read in (decode_plan, decode_event):
        with pytest.raises(JournalDamaged):
            read(value)


def test_an_unknown_event_is_named() -> None:
    with pytest.raises(JournalDamaged, match="unknown event 'node-exploded'"):
        decode_event({"format": FORMAT, "event": "node-exploded"})


def test_a_plan_that_does_not_hold_together_is_refused() -> None:
    written = encode_plan(plan_of(3))
    twice = replaced(written, ("batches", 0), [["n1", 0]])
    with pytest.raises(JournalDamaged, match="one is named twice"):
        decode_plan(twice)
    with pytest.raises(JournalDamaged, match="node n1 has a target that is not there"):
        decode_plan(replaced(written, ("canary", 0), ["n1", 1]))
    with pytest.raises(JournalDamaged, match="expected at most 1000 nodes in each"):
        decode_plan(replaced(written, ("batches", 0), [[f"m{number}", 0] for number in range(1001)]))


def test_every_option_is_written() -> None:
    written = encode_plan(plan_of(2))["options"]
    assert isinstance(written, dict)
    assert set(written) == {field.name for field in attrs.fields(RolloutOptions)}
    assert written["batch"] == [str(Amount.parse("1"))]
