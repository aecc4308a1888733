"""`status`, `config show` and `deploy` as an operator meets them: what they tell, and what they never tell."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.daemons.jenkins.queue import BuildQueue
from deploykit.daemons.jenkins.rules import BuildRules, event_key
from deploykit.outbox import Outbox
from deploykit.wire import encode
from tests.support.buildorders import jenkins, job, push
from tests.support.cli import command, run, run_here
from tests.support.node import Node
from tests.support.wait import wait_until


@pytest.fixture
def node(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> Iterator[Node]:
    with Node(tmp_path, deploykit_broker) as made:
        yield made


def settings_file(node: Node, *, address: str = "", connect_timeout: int = 60, more: str = "") -> Path:
    """The settings of the node, which is its own operator, too."""
    file = node.root / "deploykit.toml"
    file.touch(mode=0o600)
    file.write_text(
        f'node = "web1"\nstate = "{node.root}/state"\nsigning_key = "{node.root}/operator.key"\n'
        f"[broker]\nconnect_timeout = {connect_timeout}\n"
        f'address = "{address or node.settings.broker.address}"\n'
        f'[outbox]\npath = "{node.root}/spool"\n[trust]\nallowed_signers = "{node.signers}"\n'
        f'[repositories.shop]\nurl = "{node.origin.path}"\n'
        f'[sites.shop]\npath = "{node.site}"\nrepo = "shop"\n{more}'
    )
    return file


@pytest.mark.parametrize("form", [(), ("--json",)])
@pytest.mark.parametrize(
    "address",
    [
        "stomp://ada:canary@127.0.0.1:61613",
        "failover:(stomp://a:canary@h1:1,stomp://b:canary@h2:1)?randomize=false",
    ],
)
def test_config_show_never_shows_a_secret(tmp_path: Path, form: tuple[str, ...], address: str) -> None:
    file = tmp_path / "x.toml"
    file.touch(mode=0o600)
    file.write_text(
        f'node = "n"\n[broker]\naddress = "{address}"\nlogin = "canary"\npasscode = "canary"\n'
        '[repositories.shop]\nurl = "https://ada@git.example.org/shop.git"\n'
        '[sites.shop]\npath = "/srv/shop"\nrepo = "shop"\n'
        'release = { environment = { TOKEN = "canary" }, health_url = "http://u:canary@127.0.0.1/" }\n'
    )
    shown = run_here("config", "show", *form, "-c", str(file))
    assert shown.returncode == 0, shown.stderr
    assert "git.example.org/shop.git" in shown.stdout
    assert "canary" not in shown.stdout + shown.stderr
    checked = run_here("config", "check", "-c", str(file))
    assert checked.returncode == 0, checked.stderr
    assert "canary" not in checked.stdout
    file.write_text(file.read_text().replace("ada@git", "ada:canary@git"))
    refused = run_here("config", "check", "-c", str(file))
    assert refused.returncode == 2
    assert "a password does not belong into an address" in refused.stderr
    assert "canary" not in refused.stdout + refused.stderr


def test_config_show_is_written_for_people_and_json_for_scripts(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text(
        'node = "n"\n[repositories.shop]\nurl = "https://git.example.org/shop.git"\n'
        '[[trust.grants]]\nprincipal = "ops"\ntypes = ["deploy.requested"]\n'
        '[jenkins.servers.ci]\nurl = "https://ci.example.org/"\n'
        '[[jenkins.jobs]]\nrepo = "shop"\njob = "tests"\nparameters = { KIND = "all" }\n'
        '[[jenkins.jobs]]\nrepo = "shop"\njob = "docs"\n'
    )
    lines = run_here("config", "show", "-c", str(file)).stdout.splitlines()
    for line in (
        'trust.grants[0].types = ["deploy.requested"]',
        "jenkins.jobs[0].job = tests",
        "jenkins.jobs[0].parameters.KIND = all",
        "jenkins.jobs[1].parameters = {}",
        'jenkins.jobs[1].server = ""',
        "jenkins.servers.ci.token_file = (not set)",
        "jenkins.servers.ci.allow_http = false",
        "broker.heartbeat = 10",
    ):
        assert line in lines
    shown = json.loads(run_here("config", "show", "--json", "-c", str(file)).stdout)
    assert [job["parameters"] for job in shown["jenkins"]["jobs"]] == [{"KIND": "all"}, {}]


def test_config_check_warns_of_scripts_that_their_owner_could_rewrite_and_is_content(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    site = '[sites.shop]\npath = "/srv/shop"\nrepo = "shop"\nrelease = { owner = "nobody:nogroup" }\n'
    file.write_text(f'[repositories.shop]\nurl = "https://git.example.org/shop.git"\n{site}')
    checked = run_here("config", "check", "-c", str(file))
    assert checked.returncode == 0, checked.stderr
    assert checked.stdout.startswith("ok: ")
    assert "warning: sites.shop.release.run_as: releases with scripts are refused: " in checked.stderr
    assert "warning: no signing_key is set" in checked.stderr


def test_status_tells_what_a_new_node_holds_and_changes_nothing(node: Node) -> None:
    done = run_here("status", "-c", str(settings_file(node)))
    assert done.returncode == 0, done.stderr
    assert "shop  0 refs" in done.stdout
    assert "nothing is live" in done.stdout
    assert not (node.root / "state").exists()
    assert not (node.root / "spool").exists()


def test_status_tells_refs_and_the_live_release(node: Node) -> None:
    with node.agent() as agent:
        agent.ready()
        request = node.request("v1", node.origin.push(tag="v1"))
        node.send(request)
        report = node.report_on(request)
        wait_until(lambda: next(Outbox(node.root / "spool").pending(), None) is None, "the receipts", 60)
    found = json.loads(run_here("status", "--json", "-c", str(settings_file(node))).stdout)
    assert found["sites"] == [{"site": "shop", "current": report.release, "path": str(node.site)}]
    assert found["mirrors"][0]["refs"] == 2
    assert found["outbox"][0]["waiting"] == 0


def test_status_tells_of_builds_that_wait_and_that_were_refused(node: Node) -> None:
    more = '[jenkins.servers.ci]\nurl = "https://ci.example.org/"\n[[jenkins.jobs]]\nrepo = "shop"\njob = "tests"\n'
    file = settings_file(node, more=more)
    path = node.root / "state" / "jenkins.sqlite"
    fresh = run_here("status", "-c", str(file))
    assert (fresh.returncode, f"  jenkins no build waits  {path}" in fresh.stdout) == (0, True)
    assert not path.exists()
    rules = BuildRules(jenkins(job()))
    with BuildQueue(path) as queue:
        for message in (push(), push()):
            builds = rules.plan(message, event_key(message, legacy=False)).builds
            queue.add(builds, encode(message), "/topic/x", 1000.0)
        queue.reported(builds[0].key, "refused")
    done = run_here("status", "-c", str(file))
    assert f"  jenkins 1 waiting for ci, 1 refused (see `deploykit jenkins list`)  {path}" in done.stdout
    assert done.returncode == 0
    path.chmod(0o666)
    assert run_here("status", "-c", str(file)).returncode == 1


def test_status_names_what_it_cannot_read_and_tells_the_rest(node: Node) -> None:
    (node.root / "spool").mkdir(mode=0o777)
    (node.root / "spool").chmod(0o777)
    done = run_here("status", "-c", str(settings_file(node)))
    assert done.returncode == 1
    assert "too open" in done.stdout
    assert "nothing is live" in done.stdout
    assert "Traceback" not in done.stderr


def test_a_deploy_without_a_broker_says_so_at_once_and_asks_nobody(node: Node) -> None:
    node.origin.push(tag="v1")
    file = settings_file(node, address="stomp://127.0.0.1:9", connect_timeout=2)
    began = time.monotonic()
    done = run("deploy", "shop", "--ref", "v1", "--node", "web1", "--timeout", "300", "-c", str(file))
    assert time.monotonic() - began < 30
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1
    assert "no broker reachable" in line
    assert "127.0.0.1:9" in line


def test_who_waits_longer_than_a_command_may_live_is_not_refused_for_it(node: Node) -> None:
    node.origin.push(tag="v1")
    with node.agent() as agent:
        agent.ready()
        # The agent reports with the node's key; the operator's settings sign with the operator's.
        done = run(
            "deploy", "shop", "--ref", "v1", "--node", "web1", "--timeout", "7200", "-c", str(settings_file(node))
        )
    assert done.returncode == 0, done.stdout + done.stderr


def test_ctrl_c_while_a_deploy_is_awaited_says_that_it_goes_on(node: Node) -> None:
    node.origin.push(tag="v1")
    asked = node.bus.subscribe(node.settings.topics.deploy_to("web9"), lambda _: heard.append(1))
    heard: list[int] = []
    assert asked.wait_active(60)
    words = ("deploy", "shop", "--ref", "v1", "--node", "web9", "-c", str(settings_file(node)))
    process = subprocess.Popen(command(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: heard, "the command", 60)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert "web9 will finish what was asked (deploy)" in errors
    assert "deploykit rollout resume shop-" in errors
    assert "Traceback" not in errors


def test_a_passcode_file_that_holds_none_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"\n", b"\xff\xfe", b"one\ntwo\n"):
        (tmp_path / "passcode").write_bytes(content)
        done = run("broker", "--port", "0", "--user", "ada", "--passcode-file", str(tmp_path / "passcode"))
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
        assert "holds no passcode" in done.stderr


@pytest.mark.parametrize("moment", ['"hook"', '"text"', "a push with the hook"])
def test_a_demo_told_to_end_leaves_nothing_behind(tmp_path: Path, moment: str) -> None:
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    demo = subprocess.Popen(
        command("demo", "--json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, text=True
    )
    try:
        assert demo.stdout is not None
        for line in demo.stdout:
            if moment in line:
                break
        else:
            pytest.fail(f"the demo never said {moment}")
        demo.send_signal(signal.SIGTERM)
        _, errors = demo.communicate(timeout=120)
    finally:
        demo.kill()
        demo.wait()
    assert demo.returncode == 130
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []
    # What it has killed may be there for a moment more.
    wait_until(lambda: not any(_mentions(p, str(tmp_path)) for p in Path("/proc").glob("[0-9]*")), "its end", 60)


def _mentions(process: Path, text: str) -> bool:
    try:
        return any(text.encode() in (process / name).read_bytes() for name in ("cmdline", "environ"))
    except OSError:
        return False
