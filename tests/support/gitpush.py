"""A push to a repository that has the hook, and what git says of its commits."""

from __future__ import annotations

from pathlib import Path

from deploykit.messages import RefUpdated
from tests.support.hookworld import World, lines


def push(world: World, work: Path, *what: str, check: bool = True) -> list[RefUpdated]:
    """Push, and return the events that came of it."""
    world.empty_spool()
    done = world.git("push", "origin", *what, cwd=work, check=check)
    events = world.events()
    count = f"{len(events)} event{'' if len(events) == 1 else 's'} queued"
    assert [line for line in lines(done) if count in line], done.stderr
    return events


def rev_list(world: World, work: Path, *what: str) -> list[str]:
    """What git lists."""
    return world.git("rev-list", "--date-order", *what, cwd=work).stdout.split()


def import_commits(world: World, work: Path, stream: str) -> None:
    """Feed `git fast-import`."""
    world.git("fast-import", "--quiet", "--force", data=stream.encode(), cwd=work, timeout=300)
