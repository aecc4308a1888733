"""One site's file and its server: what is put back, what is finished, and whose writing is not lost."""

from __future__ import annotations

import fcntl
import os
import struct
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest

from deploykit.daemons.access import filewriter, servercommand, sitefile
from deploykit.daemons.access.accessfile import FileForm, FileUser, form_of
from deploykit.daemons.access.filewriter import FileSeen, read_file, replace_content
from deploykit.daemons.access.servercommand import printable, run_command
from deploykit.daemons.access.sitefile import AccessChange, SiteAccessFile
from deploykit.errors import AccessError
from deploykit.names import SiteName
from deploykit.settings import AccessSiteSettings
from deploykit.settings.access import AccessKind
from tests.support.wait import wait_until

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
HASH = "$6$saltsalt$" + "a" * 86
SHOP = SiteName("shop")
_NOBODY = 0xFFFFFFFF


def grant(user: str = "alice", seconds: float = 0, **changes: Any) -> AccessChange:
    at = NOW + timedelta(seconds=seconds)
    made = AccessChange(kind="grant", user=user, hash=HASH, until=NOW + timedelta(days=1), asked_at=at)
    return attrs.evolve(made, **changes)


def revoke(user: str = "alice", seconds: float = 0) -> AccessChange:
    return AccessChange(kind="revoke", user=user, asked_at=NOW + timedelta(seconds=seconds))


class Server:
    """A server whose test and reload do as a test says."""

    def __init__(self, root: Path, *, commands: bool = True) -> None:
        self.file = root / "users"
        self.file.write_bytes(b"monitor:x\n")
        self.notes = root
        self.ran: list[str] = []
        self.answers: dict[str, str] = {}
        test, reload = (("/test",), ("/reload",)) if commands else ((), ())
        self.settings = AccessSiteSettings(file=self.file, test=test, reload=reload)
        self.site = SiteAccessFile(SHOP, self.settings, root, run=self.run)

    def run(self, words: Sequence[str]) -> str:
        self.ran.append(words[0])
        return self.answers.get(words[0], "")

    def outcomes(self, *changes: AccessChange) -> list[str]:
        return [outcome.outcome for outcome in self.site.apply(changes)]


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return Server(tmp_path)


def test_a_burst_is_one_test_and_one_reload(server: Server) -> None:
    assert server.outcomes(grant("a"), grant("b"), revoke("c")) == ["granted", "granted", "revoked"]
    assert server.ran == ["/test", "/reload"]
    assert server.outcomes(grant("a")) == ["granted"]
    assert server.ran == ["/test", "/reload"], "nothing has changed"


def test_commands_of_one_burst_count_in_the_order_in_which_they_were_asked(server: Server) -> None:
    assert server.outcomes(revoke(seconds=2), grant(seconds=1)) == ["revoked", "failed"]
    assert server.outcomes(grant(seconds=4), revoke(seconds=3)) == ["granted", "failed"]


@pytest.mark.parametrize("broken", ["/test", "/reload"])
def test_what_the_server_does_not_take_is_put_back(server: Server, broken: str) -> None:
    server.answers[broken] = "ended with 1"
    (outcome,) = server.site.apply([grant()])
    assert (outcome.outcome, "ended with 1" in outcome.detail) == ("failed", True)
    assert server.file.read_bytes() == b"monitor:x\n"
    assert [*server.notes.glob("*.before")] == []
    assert ("/reload" in server.ran) is (broken == "/reload")


def test_one_change_that_cannot_be_made_holds_up_no_other(server: Server) -> None:
    assert server.outcomes(grant("monitor"), grant("alice"), grant("bob", hash=None)) == ["failed", "granted", "failed"]


def test_what_somebody_else_writes_meanwhile_is_not_lost(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = []

    def late(path: Path, *rest: Any) -> None:
        tries.append(path)
        if len(tries) == 1:
            path.write_bytes(b"monitor:x\nby-hand:y\n")
        replace_content(path, *rest)

    monkeypatch.setattr(sitefile, "replace_content", late)
    assert server.outcomes(grant()) == ["granted"]
    assert server.file.read_bytes().startswith(b"monitor:x\nby-hand:y\nalice:")
    assert len(tries) == 2


@pytest.mark.parametrize(("answer", "kept"), [("", True), ("ended with 1", False)])
def test_what_a_crash_cut_off_is_finished_or_put_back_by_the_test(
    server: Server, monkeypatch: pytest.MonkeyPatch, answer: str, kept: bool
) -> None:
    def dies(_words: Sequence[str]) -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        SiteAccessFile(SHOP, server.settings, server.notes, run=dies).apply([grant()])
    server.answers["/test"] = answer
    server.site.recover()
    assert (b"alice" in server.file.read_bytes()) is kept
    assert [*server.notes.glob("*.before")] == []


def test_a_note_about_a_file_that_somebody_has_changed_since_is_dropped(server: Server) -> None:
    def dies(_words: Sequence[str]) -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        SiteAccessFile(SHOP, server.settings, server.notes, run=dies).apply([grant()])
    server.file.write_bytes(b"by-hand:z\n")
    server.answers["/test"] = "ended with 1"
    server.site.recover()
    assert server.file.read_bytes() == b"by-hand:z\n"


@pytest.mark.parametrize("what", ["missing", "link", "directory", "fifo", "long"])
def test_what_is_no_plain_file_is_refused_by_name(tmp_path: Path, what: str) -> None:
    server = Server(tmp_path, commands=False)
    server.file.unlink()
    match what:
        case "link":
            (tmp_path / "other").write_bytes(b"")
            server.file.symlink_to(tmp_path / "other")
        case "directory":
            server.file.mkdir()
        case "fifo":
            os.mkfifo(server.file)
        case "long":
            server.file.write_bytes(b"#" * (5 << 20))
    with pytest.raises(AccessError, match=str(server.file)):
        server.site.users()
    assert server.outcomes(grant()) == ["failed"]


def test_mode_and_owner_stay_and_nothing_is_left_beside_the_file(tmp_path: Path) -> None:
    server = Server(tmp_path, commands=False)
    server.file.chmod(0o604)
    before = server.file.stat()
    stray = server.file.with_name(".users.deploykit-new")
    stray.symlink_to(tmp_path / "victim")  # of somebody who may write the directory
    assert server.outcomes(grant()) == ["granted"]
    after = server.file.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert after.st_ino != before.st_ino
    assert {path.name for path in tmp_path.iterdir()} == {"users"}


def test_a_write_without_room_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(filewriter, "write_all", full)
    (outcome,) = server.site.apply([grant()])
    assert (outcome.outcome, "No space left" in outcome.detail) == ("failed", True)
    assert read_file(server.file).content == b"monitor:x\n"
    assert server.ran == []
    assert {path.name for path in tmp_path.iterdir()} == {"users"}


def test_a_directory_that_cannot_be_synced_after_the_rename_leaves_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(tmp_path)
    calls: list[Path] = []

    def fails_once(path: Path) -> None:
        calls.append(path)
        if len(calls) == 1:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(filewriter, "sync_directory", fails_once)
    assert server.outcomes(grant()) == ["failed"]
    assert server.file.read_bytes() == b"monitor:x\n"


# -- commands ---------------------------------------------------------------------------------------------------------


def test_a_command_says_what_went_wrong_and_shows_no_hash(caplog: pytest.LogCaptureFixture) -> None:
    assert run_command(["/bin/true"]) == ""
    script = f"import sys; print('user a password {HASH}'); sys.exit(3)"
    problem = run_command([sys.executable, "-c", script])
    assert problem.startswith(f"{sys.executable} ended with 3 (its output is in the log")
    assert HASH not in caplog.text
    assert "user a password $…" in caplog.text
    assert "cannot run /nowhere: No such file" in run_command(["/nowhere"])


def test_a_command_has_its_time_and_its_children_end_with_it(tmp_path: Path) -> None:
    group = tmp_path / "group"
    script = f"echo $$ > {group}; /bin/sleep 60 & wait"  # a command leads its group
    assert "did not end within 1 s" in run_command(["/bin/sh", "-c", script], seconds=1)

    def is_gone() -> bool:
        try:
            os.killpg(int(group.read_text()), 0)
        except ProcessLookupError:
            return True
        return False

    wait_until(is_gone, "the end of the group")


def test_a_command_sees_nothing_of_our_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LD_PRELOAD_CANARY", "1")
    script = f"import os; open({str(tmp_path / 'env')!r}, 'w').write(' '.join(os.environ))"
    assert run_command([sys.executable, "-c", script]) == ""
    assert "CANARY" not in (tmp_path / "env").read_text()


def test_output_is_one_line() -> None:
    assert printable(b"a\x1b[31mb\nc $2y$10$abc\xff d") == "a [31mb c $… d"


def test_what_another_program_writes_during_the_test_is_not_lost(server: Server) -> None:
    def add(words: Sequence[str]) -> str:
        if not server.ran:
            server.file.write_bytes(server.file.read_bytes() + b"dave:y\n")
        server.ran.append(words[0])
        return "ended with 1"

    site = SiteAccessFile(SHOP, server.settings, server.notes, run=add)
    assert [each.outcome for each in site.apply([grant()])] == ["failed"]
    assert server.file.read_bytes() == b"monitor:x\ndave:y\n"


def test_a_change_that_cannot_be_taken_back_is_reported_and_taken_back_later(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers["/test"] = "ended with 1"
    written: list[bytes] = []

    def full(path: Path, seen: FileSeen, content: bytes) -> None:
        if written:
            raise AccessError(f"cannot write {path}: No space left on device")
        written.append(content)
        replace_content(path, seen, content)

    with monkeypatch.context() as patched:
        patched.setattr(sitefile, "replace_content", full)
        (outcome,) = server.site.apply([grant()])
        assert outcome.outcome == "failed"
        assert "stands in the file until it can be taken back" in outcome.detail
        assert b"alice" in server.file.read_bytes()
    server.site.recover()
    assert server.file.read_bytes() == b"monitor:x\n"


def test_revoking_takes_our_line_out_and_says_who_still_lets_the_user_in(server: Server) -> None:
    assert server.outcomes(grant()) == ["granted"]
    server.file.write_bytes(server.file.read_bytes() + b"alice:{SHA}x\n")
    (outcome,) = server.site.apply([revoke()])
    assert outcome.outcome == "failed"
    assert "somebody else's hand" in outcome.detail
    assert server.file.read_bytes() == b"monitor:x\nalice:{SHA}x\n"


def test_a_second_daemon_waits_for_its_turn(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filewriter, "_TURN", 0.0)
    fd = os.open(server.file.parent, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        (outcome,) = server.site.apply([grant()])
        assert outcome.outcome == "failed"
        assert "locked by another process" in outcome.detail
        assert server.file.read_bytes() == b"monitor:x\n"
    finally:
        os.close(fd)
    assert server.outcomes(grant()) == ["granted"]


def test_the_access_list_that_a_directory_gives_to_new_files_is_not_taken(server: Server) -> None:
    entries = [(1, 7, _NOBODY), (2, 4, 65534), (4, 5, _NOBODY), (16, 5, _NOBODY), (32, 0, _NOBODY)]
    listed = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *each) for each in entries)
    server.file.chmod(0o640)
    try:
        os.setxattr(server.file.parent, "system.posix_acl_default", listed)
    except OSError as error:
        pytest.skip(f"no access lists here: {error.strerror}")
    assert server.outcomes(grant()) == ["granted"]
    assert "system.posix_acl_access" not in os.listxattr(server.file)
    assert server.file.stat().st_mode & 0o777 == 0o640


def test_a_flood_of_output_does_not_fill_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servercommand, "_MOST_OUTPUT", 1 << 20)
    cut: list[int] = []
    truncate = os.ftruncate

    def cut_off(fd: int, size: int) -> None:
        cut.append(size)
        truncate(fd, size)

    monkeypatch.setattr(os, "ftruncate", cut_off)
    assert "did not end within" in run_command(["/usr/bin/yes"], seconds=1.0)
    assert cut


@pytest.mark.parametrize("kind", ["htpasswd", "haproxy"])
def test_a_file_is_read_once_however_many_accesses_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: AccessKind
) -> None:
    settings = AccessSiteSettings(file=tmp_path / "users", kind=kind, userlist="shop" if kind == "haproxy" else "")
    form = form_of(settings)
    head = "userlist shop\n" if kind == "haproxy" else "# users\n"
    lines = [form.line(f"user{number}", HASH, NOW) + "\n" for number in range(50)]
    settings.file.write_text(head + "".join(lines))
    site, read = SiteAccessFile(SHOP, settings, tmp_path), list[bytes]()
    users = type(form).users

    def counted(one: FileForm, content: bytes) -> tuple[FileUser, ...]:
        read.append(content)
        return users(one, content)

    monkeypatch.setattr(type(form), "users", counted)
    over = [AccessChange(kind="expire", user=f"user{number}", asked_at=NOW) for number in range(0, 50, 2)]
    outcomes = site.apply([*over, grant("new"), grant("user2", 1), revoke("user1"), grant("user3")])
    assert {each.outcome for each in outcomes} == {"expired", "granted", "revoked", "failed"}
    assert len(read) <= 3
    left = [each.user for each in site.users()]
    assert left == ["user3", *(f"user{number}" for number in range(5, 50, 2)), "new", "user2"]
    assert settings.file.read_text().count("\n") == len(left) + 1
