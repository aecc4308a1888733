"""The thread of a channel: it sends, tries again, counts, and ends."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import pytest

from deploykit.daemons.notify.irc import BURST, FloodLimit
from deploykit.daemons.notify.letters import NotifyLetter
from deploykit.daemons.notify.ports import SendOutcome
from deploykit.daemons.notify.sending import ChannelSender, SendResult
from deploykit.errors import SettingsError
from deploykit.settings.notify import ChannelSettings
from tests.support.newsworld import NOW, FakeChannel, item, notice, proposal
from tests.support.wait import wait_until

SETTINGS = ChannelSettings(kind="irc", url="ircs://irc.example.org/#ops", events=("notice", "approval"))
LATER = SendOutcome(kind="later", why="not now")


class Counted:
    """The counter of a sender."""

    def __init__(self) -> None:
        self.counts: dict[SendResult, int] = {}

    def __call__(self, name: str, result: SendResult, number: int) -> None:
        assert name == "ops"
        self.counts[result] = self.counts.get(result, 0) + number


class Clock:
    """A monotonic clock that a test moves."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def made() -> Iterator[list[ChannelSender]]:
    senders: list[ChannelSender] = []
    yield senders
    for each in senders:
        each.close()


def sender(
    made: list[ChannelSender], channel: FakeChannel, *, settings: ChannelSettings = SETTINGS, keep: float = 3600.0
) -> tuple[ChannelSender, Clock, Counted]:
    clock, counted = Clock(), Counted()
    made.append(
        ChannelSender(
            "ops", settings, channel, keep=keep, count=counted, clock=clock, now=lambda: NOW, chance=lambda: 1.0
        )
    )
    return made[-1], clock, counted


def test_a_line_is_sent_and_what_nobody_wants_is_not_taken(made: list[ChannelSender]) -> None:
    channel = FakeChannel()
    one, _, counted = sender(made, channel)
    assert one.take(item(proposal()))
    assert one.step()
    assert not one.step()
    assert channel.lines == ["rollout deploy shop v1.2 waits for approval (0 of 2 signed)"]
    assert counted.counts == {"sent": 1}


def test_a_failure_is_reported_once_and_so_is_its_end(
    made: list[ChannelSender], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    channel = FakeChannel([LATER, LATER, LATER])
    one, clock, counted = sender(made, channel)
    one.take(item(proposal()))
    for _ in range(4):
        one.step()
        clock.now += 10
    assert [record.message for record in caplog.records] == ["notify: ops: waits: not now", "notify: ops: goes on"]
    assert counted.counts == {"later": 3, "sent": 1}
    assert one.problem == ""
    assert len({letter.id for letter in channel.letters}) == 1


def test_what_the_other_side_refuses_is_dropped(made: list[ChannelSender], caplog: pytest.LogCaptureFixture) -> None:
    channel = FakeChannel([SendOutcome(kind="refused", why="too long")])
    one, _, counted = sender(made, channel)
    one.take(item(proposal()))
    one.take(item(proposal(rollout="r-9")))
    assert one.step()
    assert one.step()
    assert counted.counts == {"refused": 1, "sent": 1}
    assert len({letter.id for letter in channel.letters}) == 2
    assert "notify: ops: a message was dropped: too long" in caplog.text


def test_a_secret_that_cannot_be_read_and_a_bug_end_nothing(
    made: list[ChannelSender], caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(FakeChannel):
        def __init__(self) -> None:
            super().__init__()
            self.errors = [SettingsError("secret_file: cannot read it"), RuntimeError("a bug")]

        def send(self, letter: NotifyLetter) -> SendOutcome:
            if self.errors:
                raise self.errors.pop(0)
            return super().send(letter)

    channel = Broken()
    one, clock, counted = sender(made, channel)
    one.take(item(proposal()))
    one.take(item(proposal(rollout="r-9")))
    one.step()
    assert one.problem == "ops: secret_file: cannot read it"
    clock.now += 61
    one.step()
    one.step()
    assert counted.counts == {"later": 1, "refused": 1, "sent": 1}
    assert "unforeseen failure" in caplog.text


def test_what_is_left_out_is_counted(made: list[ChannelSender]) -> None:
    settings = ChannelSettings(kind="irc", url="ircs://i.example.org/#o", events=("approval",), per_minute=2)
    channel = FakeChannel()
    one, clock, counted = sender(made, channel, settings=settings, keep=100.0)
    for number in range(10):
        one.take(item(proposal(rollout=f"r-{number}", reason=str(number))))
    while one.step():
        pass
    assert counted.counts == {"sent": 2, "folded": 8}
    assert channel.lines[-1].endswith("(and 8 more: 8 approval)")
    one.take(item(proposal(rollout="late")))
    clock.now += 101
    assert not one.step()
    assert counted.counts["expired"] == 1


def test_the_thread_sends_at_once_and_the_end_sends_what_waits(made: list[ChannelSender]) -> None:
    channel, ending = FakeChannel(), threading.Event()
    settings = ChannelSettings(kind="email", sender="a@b", to=("c@d",), digest=3000.0, events=("notice", "approval"))
    made += (
        ChannelSender("now", SETTINGS, FakeChannel(), keep=60.0),
        ChannelSender("mail", settings, channel, keep=60.0),
    )
    chat = made[0]
    threads = [threading.Thread(target=each.run, args=(ending,)) for each in made]
    for thread in threads:
        thread.start()
    for each in made:
        each.take(item(notice("hello")))
        each.take(item(proposal()))
    wait_until(lambda: chat.waiting == 0, "both lines were sent")
    assert channel.letters == []
    ending.set()
    for each in made:
        each.wake()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert len(channel.letters) == 1
    assert len(channel.letters[0].lines) == 2
    assert channel.closed


def test_the_end_does_not_wait_for_a_channel_that_fails(made: list[ChannelSender]) -> None:
    channel, ending = FakeChannel([LATER] * 1000), threading.Event()
    made.append(ChannelSender("ops", SETTINGS, channel, keep=60.0))
    (one,) = made
    one.take(item(proposal()))
    ending.set()
    one.run(ending)
    assert len(channel.letters) == 1
    assert [line.event for line in one.leave()] == ["approval"]


def test_a_burst_and_then_a_line_every_two_seconds() -> None:
    limit = FloodLimit(BURST, 2.0)
    now, sent = 100.0, []
    while now < 120.0:
        if limit.wait(now) == 0:
            limit.sent(now)
            sent.append(now)
        now += 0.5
    assert sent[:BURST] == [100.0 + 0.5 * number for number in range(BURST)]
    gaps = [later - earlier for earlier, later in zip(sent[BURST + 1 :], sent[BURST + 2 :], strict=False)]
    assert set(gaps) == {2.0}
