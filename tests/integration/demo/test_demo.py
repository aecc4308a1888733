"""The demo, on the embedded broker and on real ones: what it claims, it checks with git and the file system."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import httpx
import pytest

from tests.brokers.activemq import ActiveMQ
from tests.brokers.rabbitmq import RabbitMQ
from tests.support.cli import command, run
from tests.support.terminal import TerminalProgram
from tests.support.wait import wait_until


def claims(done: subprocess.CompletedProcess[str]) -> dict[str, bool]:
    """What the demo claimed, and whether it held."""
    assert done.returncode == 0, done.stdout + done.stderr
    entries = [json.loads(line) for line in done.stdout.splitlines()]
    assert entries[-1]["ok"] is True
    return {entry["claim"]: entry["held"] for entry in entries if "claim" in entry}


def test_the_demo_holds_every_claim_and_leaves_nothing_behind(tmp_path: Path) -> None:
    done = run("demo", "--json", cwd=tmp_path, env={"TMPDIR": str(tmp_path)}, timeout=120)
    held = claims(done)
    assert len(held) >= 12
    assert all(held.values())
    assert list(tmp_path.iterdir()) == []


def test_the_demo_keeps_its_directory_when_asked(tmp_path: Path) -> None:
    done = run("demo", "--keep", cwd=tmp_path, env={"TMPDIR": str(tmp_path)}, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    (root,) = tmp_path.glob("deploykit-demo-*")
    assert (root / "site" / "current" / "index.html").read_text().startswith("<h1>")
    assert str(root) in done.stdout


def test_the_demo_runs_on_a_real_rabbitmq(tmp_path: Path, rabbitmq: RabbitMQ) -> None:
    address = f"stomp://{rabbitmq.login}:{rabbitmq.passcode}@127.0.0.1:{rabbitmq.port}"
    assert all(claims(run("demo", "--json", "--broker", address, cwd=tmp_path, timeout=120)).values())


def test_the_demo_runs_on_a_real_activemq(tmp_path: Path, activemq: ActiveMQ) -> None:
    address = f"stomp://{activemq.login}:{activemq.passcode}@127.0.0.1:{activemq.port}"
    assert all(claims(run("demo", "--json", "--broker", address, cwd=tmp_path, timeout=120)).values())


def test_the_demo_starts_from_a_real_repository_and_never_writes_to_it(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    here = Path(__file__).parents[3]
    if not (here / ".git").exists():
        pytest.skip("the tests do not run from a git checkout")
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", str(here), str(repo)], check=True)
    before = subprocess.run(["git", "-C", str(repo), "for-each-ref"], capture_output=True, check=True).stdout
    held = claims(run("demo", "--json", "--repo", str(repo), cwd=tmp_path, timeout=120))
    assert all(held.values())
    assert "the node mirrors the whole repository" in held
    after = subprocess.run(["git", "-C", str(repo), "for-each-ref"], capture_output=True, check=True).stdout
    assert after == before


def test_a_demo_whose_claim_fails_does_not_end_with_0(tmp_path: Path) -> None:
    """The hook is kept from queueing, by a spool that is a file: the demo must notice, and end in time."""
    git = shutil.which("git")
    assert git is not None
    fake = tmp_path / "bin"
    fake.mkdir()
    # A git that drops every push: the message, the mirror and the release never come.
    (fake / "git").write_text(f'#!/bin/sh\n[ "$1" = push ] && exit 0\nexec {git} "$@"\n')
    (fake / "git").chmod(0o755)
    done = run("demo", "--json", cwd=tmp_path, env={"PATH": f"{fake}:/usr/bin:/bin"}, timeout=120)
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stderr


def test_a_push_that_a_busy_machine_delays_is_not_taken_for_one_that_waits_for_a_broker(tmp_path: Path) -> None:
    git = shutil.which("git")
    assert git is not None
    fake, pushes = tmp_path / "bin", tmp_path / "pushes"
    fake.mkdir()
    delay = f'echo >> {pushes}; [ "$(wc -l < {pushes})" = 2 ] && sleep 2'  # the one while the broker is dead
    (fake / "git").write_text(f'#!/bin/sh\n[ "$1" = push ] && {{ {delay}; }}\nexec {git} "$@"\n')
    (fake / "git").chmod(0o755)
    held = claims(run("demo", "--json", cwd=tmp_path, env={"PATH": f"{fake}:/usr/bin:/bin"}, timeout=120))
    assert held["a push without a broker returns at once"]
    assert len(pushes.read_text().splitlines()) >= 2


def test_the_fleet_demo_holds_every_claim_and_leaves_nothing_behind(tmp_path: Path) -> None:
    done = run("demo", "--fleet", "--json", cwd=tmp_path, env={"TMPDIR": str(tmp_path)}, timeout=180)
    held = claims(done)
    assert len(held) == 9
    assert all(held.values())
    assert list(tmp_path.iterdir()) == []
    entries = [json.loads(line) for line in done.stdout.splitlines()]
    ends = [entry["rollout"] for entry in entries if entry.get("rollout", {}).get("event") == "end"]
    assert [end["state"] for end in ends] == ["succeeded", "failed", "succeeded", "succeeded"]
    steps = {entry["rollout"]["step"] for entry in entries if entry.get("rollout", {}).get("event") == "step"}
    assert {"export", "pre-deploy", "activate", "post-deploy"} <= steps  # real agents send them


def test_the_fleet_demo_is_drawn_on_a_terminal(tmp_path: Path) -> None:
    env = {"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path)}
    with TerminalProgram(command("demo", "--fleet"), env=env, cwd=tmp_path) as program:
        program.until(lambda text: "waiting for web1" in text, "a live picture", 120)
        assert program.end(180) == 0
        text = program.screen.text
    assert "all 9 claims held" in text
    assert "waiting for" not in text  # the last pictures stay, without what moved
    assert "500 Internal Server Error" in text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("more", [("--broker", "stomp://127.0.0.1:1"), ("--repo", ".")])
def test_the_fleet_demo_brings_its_own_broker_and_repository(tmp_path: Path, more: tuple[str, ...]) -> None:
    done = run("demo", "--fleet", *more, cwd=tmp_path)
    assert done.returncode == 2
    assert "--fleet takes neither" in done.stderr


def test_the_demo_console_shows_pushes_and_rollouts_until_it_is_interrupted(tmp_path: Path) -> None:
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    argv = [*command("demo", "--web", "--json")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=env, cwd=tmp_path) as demo:
        try:
            assert demo.stdout is not None
            lines = iter(demo.stdout)
            url = next(
                entry["chapter"].rpartition(" ")[2] for entry in map(json.loads, lines) if "console is at" in str(entry)
            )
            ended = [entry["event"] for entry in islice(_rollouts(lines), 3)]
            with urllib.request.urlopen(url, timeout=60) as page:
                overview = page.read().decode()
            # The console hears of an end from the bus, maybe after who coordinated it has ended.
            wait_until(lambda: _states(url) == ["succeeded", "failed", "succeeded"], "the console shows three ends")
            wait_until(lambda: _health(url)["answered"] == 4, "three nodes and the console's own agent answered")
            next(entry for entry in map(json.loads, lines) if "Ctrl-C ends everything" in entry.get("event", ""))
            with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
                pressed = _pressed(client)
        finally:
            demo.send_signal(signal.SIGINT)  # else it goes on for ever
        assert demo.wait(60) == 0
    assert [text.rpartition("v1.")[2] for text in ended] == ["0 succeeded", "1 stopped at the canary", "2 succeeded"]
    assert "put v2.0 live on shop, find out why it failed, put v2.1 live, go back" in overview
    assert pressed == {"v2.0": "failed", "v2.1": "succeeded", "back": "succeeded", "bank": "proposed"}
    assert list(tmp_path.iterdir()) == []


def _states(url: str) -> list[str]:
    """Return how the rollouts are that the console shows."""
    with urllib.request.urlopen(f"{url}api/v1/deploys", timeout=60) as answer:
        return [deploy["state"] for deploy in json.load(answer)["items"]]


def _health(url: str) -> dict[str, object]:
    with urllib.request.urlopen(f"{url}api/v1/health", timeout=60) as answer:
        return dict(json.load(answer))


def _pressed(client: httpx.Client) -> dict[str, str]:
    """Do by the console's API what its page proposes; return what came of each."""
    found = {}
    everybody = {"everybody": True}
    for name, path, asked in (
        ("v2.0", "sites/shop/deploys", {"ref": "v2.0", "chosen": everybody}),
        ("v2.1", "sites/shop/deploys", {"ref": "v2.1", "chosen": everybody}),
        ("back", "sites/shop/rollbacks", {"chosen": everybody}),
        ("bank", "sites/bank/deploys", {"ref": "v2.1", "chosen": everybody}),
    ):
        answer = client.post(f"api/v1/{path}", json=asked)
        assert answer.status_code == 202, answer.text
        found[name] = answer.json()["state"]
        if found[name] == "started":
            wait_until(partial(_state, client, answer.json()["rollout"]), name, 60)
            found[name] = _state(client, answer.json()["rollout"])
    page = client.get("deploys").text
    assert "canary web1 failed" in page
    sites = client.get("access").text
    assert '<option value="docs"' in sites, "there is nobody to let in"
    return found


def _state(client: httpx.Client, rollout: str) -> str:
    """Return how a rollout ended; empty where it has not."""
    items = client.get("api/v1/deploys").json()["items"]
    state = next((str(each["state"]) for each in items if each["rollout"] == rollout), "")
    return state if state in ("failed", "succeeded") else ""


def _rollouts(lines: Iterator[str]) -> Iterator[dict[str, str]]:
    return (entry for entry in map(json.loads, lines) if "the rollout of" in entry.get("event", ""))


def test_a_port_in_use_is_found_before_anything_is_started(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("demo", "--web", "--port", str(port), cwd=tmp_path, env={"TMPDIR": str(tmp_path)}, timeout=60)
    assert (done.returncode, done.stdout) == (2, ""), "else the page of something else is taken for the demo's"
    assert f"cannot listen on port {port}" in done.stderr
    assert list(tmp_path.iterdir()) == []
