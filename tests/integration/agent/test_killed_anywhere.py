"""An agent killed at any step of a command, from its claim to its report: the command ends in exactly one final report.

The agent's own classes handle one delivery in a process of its own, which is killed at each call that changes something
in the node's state, mirrors, site or spool. Then the command comes again, as it does from a broker that has no
acknowledgement, until it is acknowledged.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import attrs
import pytest

from deploykit.audit.files import read_records, verify_files
from deploykit.audit.record import AuditRecord
from deploykit.broker.server import EmbeddedBroker
from deploykit.messages import DeployReported, DeployRequested
from deploykit.mirror import Mirror
from deploykit.outbox import Outbox
from deploykit.release import Site
from deploykit.trees import compare
from deploykit.trust.signature import sign
from deploykit.wire import decode, encode
from tests.support.killsweep import Run, kill_sweep, sample_size
from tests.support.node import NODE, SHOP, Node


class Lab:
    """A node's directories, put back to what they were before each run."""

    def __init__(self, base: Path, node: Node) -> None:
        self.base, self.node = base, node
        self.frame = base / "frame.json"
        self.config = base / "deploykit.toml"
        self.config.touch(mode=0o600)
        self.config.write_text(
            f'node = "{NODE}"\nstate = "{node.root}/state"\nsigning_key = "{node.root}/node.key"\n'
            f'[broker]\naddress = "stomp://127.0.0.1:1"\n[outbox]\npath = "{node.root}/spool"\n'
            f'[trust]\nallowed_signers = "{node.signers}"\n'
            'grants = [{ principal = "ops@example.org", types = ["deploy.requested"] }]\n'
            f'[repositories.{SHOP}]\nurl = "{node.origin.path}"\n'
            f'[sites.shop]\npath = "{node.site}"\nrepo = "{SHOP}"\nrelease = {{ keep = 1, grace = 0 }}\n'
        )
        self.changing = [node.root / "state", node.root / "site", node.root / "spool"]
        self.saved = base / "saved"

    def ask(self, request: DeployRequested) -> None:
        """Make `request` the command that is handled."""
        frame = sign(encode(request), self.node.keys["operator"])
        told = {"headers": dict(frame.headers), "body": base64.b64encode(frame.body).decode()}
        self.frame.write_text(json.dumps(told))

    def argv(self) -> list[str]:
        return [sys.executable, "-P", "-m", "tests.support.handleonce", str(self.config), str(self.frame)]

    def handle(self) -> str:
        """Handle the command to its end, and return the verdict."""
        done = subprocess.run(self.argv(), capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def fetch(self) -> None:
        """Bring the mirror up to date."""
        with Mirror.open(self.node.root / "state" / "mirrors" / f"{SHOP}.git", str(self.node.origin.path)) as mirror:
            mirror.fetch()

    def save(self) -> None:
        self.saved.mkdir()
        for path in self.changing:
            shutil.copytree(path, self.saved / path.name, symlinks=True)

    def restore(self) -> None:
        for path in self.changing:
            shutil.rmtree(path)
            shutil.copytree(self.saved / path.name, path, symlinks=True)
            shutil.copystat(self.saved / path.name, path)

    def reports(self, request: DeployRequested) -> list[DeployReported]:
        """What waits in the spool about a request, each message once however often it was said."""
        found: dict[str, DeployReported] = {}
        for record in Outbox(self.node.root / "spool").pending():
            message = decode(record.frame.headers, record.frame.body, record.destination)
            if isinstance(message, DeployReported) and message.request == request.id:
                found[message.id] = message
        return list(found.values())


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("script", "outcome"),
    [("#!/bin/sh\n", "success"), ('#!/bin/sh\n[ "$DEPLOYKIT_ROLLBACK" ]\n', "rolled-back")],
    ids=["success", "rolled-back"],
)
def test_an_agent_killed_at_any_call_ends_each_command_in_exactly_one_final_report(
    tmp_path: Path, script: str, outcome: str, capsys: pytest.CaptureFixture[str]
) -> None:
    nobody = SimpleNamespace(address="stomp://127.0.0.1:1")
    node = Node(tmp_path, cast("EmbeddedBroker", nobody))
    node.bus.stop()  # never started: commands come by hand here
    lab = Lab(tmp_path, node)
    for tag in ("v0", "v1", "v2"):  # so many that the next one recycles
        lab.ask(node.request(tag, node.origin.push(tag=tag, files={"index.html": tag})))
        lab.fetch()
        assert lab.handle() == "Ack"
    files = {"index.html": "v3", "deploy/pre-deploy": "#!/bin/sh\n", "deploy/post-deploy": script}
    request = node.request("v3", node.origin.push(tag="v3", files=files))
    request = attrs.evolve(request, expires=request.time + timedelta(minutes=55))
    lab.ask(request)
    lab.fetch()  # a git that is killed under the agent is a fetch that failed: the mirror's own sweeps have that
    lab.save()

    def check(run: Run) -> None:
        assert run.killed or run.child_killed or run.stdout.strip() == "Ack", run
        _whole(node.site)
        early = [(r.id, r.outcome) for r in lab.reports(request)]
        assert lab.handle() == "Ack"
        _whole(node.site)
        (report,) = lab.reports(request)
        assert early in ([], [(report.id, report.outcome)]), "what was reported first stands"
        assert report.outcome == outcome, report
        live = "v3" if report.outcome == "success" else "v2"
        assert (node.site / "current" / "index.html").read_text() == live
        assert lab.handle() == "Ack", "and once more, as a duplicate"
        assert [r.id for r in lab.reports(request)] == [report.id]
        audit = lab.node.root / "state" / "audit.log"
        assert verify_files(audit).fault is None
        ours = [r for r in read_records(audit) if isinstance(r, AuditRecord) and r.request == request.id]
        assert ours[0].action == "deploy", "allowed before anything was done"
        assert ours[-1].details["outcome"] == outcome
        final = [o for o in Site(node.site).history() if o.request == request.id and o.outcome != "interrupted"]
        assert len(final) == 1

    report = kill_sweep(
        lab.argv(),
        roots=lab.changing,
        prepare=lab.restore,
        check=check,
        sample=sample_size(3),
        allow_missed=0.05,  # SQLite's own files are opened in another order where their log is left over
    )
    with capsys.disabled():
        print(report)


def _whole(path: Path) -> None:
    """`current` is a release, and every byte of it is what its manifest says."""
    site = Site(path)
    name = site.live_name()
    assert name
    assert not compare(site.manifest(name), site.release_path(name), paranoid=True)
