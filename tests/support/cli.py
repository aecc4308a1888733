"""Run the command line as a user would: a process of its own, nothing inherited."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path


def command(*words: str) -> list[str]:
    """The `deploykit` command of the environment under test."""
    return [sys.executable, "-P", "-m", "deploykit", *words]


def run(
    *words: str, cwd: Path | None = None, env: Mapping[str, str] | None = None, timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run `deploykit WORDS` to its end."""
    return subprocess.run(
        command(*words),
        cwd=cwd,
        env={"PATH": os.environ["PATH"], "HOME": str(cwd or "/nonexistent"), "LANG": "C.UTF-8", **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
