"""Commands on accesses: who is obeyed, what is answered, what is in the audit, and what a restart changes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import attrs
import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.daemons.access.daemon import AccessDaemon, access_lock
from deploykit.daemons.access.statefile import read_state
from deploykit.daemons.service import service as service_module
from deploykit.errors import LockBusy
from deploykit.messages import Message, Notice, new_id
from deploykit.names import NodeName, SiteName
from deploykit.settings import AccessSettings, AccessSiteSettings
from deploykit.trust.signature import sign
from deploykit.wire import Frame, encode
from deploykit.wire.codec import ID_HEADER
from tests.support.accessworld import HASH, SHOP, AccessWorld
from tests.support.wait import wait_until


@pytest.fixture
def world(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> Iterator[AccessWorld]:
    with AccessWorld(tmp_path, deploykit_broker.address) as made:
        yield made


def replay(world: AccessWorld, frame: Frame) -> None:
    """Publish a frame again as an attacker would: a bus drops what comes twice under one transport id."""
    world.heard.clear()
    headers = {**frame.headers, ID_HEADER: f"{frame.headers[ID_HEADER]}/{new_id()}"}
    world.bus.publish(world.settings.topics.access, Frame(headers, frame.body))


def test_what_nobody_trusted_signed_is_refused_and_recorded(world: AccessWorld) -> None:
    with world.daemon():
        report = world.do(world.grant("mallory"), key=None)
        assert report.outcome == "refused"
        assert "without a signature by a key that it trusts" in report.detail
        for key in ("stranger", "node"):  # a node's key, too, may grant nothing
            world.send(world.grant("mallory"), key=key)
        flipped = encode(world.grant("mallory"))
        signed = sign(flipped, world.keys["operator"])
        world.send(world.grant(), key=None, frame=Frame(signed.headers, signed.body.replace(b"mallory", b"mallery")))
        assert world.do(world.grant("alice")).outcome == "granted"  # behind the others
    assert world.users() == ["alice"]
    denied = [record for record in world.records() if record.decision == "denied"]
    assert {record.actor for record in denied} >= {"unverified"}
    assert sum(int(record.details.get("count", "1")) for record in denied) >= 3
    assert "SHA512" not in str(denied)
    assert HASH not in world.settings.audit.path_in(world.settings.state).read_text()


def test_the_grant_of_the_key_decides_and_the_refusal_says_so(world: AccessWorld) -> None:
    with world.daemon():
        report = world.do(world.grant(), key="looker")
        assert report.outcome == "refused"
        assert "may not send AccessGrantRequested" in report.detail
        late = world.grant(expires=world.clock() - timedelta(minutes=5))
        assert "expired" in world.do(late).detail
        far = world.grant(expires=world.clock() + timedelta(days=3))
        assert "expires further ahead" in world.do(far).detail
        weak = world.grant(password_hash=HASH.replace("$6$", "$6$rounds=1000$"))
        assert "1000 rounds" in world.do(weak).detail
        long = world.grant(until=world.clock() + timedelta(days=3000))
        assert "366 days at most" in world.do(long).detail
        past = world.grant(until=world.clock() - timedelta(days=1))
        assert "over before it begins" in world.do(past).detail
    assert world.users() == []
    denied = [record for record in world.records() if record.decision == "denied"]
    assert len(denied) == 6
    assert {record.action for record in denied} == {"access.grant"}
    assert denied[0].details["user"] == "alice"


def test_messages_for_other_nodes_and_sites_are_left_alone(world: AccessWorld) -> None:
    with world.daemon():
        world.send(world.grant("other", audience=(NodeName("web2"),)))
        world.send(world.grant("other", site=SiteName("stage")))
        world.send(Notice(text="hello", source="access/test"))
        assert world.do(world.grant()).outcome == "granted"
    assert [report.user for report in world.reports()] == ["alice"]


def test_an_access_is_granted_extended_and_revoked_once_each(world: AccessWorld) -> None:
    with world.daemon():
        first = world.grant(until=world.clock() + timedelta(days=1))
        granted = world.do(first)
        assert (granted.outcome, granted.site, granted.user) == ("granted", SHOP, "alice")
        line = world.file.read_text()
        later = world.clock() + timedelta(days=9)
        extended = world.do(world.grant(password_hash=None, until=later))
        assert (extended.outcome, extended.until) == ("granted", later.replace(microsecond=0))
        assert world.file.read_text().split(":")[:2] == line.split(":")[:2]
        unknown = world.do(world.grant("bob", password_hash=None))
        assert (unknown.outcome, "no access here that could be extended" in unknown.detail) == ("failed", True)
        assert world.do(world.revoke()).outcome == "revoked"
        assert world.do(world.revoke()).outcome == "revoked"  # nothing is there: that is what was asked for
        late = world.do(world.grant(time=world.clock() - timedelta(seconds=20)))
        assert (late.outcome, "was revoked after" in late.detail) == ("refused", True)
    assert world.users() == []
    allowed = [(record.action, record.details["user"]) for record in world.records() if record.decision == "allowed"]
    assert allowed[:2] == [("access.grant", "alice"), ("access.result", "alice")]


def test_a_replay_is_answered_again_and_not_repeated(world: AccessWorld) -> None:
    with world.daemon():
        frame = world.send(world.grant())
        world.reported(lambda report: report.outcome == "granted")
        assert world.do(world.revoke()).outcome == "revoked"
        replay(world, frame)
        again = world.reported(lambda report: report.outcome == "granted")
        assert again.user == "alice"
        assert world.users() == []
    with world.daemon():  # also after a restart
        replay(world, frame)
        world.reported(lambda report: report.outcome == "granted")
        assert world.users() == []


def test_an_id_that_comes_again_with_another_body_is_a_dead_letter(world: AccessWorld) -> None:
    with world.daemon():
        command = world.grant()
        assert world.do(command).outcome == "granted"
        world.send(attrs.evolve(command, user="mallory"))
        wait_until(lambda: any("another one" in record.reason for record in world.records()), "the record")
    assert world.users() == ["alice"]


def test_somebody_elses_lines_stay_and_are_listed(world: AccessWorld) -> None:
    world.file.write_text("# by hand\nmonitor:$apr1$x$y\njohn doe:{SHA}z")
    with world.daemon() as daemon:
        assert "somebody else's hand" in world.do(world.grant("monitor")).detail
        assert "somebody else's hand" in world.do(world.revoke("monitor")).detail
        assert world.do(world.grant("alice")).outcome == "granted"
    assert world.file.read_text().startswith("# by hand\nmonitor:$apr1$x$y\njohn doe:{SHA}z\nalice:")
    state = read_state(world.settings.state)
    assert state is not None
    assert {user: entry.until is None for user, entry in state.sites[SHOP].users.items()} == {
        "monitor": True,
        "john doe": True,
        "alice": False,
    }
    assert daemon.metrics.series("access_users") == {("shop",): 3.0}


def test_what_came_while_the_daemon_was_down_is_done_and_what_ran_out_has_ended(world: AccessWorld) -> None:
    with world.daemon():
        assert world.do(world.grant("alice", until=world.clock() + timedelta(hours=1))).outcome == "granted"
    world.send(world.grant("bob"))
    world.clock.ahead = timedelta(hours=1, seconds=5)
    with world.daemon(attrs.evolve(world.settings, access=AccessSettings(sites=world.settings.access.sites))):
        assert world.reported(lambda report: report.outcome == "expired").user == "alice"
        # Bob's command was made an hour ago by this clock, and has expired meanwhile.
        assert world.reported(lambda report: report.user == "bob").outcome == "refused"
    assert world.users() == []


def test_a_lost_state_file_costs_no_end(world: AccessWorld) -> None:
    with world.daemon():
        assert world.do(world.grant("alice", until=world.clock() + timedelta(hours=1))).outcome == "granted"
    state = world.settings.state / "access" / "access.json"
    for content in (None, b"{}", b'{"format": 1'):
        if content is None:
            state.unlink()
        else:
            state.write_bytes(content)
        with world.daemon() as daemon:
            assert daemon.keeper.counts == {SHOP: 1}
    state.unlink()
    world.clock.ahead = timedelta(hours=2)
    with world.daemon():
        assert world.users() == []


def test_a_clock_that_was_set_back_brings_no_access_back(world: AccessWorld) -> None:
    with world.daemon() as daemon:
        assert world.do(world.grant("alice", until=world.clock() + timedelta(hours=1))).outcome == "granted"
        world.clock.ahead = timedelta(hours=2)
        daemon.keeper.wake()
        world.reported(lambda report: report.outcome == "expired")
        world.clock.ahead = timedelta()
        daemon.keeper.wake()
        assert world.do(world.grant("bob")).outcome == "granted"
    assert world.users() == ["bob"]


def test_a_line_that_vanished_is_reported(world: AccessWorld) -> None:
    with world.daemon() as daemon:
        assert world.do(world.grant("alice")).outcome == "granted"
        world.file.write_text("")
        daemon.keeper.wake()
        report = world.reported(lambda report: report.outcome == "revoked")
        assert (report.user, report.request) == ("alice", None)
        assert "no line of ours" in report.detail


def test_a_file_that_is_missing_stands_in_the_status_and_in_the_report(world: AccessWorld) -> None:
    world.file.unlink()
    with world.daemon() as daemon:
        assert any("there is no" in problem for problem in daemon.problems)
        report = world.do(world.grant())
        assert (report.outcome, "install -m 640" in report.detail) == ("failed", True)
        world.file.touch(0o640)
        assert world.do(world.grant()).outcome == "granted"
        wait_until(lambda: daemon.problems == (), "the look at the file after the change")


def test_a_second_daemon_on_the_same_files_is_refused(world: AccessWorld) -> None:
    with world.daemon(), pytest.raises(LockBusy, match="another access daemon"), world.daemon():
        raise AssertionError("unreachable")


# -- the original's messages -------------------------------------------------------------------------------------------

LEGACY = b"Site: Example site\nUser: alice\nPassword: abcdefghijkl\n"


def legacy_world(world: AccessWorld, *, legacy: bool) -> AccessWorld:
    site = AccessSiteSettings(file=world.file, label="Example site")
    world.settings = attrs.evolve(world.settings, access=AccessSettings(sites={SHOP: site}, legacy=legacy, gather=0.05))
    return world


def publish_legacy(world: AccessWorld, body: bytes = LEGACY) -> None:
    headers = {"subject": "Allow access to Example site for alice"}
    world.bus.publish(world.settings.topics.access, Frame(headers, body))


def is_warning(message: Message) -> bool:
    return isinstance(message, Notice) and "clear text" in message.text


def test_the_originals_messages_are_refused_by_default(world: AccessWorld, caplog: pytest.LogCaptureFixture) -> None:
    with legacy_world(world, legacy=False).daemon():
        publish_legacy(world)
        report = world.reported(lambda report: report.user == "alice")
        assert (report.site, report.outcome) == (SHOP, "refused")
        assert world.do(world.grant("bob")).outcome == "granted"
    assert f"refused: access to {SHOP} for alice requested: a grant in clear text" in caplog.text
    assert "abcdefghijkl" not in caplog.text
    assert world.users() == ["bob"]
    assert any("clear text" in record.reason for record in world.records() if record.decision == "denied")


def test_the_originals_messages_are_obeyed_where_that_is_switched_on_and_everybody_is_warned(
    world: AccessWorld,
) -> None:
    with legacy_world(world, legacy=True).daemon() as daemon:
        publish_legacy(world)
        world.wait(is_warning)
        report = world.reported(lambda report: report.user == "alice")
        assert (report.site, report.outcome) == (SHOP, "granted")
        assert any("access.legacy is on" in problem for problem in daemon.problems)
        publish_legacy(world, b"Site: Nowhere\nUser: x\nPassword: y\n")
        publish_legacy(world, b"Site: Example site\nUser: a:b\nPassword: y\n")
        publish_legacy(world, b"Site: Example site\nUser: a\nPassword: \n")
        assert world.do(world.grant("bob")).outcome == "granted"
    assert world.users() == ["alice", "bob"]
    line = world.file.read_text().splitlines()[0]
    assert "abcdefghijkl" not in line
    assert line.split(":")[1].startswith(("$2b$10$", "$6$"))
    audit = world.settings.audit.path_in(world.settings.state).read_text()
    assert "abcdefghijkl" not in audit
    assert "unverified, in clear text" in audit


def test_the_end_waits_for_a_test_that_runs(world: AccessWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "STOP_SECONDS", 0.1)
    go, runs, script = world.root / "go", world.root / "runs", world.root / "test"
    script.write_text(f"#!/bin/sh\ntouch {runs}\nwhile [ ! -e {go} ]; do sleep 0.05; done\n")
    script.chmod(0o755)
    site = AccessSiteSettings(file=world.file, test=(str(script),))
    settings = attrs.evolve(world.settings, access=AccessSettings(sites={SHOP: site}, gather=0.0))
    daemon = AccessDaemon(settings, now=world.clock)
    daemon.__enter__()
    ending = threading.Thread(target=daemon.__exit__, args=(None, None, None))
    try:
        assert daemon.wait_connected(60)
        world.send(world.grant())
        wait_until(runs.exists, "the test of the server")
        assert "shop" in daemon.busy
        ending.start()
        ending.join(2)
        assert ending.is_alive(), "the next daemon would take this change for one that was cut off"
        with pytest.raises(LockBusy), access_lock(settings):
            pass
    finally:
        go.touch()
        ending.join(60)
    assert not ending.is_alive()
    assert world.users() == ["alice"]
    assert daemon.busy == ""
