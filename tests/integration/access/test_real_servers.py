"""A real nginx, Apache and haproxy let in whom the daemon grants access, and not for a moment longer."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import attrs
import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.daemons.access import keeper
from deploykit.names import SiteName
from tests.support.accessworld import PASSWORD, SHOP, AccessWorld
from tests.support.guardedservers import GuardedServer, guarded
from tests.support.wait import wait_until


def lets_in(server: GuardedServer, user: str) -> None:
    """Wait until the server lets a user in, who must give the right password."""
    wait_until(lambda: server.answers(user, PASSWORD, 200), f"{user} is let in")
    assert server.status(user, PASSWORD + "x") == 401
    assert server.status(user, "") == 401


def keeps_out(server: GuardedServer, user: str) -> None:
    """Wait until the server lets a user in no more."""
    wait_until(lambda: server.answers(user, PASSWORD, 401), f"{user} is kept out")


@pytest.mark.parametrize("kind", ["nginx", "apache", "haproxy"])
def test_who_is_granted_access_gets_in_until_it_is_revoked_or_over(
    kind: str, tmp_path: Path, deploykit_broker: EmbeddedBroker
) -> None:
    with guarded(kind, tmp_path / "server") as server:
        mode = server.settings.file.stat().st_mode
        with (
            AccessWorld(tmp_path, deploykit_broker.address, {SHOP: server.settings}) as world,
            world.daemon() as daemon,
        ):
            assert server.status("alice", PASSWORD) == 401
            until = world.clock() + timedelta(hours=2)
            for user in ("alice", "bob"):
                report = world.do(world.grant(user, until=until))
                assert report.outcome == "granted"
                assert report.until == until.replace(microsecond=0)
                lets_in(server, user)
            assert world.do(world.revoke("alice")).outcome == "revoked"
            keeps_out(server, "alice")
            lets_in(server, "bob")
            # No command comes: the timer alone ends it.
            world.clock.ahead = timedelta(hours=2, seconds=1)
            daemon.keeper.wake()
            assert world.reported(lambda report: report.outcome == "expired").user == "bob"
            keeps_out(server, "bob")
            assert server.settings.file.stat().st_mode == mode


def test_a_configuration_that_is_broken_serves_on_with_the_old_file(
    tmp_path: Path, deploykit_broker: EmbeddedBroker
) -> None:
    with (
        guarded("haproxy", tmp_path / "server") as server,
        AccessWorld(tmp_path, deploykit_broker.address, {SHOP: server.settings}) as world,
        world.daemon(),
    ):
        assert world.do(world.grant("alice")).outcome == "granted"
        lets_in(server, "alice")
        before = server.settings.file.read_bytes()
        good = server.config.read_text()
        server.config.write_text(good + "\nnonsense\n")
        report = world.do(world.grant("bob"))
        assert (report.outcome, "ended with 1" in report.detail) == ("failed", True)
        assert server.settings.file.read_bytes() == before
        assert world.do(world.revoke("alice")).outcome == "failed"
        lets_in(server, "alice")
        server.config.write_text(good)
        assert world.do(world.grant("bob")).outcome == "granted"
        lets_in(server, "bob")


def test_a_reload_that_fails_puts_the_old_file_back(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> None:
    with guarded("nginx", tmp_path / "server") as server:
        settings = attrs.evolve(server.settings, reload=("/bin/false",))
        with AccessWorld(tmp_path, deploykit_broker.address, {SHOP: settings}) as world, world.daemon() as daemon:
            report = world.do(world.grant("alice"))
            assert report.outcome == "failed"
            assert "the server's reload failed: /bin/false ended with 1" in report.detail
            assert settings.file.read_bytes() == b""
            keeps_out(server, "alice")
            assert [*(world.root / "state" / "access").glob("*.before")] == []
            assert daemon.keeper.counts == {SHOP: 0}


def test_a_burst_is_one_reload(
    tmp_path: Path, deploykit_broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "_MOST", 20)  # all are there then, however long they take
    log = tmp_path / "reloads"
    script = tmp_path / "reload"
    script.write_text(f"#!/bin/sh\necho x >> {log}\n")
    script.chmod(0o755)
    with guarded("nginx", tmp_path / "server") as server:
        settings = attrs.evolve(server.settings, reload=(str(script),))
        world = AccessWorld(tmp_path, deploykit_broker.address, {SHOP: settings}, gather=60.0)
        with world, world.daemon():
            commands = [world.grant(f"user{number}") for number in range(20)]
            for command in commands:
                world.send(command)
            assert {world.report_on(command).outcome for command in commands} == {"granted"}
            assert log.read_text() == "x\n"
            lets_in(server, "user19")


def test_two_sites_on_one_node_keep_apart(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> None:
    stage = SiteName("stage")
    with guarded("nginx", tmp_path / "shop") as shop, guarded("nginx", tmp_path / "stage") as other:
        sites = {SHOP: shop.settings, stage: other.settings}
        with AccessWorld(tmp_path, deploykit_broker.address, sites) as world, world.daemon():
            assert world.do(world.grant("alice", site=stage)).outcome == "granted"
            lets_in(other, "alice")
            keeps_out(shop, "alice")
