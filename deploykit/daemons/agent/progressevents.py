"""What one deploy command has to say while it runs: which events, when, and what is left out. Pure: `now` is passed.

Rules:

* Each event has a number, from 0. What is left out takes a number too, so that a reader sees a gap.
* Output waits until `every` seconds have passed since the last one of its step, and is then one event.
* Of more than `per_event` bytes the end is kept. After `in_all` bytes of output a command has no more output events.
* At most `waiting` events wait to be sent; the oldest output, or else the oldest event, makes room.
* Texts are data: control characters stay in them. Whoever shows one escapes it.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import attrs

from deploykit.messages import ProgressState

#: Most characters that are looked at of what came at once, in events: the rest could not be in one.
_AT_ONCE: Final = 4


@attrs.frozen(kw_only=True, slots=True)
class ProgressLimits:
    """How much a command may say while it runs.

    Args:
        every: least seconds between two output events of a step.
        per_event: most bytes of output in one event.
        in_all: most bytes of output of one command.
        waiting: most events of one command that wait to be sent.
    """

    every: float = 0.5
    per_event: int = 4096
    in_all: int = 65536
    waiting: int = 64


@attrs.frozen(kw_only=True, slots=True)
class StepEvent:
    """One event of a step, as `DeployProgressed` has it; `at` is when it happened, in monotonic seconds."""

    number: int
    at: float
    step: str
    state: ProgressState
    seconds: float = 0.0
    exit_code: int | None = None
    output: str = ""


class CommandEvents:
    """The events of one command. Used under a lock of its owner."""

    def __init__(self, limits: ProgressLimits) -> None:
        self._limits = limits
        self._waiting: deque[StepEvent] = deque()
        self._number = 0
        self._step = ""
        self._text = ""
        self._gap = False
        self._left = limits.in_all
        self._due = float("-inf")
        self.ended = False

    def began(self, step: str, now: float) -> None:
        """Note that a step began."""
        self._flush(now)
        self._add(now, step, "began")

    def finished(
        self, step: str, state: ProgressState, now: float, *, seconds: float = 0.0, exit_code: int | None = None
    ) -> None:
        """Note that a step ended. What it printed comes before that."""
        self._flush(now)
        self._due = float("-inf")
        self._add(now, step, state, seconds=max(0.0, seconds), exit_code=exit_code)

    def printed(self, step: str, text: str, now: float) -> None:
        """Note what a step printed."""
        if step != self._step:
            self._flush(now)
            self._step, self._due = step, float("-inf")
        room = min(self._limits.per_event, self._left)
        self._gap |= len(text) > _AT_ONCE * room
        self._text += text[-_AT_ONCE * room :] if room else ""
        kept = _end_of(self._text, room)
        self._gap |= len(kept) < len(self._text)
        self._text = kept

    def end(self, now: float) -> None:
        """Note that the command has ended: nothing waits any longer than it must."""
        self._flush(now)
        self.ended = True

    @property
    def due(self) -> float:
        """When `take` returns something, in monotonic seconds; infinite while nothing waits."""
        if self._waiting:
            return float("-inf")
        return self._due if self._text else float("inf")

    def take(self, now: float) -> list[StepEvent]:
        """Return the events that may be sent now, in order, and forget them."""
        if self._text and now >= self._due:
            self._flush(now)
        taken = list(self._waiting)
        self._waiting.clear()
        return taken

    def _flush(self, now: float) -> None:
        """Make an event of what was printed and waits."""
        if not self._text:
            return
        output, self._text = self._text, ""
        self._left -= len(output.encode(errors="replace"))
        self._due = now + self._limits.every
        self._add(now, self._step, "output", output=output)

    def _add(
        self,
        now: float,
        step: str,
        state: ProgressState,
        *,
        seconds: float = 0.0,
        exit_code: int | None = None,
        output: str = "",
    ) -> None:
        if len(self._waiting) >= self._limits.waiting:
            oldest = next((event for event in self._waiting if event.state == "output"), self._waiting[0])
            self._waiting.remove(oldest)
        if self._gap:
            self._number, self._gap = self._number + 1, False
        self._waiting.append(
            StepEvent(
                number=self._number,
                at=now,
                step=step,
                state=state,
                seconds=seconds,
                exit_code=exit_code,
                output=output,
            )
        )
        self._number += 1


def _end_of(text: str, limit: int) -> str:
    """Return the end of a text, as whole characters of at most `limit` bytes of UTF-8."""
    data = text.encode(errors="replace")
    return data[-limit:].decode(errors="ignore") if limit > 0 else ""
