"""Set the demo up, run it, clean up."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from rich.console import Console

from deploykit.demo.fleetstory import FleetStory
from deploykit.demo.stage import Stage
from deploykit.demo.story import Story
from deploykit.demo.timeline import ConsoleTimeline, JsonTimeline, Timeline
from deploykit.demo.webstory import WebStory
from deploykit.errors import UsageError
from deploykit.settings.address import Broker, parse_address


def play(*, broker: str | None, repo: Path | None, keep: bool, as_json: bool) -> bool:
    """Run the demo and return whether every claim held.

    Args:
        broker: address of a real broker; None starts the embedded one.
        repo: a git repository to start from; None makes a small one.
        keep: leave the directory behind, and print its path.
        as_json: print JSON lines.

    Raises:
        UsageError: the broker's address or the repository is not usable.
        DemoFailed: a step could not be completed.
    """
    chosen = _one_plain_broker(broker) if broker is not None else None
    timeline: Timeline = JsonTimeline() if as_json else ConsoleTimeline(Console(soft_wrap=True))
    with _clean_end(), Stage(keep=keep) as stage:
        if repo is not None and stage.run("git", "-C", str(repo), "rev-parse", "--verify", "HEAD").code != 0:
            raise UsageError(f"not a git repository with a commit: {repo}", "give --repo a clone")
        if keep:
            timeline.event("demo", f"everything is in {stage.root}")
        return Story(stage, timeline, broker=chosen, repo=repo).play()


def play_fleet(*, keep: bool, as_json: bool) -> bool:
    """Run the fleet demo and return whether every claim held.

    Args:
        keep: leave the directory behind, and print its path.
        as_json: print JSON lines.

    Raises:
        DemoFailed: a step could not be completed.
    """
    timeline: Timeline = JsonTimeline() if as_json else ConsoleTimeline(Console(soft_wrap=True))
    with _clean_end(), Stage(keep=keep) as stage:
        if keep:
            timeline.event("demo", f"everything is in {stage.root}")
        return FleetStory(stage, timeline, as_json=as_json).play()


def play_web(*, port: int, keep: bool, as_json: bool) -> None:
    """Run the demo console until it is interrupted; then everything is ended and removed.

    Args:
        port: of the console, on loopback; 0 takes a free one.
        keep: leave the directory behind, and print its path.
        as_json: print JSON lines.

    Raises:
        DemoFailed: a process of the demo ended.
    """
    timeline: Timeline = JsonTimeline() if as_json else ConsoleTimeline(Console(soft_wrap=True))
    try:
        with _clean_end(), Stage(keep=keep) as stage:
            if keep:
                timeline.event("demo", f"everything is in {stage.root}")
            WebStory(stage, timeline, port=port).play()
    except KeyboardInterrupt:
        timeline.event("demo", "ended; nothing of it is left" if not keep else "ended")


@contextmanager
def _clean_end() -> Iterator[None]:
    """Clean up on TERM and HUP as on Ctrl-C: no process of ours may go on.

    The cleaning up takes a bounded time, and a second signal does not interrupt it.
    """
    ends = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def end(_number: int, _frame: FrameType | None) -> None:
        for number in ends:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, end) for number in ends}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _one_plain_broker(text: str) -> Broker:
    brokers = parse_address(text).brokers
    if len(brokers) != 1 or brokers[0].tls:
        raise UsageError(
            "the demo takes one broker without TLS: it cuts the connection on the way", "stomp://HOST:PORT"
        )
    return brokers[0]
