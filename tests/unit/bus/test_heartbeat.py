"""Liveness is decided from times alone, so every edge can be tried without waiting."""

from __future__ import annotations

import pytest

from deploykit.bus.stomp.heartbeat import SILENCE, HeartbeatMonitor, decide, negotiate, offer


@pytest.mark.parametrize(
    ("answer", "send", "expect", "native"),
    [
        ("0,0", 10, 10, (False, False)),
        (None, 10, 10, (False, False)),
        ("nonsense", 10, 10, (False, False)),
        ("5000,20000", 20, 10, (True, True)),
        ("20000,0", 10, 20, (False, True)),
        ("0, 10000 ", 10, 10, (True, False)),
        ("5000,10000", 10, 10, (True, True)),
    ],
)
def test_what_the_broker_does_not_grant_is_emulated(
    answer: str | None, send: float, expect: float, native: tuple[bool, bool]
) -> None:
    beats = negotiate(10.0, answer)
    assert (beats.send, beats.expect) == (send, expect)
    assert (beats.native_send, beats.native_expect) == native


def test_off_is_off() -> None:
    assert negotiate(0, "1000,1000") == HeartbeatMonitor()
    assert offer(0) == "0,0"
    decision = decide(HeartbeatMonitor(), 1e9, sent=0, heard=0, probed=0)
    assert (decision.beat, decision.probe, decision.dead) == (False, False, False)


def test_a_silent_broker_is_given_up_within_two_heart_beats() -> None:
    for answer in ("5000,10000", "10000,10000", "0,0", None):
        for gap in (1.0, 2.0):
            beats = negotiate(10.0, answer, gap=gap)
            if answer == "10000,10000" and gap == 2.0:
                assert beats.limit == 22.5  # such a broker may be silent for two of its own intervals
            else:
                assert beats.limit < 20
            just_before = decide(beats, 100 + beats.limit - 0.01, sent=100, heard=100, probed=100)
            assert not just_before.dead
            assert decide(beats, 100 + beats.limit, sent=100, heard=100, probed=100).dead


def test_a_broker_that_beats_as_it_promised_is_never_given_up() -> None:
    """ActiveMQ's first beat after a frame comes after two of its intervals, which is why we ask for short ones."""
    beats = negotiate(10.0, "5000,10000")
    for silence in (5.0, 10.0, 10.9):
        assert not decide(beats, silence, sent=silence, heard=0.0, probed=0).dead


def test_we_beat_well_before_the_broker_has_to_wait_for_us() -> None:
    beats = negotiate(10.0, "0,10000")
    assert not decide(beats, 4.9, sent=0, heard=4.9, probed=0).beat
    assert decide(beats, 5.0, sent=0, heard=5.0, probed=0).beat


def test_one_probe_per_silence_and_only_where_the_broker_does_not_beat() -> None:
    emulated, native = negotiate(10.0, "0,0"), negotiate(10.0, "5000,0")
    assert not decide(emulated, 7.4, sent=7, heard=0, probed=0).probe
    assert decide(emulated, 7.6, sent=7, heard=0, probed=0).probe
    assert not decide(emulated, 8.0, sent=7, heard=0.0, probed=7.6).probe
    assert decide(emulated, 20.0, sent=20, heard=10.0, probed=7.6).probe
    assert not decide(native, 9.9, sent=9, heard=0, probed=0).probe


def test_the_next_look_is_never_later_than_what_comes_next() -> None:
    beats = negotiate(10.0, "0,0")
    decision = decide(beats, 1.0, sent=0.0, heard=0.0, probed=0.0)
    assert decision.due == 5.0
    assert decide(beats, 8.0, sent=8.0, heard=0.0, probed=7.5).due == min(13.0, 10.0 * SILENCE)
