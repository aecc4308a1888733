"""A signed command names what goes live, in every phase; the report names what is live, and never what was asked."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.messages import DeployReported
from deploykit.names import ObjectId
from deploykit.release import Runner, Site
from tests.brokers.server import BrokerServer
from tests.support.cli import command
from tests.support.node import SHOP, Node


@pytest.fixture
def node(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> Iterator[Node]:
    with Node(tmp_path, deploykit_broker) as made:
        yield made


def history(node: Node, count: int = 3, **more: str) -> list[ObjectId]:
    """Push v1, v2, ... and return their commits."""
    return [node.origin.push(tag=f"v{n}", files={"index.html": f"{n}\n", **more}) for n in range(1, count + 1)]


def ask(node: Node, tag: str, commit: ObjectId, phase: str = "deploy") -> DeployReported:
    request = node.request(tag, commit, phase=phase)
    node.send(request)
    report = node.report_on(request)
    assert report.phase == phase
    if report.outcome == "success":  # no success that its asker would not believe
        assert report.achieved == (request.ref, request.commit, ())
    return report


def live(node: Node) -> str:
    return (node.site / "current" / "index.html").read_text().strip()


def says(report: DeployReported) -> tuple[str, str, ObjectId | None]:
    return report.outcome, re.sub("-.*", "", report.release), report.commit


def commit_of(report: DeployReported) -> ObjectId | None:
    return report.previous.commit if report.previous is not None else None


def test_a_rollback_goes_to_exactly_the_release_that_is_named_or_is_refused(node: Node) -> None:
    with node.agent() as agent:
        agent.ready()
        v1, v2, v3, v4 = history(node, 4)
        for tag, commit in (("v1", v1), ("v2", v2), ("v3", v3)):
            assert ask(node, tag, commit).outcome == "success"
        never = ask(node, "v4", v4, "rollback")
        assert says(never) == ("refused", "00003", v3)
        assert (never.live_known, commit_of(never), live(node)) == (True, v2, "3")
        crossed = ask(node, "v2", v1, "rollback")
        assert says(crossed) == ("refused", "00003", v3)
        back = ask(node, "v1", v1, "rollback")
        assert says(back) == ("success", "00001", v1)
        assert (back.previous, live(node)) == (None, "1")
        assert says(ask(node, "v1", v1, "rollback")) == ("success", "00001", v1), "it is live already"
        forth = ask(node, "v3", v3, "rollback")
        assert says(forth) == ("success", "00003", v3)
        assert commit_of(forth) == v2


def test_a_rollback_asks_nobody_for_what_is_on_disk_and_makes_the_rest_anew(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    with node.agent() as agent:
        agent.ready()
        commits = history(node)
        for n, commit in enumerate(commits, 1):
            assert ask(node, f"v{n}", commit).outcome == "success"
        shutil.rmtree(next((node.site / "releases").glob("00001-*")))
        anew = ask(node, "v1", commits[0], "rollback")
        assert says(anew) == ("success", "00004", commits[0])
        assert live(node) == "1"
        shutil.rmtree(node.origin.path)
        monkeypatch.setattr(agent._mirrors, "mirror", None)  # neither to be opened nor to be waited for
        assert says(ask(node, "v2", commits[1], "rollback")) == ("success", "00002", commits[1])
        assert live(node) == "2"


def test_an_activation_needs_the_very_ref_and_commit_that_were_prepared(node: Node) -> None:
    with node.agent() as agent:
        agent.ready()
        v1, v2 = history(node, 2)
        assert ask(node, "v1", v1).outcome == "success"
        prepared = ask(node, "v2", v2, "prepare")
        assert says(prepared) == ("success", "00001", v1), "what is live is v1 still"
        assert prepared.target is not None
        assert (prepared.target.ref, prepared.target.commit) == ("refs/tags/v2", v2)
        assert says(ask(node, "other", v2, "activate")) == ("refused", "00001", v1)
        assert says(ask(node, "v2", v1, "activate")) == ("refused", "00001", v1)
        shutil.rmtree(next((node.site / "releases").glob("00002-*")))
        assert says(ask(node, "v2", v2, "activate")) == ("success", "00003", v2)
        assert live(node) == "2"


def test_the_mirror_serves_a_rollback_and_an_activation_though_another_release_of_the_commit_is_whole(
    node: Node, tmp_path: Path
) -> None:
    """Neither the release that failed once nor the one that is live will do; the one that would is gone."""
    once = tmp_path / "once"
    with node.agent() as agent:
        agent.ready()
        (v1,) = history(node, 1)
        assert ask(node, "v1", v1).outcome == "success"
        flaky = f"#!/bin/sh\n[ -e {once} ] || {{ touch {once}; exit 1; }}\n"
        v2 = node.origin.push(tag="v2", files={"index.html": "2\n", "deploy/post-deploy": flaky})
        assert says(ask(node, "v2", v2)) == ("rolled-back", "00001", v1)
        assert says(ask(node, "v2", v2)) == ("success", "00003", v2)
        v3 = node.origin.push(tag="v3", files={"index.html": "3\n"})
        assert ask(node, "v3", v3).outcome == "success"
        shutil.rmtree(next((node.site / "releases").glob("00003-*")))
        back = ask(node, "v2", v2, "rollback")
        assert (says(back), live(node)) == (("success", "00005", v2), "2"), back.detail
        assert ask(node, "v2", v2, "prepare").outcome == "success"
        shutil.rmtree(next((node.site / "releases").glob("00006-*")))
        assert says(ask(node, "v2", v2, "activate")) == ("success", "00007", v2)


@pytest.mark.parametrize("step", ["pre-deploy", "post-deploy"])
def test_a_failure_names_what_is_live_and_what_it_was_about(node: Node, step: str) -> None:
    with node.agent() as agent:
        agent.ready()
        v1, v2 = history(node, 2)
        for tag, commit in (("v1", v1), ("v2", v2)):
            assert ask(node, tag, commit).outcome == "success"
        bad = node.origin.push(tag="v3", files={f"deploy/{step}": "#!/bin/sh\nexit 1\n"})
        report = ask(node, "v3", bad)
        assert says(report) == ("failure" if step == "pre-deploy" else "rolled-back", "00002", v2)
        assert report.target is not None
        assert (report.target.commit, commit_of(report)) == (bad, v1)
        assert f"live is v2 {v2[:12]}" in report.summary
        older = ask(node, "v1", v1)
        assert (says(older), older.target) == (("refused", "00002", v2), None)


def test_a_first_deploy_that_fails_says_that_nothing_is_live(node: Node) -> None:
    with node.agent() as agent:
        agent.ready()
        commit = node.origin.push(tag="v1", files={"deploy/post-deploy": "#!/bin/sh\nexit 1\n"})
        report = ask(node, "v1", commit)
        assert (says(report), report.ref, report.previous) == (("rolled-back", "", None), None, None)
        assert report.live_known
        assert "nothing is live" in report.summary


def test_what_was_made_by_hand_from_a_bare_commit_is_reported_without_a_ref(node: Node) -> None:
    with node.agent() as agent:
        agent.ready()
        v1, v2 = history(node, 2)
        assert ask(node, "v1", v1).outcome == "success"
        with agent._mirrors.mirror(SHOP) as mirror:
            assert Runner(Site(node.site)).deploy(mirror, v2, v2).check().live is not None
        report = ask(node, "v1", v1)
        assert (says(report), report.ref) == (("refused", "00002", v2), None)


def test_a_refusal_of_whoever_may_not_ask_tells_nothing_of_the_site(node: Node) -> None:
    with node.agent() as agent:
        agent.ready()
        (v1,) = history(node, 1)
        assert ask(node, "v1", v1).outcome == "success"
        request = node.request("v1", v1)
        node.send(request, key="stranger")
        report = node.report_on(request)
        assert (says(report), report.live_known, report.previous) == (("refused", "", None), False, None)


def test_success_that_is_answered_again_after_something_else_went_live_is_none(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The release is on record, but a crash lost the note that its request is done: the request comes again."""
    from deploykit.ids import IdStore

    with node.agent() as agent:
        agent.ready()
        v1, v2 = history(node, 2)
        lost = threading.Event()
        with monkeypatch.context() as patched:
            patched.setattr(IdStore, "done", lambda *_, **__: lost.set())
            request = node.request("v1", v1)
            frame = node.send(request)
            assert node.report_on(request).outcome == "success"
            assert lost.wait(60), "the report may be heard before its agent notes anything"
        assert ask(node, "v2", v2).outcome == "success"
        node.listen_afresh()
        node.bus.publish(
            node.settings.topics.deploy, attrs.evolve(frame, headers={**frame.headers, "deploykit-id": "x"})
        )
        report = node.report_on(request)
        assert says(report) == ("failure", "00002", v2)
        assert "is not live any more" in report.detail


@pytest.mark.slow
def test_the_commands_of_an_operator_on_a_real_broker(
    tmp_path: Path, new_real_broker: Callable[..., BrokerServer]
) -> None:
    with new_real_broker() as broker, Node(tmp_path, broker) as node, node.agent() as agent:
        agent.ready()
        v1, v2, v3, v4 = history(node, 4)
        file = tmp_path / "deploykit.toml"
        file.touch(mode=0o600)
        file.write_text(
            f'node = "desk"\nstate = "{tmp_path}/desk"\n[broker]\naddress = "{broker.address}"\n'
            f'[outbox]\npath = "{tmp_path}/desk-spool"\n'
        )

        def operator(tag: str, commit: ObjectId, phase: str) -> DeployReported:
            words = (f"ref=refs/tags/{tag}", f"commit={commit}", "audience=web1", "expires=+10m", f"phase={phase}")
            encoded = subprocess.run(
                command("message", "encode", "deploy.requested", "site=shop", *words), capture_output=True, check=True
            )
            publish = ("publish", "--file", "-", "--sign", str(tmp_path / "operator.key"), "--now", "-c", str(file))
            before = node.count(DeployReported)
            subprocess.run(command(*publish), input=encoded.stdout, capture_output=True, check=True)
            node.wait(DeployReported, lambda _: node.count(DeployReported) > before, timeout=120)
            return [m for m, _ in node.heard if isinstance(m, DeployReported)][-1]

        for tag, commit in (("v1", v1), ("v2", v2), ("v3", v3)):
            assert says(operator(tag, commit, "deploy"))[0] == "success"
        assert says(operator("v4", v4, "rollback")) == ("refused", "00003", v3)
        assert says(operator("v1", v1, "rollback")) == ("success", "00001", v1)
        assert live(node) == "1"
