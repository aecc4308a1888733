"""An agent's locks without a bus: kept, recorded, and given to who lacks them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import cast

import attrs
import pytest

from deploykit.audit import AuditLog
from deploykit.audit.files import read_records
from deploykit.audit.record import AuditRecord
from deploykit.bus import Ack, Bus, Retry
from deploykit.daemons.agent import lockstore
from deploykit.daemons.agent.lock_audit import LockAudit
from deploykit.daemons.agent.locks import LockKeeper
from deploykit.daemons.agent.lockstore import LockStore
from deploykit.daemons.agent.locksync import LockSync
from deploykit.daemons.agent.locktimes import LockTimes
from deploykit.daemons.service.auditing import AuditWriter
from deploykit.errors import KeyFileError, LockStoreError, PublishRefused
from deploykit.messages import LocksWanted, Message
from deploykit.messages.statement import SignedStatement
from deploykit.messages.topics import TopicMap
from deploykit.names import NodeName, SiteName
from deploykit.testing.fakes import FakeBus, Sent
from deploykit.trust.locks import next_serial
from deploykit.trust.signature import sign
from deploykit.trust.statements import frame_of, statement_of
from deploykit.wire import decode, encode
from tests.support.asked import request
from tests.support.locking import HOUR, NOW, SHOP, Locking
from tests.support.wait import wait_until

WEB1, WEB2 = NodeName("web1"), NodeName("web2")
TOPICS = TopicMap()


class World:
    """The locks of one node, a bus that notes what is published, and a clock."""

    def __init__(self, root: Path, people: Locking) -> None:
        self.root, self.people = root, people
        self.now = NOW
        self.bus = FakeBus()
        self.ending = threading.Event()
        self.changes = 0
        self.audit = AuditLog(root / "audit.log", now=lambda: self.now)
        self.start()

    def start(self) -> None:
        """Begin with what is on the disk, as an agent does."""
        self.trust = self.people.trust()
        writer = AuditWriter(self.audit, "agent/web1", lambda: self.now)
        self.keeper = LockKeeper(
            *([SHOP], self.trust, LockStore(self.root / "locks.json"), LockAudit(writer)),
            ending=self.ending,
            on_change=self._changed,
            now=lambda: self.now,
        )
        self.sync = LockSync(
            *(WEB1, TOPICS, self.people.keys["web1"], self.keeper),
            times=LockTimes(lambda _: 0.0),
            now=lambda: self.now,
        )

    def _changed(self) -> None:
        self.changes += 1

    def hears(self, statement: SignedStatement) -> object:
        return self.sync.handle(self.trust.check(frame_of(statement), self.now))

    def asks(self, by: str, **changes: object) -> None:
        """Another node asks."""
        wanted = LocksWanted(time=self.now, node=WEB2, known={"shop": 0})
        frame = sign(encode(attrs.evolve(wanted, **changes)), self.people.keys[by])  # type: ignore[arg-type]
        self.sync.asked(self.trust.check(frame, self.now))

    def step(self) -> list[Message | None]:
        """Publish what is due, or would be in a moment; return it."""
        self.sync._times._owed = dict.fromkeys(self.sync._times._owed, 0.0)
        self.bus.sent.clear()
        self.sync._step(cast(Bus, self.bus))
        return [decode(sent.frame.headers, sent.frame.body) for sent in self.bus.sent]

    def objection(self, **changes: object) -> str:
        return self.keeper.decide(request(**changes), [self.people.signer("ops")], self.now).objection

    def audited(self) -> list[AuditRecord]:
        records = read_records(self.root / "audit.log") if (self.root / "audit.log").exists() else ()
        return [record for record in records if isinstance(record, AuditRecord)]


@pytest.fixture
def people() -> Locking:
    made = Locking()
    for node in ("web1", "web2", "web3"):
        made.keys[node], made.rights[node] = made.keys["ann"].generate(), ()
    return made


@pytest.fixture
def world(tmp_path: Path, people: Locking) -> Iterator[World]:
    made = World(tmp_path, people)
    yield made
    made.ending.set()


# -- keeping -------------------------------------------------------------------------------------------------------


def test_a_lock_counts_is_kept_recorded_and_shown(world: World, people: Locking) -> None:
    statement = people.lock("ann", 5)
    assert isinstance(world.hears(statement), Ack)
    assert "by ann" in world.objection()
    assert (world.keeper.shown(SHOP), world.changes) == (statement, 1)
    world.start()
    assert "by ann" in world.objection()
    assert (world.root / "locks.json").stat().st_mode & 0o777 == 0o600
    (record,) = world.audited()
    assert (record.action, record.decision, record.target) == ("site.lock", "allowed", "shop")
    assert record.details["serial"] == "5"
    world.hears(statement)
    assert (len(world.audited()), world.changes) == (1, 1), "a copy is no news"


def test_a_lock_that_an_unlock_carries_is_kept_and_recorded(world: World, people: Locking) -> None:
    world.hears(people.unlock("bob", 6, locked=people.lock("ann", 5)))
    world.start()
    assert "by ann" in world.objection()
    carried, unlocked = world.audited()
    assert (carried.action, carried.actor.split()[0], carried.reason) == ("site.lock", "ann", "an unlock carried it")
    assert (unlocked.action, unlocked.actor.split()[0]) == ("site.unlock", "bob")


def test_what_does_not_count_is_recorded_and_not_kept(world: World, people: Locking) -> None:
    assert isinstance(world.hears(people.lock("ops", 5)), Ack)
    assert isinstance(world.hears(people.lock("ann", 5, until=NOW + timedelta(days=31))), Ack)
    assert not world.objection()
    assert [(r.decision, r.action) for r in world.audited()] == [("denied", "site.lock")] * 2
    assert "30 days" in world.audited()[1].reason
    for _ in range(100):
        world.hears(people.lock("ops", 6))
    assert len(world.audited()) == 2, "a key that is denied again and again fills no disk"


def test_a_statement_on_anothers_site_is_left_alone(world: World, people: Locking) -> None:
    world.hears(people.lock("ann", 5, site=SiteName("blog")))
    assert world.keeper.serials == {SHOP: 0}
    assert not world.audited()


def test_while_the_disk_is_full_a_lock_counts_and_is_not_acknowledged(
    world: World, people: Locking, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise LockStoreError("no space")

    monkeypatch.setattr(LockStore, "save", full)
    done: list[object] = []
    thread = threading.Thread(target=lambda: done.append(world.hears(people.lock("ann", 5))), daemon=True)
    thread.start()
    wait_until(world.objection, "the lock")
    assert not done
    world.ending.set()
    thread.join(60)
    assert isinstance(done[0], Retry), "the next agent takes it"


def test_while_the_trusted_files_cannot_be_read_a_statement_comes_again(world: World, people: Locking) -> None:
    stated = world.trust.check(frame_of(people.lock("ann", 5)), NOW)
    people.unreadable = KeyFileError("cannot read")
    assert isinstance(world.sync.handle(stated), Retry)
    people.unreadable = None
    world.sync.handle(stated)
    assert world.objection()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"format":2}',
        b'{"format":1,"connected":null,"sites":[],"statements":[{}]}',
        b'{"format":1,"connected":"2026-01-01T00:00:00","sites":[],"statements":[]}',
        b'{"format":1,"connected":null,"sites":[1],"statements":[]}',
        b"\xff",
        b"[" * 100_000,
    ],
)
def test_a_damaged_store_says_what_to_do(world: World, content: bytes) -> None:
    (world.root / "locks.json").write_bytes(content)
    with pytest.raises(LockStoreError, match=r"move it away|version that wrote it"):
        world.start()


def test_a_statement_in_the_store_counts_only_by_its_signature(world: World, people: Locking) -> None:
    world.hears(people.lock("ann", 5))
    path = world.root / "locks.json"
    data = json.loads(path.read_bytes())
    data["statements"][0]["body"] = people.lock("ann", 6).body
    del data["sha256"]
    path.write_text(json.dumps({"sha256": lockstore._digest(data), **data}))
    world.start()
    assert not world.objection()


@pytest.mark.parametrize("field", ["body", "signature"])
def test_a_bit_that_flipped_in_a_statement_does_not_unlock_a_site_in_silence(
    world: World, people: Locking, field: str
) -> None:
    world.hears(people.lock("ann", 5))
    path = world.root / "locks.json"
    value = json.loads(path.read_bytes())["statements"][0][field]
    path.write_text(path.read_text().replace(value, value[:80] + ("A" if value[80] != "A" else "B") + value[81:]))
    with pytest.raises(LockStoreError, match="move it away"):
        world.start()


# -- clocks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [-HOUR, timedelta(), HOUR - timedelta(seconds=1)])
def test_a_node_whose_clock_is_an_hour_off_obeys_a_lock_and_its_end(
    world: World, people: Locking, wrong: timedelta
) -> None:
    world.now = NOW + wrong
    world.hears(people.lock("ann", 5))
    assert world.objection()
    world.hears(people.unlock("ann", 6, time=NOW + timedelta(minutes=10)))
    assert not world.objection()
    world.hears(people.lock("ann", 5))
    assert not world.objection(), "a replay"


@pytest.mark.parametrize("wrong", [-HOUR, HOUR])
def test_an_operator_whose_clock_is_an_hour_off_locks_and_others_unlock(
    world: World, people: Locking, wrong: timedelta
) -> None:
    theirs = NOW + wrong
    serial = next_serial(None, theirs)
    world.hears(people.lock("ann", serial, time=theirs, until=theirs + 3 * HOUR))
    assert world.objection()
    world.hears(people.unlock("chief", next_serial(world.keeper.serials[SHOP], NOW)))
    assert not world.objection()


# -- publishing again ----------------------------------------------------------------------------------------------


def test_whoever_shows_an_older_statement_hears_the_newer_one(world: World, people: Locking) -> None:
    old, new = people.lock("ann", 5), people.unlock("ann", 6)
    world.hears(old)
    world.hears(new)
    assert world.step() == []
    world.hears(old)
    (again,) = world.step()
    assert again is not None
    assert again.TYPE == "deploykit.site.unlocked.v1"
    assert world.bus.sent[0].destination == TOPICS.deploy
    assert statement_of(world.bus.sent[0].frame) == new
    assert world.step() == []


def test_who_asks_gets_what_it_lacks_and_only_that(world: World, people: Locking) -> None:
    world.hears(people.lock("ann", 5))
    world.asks("web2", known={"shop": 5, "blog": 0})
    assert world.step() == []
    world.sync._askers = type(world.sync._askers)(0.0)
    world.asks("web2", known={"shop": 4})
    assert [message.TYPE for message in world.step() if message is not None] == ["deploykit.site.locked.v1"]


def test_a_question_is_answered_only_to_a_node_in_its_own_name_once_and_not_when_it_is_old(
    world: World, people: Locking
) -> None:
    world.hears(people.lock("ann", 5))
    owed = world.sync._times._owed
    for by, changes in (
        ("ann", {}),
        ("web1", {}),
        ("web2", {"time": NOW - timedelta(hours=3)}),
        ("web2", {"time": NOW + timedelta(hours=3)}),
        ("web2", {"known": {}}),
        ("web2", {"known": {"blog": 0}}),
    ):
        world.sync._askers = type(world.sync._askers)(1.0)
        world.asks(by, **changes)
        assert not owed, (by, changes)
    world.sync._askers = type(world.sync._askers)(1.0)
    world.asks("web2", id="one")
    assert owed
    owed.clear()
    world.asks("web2", id="two")
    assert not owed, "one a second"
    world.sync._askers = type(world.sync._askers)(1.0)
    world.asks("web2", id="one")
    assert not owed, "a copy"


def test_the_answer_of_another_is_enough(world: World, people: Locking) -> None:
    statement = people.lock("ann", 5)
    world.hears(statement)
    world.asks("web2")
    assert world.sync._times._owed
    world.hears(statement)
    assert not world.sync._times._owed


def test_a_node_that_may_not_publish_is_silent(world: World, people: Locking) -> None:
    def refuse(sent: Sent) -> object:
        return PublishRefused("access refused")

    world.bus.respond(refuse)
    world.hears(people.lock("ann", 5))
    world.hears(people.lock("ann", 6))
    world.hears(people.lock("ann", 5))
    assert len(world.step()) == 1
    world.sync._times.owe(SHOP, float("-inf"))
    world.sync._times._heard.clear()
    assert world.step() == []


# -- asking --------------------------------------------------------------------------------------------------------


def questions(world: World) -> list[LocksWanted]:
    return [message for message in world.step() if isinstance(message, LocksWanted)]


def test_a_new_node_asks_and_one_that_was_away_for_a_while_does_not(world: World, people: Locking) -> None:
    world.sync.on_connected()
    (asked,) = questions(world)
    assert (asked.node, dict(asked.known)) == (WEB1, {"shop": 0})
    assert world.bus.sent[0].destination == TOPICS.node
    assert world.trust.check(world.bus.sent[0].frame, NOW).signer.is_principal("web1")
    world.start()
    world.now += timedelta(minutes=59)
    world.sync.on_connected()
    assert not questions(world)


@pytest.mark.parametrize("away", [timedelta(hours=1, seconds=1), timedelta(days=40), timedelta(hours=-2)])
def test_a_node_that_was_away_for_more_than_an_hour_asks(world: World, people: Locking, away: timedelta) -> None:
    world.hears(people.lock("ann", 5))
    world.sync.on_connected()
    assert questions(world)
    world.start()
    world.now += away
    world.sync.on_connected()
    (asked,) = questions(world)
    assert dict(asked.known) == {"shop": 5}


def test_a_node_with_a_new_site_asks(world: World, people: Locking) -> None:
    world.sync.on_connected()
    assert questions(world)
    world.start()
    world.keeper.sites = frozenset({SHOP, SiteName("blog")})
    world.sync.on_connected()
    (asked,) = questions(world)
    assert dict(asked.known) == {"shop": 0, "blog": 0}


def test_a_node_whose_question_was_never_sent_asks_at_its_next_start(world: World) -> None:
    world.sync.on_connected()
    world.start()
    world.sync.on_connected()
    assert questions(world)


def test_who_hears_two_others_ask_does_not_ask(world: World) -> None:
    world.sync.on_connected()
    world.asks("web2")
    world.asks("web3", node=NodeName("web3"))
    assert not questions(world)
    world.start()
    world.sync.on_connected()
    assert not questions(world)


def test_a_stolen_key_of_a_node_keeps_no_new_node_from_asking(world: World, people: Locking) -> None:
    (other := world.root / "other").mkdir()
    knows = World(other, people)
    knows.hears(people.lock("ann", 5))
    knows.asks("web2", known={"shop": 5})  # a second earlier, while nobody else listens
    world.sync.on_connected()
    for node in (world, knows):
        node.asks("web2", known={"shop": 0})
    assert knows.step() == [], "it was asked by that key a moment ago"
    assert questions(world), "nobody answers that, so the new node must ask itself"


def test_neither_its_own_question_nor_a_copy_of_an_old_one_is_a_reason_to_be_silent(world: World) -> None:
    """A copy of an old question spares nobody a question: nobody answers it again."""
    world.sync.on_connected()
    world.asks("web1", node=WEB1)
    world.asks("web2", time=NOW - timedelta(seconds=6))
    world.asks("web3", node=NodeName("web3"), time=NOW - timedelta(seconds=6))
    assert questions(world)


def test_the_loop_asks_when_there_is_a_connection_and_ends(world: World) -> None:
    stop = threading.Event()
    world.bus.disconnect()
    thread = threading.Thread(target=lambda: world.sync.run(cast(Bus, world.bus), stop), daemon=True)
    thread.start()
    assert not world.bus.sent
    world.bus.connect()
    world.sync.on_connected()
    world.bus.wait_sent(1, 60)
    stop.set()
    world.sync.wake()
    thread.join(60)
    assert not thread.is_alive()
