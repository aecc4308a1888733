"""`watch --record`: the log has every message byte for byte, on a real broker, on a full disk, and no password."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.bus import Bus
from deploykit.fleet.recordformat import RecordedMessage
from deploykit.fleet.recordreader import ReadCounts, RecordLog
from deploykit.messages import AccessGrantRequested, DeployProgressed, Message, NodeDescribed, Notice
from deploykit.messages.topics import TopicMap, topic_of
from deploykit.names import NodeName, SiteName
from deploykit.settings import BusSettings
from deploykit.trust.allowed_signers import AllowedSigners
from deploykit.trust.signature import SigningKey, sign, verify
from deploykit.wire import Frame, encode
from tests.brokers.server import BrokerServer
from tests.support.disks import small_disk
from tests.support.watching import Watching

WEB1 = NodeName("web1")


def settings(directory: Path, address: str, prefix: str = "deploykit") -> TopicMap:
    topics = TopicMap(
        source=f"/topic/{prefix}.source",
        deploy=f"/topic/{prefix}.deploy",
        inventory=f"/topic/{prefix}.inventory",
        access=f"/topic/{prefix}.access",
        progress=f"/topic/{prefix}.progress",
        notice=f"/topic/{prefix}.notice",
    )
    names = ("source", "deploy", "inventory", "access", "progress", "notice")
    file = directory / "deploykit.toml"
    file.write_text(
        f'node = "hub"\n[broker]\naddress = "{address}"\nbackoff_max = 0.2\n[topics]\n'
        + "".join(f'{name} = "{getattr(topics, name)}"\n' for name in names)
    )
    file.chmod(0o600)
    return topics


def recorded(log: Path) -> list[RecordedMessage]:
    with RecordLog([log]) as reading:
        return list(reading.messages(ReadCounts()))


def bodies(log: Path) -> set[bytes]:
    return {each.body for each in recorded(log)} if log.exists() else set()


def progress(number: int) -> DeployProgressed:
    return DeployProgressed(
        node=WEB1, site=SiteName("shop"), request="r", phase="deploy", step="x", state="output",
        number=number, output="\x1b[2J\u20ac\udcff".encode(errors="replace").decode(),
    )  # fmt: skip


def publish(bus: Bus, topics: TopicMap, message: Message, destination: str = "") -> bytes:
    frame = encode(message)
    bus.publish(destination or topic_of(message, topics), frame)
    return frame.body


@pytest.mark.rabbitmq
def test_on_a_real_broker_signatures_and_commands_to_single_nodes_are_recorded(
    tmp_path: Path, rabbitmq: BrokerServer, watching: Callable[..., Watching]
) -> None:
    topics = settings(tmp_path, rabbitmq.address, f"rec{secrets.token_hex(3)}")
    log = tmp_path / "bus.jsonl"
    watch = watching("--json", "--record", str(log))
    watch.wait(lambda: watch.lines() != [])
    key = SigningKey.generate()
    signed = sign(encode(progress(0)), key)
    with Bus(BusSettings(address=rabbitmq.address)) as bus:
        bus.publish(topics.progress, signed, persistent=False)
        single = Notice(text="to one node", source="test")

        def heard() -> bool:  # the subscription to all nodes comes a moment after `ready`
            return publish(bus, topics, single, topics.deploy_to("web7.example.net")) in bodies(log)

        watch.wait(heard)
        watch.wait(lambda: signed.body in bodies(log))
    assert watch.end() == 0
    found = next(each for each in recorded(log) if each.body == signed.body)
    allowed = AllowedSigners.parse(f"{WEB1} {key.public_openssh}")
    assert verify(found.frame, allowed, datetime.now(UTC)).is_principal(WEB1)
    assert found.destination == topics.progress
    assert topics.deploy_to("web7.example.net") in {each.destination for each in recorded(log)}


def test_each_is_recorded_once_also_a_notice_that_waits_and_what_is_no_message(
    tmp_path: Path, deploykit_broker: EmbeddedBroker, watching: Callable[..., Watching]
) -> None:
    topics = settings(tmp_path, deploykit_broker.address)
    log = tmp_path / "bus.jsonl"
    watch = watching("--record", str(log))
    watch.wait(lambda: watch.lines() != [])
    with Bus(BusSettings(address=deploykit_broker.address)) as bus:
        publish(bus, topics, Notice(text="waits for its event", source="git/host", correlation_id="c"))
        bus.publish(topics.notice, Frame({"content-type": "application/octet-stream"}, b"\xff\x00"))
        watch.wait(lambda: any("waits for its event" in line for line in watch.lines()))
        watch.wait(lambda: len(recorded(log)) == 2)
    assert watch.end() == 0
    assert b"\xff\x00" in bodies(log)
    assert len(recorded(log)) == 2


def test_without_a_name_for_all_nodes_a_node_is_listened_to_once_it_was_heard(
    tmp_path: Path, deploykit_broker: EmbeddedBroker, watching: Callable[..., Watching]
) -> None:
    topics = settings(tmp_path, deploykit_broker.address)
    log = tmp_path / "bus.jsonl"
    watch = watching("--record", str(log))
    watch.wait(lambda: watch.lines() != [])
    with Bus(BusSettings(address=deploykit_broker.address)) as bus:
        publish(bus, topics, NodeDescribed(node=WEB1))
        single = Notice(text="to one node", source="test")
        watch.wait(lambda: publish(bus, topics, single, topics.deploy_to(WEB1)) in bodies(log))
    assert watch.end() == 0


def test_a_password_is_not_recorded(
    tmp_path: Path, deploykit_broker: EmbeddedBroker, watching: Callable[..., Watching]
) -> None:
    topics = settings(tmp_path, deploykit_broker.address)
    log = tmp_path / "bus.jsonl"
    watch = watching("--record", str(log))
    watch.wait(lambda: watch.lines() != [])
    canary = "$2b$12$canarycanarycanarycanaryuJXaPL5.7eFJ1cYN2wmMhMCvhVLYyu6"
    with Bus(BusSettings(address=deploykit_broker.address)) as bus:
        publish(bus, topics, AccessGrantRequested(site=SiteName("shop"), user="ann", password_hash=canary))
        bus.publish(topics.access, Frame({"content-type": "text/plain"}, b"\xff password=canary"))
        watch.wait(lambda: log.exists() and len(recorded(log)) == 2)
    assert watch.end() == 0
    assert "canary" not in log.read_text()
    assert {each.left_out for each in recorded(log)} == {"it may hold a password"}


def test_a_full_disk_ends_neither_the_watching_nor_the_log(
    tmp_path: Path, deploykit_broker: EmbeddedBroker, watching: Callable[..., Watching]
) -> None:
    topics = settings(tmp_path, deploykit_broker.address)
    with small_disk(tmp_path / "small", "size=64k") as disk:
        log = disk / "bus.jsonl"
        watch = watching("--json", "--record", str(log))
        watch.wait(lambda: watch.lines() != [])
        with Bus(BusSettings(address=deploykit_broker.address)) as bus:
            filler = disk / "filler"
            filler.write_bytes(b"x" * 40_000)
            for number in range(60):
                publish(bus, topics, Notice(text=f"{number} " + "x" * 1000, source="test"))
            watch.wait(lambda: "No space left on device" in watch.errors.read_text())
            watch.wait(lambda: len(watch.lines()) == 61)  # all are shown
            filler.unlink()
            publish(bus, topics, Notice(text="after", source="test"))
            watch.wait(lambda: "are missing from it" in watch.errors.read_text())
        assert watch.end() == 0
        counts = ReadCounts()
        with RecordLog([log]) as reading:
            texts = [json.loads(each.body)["data"]["text"].split()[0] for each in reading.messages(counts)]
        assert texts[-1] == "after"
        assert counts.broken == counts.torn == 0
        assert sum(gap.lost for gap in counts.gaps) + counts.messages == 61
        assert watch.errors.read_text().count("cannot record") == 1
