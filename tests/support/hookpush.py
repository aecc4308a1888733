"""A push that must succeed whatever is broken."""

from __future__ import annotations

from pathlib import Path

from tests.support.hookworld import World, lines


def pushed(world: World, work: Path, *, env: dict[str, str] | None = None) -> str:
    """Push a new commit: it must succeed and say exactly one line of ours, which is returned."""
    commit = world.commit(work)
    done = world.git("push", "origin", "main", cwd=work, env=env)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert world.git("ls-remote", "origin", "refs/heads/main", cwd=work).stdout.split()[0] == commit
    (line,) = lines(done)
    return line
