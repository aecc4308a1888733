"""The steps of one node, folded from its signed progress events. Pure, and bounded whatever a node sends.

Rules:

* Events may be lost, doubled or out of order: an event never reopens a step that a later one has ended.
* A new request of a phase begins that phase anew; what the old one still sends is passed over.
* At most `MAX_STEPS` steps and `MAX_OUTPUT` lines are kept for a node; texts are cut and made printable here.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal

import attrs

from deploykit.messages import DeployProgressed, DeployReported
from deploykit.messages.base import one_line

#: Most steps of one node that are kept: far beyond those of two phases.
MAX_STEPS: Final = 64
#: Last lines of output that are kept of a node.
MAX_OUTPUT: Final = 10
_NAME: Final = 40
_LINE: Final = 400

StepState = Literal["began", "done", "failed", "skipped"]


@attrs.frozen(kw_only=True, slots=True)
class StepMark:
    """One step of one node.

    Args:
        number: of the event that said so; a lower number changes nothing.
        since: when the event came, by our clock.
        seconds: how long the step took, as the node says; 0 while it runs.
    """

    phase: str
    name: str
    state: StepState
    number: int
    since: float
    seconds: float = 0.0
    exit_code: int | None = None

    @property
    def ended(self) -> bool:
        """Whether the step is over."""
        return self.state != "began"


@attrs.frozen(slots=True)
class PrintedLine:
    """A line that a step printed."""

    step: str
    text: str


@attrs.frozen(kw_only=True, slots=True)
class NodeSteps:
    """What a node has reported of its steps so far.

    Args:
        steps: in the order in which they were first heard of.
        output: the last lines that its steps printed.
        requests: the request that each phase belongs to, with the time of its newest event.
        closed: phases whose report has come: it says more than what is still on its way.
    """

    steps: tuple[StepMark, ...] = ()
    output: tuple[PrintedLine, ...] = ()
    requests: tuple[tuple[str, str, datetime], ...] = ()
    closed: frozenset[str] = frozenset()

    @property
    def current(self) -> StepMark | None:
        """The step that runs, None where none is known to. A step that another one followed has ended, heard or not."""
        phase = max(self.requests, key=lambda each: each[2], default=("", "", None))[0]
        steps = [mark for mark in self.steps if mark.phase == phase]
        newest = max(steps, key=lambda mark: mark.number, default=None)
        return newest if newest is not None and not newest.ended else None

    @property
    def failed(self) -> StepMark | None:
        """The last step that failed, None where none did."""
        return next((mark for mark in reversed(self.steps) if mark.state == "failed"), None)

    def heard(self, event: DeployProgressed, now: float) -> NodeSteps:
        """Return these steps with one more event.

        Args:
            event: of this node; whoever hands it over has checked its signature.
            now: seconds, by any clock that all calls share.
        """
        known = next((each for each in self.requests if each[0] == event.phase), None)
        current = self
        if known is None or known[1] != event.request:
            if known is not None and event.time < known[2]:
                return self
            current = self._without(event.phase)
        elif event.phase in self.closed:
            return self
        current = current._of_request(event.phase, event.request, event.time)
        if event.state == "output":
            lines = tuple(PrintedLine(_name(event.step), line) for line in output_lines(event.output))
            return attrs.evolve(current, output=(*current.output, *lines)[-MAX_OUTPUT:])
        return current._marked(event, event.state, now)

    def reported(self, report: DeployReported, now: float) -> NodeSteps:
        """Return these steps with those of the node's report on a phase: all of them, in its order."""
        known = {mark.name: mark for mark in self.steps if mark.phase == report.phase}
        marks: list[StepMark] = []
        output = self.output
        for at, step in enumerate(report.steps):
            if step.outcome == "skipped":  # there is no such script
                continue
            name = _name(step.name)
            heard = known.pop(name, None)
            mark = StepMark(
                phase=report.phase,
                name=name,
                state=step.outcome,
                number=at,
                since=now,
                seconds=step.seconds,
                exit_code=step.exit_code,
            )
            marks.append(heard if heard is not None and heard.ended else mark)
            if step.outcome == "failed" or step.exit_code is not None:
                lines = tuple(PrintedLine(name, line) for line in output_lines(step.output))
                output = (*(line for line in output if line.step != name), *lines)
        others = tuple(mark for mark in self.steps if mark.phase != report.phase)
        return attrs.evolve(
            self._of_request(report.phase, report.request, report.time),
            steps=(*others, *marks, *known.values())[-MAX_STEPS:],
            output=output[-MAX_OUTPUT:],
            closed=self.closed | {report.phase},
        )

    def lines_of(self, step: str) -> tuple[str, ...]:
        """Return the last lines that a step printed."""
        return tuple(line.text for line in self.output if line.step == step)

    def _without(self, phase: str) -> NodeSteps:
        steps = tuple(mark for mark in self.steps if mark.phase != phase)
        return attrs.evolve(self, steps=steps, closed=self.closed - {phase})

    def _of_request(self, phase: str, request: str, time: datetime) -> NodeSteps:
        others = tuple(each for each in self.requests if each[0] != phase)
        before = [each[2] for each in self.requests if each[:2] == (phase, request)]
        return attrs.evolve(self, requests=(*others, (phase, request, max([time, *before]))))

    def _marked(self, event: DeployProgressed, state: StepState, now: float) -> NodeSteps:
        mark = StepMark(
            phase=event.phase,
            name=_name(event.step),
            state=state,
            number=event.number,
            since=now,
            seconds=event.seconds,
            exit_code=event.exit_code,
        )
        for at, known in enumerate(self.steps):
            if (known.phase, known.name) == (mark.phase, mark.name):
                if known.number >= mark.number:
                    return self
                return attrs.evolve(self, steps=(*self.steps[:at], mark, *self.steps[at + 1 :]))
        return attrs.evolve(self, steps=(*self.steps, mark)[-MAX_STEPS:])


def _name(text: str) -> str:
    return one_line(text, _NAME) or "?"


def output_lines(output: str) -> tuple[str, ...]:
    """Return the last lines of a program's output, printable, without the empty ones."""
    return tuple(shown for line in output.splitlines()[-MAX_OUTPUT:] if (shown := one_line(line, _LINE)))
