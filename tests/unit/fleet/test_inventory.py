"""Answers become one inventory, whatever order they come in; the wait for them ends by rule."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploykit.fleet import inventory as module
from deploykit.fleet.inventory import Answers, DiscoveryWindow, Inventory
from deploykit.messages import AgentInstance, NodeDescribed
from deploykit.names import NodeName

START = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
WEB1, WEB2, WEB3 = NodeName("web1"), NodeName("web2"), NodeName("web3")


def described(
    node: str = "web1", *, at: int = 0, instance: str = "one", host: str = "here", **rest: object
) -> NodeDescribed:
    return NodeDescribed(
        id=str(rest.pop("id", f"{node}/{instance}/{at}")),
        time=START + timedelta(seconds=at),
        node=NodeName(node),
        instance=instance,
        host=host,
        **rest,  # type: ignore[arg-type]
    )


def collected(*answers: NodeDescribed, expected: frozenset[NodeName] | None = None) -> Inventory:
    made = Answers(expected)
    for each in answers:
        made.add(each, 100)
    return made.inventory()


INSTANCES = st.builds(AgentInstance, instance=st.sampled_from("abc"), host=st.sampled_from(["", "x", "y"]))
ANSWERS = st.lists(
    st.builds(
        described,
        st.sampled_from(["web1", "web2", "web3"]),
        at=st.integers(0, 3),
        instance=st.sampled_from(["", "a", "b"]),
        host=st.sampled_from(["", "x", "y"]),
        id=st.sampled_from(["1", "2"]),
        twins=st.lists(INSTANCES, max_size=2).map(tuple),
    ),
    max_size=8,
    unique_by=lambda each: (each.node, each.time, each.id),
)


@given(answers=ANSWERS, data=st.data())
def test_neither_order_nor_copies_change_the_inventory(answers: list[NodeDescribed], data: st.DataObject) -> None:
    again = data.draw(st.permutations(answers)) + data.draw(st.lists(st.sampled_from(answers or [described()]))) * bool(
        answers
    )
    expected = frozenset({WEB1, WEB3})
    assert collected(*again, expected=expected) == collected(*answers, expected=expected)


@given(answers=ANSWERS, expected=st.none() | st.frozensets(st.sampled_from([WEB1, WEB2, WEB3])))
def test_each_expected_node_is_here_or_silent_and_each_other_one_unexpected(
    answers: list[NodeDescribed], expected: frozenset[NodeName] | None
) -> None:
    made = Answers(expected)
    firsts = [each.node for each in answers if made.add(each)]
    found = made.inventory()
    assert sorted(firsts) == list(found.nodes)
    if expected is None:
        assert (found.silent, found.unexpected, made.complete) == ((), (), False)
    else:
        assert set(found.silent) | (expected & found.nodes.keys()) == expected
        assert set(found.unexpected) == found.nodes.keys() - expected
        assert made.complete == (not found.silent)


def test_the_newest_answer_of_a_node_counts() -> None:
    old, new = described(at=1, version="1"), described(at=2, version="2")
    assert collected(new, old).nodes[WEB1] == new


def test_two_agents_of_one_name_are_twins() -> None:
    found = collected(described(instance="b", host="copy"), described(instance="a", host="first"), described("web2"))
    assert found.twins == {
        WEB1: (AgentInstance(instance="a", host="first"), AgentInstance(instance="b", host="copy")),
    }


def test_a_twin_that_only_its_brother_has_heard_is_one() -> None:
    found = collected(described(instance="a", twins=(AgentInstance(instance="z", host="copy"),)))
    assert [twin.instance for twin in found.twins[WEB1]] == ["a", "z"]


def test_a_doubted_node_is_silent_and_has_its_reasons_once_each() -> None:
    made = Answers(frozenset({WEB1}))
    for reason in ("not signed", "not signed", "by a stranger"):
        made.doubt(WEB1, reason)
    found = made.inventory()
    assert found.silent == (WEB1,)
    assert found.doubts == {WEB1: ("by a stranger", "not signed")}
    assert not made.complete


def test_a_flood_of_answers_is_bounded_and_counted() -> None:
    made = Answers(max_nodes=2, max_bytes=1000)
    assert made.add(described("web1"), 400)
    assert not made.add(described("web1", at=5), 700_000)
    assert made.add(described("web2"), 600)
    assert not made.add(described("web3"), 0)
    found = made.inventory()
    assert list(found.nodes) == [WEB1, WEB2]
    assert found.nodes[WEB1].time == START
    assert found.left_out == 2


def test_a_newer_answer_gives_back_the_bytes_of_the_older_one() -> None:
    made = Answers(max_bytes=100)
    assert made.add(described(at=0), 100)
    for at in range(1, 50):
        made.add(described(at=at), 100)
    assert made.inventory().nodes[WEB1].time == START + timedelta(seconds=49)


def test_a_flood_of_doubts_and_twins_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_DOUBTED", 10)
    made = Answers()
    for number in range(50):
        made.doubt(NodeName(f"web{number % 20}"), f"reason {number} " + "x" * 10_000)
        made.add(described(instance=f"i{number:02}"))
    found = made.inventory()
    assert len(found.doubts) == 10
    assert all(len(reasons) <= module.MAX_REASONS for reasons in found.doubts.values())
    assert max(len(reason) for reasons in found.doubts.values() for reason in reasons) <= 300
    assert len(found.twins[WEB1]) == module.MAX_TWINS
    assert found.left_out > 0


# -- the window --------------------------------------------------------------------------------------------------------


def window(*, listed: bool = False, heard: tuple[float, ...] = ()) -> DiscoveryWindow:
    made = DiscoveryWindow(began=100.0, listed=listed, timeout=10.0, quiet=0.5)
    for at in heard:
        made = made.heard(at)
    return made


def test_the_first_answer_is_waited_for_up_to_the_time_limit() -> None:
    assert window().left(103.9) == pytest.approx(6.1)
    assert window().left(110.0) == 0.0


def test_without_a_list_it_ends_after_half_a_second_without_a_new_node() -> None:
    found = window(heard=(104.0, 104.4))
    assert found.left(104.5) == pytest.approx(0.4)
    assert found.left(104.9) == 0.0


def test_an_answer_that_a_node_holds_back_is_waited_for() -> None:
    """A node that has just answered this asker answers again a second later, and the others do so at once."""
    found = DiscoveryWindow(began=100.0, listed=False, timeout=10.0, quiet=0.5, held_back=1.0).heard(100.1)
    assert found.left(100.7) == pytest.approx(0.8)
    assert found.heard(101.2).left(101.5) == pytest.approx(0.2)
    assert attrs.evolve(found, listed=True).left(100.7, complete=True) == 0.0


def test_answers_that_wait_to_be_looked_at_are_no_silence() -> None:
    found = window(heard=(104.0,))
    assert found.left(105.0) == 0.0
    assert found.left(105.0, backlog=True) == pytest.approx(0.5)
    assert found.left(110.0, backlog=True) == 0.0


def test_a_list_ends_it_as_soon_as_all_have_answered_and_not_before() -> None:
    found = window(listed=True, heard=(100.1,))
    assert found.left(100.2) > 9
    assert found.left(100.2, complete=True) == 0.0
    assert found.left(110.0) == 0.0


def test_a_list_goes_on_at_the_limit_while_new_nodes_still_come() -> None:
    assert window(listed=True, heard=(109.9,)).left(110.0) == pytest.approx(0.4)


@given(
    gaps=st.lists(st.floats(0.0, 3.0), max_size=60),
    listed=st.booleans(),
    backlog=st.booleans(),
)
def test_no_stream_of_answers_keeps_it_open_for_ever(gaps: list[float], listed: bool, backlog: bool) -> None:
    made, now = window(listed=listed), 100.0
    for gap in gaps:
        now += gap
        made = made.heard(now)
        assert 0.0 <= made.left(now, backlog=backlog) <= 60.0
    assert made.left(161.0, backlog=backlog) == 0.0
