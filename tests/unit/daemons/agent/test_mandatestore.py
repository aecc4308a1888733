"""What a node keeps of mandates: durable, bounded, and nothing that is lost is missed for long."""

from __future__ import annotations

import base64
import json
import os
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest

from deploykit.daemons.agent import mandatestore
from deploykit.daemons.agent.mandatestore import KeptMandate, MandateStore, to_remove
from deploykit.messages import RolloutApproved
from deploykit.names import NodeName, SiteName
from deploykit.system.durable import replace_file
from deploykit.wire import encode
from tests.support.wait import wait_until

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def kept(rollout: str, *keys: str, ends: datetime = NOW + HOUR, came: datetime = NOW, nodes: int = 1) -> KeptMandate:
    approved = RolloutApproved(
        id=rollout,
        time=NOW,
        site=SiteName("shop"),
        rollout=rollout,
        nodes=tuple(NodeName(f"web{n}") for n in range(nodes)),
        allow_rollback=True,
        not_before=NOW,
        not_after=ends,
    )
    signatures = {key: by(key) for key in keys or ("ann",)}
    return KeptMandate.of(approved, encode(approved).body, signatures, came, counting=signatures)


def by(key: str) -> str:
    """What stands for the signature of a key."""
    return base64.b64encode(key.encode()).decode()


def store(path: Path, *needed: str, **more: Any) -> MandateStore:
    return MandateStore(path / "mandates", lambda each: each.rollout in needed, **more)


def files(path: Path) -> list[str]:
    return sorted(file.name for file in (path / "mandates").iterdir())


def rollouts(path: Path) -> list[str]:
    """The rollouts whose mandates a new store finds."""
    return sorted(each.rollout for each in store(path)._kept.values())


def test_a_mandate_is_there_after_a_restart_with_its_signatures_and_its_body(tmp_path: Path) -> None:
    mandate = kept("r1", "ann", "bob")
    assert store(tmp_path).keep(mandate, NOW)
    found = store(tmp_path).find(mandate.digest)
    assert found is not None
    assert (found.kept.signatures, found.body) == (mandate.signatures, mandate.body)
    assert (found.message.rollout, found.kept.ends) == ("r1", (NOW + HOUR).timestamp())
    (file,) = (tmp_path / "mandates").iterdir()
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_an_unknown_mandate_is_not_found_and_none_is_made(tmp_path: Path) -> None:
    assert store(tmp_path).find("0" * 64) is None
    assert not (tmp_path / "mandates").exists()


def test_keeping_the_same_again_is_no_news_and_writes_nothing(tmp_path: Path) -> None:
    known = store(tmp_path)
    assert known.keep(kept("r1"), NOW)
    (file,) = (tmp_path / "mandates").iterdir()
    before = file.stat().st_ino
    assert not known.keep(kept("r1", came=NOW + HOUR / 2), NOW)
    assert file.stat().st_ino == before
    assert known.keep(kept("r1", "ann", "bob", came=NOW + HOUR / 2), NOW), "one signature more"
    assert json.loads(file.read_bytes().partition(b"\n")[0])["arrived"] == NOW.timestamp()


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw[:-1],
        lambda raw: raw.replace(b"shop", b"blog"),
        lambda raw: raw.partition(b"\n")[0],
        lambda _: b"",
        lambda _: b"[" * 70_000,
        lambda raw: raw.replace(b'"format":1', b'"format":2'),
        lambda raw: raw.replace(b'"digest":"', b'"digest":"../../'),
        lambda raw: raw.replace(b'{"ann":"', b'{"ann":"*'),
        lambda raw: raw.replace(b'"size":', b'"size":1e999,"size_was":'),
        lambda raw: raw.replace(b'"ends":', b'"ends":NaN,"ends_was":'),
    ],
)
def test_a_damaged_file_is_removed_and_its_mandate_is_not_here(tmp_path: Path, damage: Any) -> None:
    mandate = kept("r1")
    store(tmp_path).keep(mandate, NOW)
    (file,) = (tmp_path / "mandates").iterdir()
    file.write_bytes(damage(file.read_bytes()))
    again = store(tmp_path)
    assert again.find(mandate.digest) is None
    assert files(tmp_path) == []
    assert again.keep(mandate, NOW)
    assert again.find(mandate.digest) is not None


def test_what_a_crash_left_half_written_is_removed(tmp_path: Path) -> None:
    store(tmp_path).keep(kept("r1"), NOW)
    (tmp_path / "mandates" / "x.mandate.new").write_bytes(b"{")
    assert rollouts(tmp_path) == ["r1"]
    assert len(files(tmp_path)) == 1


def test_a_directory_that_cannot_be_read_stops_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "mandates").write_text("a file")
    known = store(tmp_path)
    mandate = kept("r1")
    assert known.keep(mandate, NOW)
    assert known.find(mandate.digest) is not None, "in memory"
    assert "mandates are asked for again" in caplog.text
    assert "kept in memory alone" in caplog.text


def test_on_a_full_disk_a_mandate_counts_until_the_agent_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    full = True

    def write(path: Path, raw: bytes, *, mode: int) -> None:
        if full:
            raise OSError(28, os.strerror(28))
        replace_file(path, raw, mode=mode)

    monkeypatch.setattr(mandatestore, "replace_file", write)
    known, mandate = store(tmp_path), kept("r1")
    assert known.keep(mandate, NOW)
    assert known.find(mandate.digest) is not None
    assert "No space left on device" in caplog.text
    assert rollouts(tmp_path) == []
    full = False
    assert known.keep(kept("r1", "ann", "bob"), NOW), "it comes again, and there is room"
    assert rollouts(tmp_path) == ["r1"]


def test_a_signature_more_that_finds_no_room_takes_nothing_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, mandate = store(tmp_path), kept("r1", "ann")
    known.keep(mandate, NOW)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(mandatestore, "replace_file", full)
    known.keep(kept("r1", "ann", "bob"), NOW)
    found = known.find(mandate.digest)
    assert found is not None
    assert set(found.kept.signatures) == {"ann", "bob"}
    assert rollouts(tmp_path) == ["r1"], "the disk has what it had"


def test_what_ended_goes_first_the_oldest_end_before_the_others(tmp_path: Path) -> None:
    known = store(tmp_path, "r1", most=3)
    for name, ends in (("r1", NOW - 2 * HOUR), ("r2", NOW - 3 * HOUR), ("r3", NOW + HOUR)):
        known.keep(kept(name, ends=ends), NOW - 4 * HOUR)
    known.keep(kept("r4"), NOW)
    assert rollouts(tmp_path) == ["r1", "r3", "r4"]
    known.keep(kept("r5"), NOW)
    assert rollouts(tmp_path) == ["r3", "r4", "r5"], "one that ended is needed no more"


def test_who_floods_loses_their_own_and_never_one_that_a_running_rollout_needs(tmp_path: Path) -> None:
    known = store(tmp_path, "e0", most=4)
    known.keep(kept("r1", "ann", "bob", came=NOW - HOUR), NOW)
    for n in range(10):
        known.keep(kept(f"e{n}", "eve", came=NOW + n * timedelta(seconds=1)), NOW)
    assert rollouts(tmp_path) == ["e0", "e8", "e9", "r1"]


def test_mandates_in_memory_of_one_key_push_out_none_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(mandatestore, "replace_file", full)
    known, mandate = store(tmp_path), kept("r1", "ann", "bob")
    known.keep(mandate, NOW)
    for n in range(100):
        known.hold(attrs.evolve(kept(f"e{n}", "eve"), counting=()))
    assert known.find(mandate.digest) is not None
    assert len(known._held) == 8


def test_a_mandate_with_the_longest_signatures_there_are_is_there_after_a_restart(tmp_path: Path) -> None:
    mandate = attrs.evolve(kept("r1"), signatures={f"key {n}": by("x" * 4095) for n in range(16)})
    store(tmp_path).keep(mandate, NOW)
    assert rollouts(tmp_path) == ["r1"]


def test_who_floods_and_adds_a_signature_to_those_of_others_loses_their_own(tmp_path: Path) -> None:
    known = store(tmp_path, most=3)
    known.keep(kept("r1", "ann", "bob", "cid", came=NOW - HOUR), NOW)
    for n in range(10):
        known.keep(kept(f"c{n}", "cid", came=NOW + n * timedelta(seconds=1)), NOW)
    assert rollouts(tmp_path) == ["c8", "c9", "r1"]


def test_where_all_are_needed_a_new_one_is_held_in_memory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    known = store(tmp_path, "r1", "r2", most=2)
    for name in ("r1", "r2", "r3"):
        assert known.keep(kept(name), NOW)
    assert rollouts(tmp_path) == ["r1", "r2"]
    assert known.find(kept("r3").digest) is not None
    assert "mandates are in use" in caplog.text


def test_bytes_are_bounded_too(tmp_path: Path) -> None:
    large = kept("r0", nodes=1000)
    known = store(tmp_path, most_bytes=2 * large.size + 100)
    for n in range(5):
        known.keep(kept(f"r{n}", nodes=1000, came=NOW + n * timedelta(seconds=1)), NOW)
    assert rollouts(tmp_path) == ["r3", "r4"]
    assert to_remove([], large, NOW.timestamp(), lambda _: False, most_bytes=10) is None, "no room for it alone"


def test_a_copy_of_what_is_known_is_known_and_one_with_another_signature_is_not(tmp_path: Path) -> None:
    known, mandate = store(tmp_path), kept("r1", "ann", "bob")
    known.keep(mandate, NOW)
    assert known.knows(mandate.digest, [by("ann")])
    assert known.knows(mandate.digest, [by("bob"), by("ann")])
    assert not known.knows(mandate.digest, [by("ann"), by("cid")])
    assert not known.knows(kept("r2").digest, [by("ann")])


def test_what_does_not_count_is_held_in_memory_a_few(tmp_path: Path) -> None:
    known = store(tmp_path)
    for n in range(20):
        assert known.hold(kept(f"r{n}", "eve"))
    assert not known.hold(kept("r19", "eve"))
    found = [n for n in range(20) if known.find(kept(f"r{n}").digest) is not None]
    assert found == list(range(12, 20))
    assert rollouts(tmp_path) == []
    known.keep(kept("r19", "eve", "ann"), NOW)
    assert not known.hold(kept("r19", "eve")), "what counts stays"
    assert rollouts(tmp_path) == ["r19"]


def test_what_ended_a_day_ago_is_forgotten(tmp_path: Path) -> None:
    known = store(tmp_path)
    known.keep(kept("r1"), NOW)
    known.hold(kept("r2"))
    assert known.prune(NOW + 25 * HOUR) == 0
    assert known.find(kept("r1").digest) is not None, "a late command is answered why"
    assert known.prune(NOW + 26 * HOUR) == 2
    assert (known.find(kept("r1").digest), files(tmp_path)) == (None, [])


def test_who_waits_for_a_mandate_goes_on_when_it_comes(tmp_path: Path) -> None:
    known, mandate = store(tmp_path), kept("r1")
    found: list[object] = []
    worker = threading.Thread(daemon=True, target=lambda: found.append(known.find(mandate.digest, wait=600)))
    worker.start()
    wait_until(lambda: getattr(known._changed, "_waiters"), "who waits")  # noqa: B009 -- not in its type
    known.keep(mandate, NOW)
    worker.join(60)
    assert found
    assert found[0] is not None
    assert known.find(kept("r2").digest, wait=0.01) is None


def test_only_a_few_mandates_are_kept_decoded(tmp_path: Path) -> None:
    known = store(tmp_path)
    for n in range(20):
        mandate = kept(f"r{n}")
        known.keep(mandate, NOW)
        assert known.find(mandate.digest) is not None
    assert len(known._decoded) == mandatestore._DECODED
    assert all(each.body is None for each in known._kept.values()), "bodies are on the disk"


def test_something_else_under_the_digest_of_a_mandate_is_none(tmp_path: Path) -> None:
    body = b"{}"
    mandate = attrs.evolve(kept("r1"), body=body, digest=mandatestore.digest_of(body))
    known = store(tmp_path)
    known.keep(mandate, NOW)
    assert known.find(mandate.digest) is None
    assert files(tmp_path) == []
