"""docs/embedding.md: its programs have 20 lines, use the front door alone, run as they stand and end well."""

from __future__ import annotations

import ast
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deploykit import Bus, Frame, RefUpdated, parse_object_id, parse_ref_name, parse_repo_name
from deploykit.broker.server import EmbeddedBroker
from tests.support.bus import fast, running
from tests.support.node import Node, write_settings
from tests.support.stubjenkins import StubJenkins, StubJob
from tests.support.wait import wait_until

PAGE = (Path(__file__).parents[3] / "docs" / "embedding.md").read_text(encoding="utf-8")
DAEMONS = ["daemon", "asyncio daemon"]
PROGRAMS = [*DAEMONS, "service", "build daemon"]


def source_of(name: str) -> str:
    found = re.search(rf"<!-- {name} -->\n```python\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    return found[1]


def push(bus: Bus, number: int) -> None:
    ref = parse_ref_name(f"refs/heads/b{number}")
    old, new = parse_object_id("0" * 40), parse_object_id("1" * 40)
    bus.send(RefUpdated(repo=parse_repo_name("shop"), ref=ref, old=old, new=new), timeout=30)


@pytest.mark.parametrize("name", PROGRAMS)
def test_it_has_20_lines_and_uses_the_front_door(name: str) -> None:
    source = source_of(name)
    assert len([line for line in source.splitlines() if line.strip()]) <= 20
    nodes = list(ast.walk(ast.parse(source)))
    modules = {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    assert {m for m in modules if m and m.startswith("deploykit")} <= {"deploykit", "deploykit.aio"}


@pytest.mark.parametrize("name", DAEMONS)
def test_it_prints_each_push_once_over_a_restart_of_the_broker_and_ends_at_sigterm(name: str, tmp_path: Path) -> None:
    script, output = tmp_path / "daemon.py", tmp_path / "output"
    script.write_text(source_of(name), encoding="utf-8")
    with (
        EmbeddedBroker(users={"ada": "s3cret"}, data=tmp_path / "broker") as broker,
        output.open("wb") as out,
        (tmp_path / "errors").open("wb") as errors,
    ):
        process = subprocess.Popen(
            [sys.executable, str(script)],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "BROKER": broker.address, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=errors,
        )
        try:
            with running(fast(broker.address)) as bus:
                broker.wait_for(lambda stats: stats.subscriptions >= 1, 60)
                push(bus, 0)
                wait_until(lambda: "b0" in output.read_text())
                broker.restart()
                bus.publish("/topic/deploykit.source", Frame({"content-type": "application/json"}, b"no message"))
                push(bus, 1)
                wait_until(lambda: "b1" in output.read_text(), timeout=60)
                process.send_signal(signal.SIGTERM)
                assert process.wait(60) == 0, (tmp_path / "errors").read_text()
                assert len(output.read_text().splitlines()) == 2
        finally:
            process.kill()
            process.wait()


def test_a_service_on_a_bus_of_the_program_deploys_and_hands_back(tmp_path: Path) -> None:
    script, output = tmp_path / "program.py", tmp_path / "output"
    script.write_text(source_of("service"), encoding="utf-8")
    with EmbeddedBroker() as broker, Node(tmp_path, broker) as node, output.open("wb") as out:
        before = broker.stats().connections
        process = subprocess.Popen(
            [sys.executable, str(script)],
            cwd=tmp_path,
            env={
                "PATH": os.environ["PATH"],
                "DEPLOYKIT_CONFIG": str(write_settings(node)),
                "PYTHONPATH": os.pathsep.join(sys.path),
            },
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
        try:
            wait_until(lambda: "connected: True" in output.read_text(), timeout=60)
            assert broker.stats().connections == before + 1
            request = node.request("v1", node.origin.push(tag="v1"))
            node.send(request)
            assert node.report_on(request, timeout=60).outcome == "success"
            wait_until(lambda: "shop" in output.read_text(), timeout=60)
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0, output.read_text()
        finally:
            process.kill()
            process.wait()


def test_the_build_daemon_in_it_starts_builds_and_prints_what_became_of_them(tmp_path: Path) -> None:
    script, output, settings = tmp_path / "daemon.py", tmp_path / "output", tmp_path / "deploykit.toml"
    script.write_text(source_of("build daemon"), encoding="utf-8")
    with (
        EmbeddedBroker() as broker,
        StubJenkins([StubJob(name="shop-tests")]) as jenkins,
        output.open("wb") as out,
        (tmp_path / "errors").open("wb") as errors,
    ):
        server = jenkins.settings(tmp_path)
        settings.write_text(
            f'state = "{tmp_path}/state"\n[broker]\naddress = "{broker.address}"\n[outbox]\npath = "{tmp_path}/spool"\n'
            f'[jenkins.servers.ci]\nurl = "{server.url}"\nuser = "deploykit"\ntoken_file = "{server.token_file}"\n'
            '[[jenkins.jobs]]\nrepo = "shop"\njob = "shop-tests"\n'
        )
        process = subprocess.Popen(
            [sys.executable, str(script)],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "SETTINGS": str(settings), "PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=errors,
        )
        try:
            with running(fast(broker.address)) as bus:
                broker.wait_for(lambda stats: stats.subscriptions >= 2, 60)
                push(bus, 0)
                jenkins.queue.wait_for_builds("shop-tests", 1)
                wait_until(lambda: "queued shop-tests" in output.read_text(), timeout=60)
                process.send_signal(signal.SIGTERM)
                assert process.wait(60) == 0, (tmp_path / "errors").read_text()
        finally:
            process.kill()
            process.wait()
