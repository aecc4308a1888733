"""A real haproxy and its master: `granted` is said once a new worker serves the new file, else the old one is back."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
import pytest

from deploykit.config.crosschecks import warnings
from deploykit.daemons.access import haproxymaster
from deploykit.daemons.access.haproxymaster import HaproxyMaster, MasterLook
from deploykit.daemons.access.sitefile import AccessChange, ChangeOutcome, SiteAccessFile
from deploykit.operations.filecheck import file_problems
from deploykit.settings import AccessSettings, AccessSiteSettings, Settings
from tests.support.accessworld import HASH, NODE, PASSWORD, SHOP
from tests.support.guardedservers import GuardedServer, guarded
from tests.support.wait import wait_until


@pytest.fixture(scope="module")
def haproxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedServer]:
    with guarded("haproxy", tmp_path_factory.mktemp("h") / "s") as server:
        yield server


def master_of(server: GuardedServer) -> HaproxyMaster:
    assert server.settings.master is not None
    return HaproxyMaster(server.settings.master)


def look(server: GuardedServer) -> MasterLook:
    return master_of(server).ready()


def site_of(server: GuardedServer, notes: Path, settings: AccessSiteSettings | None = None) -> SiteAccessFile:
    return SiteAccessFile(SHOP, settings or server.settings, notes)


def grant(user: str) -> AccessChange:
    now = datetime.now(UTC)
    return AccessChange(kind="grant", user=user, hash=HASH, until=now + timedelta(days=1), asked_at=now)


def revoke(user: str) -> AccessChange:
    return AccessChange(kind="revoke", user=user, asked_at=datetime.now(UTC))


def one(site: SiteAccessFile, change: AccessChange) -> ChangeOutcome:
    (outcome,) = site.apply([change])
    return outcome


@contextmanager
def a_taken_address(server: GuardedServer) -> Iterator[None]:
    """Have haproxy's configuration name an address that this process uses: `haproxy -c` does not notice."""
    good = server.config.read_text()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server.config.write_text(f"{good}frontend taken\n\tbind 127.0.0.1:{taken.getsockname()[1]}\n")
        try:
            yield
        finally:
            server.config.write_text(good)


@pytest.mark.parametrize("by", ["a command", "the master's socket"])
def test_what_is_reported_is_served_in_the_same_instant(haproxy: GuardedServer, tmp_path: Path, by: str) -> None:
    settings = haproxy.settings if by == "a command" else attrs.evolve(haproxy.settings, reload=())
    site = site_of(haproxy, tmp_path, settings)
    assert one(site, grant("alice")).outcome == "granted"
    assert haproxy.status("alice", PASSWORD) == 200  # asked once: nothing is waited for
    assert haproxy.status("alice", PASSWORD + "x") == 401
    assert one(site, revoke("alice")).outcome == "revoked"
    assert haproxy.status("alice", PASSWORD) == 401


def test_a_burst_is_one_reload(haproxy: GuardedServer, tmp_path: Path) -> None:
    site, before = site_of(haproxy, tmp_path), look(haproxy)
    outcomes = site.apply([grant(f"user{number}") for number in range(30)])
    assert {each.outcome for each in outcomes} == {"granted"}
    assert look(haproxy).reloads == before.reloads + 1
    assert haproxy.status("user29", PASSWORD) == 200


def test_a_reload_that_is_accepted_and_not_carried_out_has_failed(haproxy: GuardedServer, tmp_path: Path) -> None:
    site = site_of(haproxy, tmp_path)
    assert one(site, grant("kept")).outcome == "granted"
    before = haproxy.settings.file.read_bytes()
    with a_taken_address(haproxy):
        for outcome in site.apply([grant("late"), revoke("kept")]):
            assert outcome.outcome == "failed"
            assert "its old process serves on with the old users" in outcome.detail
            assert "an address that is taken" in outcome.detail
        assert haproxy.settings.file.read_bytes() == before
        assert [*tmp_path.glob("*.before")] == []
        assert haproxy.status("kept", PASSWORD) == 200
        assert haproxy.status("late", PASSWORD) == 401
    assert [each.outcome for each in site.apply([grant("late"), revoke("kept")])] == ["granted", "revoked"]
    assert haproxy.status("late", PASSWORD) == 200
    assert haproxy.status("kept", PASSWORD) == 401


def test_a_worker_that_dies_after_its_start_has_served_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(haproxymaster, "_GONE", 1.0)
    with guarded("haproxy", tmp_path / "s") as server:
        before, good = server.settings.file.read_bytes(), server.config.read_text()
        # The new worker can do no chroot there: the test of the configuration passes, and the master says "success".
        server.config.write_text(good.replace("global\n", f"global\n\tchroot {tmp_path}/nowhere\n"))
        assert server.settings.master is not None
        master = HaproxyMaster(server.settings.master, seconds=3.0)
        outcome = one(SiteAccessFile(SHOP, server.settings, tmp_path, master=master), grant("alice"))
        assert outcome.outcome == "failed"
        assert "haproxy has ended during the reload" in outcome.detail
        assert server.settings.file.read_bytes() == before


def test_without_a_master_nothing_is_changed(tmp_path: Path) -> None:
    with guarded("haproxy", tmp_path / "s") as server:
        assert server.settings.master is not None
        master = HaproxyMaster(server.settings.master, seconds=0.3)
        site = SiteAccessFile(SHOP, server.settings, tmp_path, master=master)
        before = server.settings.file.stat()
        os.kill(server.pid, signal.SIGKILL)
        wait_until(lambda: Path(f"/proc/{server.pid}/stat").read_text().split()[2] == "Z", "its end")
        for worker in children_of(server):
            os.kill(worker, signal.SIGKILL)
        outcome = one(site, grant("alice"))
        assert outcome.outcome == "failed"
        assert f"haproxy's master at {server.settings.master}: it cannot be asked" in outcome.detail
        assert "start haproxy with -W -S" in outcome.detail
        after = server.settings.file.stat()
        assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def children_of(server: GuardedServer) -> list[int]:
    """The workers that a killed master left behind: they are known by their configuration's name."""
    done = subprocess.run(["/usr/bin/pgrep", "-f", str(server.config)], capture_output=True, text=True, check=False)
    return [int(pid) for pid in done.stdout.split() if int(pid) != server.pid]


def test_config_check_asks_the_master_and_warns_where_there_is_none(haproxy: GuardedServer, tmp_path: Path) -> None:
    def settings(site: AccessSiteSettings) -> Settings:
        return Settings(node=NODE, access=AccessSettings(sites={SHOP: site}))

    def about(lines: tuple[str, ...] | list[str]) -> list[str]:
        return [line for line in lines if line.startswith("access.sites.shop.master")]

    assert about(file_problems(settings(haproxy.settings))) == []
    gone = attrs.evolve(haproxy.settings, master=tmp_path / "none.sock")
    assert len(about(file_problems(settings(gone)))) == 1
    assert about(warnings(settings(haproxy.settings))) == []
    (line,) = about(warnings(settings(attrs.evolve(haproxy.settings, master=None))))
    assert "-S /run/haproxy-master.sock" in line
