"""A push that really was built and deployed: recorded and traced afterwards; and one traced while it passes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.bus import Bus
from deploykit.fleet.recordformat import RecordedMessage
from deploykit.fleet.recordreader import ReadCounts, RecordLog
from deploykit.fleet.recordwriter import RecordWriter
from deploykit.messages import DeployProgressed
from deploykit.settings import BusSettings
from deploykit.wire import Frame
from tests.support.chain.brokers import EmbeddedProcess
from tests.support.chain.member import Member
from tests.support.chain.world import Chain
from tests.support.cli import command, run
from tests.support.wait import wait_until
from tests.support.way import WEB, Way


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[Chain]:
    broker = EmbeddedProcess(tmp_path).start()
    try:
        with Chain(tmp_path, broker) as made:
            yield made
    finally:
        broker.close()


def trace(what: str, *words: str, code: int = 0) -> dict[str, Any]:
    done = run("trace", what, "--json", *words)
    assert done.returncode == code, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_push_is_followed_over_its_build_to_the_release_of_each_node(chain: Chain, tmp_path: Path) -> None:
    log, config = tmp_path / "bus.jsonl", str(tmp_path / "hub.toml")
    argv = command("watch", "--json", "--config", config, "--record", str(log), "--record-size", "1")
    recorder = Member("recorder", argv, tmp_path, ready='"ready"')
    recorder.start()
    try:
        commit = chain.push("v1")
        chain.built(commit)
        chain.fetched("v1")
        request = chain.ask("v1", commit)
        chain.books.of_deploy(request)
        last = {"health-check", "finish", "post-deploy", "activate"}

        def recorded_all() -> bool:
            with RecordLog([log]) as reading:
                bodies = [each.body for each in reading.messages(ReadCounts())]
            reports = sum(b"deploy.reported" in body for body in bodies)
            done = [json.loads(body)["data"] for body in bodies if DeployProgressed.TYPE.encode() in body]
            ended = {one["node"] for one in done if one["state"] == "done" and one["step"] in last}
            return reports == 3 and ended == set(chain.nodes)

        wait_until(recorded_all, "all is recorded")
        assert recorder.stop() == 0
    finally:
        recorder.kill()
    by_commit = trace(commit[:10], "--from", str(log), "--config", config)
    assert by_commit["complete"]
    assert [one for one in by_commit["stations"] if not one["seen"]] == []
    kinds = [one["kind"] for one in by_commit["stations"]]
    assert kinds[0] == "push"
    assert [kind for kind in kinds if kind in ("push", "command")] == ["push", "command"]
    states = {one["state"] for one in by_commit["stations"] if one["kind"] == "build"}
    assert {"queued", "started", "success"} <= states
    for kind in ("mirror", "release"):
        assert {one["subject"] for one in by_commit["stations"] if one["kind"] == kind} == set(chain.nodes)
    releases = [one for one in by_commit["stations"] if one["kind"] == "release"]
    assert {(one["state"], one["signature"]) for one in releases} == {("success", "verified")}
    assert all("since its first step" in one["text"] for one in releases)
    assert trace("v1", "--from", str(log), "--config", config)["stations"] == by_commit["stations"]
    assert trace(request.id, "--from", str(log), "--config", config)["stations"] == by_commit["stations"]

    # What the bus lost, or nobody recorded: the stations stay.
    poorer = tmp_path / "poorer.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    poorer.write_bytes(
        b"".join(line for line in lines if b"ref-updated" not in line and b"deploy.requested" not in line)
    )
    with poorer.open("ab") as file:
        file.write(b"junk\n" + b"\xff" * 1000 + b"\n" + lines[-1][:40])
    poorer.chmod(0o600)
    found = trace(commit, "--from", str(poorer), "--config", config)
    assert [one["kind"] for one in found["stations"] if not one["seen"]] == ["push", "command"]
    assert len(found["notes"]) == 2, found["notes"]

    text = run("trace", "v1", "--from", str(log), "--config", config)
    assert text.returncode == 0
    assert "[unsigned]" in text.stdout
    assert "NOT BELIEVED" not in text.stdout


def settings(tmp_path: Path, broker: EmbeddedBroker) -> Path:
    file = tmp_path / "deploykit.toml"
    file.write_text(f'node = "hub"\n[broker]\naddress = "{broker.address}"\nconnect_timeout = 60\n')
    file.chmod(0o600)
    return file


def test_on_a_bus_the_stations_come_as_they_pass_and_the_end_of_the_way_ends_it(
    tmp_path: Path, deploykit_broker: EmbeddedBroker
) -> None:
    config = settings(tmp_path, deploykit_broker)
    argv = command("trace", "v1", "--json", "--timeout", "60", "--config", str(config))
    looking = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert looking.stderr is not None
        assert "looking at the bus" in looking.stderr.readline()
        with Bus(BusSettings(address=deploykit_broker.address)) as bus:
            for record in Way().whole(WEB[:1]):
                bus.publish(record.destination, Frame(record.headers, record.body))
            bus.publish(record.destination, Frame({"content-type": "application/cloudevents+json"}, b"{"))
        out, _ = looking.communicate(timeout=50)  # long before its own time is over
    finally:
        looking.kill()
        looking.wait()
    assert looking.returncode == 0
    found = json.loads(out)
    assert found["complete"]
    # In the order in which they came: over several topics that is nearly the one in which they were sent.
    assert {"created", "success", "updated", "succeeded"} <= {one["state"] for one in found["stations"]}
    assert sum(one["kind"] == "release" for one in found["stations"]) == 2


def test_nothing_found_and_no_broker_are_errors_in_seconds(
    tmp_path: Path, deploykit_broker: EmbeddedBroker, unused_port: int
) -> None:
    config = settings(tmp_path, deploykit_broker)
    done = run("trace", "v1", "--timeout", "1", "--config", str(config))
    assert (done.returncode, done.stdout) == (1, "")
    assert "nothing about v1 in 0 messages" in done.stderr
    text = config.read_text().replace("connect_timeout = 60", "connect_timeout = 1")
    config.write_text(text.replace(deploykit_broker.address, f"stomp://127.0.0.1:{unused_port}"))
    done = run("trace", "v1", "--config", str(config))
    assert done.returncode == 1
    assert "no broker reachable" in done.stderr


def test_what_is_shown_moves_no_cursor_and_a_log_needs_no_settings(tmp_path: Path) -> None:
    way, log = Way(), tmp_path / "log"
    push = way.push(pusher="\x1b[2Jann", commits=())
    command_ = way.command("deploy", WEB[0])
    with RecordWriter(log) as writer:
        writer.write(way.record(push))
        writer.write(way.record(way.progress(command_, WEB[0], 0)))
        failed = way.report(command_, WEB[0], "failure")
        writer.write(way.record(failed))
        writer.write(RecordedMessage(received=way.record(push).received, destination="\x1b[2J", body=b"\x1b[2J"))
    done = run("trace", "a-deploy-web1", "--from", str(log))
    assert done.returncode == 0
    assert "\x1b" not in done.stdout + done.stderr
    assert "signatures: not verified" in done.stderr
    assert [line.split()[1] for line in done.stdout.splitlines()[2:]] != []
    several = run("trace", "a-depl", "--from", str(log))
    assert several.returncode == 2
    assert "name one of them whole" in several.stderr
