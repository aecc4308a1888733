"""The original's hooks of git and Subversion as programs: `python -m … git ADDRESS PREFIX REPO` in a hook script."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from tests.support.originals.publishers import OldBus, git_post_receive, svn_post_commit

_ROOT = Path(__file__).parents[3]


def install(bus: OldBus, kind: str, repo: str, directory: Path) -> None:
    """Write the hook of a repository, whose environment is empty.

    Args:
        bus: where it publishes.
        kind: `git` or `svn`.
        repo: its name in messages.
        directory: the bare repository, or Subversion's.
    """
    hook = directory / "hooks" / {"git": "post-receive", "svn": "post-commit"}[kind]
    words = [sys.executable, "-m", __name__, kind, bus.address, bus.prefix, repo, str(directory)]
    hook.write_text(f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(_ROOT))} exec {shlex.join(words)} "$@"\n')
    hook.chmod(0o755)


def main() -> None:
    """Run a hook: git gives lines, Subversion REPOS REV TXN."""
    kind, address, prefix, repo, directory, *given = sys.argv[1:]
    bus = OldBus(address, prefix)
    if kind == "git":
        git_post_receive(bus, repo, Path(directory), sys.stdin.read())
    else:
        svn_post_commit(bus, repo, Path(directory), given[1])


if __name__ == "__main__":
    main()

__all__ = ["install"]
