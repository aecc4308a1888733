"""Other agents under our name: what proves one, and what is taken for none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from deploykit.daemons.agent.twinfile import read_twins, remove_twins, write_twins
from deploykit.daemons.agent.twins import Twin, Twins
from deploykit.messages import AgentInstance, NodeDescribed
from deploykit.names import NodeName

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def said(instance: str, *, request: str | None = None) -> NodeDescribed:
    return NodeDescribed(node=NodeName("web1"), instance=instance, host=f"host of {instance}", request=request)


def names(twins: Twins) -> list[str]:
    return [twin.agent.instance for twin in twins.known]


def test_an_answer_to_our_own_announcement_proves_a_twin() -> None:
    mine = Twins("a")
    mine.announced("one")
    assert mine.heard(said("b", request="one"), 0.0, NOW) == "twin"
    assert mine.heard(said("b", request="one"), 0.0, NOW) == "again"
    assert names(mine) == ["b"]


def test_an_announcement_alone_is_answered_and_proves_nothing() -> None:
    """It may be a recording, or the last word of our own earlier run."""
    mine = Twins("a")
    mine.announced("one")
    assert mine.heard(said("b"), 0.0, NOW) == "stranger"
    assert names(mine) == []


def test_a_recorded_answer_proves_nothing() -> None:
    mine = Twins("a")
    for number in range(5):
        mine.announced(f"mine-{number}")
    assert mine.heard(said("b", request="mine-0"), 0.0, NOW) == "nothing"  # four newer ones were sent since
    assert mine.heard(said("b", request="of an earlier run"), 0.0, NOW) == "nothing"
    assert names(mine) == []


def test_our_own_words_and_those_of_agents_without_an_instance_are_passed_over() -> None:
    mine = Twins("a")
    mine.announced("one")
    assert mine.heard(said("a"), 0.0, NOW) == "nothing"
    assert mine.heard(said("a", request="one"), 0.0, NOW) == "nothing"
    assert mine.heard(said(""), 0.0, NOW) == "nothing"


def test_a_twin_that_answers_no_more_is_gone_and_one_that_answers_stays() -> None:
    mine = Twins("a")
    mine.announced("first")
    mine.heard(said("b", request="first"), 0.0, NOW)
    mine.heard(said("c", request="first"), 0.0, NOW)
    gone: list[Twin] = []
    for number in range(6):
        gone += mine.announced(f"n{number}")
        mine.heard(said("c", request=f"n{number}"), 0.0, NOW)
    assert [twin.agent.instance for twin in gone] == ["b"]
    assert names(mine) == ["c"]


def test_whoever_plays_recordings_back_gets_few_answers() -> None:
    mine = Twins("a")
    answers = [mine.heard(said("b"), second, NOW) for second in (0.0, 1.5) for _ in range(1000)]
    assert answers.count("stranger") == 20


def test_two_agents_find_each_other_whoever_comes_first() -> None:
    """What `presence` does with the verdicts, over a topic that both hear."""
    agents = {name: Twins(name) for name in ("a", "b")}
    topic: list[NodeDescribed] = []

    def announce(name: str) -> None:
        message = said(name)
        agents[name].announced(message.id)
        topic.append(message)

    announce("a")  # and nobody else is there
    topic.clear()
    announce("b")
    for count in range(100):
        if not topic:
            break
        message = topic.pop(0)
        for name, twins in agents.items():
            heard = twins.heard(message, 0.01 * count, NOW)
            if heard in ("answer", "stranger"):
                topic.append(said(name, request=message.id))
            if heard == "stranger":
                announce(name)
    assert (names(agents["a"]), names(agents["b"]), topic) == (["b"], ["a"], [])


def test_twins_are_written_down_until_they_are_stale_or_gone(tmp_path: Path) -> None:
    twin = Twin(agent=AgentInstance(instance="b", host="web1 10.0.0.7"), seen=NOW)
    write_twins(tmp_path, [twin])
    assert read_twins(tmp_path, NOW + timedelta(minutes=4)) == (twin,)
    assert read_twins(tmp_path, NOW + timedelta(minutes=6)) == ()  # its agent was killed: nobody renews it
    write_twins(tmp_path, [])
    assert read_twins(tmp_path, NOW) == ()
    assert list(tmp_path.iterdir()) == []


def test_a_note_of_twins_that_cannot_be_read_says_nothing(tmp_path: Path) -> None:
    for content in (b"", b"[]", b"{}", b'{"format": 1, "twins": [{"instance": 1}]}', b'{"format": 2, "twins": []}'):
        (tmp_path / "twins.json").write_bytes(content)
        assert read_twins(tmp_path, NOW) == ()
    remove_twins(tmp_path)
    remove_twins(tmp_path)
