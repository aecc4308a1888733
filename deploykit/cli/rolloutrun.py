"""Carry a rollout out and show it: which display, what Ctrl-C does, how it ends."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Final

import attrs
import click

from deploykit.cli.options import print_json
from deploykit.cli.rolloutdisplay import JsonRollout, PlainRollout, RolloutDisplay
from deploykit.cli.rollouttext import plan_entry, plan_lines
from deploykit.cli.visible import visible

if TYPE_CHECKING:
    from deploykit.bus import Bus
    from deploykit.fleet.observer import RolloutObserver
    from deploykit.fleet.plan import Plan
    from deploykit.operations.rollout import RolloutResult
    from deploykit.settings.node import Settings

#: What a shell expects of a program that Ctrl-C ended.
INTERRUPTED: Final = 130
#: What a person, and a program that watches over us, send to end us.
_ENDING: Final = (signal.SIGINT, signal.SIGTERM)
#: Shows the cursor again, for a process that ends without another word.
_SHOW_CURSOR: Final = b"\x1b[?25h"


def display_for(
    plan: Plan, *, as_json: bool, answer: Callable[[bool], None] | None = None, through: str = ""
) -> RolloutDisplay:
    """Return what shows a rollout: JSON lines, a live picture on a terminal, or plain lines.

    Args:
        plan: of the rollout.
        as_json: a script reads it.
        answer: called with whether to go on, where a person at the terminal was asked.
        through: URL of the console that coordinates it; commands that are suggested then name it.
    """
    everything = _shows_anything()
    if as_json:
        return JsonRollout(plan)
    if sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in ("", "dumb") and everything:
        from deploykit.cli.liverollout import LiveRollout

        return LiveRollout(plan, answer=answer, through=through)
    return PlainRollout(plan, through=through)


def _shows_anything() -> bool:
    """Return whether the terminal shows every character; one that does not gets escapes for the others."""
    if sys.stdout.encoding.lower().replace("-", "") == "utf8":
        return True
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    return False


def carry_out(
    settings: Settings,
    display: RolloutDisplay,
    run: Callable[[RolloutObserver], RolloutResult],
) -> int:
    """Run a rollout, show it, and return the exit code.

    Args:
        settings: of this machine.
        display: shows it.
        run: returns when the rollout has ended, or was left.
    """
    from deploykit.fleet.summary import summarize
    from deploykit.operations.rolloutstore import begun_after

    with _second_interrupt_ends():
        with display:
            result = run(display)
            if not result.interrupted:
                later = begun_after(settings, result.plan)
                summary = summarize(result.plan, result.model, display.view, skew=settings.trust.skew, later=later)
                display.ended(summary)
        for line in result.left_running:
            click.echo(f"deploykit: {visible(line)}", err=True)
    return result.exit_code


def answer_for(settings: Settings, rollout: str) -> Callable[[bool], None]:
    """Return what takes a person's answer to whether a rollout goes on: no ends it where it is."""

    def answer(goes_on: bool) -> None:
        from deploykit.operations.rolloutstore import ask_rollout

        ask_rollout(settings, rollout, "promote" if goes_on else "abort")

    return answer


@contextmanager
def connected(settings: Settings, *, timeout: float | None = None) -> Iterator[Bus]:
    """Yield a bus that is connected, within the time limit that a person gave.

    Raises:
        ConnectError: no broker can be reached in time.
    """
    from deploykit.operations.deploy import connected_bus

    if timeout is not None and timeout < settings.broker.connect_timeout:
        settings = attrs.evolve(settings, broker=attrs.evolve(settings.broker, connect_timeout=timeout))
    with connected_bus(settings) as bus:
        yield bus


def print_plan(plan: Plan, *, as_json: bool) -> None:
    """Print what a rollout would do."""
    if as_json:
        print_json(plan_entry(plan))
        return
    for line in plan_lines(plan):
        click.echo(line)
    click.echo("nothing was sent")


@contextmanager
def _second_interrupt_ends() -> Iterator[None]:
    """Let the first Ctrl-C or TERM raise `KeyboardInterrupt`, and a second one end the process at once.

    After the first one the handlers stay: what ends after us (the bus) may take its time.
    """
    before = {number: signal.getsignal(number) for number in _ENDING}

    def at_once(_number: int, _frame: FrameType | None) -> None:
        if sys.stdout.isatty():
            os.write(1, _SHOW_CURSOR)
        os._exit(INTERRUPTED)

    def first(_number: int, _frame: FrameType | None) -> None:
        for number in _ENDING:
            signal.signal(number, at_once)
        raise KeyboardInterrupt

    try:
        for number in _ENDING:
            signal.signal(number, first)
    except ValueError:  # not the main thread: whoever embeds us has its own
        yield
        return
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is first:
            for number, handler in before.items():
                signal.signal(number, handler)
