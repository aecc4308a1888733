"""The writer of access files, killed or without room at each step: the file is the old one or the new one, whole."""

from __future__ import annotations

import shutil
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from deploykit.daemons.access.accessfile import HtpasswdForm, with_user
from tests.support.accesswriter import HASH, change
from tests.support.killsweep import NEEDS_SPACE, Run, error_sweep, kill_sweep, sample_size

UNTIL = datetime.now(UTC) + timedelta(days=1)
BEFORE = with_user(b"monitor:x\n", HtpasswdForm(), "alice", HASH, UNTIL)


class SweptRoot:
    """A directory that looks the same before each run."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.file = root / "users"

    def prepare(self) -> None:
        """Have alice in the file, by hand of the daemon, and monitor by somebody else's."""
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir()
        self.file.write_bytes(BEFORE)
        self.file.chmod(0o640)
        (self.root / "served").write_bytes(BEFORE)

    def users(self) -> list[str]:
        """The users in the file, which must be whole, and of the old mode."""
        content = self.file.read_bytes()
        assert content.startswith(b"monitor:x\n")
        assert self.file.stat().st_mode & 0o777 == 0o640
        users = [each.user for each in HtpasswdForm().users(content)]
        assert users in (["monitor", "alice"], ["monitor", "bob"]), content
        return users

    def check(self, _run: Run) -> None:
        """Look at what is left, then do it again as the redelivered commands would."""
        self.users()
        assert change(self.root) == ["granted", "revoked"]
        assert self.users() == ["monitor", "bob"]
        assert (self.root / "served").read_bytes() == self.file.read_bytes(), "the server has what the file has"
        left = {path.name for path in (*self.root.iterdir(), *(self.root / "state" / "access").iterdir())}
        assert left == {"users", "served", "state", "access.json"}


@pytest.mark.parametrize("what", ["kill", "no room"])
def test_at_every_step_the_file_is_whole_and_the_next_start_finishes(tmp_path: Path, what: str) -> None:
    swept = SweptRoot(tmp_path / "node")
    argv = [sys.executable, "-m", "tests.support.accesswriter", str(swept.root)]
    if what == "kill":
        report = kill_sweep(
            argv, roots=[swept.root], prepare=swept.prepare, check=swept.check, sample=sample_size(6), allow_missed=0.3
        )
    else:
        report = error_sweep(
            argv,
            roots=[swept.root],
            prepare=swept.prepare,
            check=swept.check,
            calls=NEEDS_SPACE,
            sample=sample_size(3),
            allow_missed=0.3,
        )
    print(report)
    assert report.ran
