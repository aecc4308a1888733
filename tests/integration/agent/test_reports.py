"""Reports that must come: of a deploy that prints much, of a fetch with a ref that nobody can name, on a full disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.bus import Delivery
from deploykit.messages import DeployReported, MirrorUpdated, Notice
from deploykit.messages.topics import TopicMap
from deploykit.names import ObjectId, RefName
from deploykit.outbox import keys
from deploykit.release import Site
from deploykit.release.model import StepRecord
from deploykit.settings import OutboxSettings
from deploykit.wire import decode
from deploykit.wire.strictjson import MAX_BODY
from tests.brokers.server import BrokerServer
from tests.support.disks import small_disk
from tests.support.needs import needs_root
from tests.support.node import Node, git
from tests.support.wait import wait_until

SCRIPTS = ("pre-deploy", "pre-link", "post-deploy", "health-check")
#: What issue 11 pushes: a name of 1,406 characters, which git takes and no message may carry.
LONG = "/".join(["b" * 200] * 7)


@pytest.fixture
def node(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> Iterator[Node]:
    with Node(tmp_path, deploykit_broker) as made:
        yield made


def loud(node: Node) -> ObjectId:
    """Push a release all of whose scripts print 70,000 control characters, and a word of farewell."""
    script = "#!/bin/sh\nhead -c 70000 /dev/zero | tr '\\0' '\\001'\nprintf 'the end of %s' \"$DEPLOYKIT_STEP\"\n"
    files = {"index.html": "one\n", **{f"deploy/{name}": script for name in SCRIPTS}}
    return node.origin.push(tag="v1", files=files)


def check_loud(node: Node, report: DeployReported) -> None:
    """The report came, says how every script ended, and leaves the rest to the site's own history."""
    assert (report.outcome, report.commit) == ("success", git_commit(node))
    body = node.delivery_of(report).body
    assert 0.9 * MAX_BODY < len(body) <= MAX_BODY
    told = {step.name: step for step in report.steps}
    for name in SCRIPTS:
        assert (told[name].outcome, told[name].exit_code) == ("done", 0)
        assert told[name].output.endswith(f"the end of {name}")
        assert "characters left out" in told[name].output
    kept = {step.name: step.output for step in history(node)}
    assert all(len(kept[name]) > 65_000 for name in SCRIPTS)
    assert (node.site / "current" / "index.html").read_text() == "one\n"


def git_commit(node: Node) -> ObjectId:
    return ObjectId(git("rev-parse", "refs/tags/v1", cwd=node.origin.path))


def history(node: Node) -> tuple[StepRecord, ...]:
    site = Site(node.site, next(iter(node.settings.sites.values())).release)
    (operation,) = site.state().operations
    return site.steps(operation)


def test_a_deploy_that_prints_much_is_reported(node: Node) -> None:
    with node.agent() as agent:
        agent.ready()
        request = node.request("v1", loud(node))
        node.send(request)
        check_loud(node, node.report_on(request))


def test_a_report_as_long_as_reports_get_passes_a_real_broker(
    tmp_path: Path, real_broker: BrokerServer, unique_name: str
) -> None:
    made = Node(tmp_path, real_broker)  # it has an address: that is all that is asked of it
    names = (f"/topic/{unique_name}.{name}" for name in ("source", "deploy", "report", "mirror"))
    topics = TopicMap(source=next(names), deploy=next(names), report=next(names), mirror=next(names))
    made.settings = attrs.evolve(made.settings, topics=topics)
    with made as node, node.agent() as agent:
        agent.ready()
        request = node.request("v1", loud(node))
        node.send(request)
        check_loud(node, node.report_on(request))


# -- a ref that nobody can name ----------------------------------------------------------------------------------------


def test_one_over_long_ref_costs_no_other_ref_its_report(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    first = node.origin.push()
    notices: list[Notice] = []

    def hear(delivery: Delivery) -> None:
        message = decode(delivery.headers, delivery.body, delivery.destination)
        assert isinstance(message, Notice)
        notices.append(message)

    assert node.bus.subscribe(node.settings.topics.notice, hear).wait_active(60)
    with node.agent() as agent:
        agent.ready()
        node.wait(MirrorUpdated, lambda m: m.new == first)
        git("push", "origin", "main:refs/heads/innocent", f"main:refs/heads/{LONG}", cwd=node.origin.work)
        agent._mirrors.reconcile_soon()
        node.wait(MirrorUpdated, lambda m: (m.ref, m.outcome) == ("refs/heads/innocent", "updated"))
        wait_until(lambda: len(notices) == 1, "the line for people", 60)
        assert "shop" in notices[0].text
        assert "refs/heads/bbbb" in notices[0].text
        assert "1417 characters" in notices[0].text
        assert "1417 characters" in caplog.text
        # It goes on being wrong, is not said again, and what comes after is reported.
        for name in ("second", "third"):
            git("push", "origin", f"main:refs/heads/{name}", cwd=node.origin.work)
            agent._mirrors.reconcile_soon()
            node.wait(MirrorUpdated, lambda m, ref=f"refs/heads/{name}": m.ref == ref)  # type: ignore[misc]
        assert len(notices) == 1
    with node._changed:
        told = {m.ref for m, _ in node.heard if isinstance(m, MirrorUpdated)}
    assert told == {RefName(f"refs/heads/{name}") for name in ("main", "innocent", "second", "third")}


def test_a_name_that_begins_like_the_refused_one_is_its_own(node: Node) -> None:
    """What is shown of the refused name is the name of another branch: that one moves, and goes, as it should."""
    node.origin.push()
    begins = f"refs/heads/{LONG}"[:200]
    with node.agent() as agent:
        agent.ready()
        git("push", "origin", f"main:{begins}", cwd=node.origin.work)
        agent._mirrors.reconcile_soon()
        node.wait(MirrorUpdated, lambda m: m.ref == begins)
        git("push", "origin", f":{begins}", cwd=node.origin.work)
        git("push", "origin", f"main:refs/heads/{LONG}", cwd=node.origin.work)
        agent._mirrors.reconcile_soon()
        node.wait(MirrorUpdated, lambda m: m.ref == begins and not m.new.strip("0"))


# -- a full disk -------------------------------------------------------------------------------------------------------


@needs_root("to mount a tmpfs")
@pytest.mark.parametrize("options", ["size=256k", "nr_inodes=40"])
def test_what_a_full_disk_kept_from_being_said_is_said_when_there_is_room(
    tmp_path: Path, deploykit_broker: EmbeddedBroker, options: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mirrors and deploys alike: the spool is full from the push on until well after the fetch and the deploy."""
    monkeypatch.setattr("deploykit.daemons.agent.pending_reports._RETRY_AFTER", 0.1)
    monkeypatch.setattr("deploykit.daemons.agent.deploys._RETRY_AFTER", 0.1)
    with small_disk(tmp_path / "small", options) as disk, Node(tmp_path / "node", deploykit_broker) as node:
        node.settings = attrs.evolve(node.settings, outbox=OutboxSettings(path=disk / "spool"))
        first = node.origin.push()
        with node.agent() as agent:
            agent.ready()
            node.wait(MirrorUpdated, lambda m: m.new == first)
            # What was heard is removed a moment later, and would leave an inode for a report.
            wait_until(lambda: not any((disk / "spool").rglob(f"*{keys.SUFFIX}")), "the first report has gone")
            fill(disk)
            commit = node.origin.push(tag="v1", files={"index.html": "one\n"})
            agent._mirrors.reconcile_soon()
            mirror = node.root / "state" / "mirrors" / "shop.git"
            wait_until(lambda: git("rev-parse", "refs/heads/main", cwd=mirror) == commit, "the fetch", 60)
            request = node.request("v1", commit)
            node.send(request)
            wait_until((node.site / "current" / "index.html").exists, "the release", 60)
            wait_until(lambda: agent._mirrors._pending.waiting >= 2, "the reports that wait", 60)
            assert not any(m for m, _ in node.heard if getattr(m, "new", "") == commit)
            (disk / "full").unlink(missing_ok=True)
            for path in disk.glob("inode*"):
                path.unlink()
            report = node.report_on(request)
            assert report.outcome == "success"
            for ref in ("refs/heads/main", "refs/tags/v1"):
                node.wait(MirrorUpdated, lambda m, ref=ref: (m.ref, m.new, m.outcome) == (ref, commit, "updated"))  # type: ignore[misc]
            assert node.count(DeployReported) == 1


def fill(disk: Path) -> None:
    """Leave neither a byte nor an inode."""
    try:
        for number in range(10_000):
            (disk / f"inode{number}").touch()
            if number > 100:
                break
    except OSError:
        pass
    try:
        with (disk / "full").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
    except OSError:
        pass
