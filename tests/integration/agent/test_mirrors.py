"""The agent's mirrors and directories: a pushed branch is a Puppet environment, and no origin holds up another."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.messages import MirrorUpdated, RefUpdated
from deploykit.mirror import FetchResult, Mirror, RefChange
from deploykit.names import ZERO_ID, ObjectId, RefName, RepoName
from deploykit.settings import CheckoutSettings, MirrorSettings, RepositorySettings
from deploykit.wire import encode
from tests.support.node import NODE, SHOP, Node, NodeAgent, Origin, git
from tests.support.origins import git_daemon
from tests.support.wait import wait_until

MAIN = RefName("refs/heads/main")


@pytest.fixture
def node(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> Iterator[Node]:
    with Node(tmp_path, deploykit_broker) as made:
        yield made


def with_checkouts(node: Node, *checkouts: CheckoutSettings, **mirror: object) -> None:
    """Let the node make directories of its repository."""
    shop = attrs.evolve(
        node.settings.repositories[SHOP],
        checkouts=checkouts,
        mirror=MirrorSettings(**mirror),  # type: ignore[arg-type]
    )
    node.settings = attrs.evolve(node.settings, repositories={**node.settings.repositories, SHOP: shop})


def puppet(node: Node) -> Path:
    """Let the node keep Puppet environments; returns where."""
    where = node.root / "environments"
    with_checkouts(node, CheckoutSettings(mode="puppetmaster", target=where, grace=0))
    return where


def told(node: Node, ref: str, new: ObjectId, old: ObjectId = ZERO_ID, repo: str = SHOP) -> RefUpdated:
    """Send what a hook would send, and return it."""
    message = RefUpdated(source="git", repo=RepoName(repo), ref=RefName(ref), old=old, new=new)
    node.bus.publish(node.settings.topics.source, encode(message))
    return message


def environments(where: Path) -> dict[str, str]:
    """Each environment with what it shows."""
    return {p.name: (p / "site.pp").read_text() for p in where.iterdir() if p.name != ".deploykit"}


def test_a_pushed_branch_is_a_puppet_environment_and_a_deleted_one_is_gone(node: Node) -> None:
    where = puppet(node)
    first = node.origin.push(files={"site.pp": "main"})
    with node.agent() as agent:
        agent.ready()
        node.wait(MirrorUpdated, lambda m: m.new == first)
        assert environments(where) == {"main": "main"}
        commit = node.origin.branch("feature/X-1", {"site.pp": "feature"})
        message = told(node, "refs/heads/feature/X-1", commit)
        report = node.wait(MirrorUpdated, lambda m: m.correlation_id == message.id)
        assert (report.outcome, report.new, report.detail) == ("updated", commit, "")
        assert environments(where) == {"main": "main", "feature_x_1": "feature"}, "reported when it is there"
        node.origin.delete("feature/X-1")
        message = told(node, "refs/heads/feature/X-1", ZERO_ID, old=commit)
        report = node.wait(MirrorUpdated, lambda m: m.correlation_id == message.id)
        assert (report.outcome, report.old, report.new) == ("updated", commit, ZERO_ID)
        assert environments(where) == {"main": "main"}


@pytest.mark.parametrize(
    ("mode", "more", "shown"),
    [
        ("normal", {"target": None}, {}),
        ("trusting", {}, {"site": "main"}),
        ("dangerous", {}, {"site": "main"}),
        ("branch", {"branch": "live"}, {"site": "live"}),
        ("tags", {}, {"site/v1": "main", "site/v2": "main"}),
        ("atomic", {}, {"site_main": "main", "site_live": "live", "site_a%2Fb": "live"}),
        ("atomic", {"nested": True}, {"site_main": "main", "site_live": "live", "site_a/b": "live"}),
        ("puppetmaster", {}, {"site/main": "main", "site/live": "live", "site/a_b": "live"}),
    ],
)
def test_every_mode_runs_on_a_node(node: Node, mode: str, more: dict[str, object], shown: dict[str, str]) -> None:
    root = node.root / "www"
    chosen = CheckoutSettings(mode=mode, **{"target": root / "site", **more})  # type: ignore[arg-type]
    with_checkouts(node, chosen)
    node.origin.push(tag="v1", files={"site.pp": "main"})
    node.origin.push(tag="v2", files={"site.pp": "main", "more": "x"})
    live = node.origin.branch("live", {"site.pp": "live"})
    git("push", "--quiet", "origin", "live:a/b", cwd=node.origin.work)
    with node.agent() as agent:
        agent.ready()
        node.wait(MirrorUpdated, lambda m: m.ref == "refs/heads/live" and m.new == live)
    found = {}
    for at, _, names in os.walk(root, followlinks=True):
        if "site.pp" in names and ".deploykit" not in at:
            found[str(Path(at).relative_to(root))] = (Path(at) / "site.pp").read_text()
    assert found == shown


def test_what_cannot_be_checked_out_is_reported_once_and_what_is_mended_too(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = puppet(node)
    first = node.origin.push(files={"site.pp": "main"})
    where.mkdir()
    (where / "main").mkdir()
    fetches: list[RefChange | None] = []
    fetch = Mirror.fetch

    def counted(mirror: Mirror, expected: RefChange | None = None) -> FetchResult:
        result = fetch(mirror, expected)
        fetches.append(expected)
        return result

    monkeypatch.setattr(Mirror, "fetch", counted)
    with node.agent(reconcile_every=0.2) as agent:
        assert agent.wait_connected(60)
        report = node.wait(MirrorUpdated, lambda m: m.ref == MAIN)
        assert (report.outcome, report.new) == ("refused", first)
        assert f"{where / 'main'} is not a checkout" in report.detail
        wait_until(lambda: len(fetches) >= 6)  # five more comparisons, of which none says it again
        assert node.count(MirrorUpdated) == 1
        (where / "main").rmdir()
        report = node.wait(MirrorUpdated, lambda m: m.outcome == "unchanged")
        assert (report.ref, report.new) == (MAIN, first)
        assert environments(where) == {"main": "main"}


def test_a_tree_that_is_refused_leaves_its_environment_and_says_why(node: Node) -> None:
    where = puppet(node)
    first = node.origin.push(files={"site.pp": "main"})
    with node.agent() as agent:
        agent.ready()
        node.wait(MirrorUpdated, lambda m: m.new == first)
        (node.origin.work / "link").symlink_to("/etc/passwd")
        bad = node.origin.push(files={"site.pp": "bad"})
        message = told(node, MAIN, bad, old=first)
        report = node.wait(MirrorUpdated, lambda m: m.correlation_id == message.id)
        assert (report.outcome, report.old, report.new) == ("refused", first, bad)
        assert "leads out of the tree" in report.detail
        assert environments(where) == {"main": "main"}


def test_an_environment_that_a_crash_left_behind_is_made_at_the_next_start(node: Node) -> None:
    where = puppet(node)
    node.origin.push(files={"site.pp": "main"})
    path = node.root / "state" / "mirrors" / "shop.git"
    with Mirror.open(path, str(node.origin.path)) as mirror:
        mirror.fetch()  # and then the power went
    away = node.origin.path.with_name("away.git")
    node.origin.path.rename(away)  # nor is the origin there
    with node.agent() as agent:
        agent.ready()
        wait_until(lambda: where.exists() and environments(where) == {"main": "main"})


def test_a_mirror_that_is_lost_while_the_origin_is_away_costs_no_environment(node: Node) -> None:
    where = puppet(node)
    first = node.origin.push(files={"site.pp": "main"})
    with node.agent() as agent:
        agent.ready()
        node.wait(MirrorUpdated, lambda m: m.new == first)
        (node.root / "state" / "mirrors" / "shop.git").rename(node.root / "lost.git")
        node.origin.path.rename(node.origin.path.with_name("away.git"))
        message = told(node, MAIN, ObjectId("ab" * 20), old=first)
        assert node.wait(MirrorUpdated, lambda m: m.correlation_id == message.id).outcome == "failed"
        assert environments(where) == {"main": "main"}
        node.origin.path.with_name("away.git").rename(node.origin.path)
        node.wait(MirrorUpdated, lambda m: m.outcome == "updated" and m.new == first)


def test_a_damaged_mirror_is_cloned_anew_and_its_environments_follow(node: Node) -> None:
    where = puppet(node)
    text = os.urandom(2000).hex()
    first = node.origin.push(files={"site.pp": text})
    with Mirror.open(node.root / "state" / "mirrors" / "shop.git", str(node.origin.path)) as mirror:
        mirror.fetch()
        (pack,) = (mirror.path / "objects" / "pack").glob("*.pack")
    pack.chmod(0o644)
    pack.write_bytes(pack.read_bytes()[:12] + b"\xff" * (pack.stat().st_size - 12))
    with node.agent() as agent:
        agent.ready()
        wait_until(lambda: where.exists() and environments(where) == {"main": text})
    assert git("rev-parse", "main", cwd=node.root / "state" / "mirrors" / "shop.git") == first
    assert (node.root / "state" / "mirrors" / "shop.git.damaged").is_dir()


def test_a_deploy_that_finds_the_mirror_damaged_fails_and_the_next_one_finds_a_new_mirror(node: Node) -> None:
    text = os.urandom(2000).hex()
    with node.agent() as agent:
        agent.ready()
        commit = node.origin.push(tag="v1", files={"index.html": text})
        told(node, "refs/tags/v1", commit)
        node.wait(MirrorUpdated, lambda m: m.ref == "refs/tags/v1")
        path = node.root / "state" / "mirrors" / "shop.git"
        blob = git("rev-parse", "v1:index.html", cwd=path)
        (pack,) = (path / "objects" / "pack").glob("*.pack")
        told_of = git("verify-pack", "-v", str(pack), cwd=path).splitlines()
        at = int(next(line.split()[4] for line in told_of if line.startswith(blob)))
        data = bytearray(pack.read_bytes())
        data[at + 20 : at + 40] = b"\xff" * 20
        pack.chmod(0o644)
        pack.write_bytes(data)
        failed = node.request("v1", commit)
        node.send(failed)
        report = node.report_on(failed)
        assert report.outcome != "success"
        assert blob in report.detail
        wait_until(path.with_name("shop.git.damaged").is_dir)
        wait_until(path.is_dir)
        again = node.request("v1", commit)
        node.send(again)
        assert node.report_on(again).outcome == "success"
        assert (node.site / "current" / "index.html").read_text() == text


@contextmanager
def stalled_server() -> Iterator[str]:
    """An origin that accepts and says nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as server:
        yield f"git://127.0.0.1:{server.getsockname()[1]}"


def test_an_origin_that_says_nothing_delays_no_other_repository(node: Node) -> None:
    first = node.origin.push()
    with stalled_server() as url:
        silent = {RepoName(f"silent{n}"): RepositorySettings(url=f"{url}/r{n}.git") for n in range(8)}
        with node.agent(repositories={**silent, **node.settings.repositories}) as agent:
            agent.ready(SHOP)
            node.wait(MirrorUpdated, lambda m: m.new == first)
            for name in silent:
                for n in range(20):
                    told(node, f"refs/heads/b{n}", ObjectId("ab" * 20), repo=name)
            commit = node.origin.push()
            began = time.monotonic()
            message = told(node, MAIN, commit, old=first)
            report = node.wait(MirrorUpdated, lambda m: m.correlation_id == message.id)
            took = time.monotonic() - began
            assert report.outcome == "updated"
            # Long for a busy machine, short for whoever waits for the silent ones: 60 s for one that stalls.
            assert took < 30, f"{took:.1f} s"
            ended = time.monotonic()
        assert time.monotonic() - ended < 45, "nor does the agent's end wait for its deadline"


def test_ten_messages_during_a_fetch_are_one_more_fetch_and_ten_reports(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = node.origin.push()
    gate, fetch = threading.Event(), Mirror.fetch
    fetches: list[RefChange | None] = []

    def counted(mirror: Mirror, expected: RefChange | None = None, *rest: object) -> FetchResult:
        fetches.append(expected)
        assert gate.wait(60)
        return fetch(mirror, expected)

    with node.agent() as agent:
        agent.ready()
        node.wait(MirrorUpdated, lambda m: m.new == first)
        monkeypatch.setattr(Mirror, "fetch", counted)
        ids = [first, *(node.origin.push() for _ in range(3))]
        told(node, MAIN, ids[1], old=ids[0])
        wait_until(lambda: len(fetches) == 1)
        sent = [told(node, MAIN, ids[3], old=ids[2]) for _ in range(9)]
        sent.append(told(node, "refs/tags/none", ZERO_ID, old=ids[1]))
        wait_until(lambda: waiting(agent) == 10)
        gate.set()
        for message in sent:
            report = node.wait(MirrorUpdated, lambda m, wanted=message.id: m.correlation_id == wanted)  # type: ignore[misc]
            assert report.outcome in ("updated", "unchanged")
        assert len(fetches) == 2


def waiting(agent: NodeAgent) -> int:
    """How many requests wait for the next fetch of the shop."""
    return agent._mirrors._pool.waiting(SHOP)


def test_mirrors_of_many_repositories_are_made_at_once(node: Node) -> None:
    origins = {RepoName(f"r{n}"): Origin(node.root / f"r{n}") for n in range(6)}
    commits = {name: origin.push(files={"site.pp": name}) for name, origin in origins.items()}
    repositories = {
        name: RepositorySettings(
            url=str(origin.path), checkouts=(CheckoutSettings(mode="trusting", target=node.root / "www" / name),)
        )
        for name, origin in origins.items()
    }
    with node.agent(repositories=repositories, sites={}) as agent:
        agent.ready()
        for name, commit in commits.items():
            node.wait(MirrorUpdated, lambda m, n=name, c=commit: (m.repo, m.new) == (n, c))  # type: ignore[misc]
            assert (node.root / "www" / name / "site.pp").read_text() == name


@pytest.mark.slow
def test_an_agent_of_five_hundred_mirrors_takes_little_memory_and_few_files(node: Node) -> None:
    """The whole process: bus, outbox, mirrors and their directories, and nothing to do."""
    node.origin.push(files={"site.pp": "main"})
    count = 500
    lines = [
        f'node = "{NODE}"\nstate = "{node.root}/state"\nfetch_spread = 0\n'
        f'[broker]\naddress = "{node.settings.broker.address}"\n[outbox]\npath = "{node.root}/spool"\n'
    ]
    with git_daemon(node.origin.path.parent) as server:
        lines += [
            f'[repositories.r{n}]\nurl = "{server.url("origin.git")}"\n'
            f'checkouts = [{{ mode = "trusting", target = "{node.root}/www/r{n}" }}]\n'
            for n in range(count)
        ]
        file = node.root / "deploykit.toml"
        file.write_text("".join(lines))
        file.chmod(0o600)
        with (node.root / "log").open("wb") as log:
            argv = [sys.executable, "-P", "-m", "deploykit", "agent", "-c", str(file)]
            process = subprocess.Popen(argv, stdout=log, stderr=log)
        try:
            wait_until(lambda: node.count(MirrorUpdated) >= count, timeout=400)
            assert len(list((node.root / "www").glob("r*/site.pp"))) == count
            proc = Path(f"/proc/{process.pid}")
            wait_until(lambda: len(list((proc / "fd").iterdir())) < 100)
            status = (proc / "status").read_text().splitlines()
            kilobytes = int(next(line.split()[1] for line in status if line.startswith("VmRSS")))
            print(f"an agent of {count} mirrors: {kilobytes / 1024:.0f} MB resident")
            assert kilobytes < 80 * 1024
            process.terminate()
            assert process.wait(60) == 0
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
