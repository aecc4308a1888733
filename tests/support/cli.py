"""Run the command line as a user would: in a process of its own, nothing inherited; or, for less time, in ours."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from unittest import mock

from deploykit.cli import main


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
        env={**_environment(cwd), **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def run_here(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run what `deploykit WORDS` runs, in this process and thread: a second less, for what ends by itself.

    Not while threads of the test run that look at the environment.
    """
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    code: object = 0
    with (
        contextlib.chdir(cwd or Path.cwd()),
        mock.patch.dict(os.environ, _environment(cwd), clear=True),
        mock.patch.object(sys, "argv", ["deploykit", *words]),
        mock.patch.object(sys, "stdin", io.StringIO()),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as end:
            code = end.code
    assert isinstance(code, int)
    said, complained = (one.buffer.getvalue().decode() for one in (out, err))
    return subprocess.CompletedProcess(words, code, said, complained)


def _environment(home: Path | None) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(home or "/nonexistent"), "LANG": "C.UTF-8"}
