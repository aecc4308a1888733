"""How often a node asks for mandates: not more than anybody can bear, and not for ever."""

from __future__ import annotations

import pytest

from deploykit.daemons.agent import mandate_asks
from deploykit.daemons.agent.mandate_asks import ApprovalAsker
from deploykit.errors import OutboxError
from deploykit.messages import ApprovalWanted, Message
from tests.support.asked import WEB1, request
from tests.support.mandated import FakeReporter


class Clock:
    """Monotonic seconds that a test sets."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(mandate_asks, "time", made)
    return made


def test_the_question_names_mandate_rollout_and_command(clock: Clock) -> None:
    said: list[Message] = (reporter := FakeReporter()).said
    ApprovalAsker(WEB1, reporter).ask(request(rollout="r1"), "a" * 64, "key")
    (asked,) = said
    assert isinstance(asked, ApprovalWanted)
    assert (asked.node, asked.site, asked.rollout, asked.mandate) == ("web1", "shop", "r1", "a" * 64)
    assert (asked.request, asked.correlation_id) == ("request-1", "request-1")


def test_one_mandate_is_asked_for_once_in_some_seconds_whoever_needs_it(clock: Clock) -> None:
    asker = ApprovalAsker(WEB1, reporter := FakeReporter())
    for n in range(10):
        asker.ask(request(id=str(n)), "a" * 64, "key")
    assert len(reporter.said) == 1
    assert [asker.times(request(id=str(n)), "a" * 64) for n in range(3)] == [1, 0, 0], "only what was sent counts"
    clock.now += mandate_asks.ASK_EVERY
    asker.ask(request(id="0"), "a" * 64, "key")
    assert (len(reporter.said), asker.times(request(id="0"), "a" * 64)) == (2, 2)


def test_a_flood_of_mandates_that_nobody_has_makes_the_node_ask_for_few(clock: Clock) -> None:
    asker = ApprovalAsker(WEB1, reporter := FakeReporter())
    for n in range(5000):
        asker.ask(request(), f"{n:064}", "key")
    assert len(reporter.said) == mandate_asks._MOST_ASKED
    clock.now += mandate_asks.ASK_EVERY
    asker.ask(request(), "b" * 64, "key")
    assert len(reporter.said) == mandate_asks._MOST_ASKED + 1
    assert len(asker._asked) == 1


def test_a_key_that_names_mandates_that_nobody_has_keeps_no_other_key_waiting(clock: Clock) -> None:
    asker = ApprovalAsker(WEB1, reporter := FakeReporter())
    for n in range(100):
        asker.ask(request(), f"{n:064}", "stolen")
    asker.ask(request(rollout="r1"), "a" * 64, "desk")
    asked = reporter.said[-1]
    assert isinstance(asked, ApprovalWanted)
    assert asked.mandate == "a" * 64
    for n in range(100):
        asker.ask(request(), f"{n:064}", "desk")
    assert len(reporter.said) == mandate_asks._MOST_ASKED + mandate_asks._ALWAYS_ASKED


def test_what_is_remembered_is_bounded(clock: Clock) -> None:
    asker = ApprovalAsker(WEB1, FakeReporter())
    for n in range(1500):
        clock.now += mandate_asks.ASK_EVERY
        asker.ask(request(id=str(n)), "a" * 64, "key")
        asker.refused("a" * 64, "changed")
        asker.refused(f"{n:064}", "nobody asked for it")
    assert len(asker._times) == 1000
    assert asker._refused == {"a" * 64: "changed"}


def test_a_question_that_finds_no_room_was_not_asked(clock: Clock) -> None:
    asker = ApprovalAsker(WEB1, reporter := FakeReporter())
    reporter.full = True
    with pytest.raises(OutboxError):
        asker.ask(request(), "a" * 64, "key")
    assert asker.times(request(), "a" * 64) == 0
    reporter.full = False
    asker.ask(request(), "a" * 64, "key")
    assert len(reporter.said) == 1
