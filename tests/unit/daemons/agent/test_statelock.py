"""One agent for each state directory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deploykit.daemons.agent.statelock import StateLock
from deploykit.errors import LockBusy


def test_a_second_one_is_refused_by_pid_and_a_later_one_is_not(tmp_path: Path) -> None:
    state = tmp_path / "not" / "made"
    with StateLock(state):
        with pytest.raises(LockBusy, match=rf"another agent works on .*{state}.*pid {os.getpid()}"), StateLock(state):
            pass
        with StateLock(tmp_path / "other"):
            pass
    with StateLock(state):
        pass


def test_the_lock_ends_with_the_process_however_that_ends(tmp_path: Path) -> None:
    code = (
        "import os, sys, pathlib\nfrom deploykit.daemons.agent.statelock import StateLock\n"
        "StateLock(pathlib.Path(sys.argv[1])).__enter__()\nprint('held', flush=True)\nos.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, check=False)
    assert (done.stdout, done.returncode) == (b"held\n", -9)
    with StateLock(tmp_path):
        pass


def test_a_lock_file_that_was_removed_is_made_anew(tmp_path: Path) -> None:
    with StateLock(tmp_path):
        (tmp_path / "agent.lock").unlink()
    with StateLock(tmp_path), pytest.raises(LockBusy), StateLock(tmp_path):
        pass


def test_a_link_in_the_place_of_the_lock_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("kept")
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "agent.lock").symlink_to(target)
    with pytest.raises(OSError, match="symbolic links"), StateLock(tmp_path / "state"):
        pass
    assert target.read_text() == "kept"
