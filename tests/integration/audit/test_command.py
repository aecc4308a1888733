"""`deploykit audit` over what an agent decided, in processes of their own."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploykit.audit import AuditLog
from deploykit.broker.server import EmbeddedBroker
from deploykit.names import ObjectId, SiteName
from tests.support.cli import command, run_here
from tests.support.node import Node, write_settings


@pytest.fixture
def node(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> Iterator[Node]:
    with Node(tmp_path, deploykit_broker) as made:
        yield made


def test_threat_40_who_asked_for_what_and_what_was_decided(node: Node) -> None:
    config = write_settings(node)
    commit = node.origin.push(tag="v1", files={"index.html": "one\n"})
    with subprocess.Popen(command("agent", "-c", str(config)), stdout=subprocess.PIPE, text=True) as agent:
        good, bad = node.request("v1", commit), node.request("v1", ObjectId("ab" * 20), site=SiteName("blog"))
        strange = node.request("v1", commit, requested_by="eve\x1b[31m")
        try:
            assert agent.stdout is not None
            assert agent.stdout.readline().startswith("ready")
            node.send(good)
            assert node.report_on(good).outcome == "success"
            node.send(strange, key="stranger")
            assert node.report_on(strange).outcome == "refused"
            node.send(bad)
            assert node.report_on(bad).outcome == "refused"
        finally:
            agent.send_signal(signal.SIGTERM)
    shown = run_here("audit", "show", "-c", str(config), "--json")
    assert shown.returncode == 0, shown.stderr
    found = [(r["decision"], r["action"], r["target"], r["request"]) for r in json.loads(shown.stdout)]
    assert found == [
        ("allowed", "deploy", "shop", good.id),
        ("allowed", "deploy.result", "shop", good.id),
        ("denied", "deploy", "web1", ""),
        ("allowed", "deploy", "blog", bad.id),
        ("denied", "deploy.result", "blog", bad.id),
    ]
    denied = run_here("audit", "show", "-c", str(config), "--decision", "denied", "--site", "blog", "--last", "1")
    assert "has no site blog" in denied.stdout
    assert denied.stdout.count("\n") == 1
    assert run_here("audit", "verify", "-c", str(config)).returncode == 0
    noted = run_here("audit", "show", "-c", str(config), "--head").stdout.strip()
    assert noted.startswith("5:")
    assert run_here("audit", "verify", "-c", str(config), "--head", noted).returncode == 0


def test_verify_names_file_line_and_what_is_wrong(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.log")
    for n in range(3):
        log.record(actor="eve\x1b[31m", action="deploy", target="shop", decision="denied", reason=f"{n}\nforged")
    file = ("--file", str(log.path))
    shown = run_here("audit", "show", *file)
    assert len(shown.stdout.splitlines()) == 3
    assert "\x1b" not in shown.stdout
    assert "\\x1b[31m" in shown.stdout
    log.path.write_bytes(log.path.read_bytes().replace(b"1\\nforged", b"1\\nForged"))
    faulty = run_here("audit", "verify", *file)
    assert faulty.returncode == 1
    assert faulty.stderr.startswith("audit.log, line 2: it does not match its own hash")
    report = json.loads(run_here("audit", "verify", *file, "--json").stdout)
    assert (report["whole"], report["records"], report["fault"]["line"]) == (False, 1, 2)
    assert run_here("audit", "show", *file, "--head").returncode == 1
    assert "line 2" in run_here("audit", "show", *file).stderr


@pytest.mark.parametrize(
    ("words", "says", "code"),
    [
        (("show", "--file", "gone"), "there is no audit log at gone", 1),
        (("verify", "--file", "gone"), "there is no audit log at gone", 1),
        (("verify", "--file", "gone", "--head", "5:x"), "is no head", 2),
        (("show", "--file", "gone", "--since", "never"), "neither a time", 2),
        (("show", "--file", "gone", "--since", "0001-01-01"), "neither a time", 2),
    ],
)
def test_wrong_input_is_named(tmp_path: Path, words: tuple[str, ...], says: str, code: int) -> None:
    done = run_here("audit", *words, cwd=tmp_path)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False)
    assert says in done.stderr
