"""`deploykit builds`, and a deploy that carries results: as an operator uses them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.builds import SignedResult, write_results
from deploykit.builds.store import builds_of
from deploykit.messages import BuildFinished
from deploykit.names import ObjectId, SiteName
from deploykit.settings import GrantSettings
from deploykit.trust.keyfiles import generate_key, trust
from deploykit.trust.signature import SigningKey, sign
from deploykit.wire import encode
from tests.support.cli import run, run_here
from tests.support.node import SHOP, Node, write_settings

GRANT = (
    '[[trust.grants]]\nprincipal = "jenkins"\ntypes = ["build.finished"]\nrepos = ["shop"]\njobs = ["shop-*"]\n'
    '[[trust.grants]]\nprincipal = "oncall@example.org"\ntypes = ["deploy.requested", "without-build"]\n'
)


@pytest.fixture
def node(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> Iterator[Node]:
    made = Node(tmp_path, deploykit_broker)
    made.keys["jenkins"] = generate_key(tmp_path / "jenkins.key")
    trust(made.signers, "jenkins", made.keys["jenkins"].public_blob)
    trust(made.signers, "oncall@example.org", made.keys["stranger"].public_blob)
    with made:
        yield made


def settings_of(node: Node, **changes: str) -> Path:
    file = write_settings(node, require='require_build = ["shop-tests"]\n', grants=GRANT, **changes)
    text = file.read_text()  # two forms of one table in one file are no TOML
    old = 'grants = [{ principal = "ops@example.org", types = ["deploy.requested"] }]\n'
    assert old in text
    text = text.replace(old, "")
    file.write_text(f'{text}[[trust.grants]]\nprincipal = "ops@example.org"\ntypes = ["deploy.requested"]\n')
    return file


def made(commit: str, key: SigningKey, **changes: object) -> SignedResult:
    base = BuildFinished(job="shop-tests", number=1, repo=SHOP, commit=ObjectId(commit), outcome="success")
    return SignedResult.from_frame(sign(encode(attrs.evolve(base, **changes)), key))  # type: ignore[arg-type]


def test_results_are_imported_listed_shown_and_exported(node: Node) -> None:
    file, commit = settings_of(node), "1a2b3c4d" * 5
    results = node.root / "results.jsonl"
    ours, theirs = node.keys["jenkins"], node.keys["operator"]
    lines = (
        made(commit, ours, number=41, outcome="failure"),
        made(commit, ours, number=42),
        made(commit, theirs, number=43),
        made("9f" * 20, ours, time=datetime.now(UTC) - timedelta(days=89)),
        made("9f" * 20, ours, time=datetime.now(UTC) - timedelta(days=91)),
    )
    results.write_text(write_results(lines))
    done = run_here("builds", "import", str(results), "-c", str(file))
    assert done.returncode == 3
    assert done.stdout.count("kept: shop-tests") == 3
    assert "not kept: shop-tests 43 [shop] 1a2b3c4d1a2b build success: its key may not report" in done.stderr
    assert "results count for 90 days" in done.stderr
    listed = run_here("builds", "list", "-c", str(file))
    assert listed.returncode == 0, listed.stderr
    head, *rows = [line.split() for line in listed.stdout.splitlines()]
    assert head == ["JOB", "NUMBER", "OUTCOME", "REPOSITORY", "COMMIT", "WHEN", "COUNTS"]
    assert sorted(row[1] for row in rows) == ["1", "41", "42"]
    assert all(row[-1] == "yes" for row in rows)
    shown = run_here("builds", "show", "shop-tests", "42", "-c", str(file))
    assert f"commit:      {commit}" in shown.stdout
    assert ours.fingerprint in shown.stdout
    assert shown.stdout.splitlines()[-1] == "counts:      yes"
    assert re.search(r"^time:        \d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ$", shown.stdout, re.MULTILINE)
    exported = run_here("builds", "export", "--commit", "1a2b3c4d", "-c", str(file))
    assert sorted(exported.stdout.splitlines()) == sorted(write_results(lines[:2]).splitlines())
    again = run_here("builds", "import", str(results), "--json", "-c", str(file))
    assert [json.loads(line)["new"] for line in again.stdout.splitlines()] == [False] * 5
    nothing = run_here("builds", "show", "shop-tests", "7", "-c", str(file))
    assert (nothing.returncode, "no result of shop-tests 7 is known here" in nothing.stderr) == (2, True)
    node.signers.write_text("")
    entries = json.loads(run_here("builds", "list", "--json", "-c", str(file)).stdout)
    assert {entry["objection"] for entry in entries} == {"its key is no longer trusted"}
    shown = run_here("builds", "show", "shop-tests", "42", "-c", str(file))
    assert shown.stdout.splitlines()[-1] == "counts:      no: its key is no longer trusted"


def test_a_damaged_store_is_an_error_of_one_line(node: Node) -> None:
    file = settings_of(node)
    store = builds_of(node.root / "state").path
    store.parent.mkdir()
    store.write_bytes(b"nonsense" * 1000)
    store.chmod(0o640)
    for words in (("builds", "list"), ("builds", "export")):
        done = run_here(*words, "-c", str(file))
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
        assert "move it away" in done.stderr
    status = run_here("status", "-c", str(file))
    assert status.returncode == 1
    assert "builds  cannot read the store of build results" in status.stdout


def test_a_deploy_carries_what_is_known_and_what_is_given(node: Node) -> None:
    commit = node.origin.push(tag="v1", files={"index.html": "one\n"})
    second = node.origin.push(tag="v2", files={"index.html": "two\n"})
    third = node.origin.push(tag="v3", files={"index.html": "three\n"})
    desk = node.root / "desk"
    desk.mkdir()
    file = settings_of(node)
    mine = desk / "deploykit.toml"
    mine.write_text(file.read_text().replace(f"{node.root}/state", f"{desk}/state"))
    mine.chmod(0o600)
    given = desk / "given"
    given.mkdir()
    (given / "a.jsonl").write_text(write_results([made(second, node.keys["jenkins"])]))
    known = desk / "known.jsonl"
    known.write_text(write_results([made(commit, node.keys["jenkins"])]))
    assert run("builds", "import", str(known), "-c", str(mine)).returncode == 0
    site = node.settings.sites[SiteName("shop")]
    grants = (
        *node.settings.trust.grants,
        GrantSettings(principal="jenkins", types=("build.finished",), repos=("shop",), jobs=("shop-*",)),
        GrantSettings(principal="oncall@example.org", types=("deploy.requested", "without-build")),
    )
    changes = {
        "sites": {SiteName("shop"): attrs.evolve(site, require_build=("shop-tests",))},
        "trust": attrs.evolve(node.settings.trust, grants=grants),
    }

    def deploy(tag: str, *words: str, key: str = "operator") -> tuple[int, str]:
        start = ("deploy", "shop", "--ref", tag, "--node", "web1", "--key", str(node.root / f"{key}.key"))
        done = run(*start, *words, "-c", str(mine))
        return done.returncode, done.stdout + done.stderr

    with node.agent(**changes) as agent:
        agent.ready()
        assert deploy("v1")[0] == 0  # its own store knew
        code, text = deploy("v2")
        assert (code, "no successful build of shop-tests for" in text, "none is known" in text) == (3, True, True)
        assert deploy("v2", "--evidence", str(given))[0] == 0
        code, text = deploy("v3", "--evidence", str(given))
        assert (code, f"no build result of {third[:8]} in" in text) == (2, True)
        code, text = deploy("v3", "--without-build")
        assert (code, "may deploy, but not without a build for site shop" in text) == (3, True)
        code, text = deploy("v3", "--without-build", "--json", key="stranger")
        assert code == 0
        events = [json.loads(line) for line in text.splitlines()]
        details = [event["detail"] for event in events if event["event"] == "node" and event["state"] == "active"]
        assert details == ["without a build (--without-build)"]


def test_doctor_and_status_tell_of_gates(node: Node) -> None:
    file = settings_of(node)
    done = run_here("doctor", "-c", str(file))
    assert "ok      build gate: shop; 0 results are known" in done.stdout
    shown = run_here("status", "-c", str(file))
    assert "shop  nothing is live, requires a build of shop-tests" in shown.stdout
    assert "builds  0 results" in shown.stdout
    node.signers.write_text("")
    done = run_here("doctor", "-c", str(file))
    assert done.returncode == 1
    assert "error   build gate: site shop requires builds that no trusted key may report: shop-tests" in done.stdout
