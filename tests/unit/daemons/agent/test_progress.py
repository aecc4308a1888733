"""Progress never slows a deploy: a broken or slow bus costs events, each with a gap in the numbers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploykit.daemons.agent import progress as module
from deploykit.daemons.agent.progress import ProgressSender
from deploykit.daemons.agent.progressevents import CommandEvents, ProgressLimits, StepEvent
from deploykit.errors import PublishError, PublishRefused, WindowFull
from deploykit.messages import DeployProgressed, DeployRequested
from deploykit.messages.topics import TopicMap
from deploykit.names import NodeName, ObjectId, RefName, SiteName
from deploykit.release import StepRecord
from deploykit.testing.fakes import FakeBus
from deploykit.trust.allowed_signers import AllowedSigners
from deploykit.trust.signature import SigningKey, verify
from deploykit.wire import Frame, decode
from tests.support.wait import wait_until

WEB1 = NodeName("web1")
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def request(**changes: str) -> DeployRequested:
    return DeployRequested(
        id="r-1",
        site=SiteName("shop"),
        ref=RefName("refs/tags/v1"),
        commit=ObjectId("a" * 40),
        audience=(WEB1,),
        expires=NOW + timedelta(minutes=5),
        rollout="ro-1",
    )


# -- which events, and when ----------------------------------------------------------------------------------------


def test_a_line_is_sent_at_once_and_what_follows_is_joined() -> None:
    events = CommandEvents(ProgressLimits(every=0.5))
    events.began("post-deploy", 10.0)
    events.printed("post-deploy", "one\n", 10.0)
    assert [(e.state, e.output) for e in events.take(10.0)] == [("began", ""), ("output", "one\n")]
    events.printed("post-deploy", "two\n", 10.1)
    events.printed("post-deploy", "three\n", 10.2)
    assert events.due == 10.5
    assert events.take(10.4) == []
    assert [(e.number, e.output) for e in events.take(10.5)] == [(2, "two\nthree\n")]


def test_what_a_step_printed_comes_before_its_end_and_does_not_wait() -> None:
    events = CommandEvents(ProgressLimits(every=60.0))
    events.printed("pre-deploy", "a", 1.0)
    assert len(events.take(1.0)) == 1
    events.printed("pre-deploy", "b", 1.1)
    events.finished("pre-deploy", "failed", 1.2, seconds=0.2, exit_code=3)
    taken = events.take(1.2)
    assert [(e.state, e.output, e.exit_code) for e in taken] == [("output", "b", None), ("failed", "", 3)]


def test_of_much_output_the_end_is_kept_and_the_number_shows_the_gap() -> None:
    events = CommandEvents(ProgressLimits(every=0.0, per_event=4, in_all=8))
    events.printed("x", "abcdefgh", 1.0)
    events.printed("x", "ij", 1.0)
    assert [(e.number, e.output) for e in events.take(1.0)] == [(1, "ghij")]
    events.printed("x", "klmn", 2.0)
    assert [(e.number, e.output) for e in events.take(2.0)] == [(2, "klmn")]
    events.printed("x", "never shown", 3.0)
    assert events.take(3.0) == []
    events.finished("x", "done", 4.0)
    assert [(e.number, e.state) for e in events.take(4.0)] == [(4, "done")]


def test_control_characters_are_data_and_no_character_is_cut_in_two() -> None:
    events = CommandEvents(ProgressLimits(per_event=5))
    events.printed("x", "\x1b[2J\u20ac\u20ac", 1.0)
    assert [e.output for e in events.take(1.0)] == ["\u20ac"]
    events.printed("x", "\x1b[2J", 2.0)
    assert [e.output for e in events.take(2.0)] == ["\x1b[2J"]


def test_what_nobody_takes_is_bounded_and_output_makes_room_first() -> None:
    events = CommandEvents(ProgressLimits(waiting=3))
    events.began("a", 1.0)
    events.printed("a", "text", 1.0)
    for step in ("b", "c"):
        events.began(step, 2.0)
    assert [(e.number, e.step, e.state) for e in events.take(2.0)] == [
        (0, "a", "began"),
        (2, "b", "began"),
        (3, "c", "began"),
    ]


_ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("began"), st.sampled_from("ab")),
        st.tuples(st.just("done"), st.sampled_from("ab")),
        st.tuples(st.just("print"), st.text(max_size=40)),
        st.tuples(st.just("take"), st.just("")),
        st.tuples(st.just("wait"), st.just("")),
    ),
    max_size=60,
)


@given(_ACTIONS)
def test_whatever_happens_the_limits_hold_and_numbers_count_up(actions: list[tuple[str, str]]) -> None:
    limits = ProgressLimits(every=0.5, per_event=10, in_all=40, waiting=8)
    events, now, taken = CommandEvents(limits), 0.0, list[StepEvent]()
    for action, text in actions:
        match action:
            case "began":
                events.began(text, now)
            case "done":
                events.finished(text, "done", now)
            case "print":
                events.printed("a", text, now)
            case "take":
                taken += events.take(now)
            case _:
                now += 0.3
        assert len(events._waiting) <= limits.waiting
    events.end(now)
    taken += events.take(now)
    assert events.due == float("inf")
    numbers = [event.number for event in taken]
    assert numbers == sorted(set(numbers))
    sizes = [len(event.output.encode()) for event in taken]
    assert max(sizes, default=0) <= limits.per_event
    assert sum(sizes) <= limits.in_all


# -- the thread that sends -----------------------------------------------------------------------------------------


class Sending:
    """A sender whose thread runs."""

    def __init__(self, sender: ProgressSender) -> None:
        self.sender = sender
        self.thread = threading.Thread(target=sender.run, daemon=True)
        self.thread.start()

    def end(self) -> None:
        self.sender.stop()
        self.thread.join(30)
        assert not self.thread.is_alive()


@pytest.fixture
def started() -> Iterator[Callable[[ProgressSender], Sending]]:
    made: list[Sending] = []

    def start(sender: ProgressSender) -> Sending:
        made.append(Sending(sender))
        return made[-1]

    yield start
    for each in made:
        each.sender.stop()


def play(sender: ProgressSender, lines: int = 3) -> None:
    """What a runner does with the listeners."""
    with sender.command(request()) as progress:
        progress.on_step("post-deploy", None)
        for number in range(lines):
            progress.on_output("post-deploy", "stdout", f"line {number}\n")
        progress.on_step("post-deploy", StepRecord(name="post-deploy", outcome="done", seconds=1.0, exit_code=0))


def messages(bus: FakeBus) -> list[DeployProgressed]:
    found = [decode(sent.frame.headers, sent.frame.body) for sent in bus.sent]
    return [each for each in found if isinstance(each, DeployProgressed)]


def test_events_are_signed_not_persistent_and_say_what_they_belong_to(
    started: Callable[[ProgressSender], Sending],
) -> None:
    bus, key = FakeBus(), SigningKey.generate()
    sending = started(ProgressSender(WEB1, bus, TopicMap(), key))
    play(sending.sender)
    sending.end()
    found = messages(bus)
    assert (found[0].state, found[-1].state) == ("began", "done")
    assert "".join(each.output for each in found) == "line 0\nline 1\nline 2\n"
    assert {(m.node, m.request, m.rollout, m.correlation_id, m.phase) for m in found} == {
        (WEB1, "r-1", "ro-1", "r-1", "deploy")
    }
    assert [m.number for m in found] == list(range(len(found)))
    assert {(sent.destination, sent.persistent) for sent in bus.sent} == {(TopicMap().progress, False)}
    allowed = AllowedSigners.parse(f"{WEB1} {key.public_openssh}")
    for sent in bus.sent:
        assert verify(sent.frame, allowed, datetime.now(UTC)).is_principal(WEB1)


class StuckBus:
    """A bus whose calls do not return until they are let go."""

    def __init__(self) -> None:
        self.called = threading.Event()
        self.let_go = threading.Event()

    def publish_nowait(
        self, destination: str, frame: Frame, *, timeout: float | None = None, persistent: bool = True
    ) -> Future[None]:
        self.called.set()
        self.let_go.wait(60)
        return Future()


def test_a_bus_that_blocks_holds_up_no_step(started: Callable[[ProgressSender], Sending]) -> None:
    bus = StuckBus()
    sending = started(ProgressSender(WEB1, bus, TopicMap(), None))
    progress = sending.sender.command(request())
    with progress:
        progress.on_step("post-deploy", None)
        assert bus.called.wait(30)  # from now on its thread hangs
        for _ in range(1000):
            progress.on_output("post-deploy", "stdout", "x" * 10_000)
            progress.on_step("post-deploy", None)
        assert len(progress._events._waiting) <= ProgressLimits().waiting
    assert not bus.let_go.is_set()  # all of that came back while the bus was stuck
    bus.let_go.set()
    sending.end()


def test_a_bus_that_raises_costs_the_events_and_no_more(started: Callable[[ProgressSender], Sending]) -> None:
    raising, bus = True, FakeBus()

    class Full:
        def publish_nowait(
            self, destination: str, frame: Frame, *, timeout: float | None = None, persistent: bool = True
        ) -> Future[None]:
            if raising:
                raise WindowFull("no room")
            return bus.publish_nowait(destination, frame, timeout=timeout, persistent=persistent)

    sending = started(ProgressSender(WEB1, Full(), TopicMap(), None, limits=ProgressLimits(every=0.0)))
    progress = sending.sender.command(request())
    with progress:
        progress.on_step("pre-deploy", None)
        wait_until(lambda: progress.due == float("inf"), "the event is taken, and dropped")
        with sending.sender._changed:
            raising = False
        progress.on_step("post-deploy", None)
        wait_until(lambda: bus.sent)
    sending.end()
    assert [(m.number, m.step) for m in messages(bus)][-1][1] == "post-deploy"


def test_without_receipts_no_more_than_a_bound_is_on_its_way(started: Callable[[ProgressSender], Sending]) -> None:
    """A broker that is away must not fill the bus, on which reports go too."""
    bus = FakeBus(lambda _: FakeBus.SILENCE)
    sending = started(ProgressSender(WEB1, bus, TopicMap(), None))
    for number in range(module.MOST_UNCONFIRMED + 20):
        with sending.sender.command(request()) as progress:
            progress.on_step(f"step-{number}", None)
    sending.end()
    assert len(bus.sent) == module.MOST_UNCONFIRMED
    bus.confirm()
    again = started(sending.sender)
    assert sending.sender._unconfirmed == 0
    again.end()


@pytest.mark.parametrize(
    ("error", "pause"), [(PublishRefused("not allowed"), 600.0), (PublishError("no receipt"), 10.0)]
)
def test_after_a_refusal_nothing_is_sent_for_a_while(
    started: Callable[[ProgressSender], Sending], error: PublishError, pause: float
) -> None:
    """RabbitMQ ends the connection of who may not write to a topic, and the reports go over the same one."""
    answer: PublishError | None = error
    bus, ahead = FakeBus(lambda _: answer), 0.0
    sender = ProgressSender(WEB1, bus, TopicMap(), None, clock=lambda: time.monotonic() + ahead)
    sending = started(sender)
    with sender.command(request()) as progress:
        progress.on_step("pre-deploy", None)
    bus.wait_sent(1)
    wait_until(lambda: sender._quiet_until > 0, "the refusal is noted")
    for _ in range(3):
        with sender.command(request()) as progress:
            progress.on_step("post-deploy", None)
    wait_until(lambda: not sender._commands, "all was taken, and dropped")
    answer, ahead = None, pause + 1
    with sender.command(request()) as progress:
        progress.on_step("activate", None)
    sending.end()
    assert [message.step for message in messages(bus)] == ["pre-deploy", "activate"]


def test_a_step_of_our_own_is_failed_unless_it_is_done() -> None:
    sender = ProgressSender(WEB1, FakeBus(), TopicMap(), None)
    progress = sender.command(request())
    with progress.step("fetch") as step:
        step.done = True
    with pytest.raises(OSError, match="gone"), progress.step("fetch"):
        raise OSError("gone")
    states = [(event.step, event.state) for event in progress.take(0.0, end=True)]
    assert states == [("fetch", "began"), ("fetch", "done"), ("fetch", "began"), ("fetch", "failed")]
