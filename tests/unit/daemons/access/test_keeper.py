"""The keeper's timer: what is over ends, or stands in the status until it can; what waits at the end is handed back."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from deploykit.daemons.access import keeper as keeper_module
from deploykit.daemons.access import sitefile
from deploykit.daemons.access.accessfile import HtpasswdForm, with_user
from deploykit.daemons.access.filewriter import FileSeen, replace_content
from deploykit.daemons.access.keeper import AccessKeeper, EndedAccess
from deploykit.daemons.access.sitefile import AccessChange, SiteAccessFile
from deploykit.daemons.access.statefile import read_state
from deploykit.errors import AccessError
from deploykit.names import SiteName
from deploykit.settings import AccessSiteSettings
from tests.support.wait import wait_until

SHOP = SiteName("shop")
NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
HASH = "$6$saltsalt$" + "a" * 86


class Kept:
    """A keeper of one site, whose server and clock a test controls."""

    def __init__(self, root: Path) -> None:
        self.file = root / "users"
        self.file.write_bytes(with_user(b"", HtpasswdForm(), "alice", HASH, NOW + timedelta(hours=1)))
        self.root, self.now, self.broken = root, NOW, ""
        self.ended: list[EndedAccess] = []
        (root / "access").mkdir()
        settings = AccessSiteSettings(file=self.file, reload=("/reload",))
        self.keeper = AccessKeeper(
            {SHOP: SiteAccessFile(SHOP, settings, root / "access", run=self.run)},
            root,
            gather=0.0,
            on_ended=self.ended.extend,
            now=lambda: self.now,
        )
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.keeper.run, args=(self.stop,))

    def run(self, _words: Sequence[str]) -> str:
        return self.broken

    def __enter__(self) -> Kept:
        self.keeper.prepare()
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.keeper.wake()
        self.thread.join(30)
        assert not self.thread.is_alive()


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    with Kept(tmp_path) as made:
        yield made


def revoke() -> AccessChange:
    return AccessChange(kind="revoke", user="alice", asked_at=NOW)


def test_what_cannot_be_ended_stands_in_the_status_until_it_can(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper_module, "_RETRY_EVERY", 0.0)
    kept.broken, kept.now = "ended with 1", NOW + timedelta(hours=2)
    kept.keeper.wake()
    wait_until(lambda: bool(kept.keeper.problems), "the problem")
    assert "1 accesses are over and cannot be ended" in kept.keeper.problems[0]
    assert b"alice" in kept.file.read_bytes()
    assert kept.ended == []
    kept.broken = ""
    kept.keeper.wake()
    wait_until(lambda: not kept.keeper.problems, "no problem")
    assert [each.outcome for each in kept.ended] == ["expired"]
    assert kept.file.read_bytes() == b""


def test_a_failure_is_not_tried_again_in_every_round(kept: Kept) -> None:
    kept.broken, kept.now = "ended with 1", NOW + timedelta(hours=2)
    for _ in range(3):
        kept.keeper.wake()
    wait_until(lambda: bool(kept.keeper.problems), "the problem")
    kept.broken = ""
    kept.keeper.submit(SHOP, AccessChange(kind="revoke", user="nobody", asked_at=NOW)).result(20)
    assert kept.keeper.problems
    assert b"alice" in kept.file.read_bytes()


def test_a_command_ends_what_the_timer_could_not(kept: Kept) -> None:
    assert kept.keeper.submit(SHOP, revoke()).result(20).outcome == "revoked"
    assert kept.keeper.revoked_at(SHOP, "alice") == NOW
    assert kept.ended == []
    state = read_state(kept.root)
    assert state is not None
    assert dict(state.sites[SHOP].users) == {}


def test_what_comes_after_the_end_is_handed_back(tmp_path: Path) -> None:
    with Kept(tmp_path) as kept:
        future = kept.keeper.submit(SHOP, revoke())
    assert future.result(0).outcome == "revoked"
    with pytest.raises(AccessError, match="ends"):
        kept.keeper.submit(SHOP, revoke()).result(0)


def test_a_state_file_without_room_is_written_later(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(keeper_module, "write_state", full)
        assert kept.keeper.submit(SHOP, revoke()).result(20).outcome == "revoked"
        wait_until(lambda: any("cannot be written" in each for each in kept.keeper.problems), "the problem")
    kept.keeper.wake()
    wait_until(lambda: kept.keeper.problems == (), "no problem")
    state = read_state(kept.root)
    assert state is not None
    assert dict(state.sites[SHOP].users) == {}


def test_a_file_that_cannot_be_read_is_not_looked_at_all_the_time(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    content = kept.file.read_bytes()
    kept.file.unlink()
    kept.now = NOW + timedelta(hours=2)
    kept.keeper.wake()
    wait_until(lambda: bool(kept.keeper.problems), "the problem", 20)
    assert kept.keeper._pause() > 1.0, "what is over there cannot be ended"
    kept.file.write_bytes(content)
    kept.keeper.wake()
    wait_until(lambda: kept.file.read_bytes() == b"", "the end", 20)


def test_a_state_file_of_a_newer_deploykit_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    path = tmp_path / "made" / "access" / "access.json"
    kept = Kept(tmp_path / "made")
    path.write_text('{"format": 2, "sites": {}}')
    with kept:
        assert kept.keeper.submit(SHOP, revoke()).result(20).outcome == "revoked"
        assert any("format 2" in each for each in kept.keeper.problems)
    assert path.read_text() == '{"format": 2, "sites": {}}'


def test_what_could_not_be_taken_back_is_taken_back_by_the_timer(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    full = [True]

    def write(path: Path, seen: FileSeen, content: bytes) -> None:
        if full[0] and b"bob" not in content:
            raise AccessError("no space left")
        replace_content(path, seen, content)

    monkeypatch.setattr(sitefile, "replace_content", write)
    kept.broken = "ended with 1"
    change = AccessChange(kind="grant", user="bob", hash=HASH, until=NOW + timedelta(hours=1), asked_at=NOW)
    assert kept.keeper.submit(SHOP, change).result(20).outcome == "failed"
    wait_until(lambda: bool(kept.keeper.problems), "the problem", 20)
    assert b"bob" in kept.file.read_bytes()
    full[0] = False
    kept.keeper.wake()
    wait_until(lambda: b"bob" not in kept.file.read_bytes(), "the old content", 20)
