"""What a node remembers of rollouts: durable, bounded, and of nobody at the cost of others."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from pathlib import Path

import attrs
import pytest

from deploykit.daemons.agent import rollouts
from deploykit.daemons.agent.rollouts import NotedAbort, RolloutMemory, RolloutSender
from deploykit.errors import RolloutMemoryError
from deploykit.names import SiteName
from tests.support import signers
from tests.support.asked import NOW

SHOP, BLOG = SiteName("shop"), SiteName("blog")
ANN, BOB = RolloutSender(key="SHA256:ann", principal="ann"), RolloutSender(key="SHA256:bob", principal="bob")


def abort_by(sender: RolloutSender, *, for_all: bool = False) -> NotedAbort:
    return NotedAbort(key=sender.key, principals=((sender.principal,),), for_all=for_all, by="x", reason="y")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rollouts.json"


def test_the_first_whose_command_is_obeyed_is_the_starter_also_after_a_restart(path: Path) -> None:
    memory = RolloutMemory(path)
    assert memory.get(SHOP, "r").starter is None
    assert memory.obeyed(SHOP, "r", ANN, NOW) is None
    assert memory.obeyed(SHOP, "r", BOB, NOW) is None
    assert memory.obeyed(SHOP, "r", ANN, NOW) is None
    again = RolloutMemory(path)
    assert again.get(SHOP, "r").senders == (ANN, BOB)
    assert again.get(SHOP, "r").starter == ANN
    assert again.get(BLOG, "r").starter is None, "an id means something for its site alone"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_sender_is_known_by_its_key_and_by_its_principal() -> None:
    assert ANN.is_signer(signers.one(fingerprint=ANN.key, principals=(("other",),)))
    assert ANN.is_signer(signers.one(fingerprint="SHA256:new", principals=(("ann", "ops"),)))
    assert not ANN.is_signer(signers.one(fingerprint=BOB.key, principals=(("bob",), ("!ann", "*"))))


def test_an_abort_counts_for_the_commands_of_its_signer_or_where_granted_for_all(path: Path) -> None:
    memory = RolloutMemory(path)
    assert memory.aborted(SHOP, "r", abort_by(BOB), NOW)
    assert memory.obeyed(SHOP, "r", ANN, NOW) is None
    assert memory.obeyed(SHOP, "r", BOB, NOW) == abort_by(BOB)
    assert memory.get(SHOP, "r").senders == (ANN,), "who is stopped is no sender"
    assert memory.aborted(SHOP, "r", abort_by(BOB, for_all=True), NOW)
    assert RolloutMemory(path).obeyed(SHOP, "r", ANN, NOW) == abort_by(BOB, for_all=True)
    assert not memory.aborted(SHOP, "r", abort_by(BOB), NOW), "a later one takes nothing back"
    assert memory.obeyed(SHOP, "r", ANN, NOW) is not None


def test_one_that_counts_for_all_is_not_pushed_out_by_many_that_do_not(path: Path) -> None:
    memory = RolloutMemory(path)
    for number in range(100):
        memory.aborted(SHOP, "r", NotedAbort(key=f"k{number}", principals=(), for_all=False), NOW)
    memory.aborted(SHOP, "r", abort_by(BOB, for_all=True), NOW)
    for number in range(100, 200):
        memory.aborted(SHOP, "r", NotedAbort(key=f"k{number}", principals=(), for_all=False), NOW)
    known = memory.get(SHOP, "r")
    assert len(known.aborts) == rollouts._MOST_OF_ONE
    assert known.abort_for(ANN) == abort_by(BOB, for_all=True)


def test_what_is_known_already_is_not_written_again(path: Path) -> None:
    memory = RolloutMemory(path)
    memory.obeyed(SHOP, "r", ANN, NOW)
    written = path.stat().st_ino
    memory.obeyed(SHOP, "r", ANN, NOW + timedelta(hours=1))
    assert path.stat().st_ino == written
    memory.obeyed(SHOP, "r", ANN, NOW + timedelta(days=2))
    assert path.stat().st_ino != written, "a rollout that goes on is remembered on"


def test_a_rollout_is_forgotten_a_month_after_the_last_that_was_heard_of_it(path: Path) -> None:
    memory = RolloutMemory(path)
    memory.obeyed(SHOP, "old", ANN, NOW)
    memory.aborted(SHOP, "aborted", abort_by(ANN), NOW + timedelta(days=2))
    assert memory.prune(NOW + timedelta(days=29)) == 0
    assert memory.prune(NOW + timedelta(days=31)) == 1
    assert RolloutMemory(path).get(SHOP, "old").starter is None
    assert RolloutMemory(path).get(SHOP, "aborted").aborts


def test_of_too_many_the_oldest_goes_of_the_key_that_has_most(path: Path) -> None:
    memory = RolloutMemory(path, most=10)
    memory.aborted(SHOP, "ann", abort_by(ANN), NOW)
    for number in range(50):
        memory.aborted(SHOP, f"bob-{number}", abort_by(BOB), NOW + timedelta(seconds=number))
    assert memory.get(SHOP, "ann").aborts
    kept = [number for number in range(50) if memory.get(SHOP, f"bob-{number}").aborts]
    assert kept == list(range(41, 50))
    assert len(json.loads(path.read_bytes())["rollouts"]) == 10


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"format":2,"rollouts":[]}',
        b'{"format":1}',
        b'{"format":1,"rollouts":[{"site":"shop"}]}',
        b'{"format":1,"rollouts":[{"site":"shop","rollout":"r","senders":[{"who":1}],"aborts":[],"heard":1}]}',
        b"\xff",
        b"[" * 100_000,
        b'{"format":1,"rollouts":[{"site":"s","rollout":"r","senders":[],"aborts":[],"heard":1%s}]}' % (b"0" * 400),
    ],
)
def test_a_file_that_is_damaged_or_of_another_version_is_refused_with_a_way_out(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(RolloutMemoryError, match=str(path)) as refused:
        RolloutMemory(path)
    assert any(way in str(refused.value) for way in ("move it away", "use the deploykit version"))


def test_where_the_disk_is_full_an_abort_counts_and_a_command_waits(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = RolloutMemory(path)
    with monkeypatch.context() as full:
        full.setattr(os, "rename", _no_space)
        full.setattr(os, "replace", _no_space)
        full.setattr(os, "fsync", _no_space)
        with pytest.raises(RolloutMemoryError, match="No space left"):
            memory.aborted(SHOP, "r", abort_by(ANN), NOW)
        with pytest.raises(RolloutMemoryError):
            memory.obeyed(SHOP, "r2", ANN, NOW)
    assert memory.get(SHOP, "r").aborts == (abort_by(ANN),)
    assert RolloutMemory(path).get(SHOP, "r").aborts == (), "it is not on the disk yet"
    assert not memory.aborted(SHOP, "r", abort_by(ANN), NOW)
    assert RolloutMemory(path).get(SHOP, "r").aborts == (abort_by(ANN),)
    assert attrs.asdict(RolloutMemory(path).get(SHOP, "r2"))["senders"] == (attrs.asdict(ANN),)


def _no_space(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


def test_one_key_in_common_makes_two_messages_of_one_sender() -> None:
    """A copy of a command may have a signature less, and one of its signers may abort it."""
    sender = RolloutSender(key="SHA256:a,SHA256:b", principal="ops")
    assert sender.is_signer(signers.one(fingerprint="SHA256:b", principals=(("else",),)))
    assert not sender.is_signer(signers.one(fingerprint="SHA256:ab", principals=(("else",),)))
    abort = NotedAbort(key="SHA256:b,SHA256:c", principals=(("else",),), for_all=False)
    assert abort.counts_for(sender)
    assert not abort.counts_for(RolloutSender(key="SHA256:d", principal="ops"))
