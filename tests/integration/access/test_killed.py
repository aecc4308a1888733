"""The writer of access files, killed or without room at each step: the file is the old one or the new one, whole.

A real nginx, Apache and haproxy serve on all the while, with the old users or the new ones.
"""

from __future__ import annotations

import json
import shutil
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from deploykit.daemons.access.accessfile import FileForm, HtpasswdForm, UserlistForm, with_user
from deploykit.daemons.access.haproxymaster import HaproxyMaster
from tests.support.accessworld import PASSWORD
from tests.support.accesswriter import HASH, change
from tests.support.guardedservers import GuardedServer, guarded, public_directory
from tests.support.killsweep import NEEDS_SPACE, Run, error_sweep, kill_sweep, sample_size

UNTIL = datetime.now(UTC) + timedelta(days=1)
BEFORE = with_user(b"monitor:x\n", HtpasswdForm(), "alice", HASH, UNTIL)
USERLIST = with_user(b"userlist stage\n", UserlistForm("stage"), "alice", HASH, UNTIL)


class SweptRoot:
    """A directory that looks the same before each run, and the servers whose users stand in it."""

    def __init__(self, root: Path, *, haproxy: bool = False) -> None:
        self.root = root
        self.file = root / "users"
        self.before = USERLIST if haproxy else BEFORE
        self.form: FileForm = UserlistForm("stage") if haproxy else HtpasswdForm()
        self.haproxy = haproxy
        self.servers: list[GuardedServer] = []

    def prepare(self) -> None:
        """Have alice in the file, by hand of the daemon, and monitor by somebody else's."""
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir()
        self.root.chmod(0o755)
        self.file.write_bytes(self.before)
        self.file.chmod(0o644)
        if not self.haproxy:
            (self.root / "served").write_bytes(self.before)
        elif self.servers:
            assert self.servers[0].settings.master is not None
            assert HaproxyMaster(self.servers[0].settings.master).reload() == ""

    def users(self) -> list[str]:
        """The users in the file, which must be whole, and of the old mode."""
        content = self.file.read_bytes()
        assert content.startswith(self.before.splitlines(keepends=True)[0])
        assert self.file.stat().st_mode & 0o777 == 0o644
        users = [each.user for each in self.form.users(content) if each.user != "monitor"]
        assert users in (["alice"], ["bob"]), content
        return users

    def let_in(self) -> list[list[str]]:
        """Whom each server lets in."""
        return [[user for user in ("alice", "bob") if each.status(user, PASSWORD) == 200] for each in self.servers]

    def check(self, _run: Run) -> None:
        """Look at what is left, then do it again as the redelivered commands would."""
        users = self.users()
        if self.haproxy:  # what it was told last
            assert self.let_in() in ([["alice"]], [["bob"]])
        else:
            assert self.let_in() == [users] * len(self.servers)
        assert change(self.root) == ["granted", "revoked"]
        assert self.users() == ["bob"]
        assert self.let_in() == [["bob"]] * len(self.servers)
        left = {path.name for path in (*self.root.iterdir(), *(self.root / "state" / "access").iterdir())}
        assert left == {"users", "state", "access.json"} | (set() if self.haproxy else {"served"})
        if not self.haproxy:
            served = self.root / "served"
            assert served.read_bytes() == self.file.read_bytes(), "the server has what the file has"


def swept_by(root: Path, what: str, swept: SweptRoot, *, kills: int, errors: int) -> None:
    argv = [sys.executable, "-m", "tests.support.accesswriter", str(swept.root)]
    if what == "kill":
        report = kill_sweep(
            argv, roots=[root], prepare=swept.prepare, check=swept.check, sample=sample_size(kills), allow_missed=0.3
        )
    else:
        report = error_sweep(
            argv,
            roots=[root],
            prepare=swept.prepare,
            check=swept.check,
            calls=NEEDS_SPACE,
            sample=sample_size(errors),
            allow_missed=0.3,
        )
    print(report)
    assert report.ran


@pytest.mark.parametrize("what", ["kill", "no room"])
def test_at_every_step_the_file_is_whole_and_the_next_start_finishes(tmp_path: Path, what: str) -> None:
    with public_directory() as public:
        swept = SweptRoot(public / "node")
        swept.prepare()
        with (
            guarded("nginx", tmp_path / "n", swept.file) as nginx,
            guarded("apache", tmp_path / "a", swept.file) as apache,
        ):
            swept.servers = [nginx, apache]
            swept_by(swept.root, what, swept, kills=6, errors=3)


@pytest.mark.parametrize("what", ["kill", "no room"])
def test_haproxy_serves_on_at_every_step(tmp_path: Path, what: str) -> None:
    swept = SweptRoot(tmp_path / "node", haproxy=True)
    swept.prepare()
    with guarded("haproxy", tmp_path / "h", swept.file) as server:
        (tmp_path / "node.haproxy").write_text(
            json.dumps(
                {
                    "test": server.settings.test,
                    "reload": server.settings.reload,
                    "master": str(server.settings.master),
                }
            )
        )
        swept.servers = [server]
        swept_by(swept.root, what, swept, kills=3, errors=2)
