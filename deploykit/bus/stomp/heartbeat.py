"""Whether the other end is still there. Pure: times in, decisions out. All times are monotonic seconds.

Rules:

* native heart-beats are used where the CONNECTED frame grants them, on any version;
* elsewhere they are emulated: a bare EOL, which every broker accepts, so that no firewall sees an idle connection;
* there, after a silence, BEGIN and ABORT ask for a receipt and leave nothing behind;
* a silence longer than `SILENCE` intervals means that the connection is gone;
* the broker is asked to beat twice in our interval. Some look only once per interval whether they have sent something:
  ActiveMQ's first beat after a frame comes after two of its intervals (seen on 5.17).
"""

from __future__ import annotations

from typing import Final

import attrs

#: Heard nothing for so many intervals: the connection is gone. Below 2, so that the next attempt begins in time; above
#: 1.5, because a beat may come late by scheduling on both sides.
SILENCE: Final = 1.75
#: We beat after this share of the interval we promised, so that the broker never has to wait for us.
SEND_SHARE: Final = 0.5
#: Emulated: ask after this share of the interval without a byte from the broker.
PROBE_SHARE: Final = 0.75


@attrs.frozen(kw_only=True, slots=True)
class HeartbeatMonitor:
    """The agreed heart-beats. Intervals in seconds; 0 turns that direction off.

    Args:
        send: the broker may count on a byte from us in this time.
        expect: we count on a byte from the broker in this time.
        native_send, native_expect: whether the broker agreed, or we emulate.
        limit: silence after which the connection is gone.
    """

    send: float = 0.0
    expect: float = 0.0
    native_send: bool = False
    native_expect: bool = False
    limit: float = 0.0

    def __str__(self) -> str:
        def side(seconds: float, native: bool) -> str:
            return f"{seconds:g} s{'' if native else ' emulated'}" if seconds else "off"

        return f"out {side(self.send, self.native_send)}, in {side(self.expect, self.native_expect)}"


def offer(heartbeat: float) -> str:
    """Return the `heart-beat` header of our CONNECT: what we send, and what we ask for.

    >>> offer(10.0)
    '10000,5000'
    """
    milliseconds = max(0, round(heartbeat * 1000))
    return f"{milliseconds},{max(1, milliseconds // 2) if milliseconds else 0}"


def negotiate(heartbeat: float, answer: str | None, *, gap: float = 2.0) -> HeartbeatMonitor:
    """Return the agreed intervals from what we asked for and the broker's `heart-beat` header (None when it sent none).

    A header that is not two numbers counts as "no heart-beats": we emulate.

    Args:
        heartbeat: the interval we want.
        answer: the header.
        gap: longest silence of such a broker, in its own intervals.

    >>> str(negotiate(10.0, "0,20000"))
    'out 20 s, in 10 s emulated'
    """
    if heartbeat <= 0:
        return HeartbeatMonitor()
    sends, wants = (milliseconds / 1000 for milliseconds in _pair(answer))
    interval = max(heartbeat / 2, sends)
    return HeartbeatMonitor(
        send=max(heartbeat, wants),
        expect=max(heartbeat, sends),
        native_send=bool(wants),
        native_expect=bool(sends),
        limit=max(heartbeat * SILENCE, interval * (gap + 0.25) if sends else 0.0),
    )


def _pair(answer: str | None) -> tuple[int, int]:
    parts = [part.strip() for part in (answer or "").split(",")]
    if len(parts) != 2 or not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
        return 0, 0
    return int(parts[0]), int(parts[1])


@attrs.frozen(kw_only=True, slots=True)
class Decision:
    """What to do now, and when to decide again (`due`, monotonic; infinity: never)."""

    beat: bool = False
    probe: bool = False
    dead: bool = False
    due: float = float("inf")


def decide(beats: HeartbeatMonitor, now: float, *, sent: float, heard: float, probed: float) -> Decision:
    """Return what to do, from the times of the last byte out, the last byte in, and the last probe (0.0: none)."""
    due = float("inf")
    beat = probe = False
    if beats.send:
        beat = now >= sent + beats.send * SEND_SHARE
        due = (now if beat else sent) + beats.send * SEND_SHARE
    if beats.expect:
        gone = heard + beats.limit
        if now >= gone:
            return Decision(dead=True, due=now)
        due = min(due, gone)
        if not beats.native_expect:
            ask = heard + beats.expect * PROBE_SHARE
            probe = now >= ask and probed <= heard
            if now < ask:
                due = min(due, ask)
    return Decision(beat=beat, probe=probe, due=due)
