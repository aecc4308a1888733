"""A real agent describes itself over a real bus: asked by who may ask, and unasked when something has changed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest

from deploykit._version import __version__
from deploykit.broker.server import EmbeddedBroker
from deploykit.daemons.agent import selfdescription
from deploykit.fleet.discovery import discover
from deploykit.messages import DeployReported, NodeDescribed, NodeQueried
from deploykit.names import NodeName, RefName, RepoName, SiteName
from deploykit.release import Runner, Site
from deploykit.settings import FactsSettings, GrantSettings
from deploykit.trust.check import Trust
from deploykit.trust.keyfiles import generate_key, trust
from deploykit.wire import Frame, encode
from deploykit.wire.codec import ID_HEADER
from tests.brokers.rabbitmq import RabbitMQ
from tests.support.asking import Asker, let_ask
from tests.support.node import NODE, SHOP, Node, NodeAgent, at_real_broker
from tests.support.wait import wait_until


@pytest.fixture
def node(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> Iterator[Node]:
    with Node(tmp_path, deploykit_broker) as made:
        yield let_ask(made)


def deploy(node: Node, tag: str, files: dict[str, str]) -> str:
    commit = node.origin.push(tag=tag, files=files)
    request = node.request(tag, commit)
    node.send(request)
    assert node.report_on(request).outcome == "success"
    return commit


def audited(node: Node) -> list[dict[str, Any]]:
    lines = (node.settings.state / "audit.log").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["action"] == "node.query"]


def questions(agent: NodeAgent) -> dict[str, float]:
    """How many questions the agent counted, by outcome."""
    series = agent.metrics.series("questions_total")
    return {key[0]: value for key, value in series.items() if isinstance(value, float) and value}


def test_a_node_answers_with_what_it_holds_read_from_its_site(node: Node, tmp_path: Path) -> None:
    (tmp_path / "facts.yaml").write_text("env: live\nsecret: canary\n")
    (tmp_path / "classes.txt").write_text("nginx\nrole::web\n")
    facts = FactsSettings(
        own={"rack": "b4"}, files=(tmp_path / "facts.yaml",), allow=("env",), classes_files=(tmp_path / "classes.txt",)
    )
    with let_ask(node, facts).agent() as agent:
        agent.ready()
        asker = Asker(node)
        first = deploy(node, "v1", {"index.html": "one\n", "old.html": "x\n"})
        second = deploy(node, "v2", {"index.html": "two\n"})
        live = node.site / "current"
        (live / "index.html").write_text("edited by hand\n")
        (live / "added.html").write_text("x\n")
        answer = asker.ask("facts", "sites", "refs", "drift", "history", history_limit=1)
        (site,) = answer.sites
        assert (answer.node, answer.version, answer.cut, answer.twins) == (NODE, __version__, (), ())
        assert (answer.instance, answer.host) == (agent._presence.me.instance, agent._presence.me.host)
        assert (answer.facts, answer.classes) == ({"rack": "b4", "env": "live"}, ("nginx", "role::web"))
        assert (site.site, site.repo, site.ref, site.commit) == ("shop", SHOP, "refs/tags/v2", second)
        assert site.release == live.readlink().name
        assert site.previous is not None
        assert (site.previous.ref, site.previous.commit) == ("refs/tags/v1", first)
        assert (site.prepared, site.problem, site.modified) == (None, "", 2)
        assert site.since is not None
        assert abs(site.since - datetime.now(UTC)) < timedelta(minutes=5)
        assert site.last is not None
        assert (site.last.phase, site.last.outcome, site.last.commit) == ("deploy", "success", second)
        assert "ada" in site.last.requested_by
        assert site.history == (site.last,)
        assert {held.ref for held in answer.refs} == {"refs/heads/main", "refs/tags/v1", "refs/tags/v2"}
        assert {held.ref: held.commit for held in answer.refs}[RefName("refs/tags/v1")] == first
        assert answer.refs_count == 3
        times = [held.time for held in answer.refs if held.time is not None]
        assert len(times) == 3
        assert times == sorted(times, reverse=True)


def test_only_what_is_asked_for_is_answered(node: Node) -> None:
    with node.agent() as agent:
        agent.ready()
        asker = Asker(node)
        deploy(node, "v1", {"index.html": "one\n"})
        presence = asker.ask(details=())
        assert (presence.facts, presence.sites, presence.refs) == ({}, (), ())
        refs = asker.ask("refs", refs_limit=1)
        assert (len(refs.refs), refs.refs_count, refs.sites) == (1, 2, ())
        assert asker.ask("refs", repo=RepoName("other")).refs_count == 0
        assert asker.ask("sites", "refs", site=SiteName("elsewhere")).sites == ()
        assert asker.ask("refs", site=SiteName("shop")).refs_count == 2
        (site,) = asker.ask("sites").sites
        assert (site.history, site.modified) == ((), None)


def test_a_site_without_a_release_and_one_that_cannot_be_read_are_told_apart(node: Node) -> None:
    with node.agent() as agent:
        agent.ready()
        asker = Asker(node)
        (site,) = asker.ask("sites", "drift", "history").sites
        assert (site.release, site.problem, site.last, site.modified) == ("", "", None, None)
        deploy(node, "v1", {"index.html": "one\n"})
        (node.site / ".deploykit" / "state.json").write_text("{")
        (site,) = asker.ask("sites").sites
        assert "damaged" in site.problem
        assert site.release == ""


def test_a_node_describes_itself_at_its_start_and_after_a_deploy(
    node: Node, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(selfdescription, "LOOK", 0.1)
    facts = tmp_path / "facts.json"
    facts.write_text('{"env": "stage"}')
    asker = Asker(node)
    with let_ask(node, FactsSettings(files=(facts,), allow=("*",))).agent() as agent:
        agent.ready()
        first = asker.wait(lambda d: d.request is None)
        assert (first.answers, first.facts, first.sites[0].release) == ("", {"env": "stage"}, "")
        commit = deploy(node, "v1", {"index.html": "one\n"})
        after = asker.wait(lambda d: d.request is None and d.sites[0].commit == commit)
        assert (after.refs, after.sites[0].history) == ((), ())
        facts.write_text('{"env": "live"}')
        asker.wait(lambda d: d.facts == {"env": "live"})
        # What nothing asked the agent for is seen, too: somebody deploys by hand.
        assert Runner(Site(node.site)).pin(after.sites[0].release).pinned
        said = asker.unasked()
        asker.ask("sites")
        assert asker.unasked() <= said + 1


def test_what_does_not_change_is_said_every_few_minutes_only(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selfdescription, "LOOK", 0.02)
    asker = Asker(node)
    with node.agent() as agent:
        agent.ready()
        asker.wait(lambda d: d.request is None)
        deploy(node, "v1", {"index.html": "one\n"})
        asker.wait(lambda d: d.request is None and d.sites[0].ref == "refs/tags/v1" and d.sites[0].last is not None)
        said = asker.unasked()
        looks = agent._unasked._times
        for _ in range(3):
            asker.ask("facts")
        assert looks._due - looks._look > 60
        assert asker.unasked() == said


def test_after_a_broker_restart_a_node_describes_itself_and_answers_again(
    node: Node, deploykit_broker: EmbeddedBroker
) -> None:
    with node.agent() as agent:
        agent.ready()
        asker = Asker(node)
        asker.ask("facts")
        deploykit_broker.restart()
        topic = node.settings.topics.inventory
        wait_until(lambda: deploykit_broker.running and deploykit_broker.sent(topic), "a description")
        assert node.bus.wait_connected(60)
        assert asker.ask("facts").node == NODE


# -- threat 45: discovery as an amplifier ------------------------------------------------------------------------------


def test_threat_45_only_a_signed_and_granted_question_is_answered(node: Node) -> None:
    grants = (
        GrantSettings(principal="ops@example.org", types=("node.queried",)),
        GrantSettings(principal="ci@example.org", types=("deploy.requested", "build.finished")),
    )
    node.keys["ci"] = generate_key(node.root / "ci.key")
    trust(node.signers, "ci@example.org", node.keys["ci"].public_blob)
    with let_ask(node, None, *grants).agent() as agent:
        agent.ready()
        asker = Asker(node)
        refused = [asker.question() for _ in range(4)]
        asker.send(refused[0], key=None)
        asker.send(refused[1], key="stranger")
        asker.send(refused[2], key="ci")
        asker.send(refused[3], key="node")
        assert asker.ask("facts").node == NODE
        wait_until(lambda: sum(questions(agent).values()) == 5, "the questions")
        assert asker.answers(*refused) == 0
        assert questions(agent) == {"unverified": 2.0, "denied": 2.0, "answered": 1.0}
    denied = audited(node)
    assert {record["decision"] for record in denied} == {"denied"}
    assert sorted(record["actor"].partition(" ")[0] for record in denied)[:2] != []
    reasons = " ".join(record["reason"] for record in denied)
    assert "may not send NodeQueried" in reasons
    assert "not signed" in reasons or "not among the allowed signers" in reasons
    assert sum(int(record["details"].get("count", 1)) for record in denied) == 4


def test_threat_45_a_flood_of_unsigned_questions_gets_no_answer_and_fills_no_file(node: Node) -> None:
    with node.agent() as agent:
        agent.ready()
        asker = Asker(node)
        asker.ask("facts")
        before = (node.settings.state / "audit.log").stat().st_size if audit_exists(node) else 0
        flood(node, encode(asker.question()), 2000)
        assert asker.ask("facts").node == NODE
        wait_until(lambda: questions(agent).get("unverified") == 2000, "the flood")
        assert len(audited(node)) == 1
        assert (node.settings.state / "audit.log").stat().st_size - before < 2000
    assert sum(int(record["details"]["count"]) for record in audited(node)) == 2000
    assert not asker.node.waits(NodeDescribed)


def flood(node: Node, frame: Frame, count: int) -> None:
    """Send a frame many times, each time under another transport id: a bus drops copies under the same."""
    for number in range(count):
        copy = Frame({**frame.headers, ID_HEADER: f"copy-{number}"}, frame.body)
        node.bus.publish(node.settings.topics.node, copy, persistent=False, timeout=60)


def audit_exists(node: Node) -> bool:
    return (node.settings.state / "audit.log").exists()


def test_threat_45_a_replayed_question_is_answered_once_a_second_at_most(node: Node) -> None:
    with node.agent() as agent:
        agent.ready()
        asker = Asker(node)
        question = asker.question("facts")
        sent = asker.send(question)
        asker.wait(lambda d: d.request == question.id)
        began = time.monotonic()
        flood(node, sent, 300)
        wait_until(lambda: sum(questions(agent).values()) >= 301, "the replays")
        seconds = time.monotonic() - began
        assert asker.answers(question) <= 1 + questions(agent)["answered"]
        assert questions(agent)["answered"] <= 2 + seconds
        assert questions(agent)["repeated"] >= 299 - seconds


def test_two_questions_of_one_key_are_both_answered_a_second_apart(node: Node) -> None:
    with node.agent() as agent:
        agent.ready()
        asker = Asker(node)
        both = asker.question("facts"), asker.question("sites")
        asked = datetime.now(UTC)
        for question in both:
            asker.send(question)
        times = [asker.wait(lambda d, q=question: d.request == q.id).time for question in both]  # type: ignore[misc]
        # Not from the first answer: its second begins before it is written, and that may take a while.
        assert max(times) - asked > timedelta(seconds=0.8)


def test_a_question_for_others_or_that_has_expired_is_not_answered(node: Node) -> None:
    long_ago = datetime.now(UTC) - timedelta(minutes=10)
    with node.agent() as agent:
        agent.ready()
        asker = Asker(node)
        other = asker.question(audience=(NodeName("web2"),))
        late = asker.question(time=long_ago, expires=long_ago + timedelta(minutes=1))
        far = asker.question(expires=datetime.now(UTC) + timedelta(days=2))
        for question in (other, late, far):
            asker.send(question)
        assert asker.ask("facts", audience=(NodeName("web2"), NODE)).node == NODE
        assert asker.answers(other, late, far) == 0
    assert "expired" in audited(node)[0]["reason"]


def test_a_changed_copy_of_a_genuine_question_is_not_answered(node: Node) -> None:
    with node.agent() as agent:
        agent.ready()
        asker = Asker(node)
        question = asker.question("facts")
        sent = asker.send(question)
        asker.wait(lambda d: d.request == question.id)
        changed = Frame(sent.headers, sent.body.replace(b'"facts"', b'"sites"'))
        assert changed.body != sent.body
        node.bus.publish(node.settings.topics.node, changed, persistent=False)
        asker.ask("facts")
        assert questions(agent)["unverified"] == 1
        assert asker.answers(question) == 1


def test_a_grant_for_some_sites_shows_no_others(node: Node) -> None:
    other = attrs.evolve(node.settings.sites[SiteName("shop")], path=node.root / "other")
    sites = {**node.settings.sites, SiteName("secret"): other}
    node.settings = attrs.evolve(node.settings, sites=sites)
    grant = GrantSettings(principal="ops@example.org", types=("node.queried",), sites=("*", "!secret"))
    with let_ask(node, None, grant).agent() as agent:
        agent.ready()
        asker = Asker(node)
        assert [site.site for site in asker.ask("sites").sites] == ["shop"]
        refused = asker.question("sites", site=SiteName("secret"))
        asker.send(refused)
        asker.ask("facts")
        assert asker.answers(refused) == 0


def test_a_node_without_a_key_says_nothing(node: Node) -> None:
    with node.agent(signing_key=None) as agent:
        agent.ready()
        asker = Asker(node)
        asker.send(asker.question())
        request = node.request("v1", node.origin.push(tag="v1"))
        node.send(request)
        node.wait(DeployReported, lambda m: m.request == request.id)
        assert asker.heard == []
        assert questions(agent) == {}


@pytest.mark.rabbitmq
def test_a_node_answers_and_describes_itself_over_rabbitmq(
    rabbitmq: RabbitMQ, tmp_path: Path, deploykit_broker: EmbeddedBroker
) -> None:
    node = at_real_broker(let_ask(Node(tmp_path, deploykit_broker), FactsSettings(own={"env": "live"})), rabbitmq)
    with node, node.agent() as agent:
        agent.ready()
        asker = Asker(node)
        asker.ask("facts", "sites")
        commit = deploy(node, "v1", {"index.html": "one\n"})
        asker.wait(lambda d: d.request is None and d.sites[0].commit == commit)
        assert asker.ask("facts").facts == {"env": "live"}


def test_an_asker_finds_the_agent_and_believes_it(node: Node) -> None:
    with let_ask(node, FactsSettings(own={"env": "live"})).agent() as agent:
        agent.ready()
        trusts = Trust.from_settings(node.settings.trust, node.settings.node)
        query = NodeQueried(source="operator/test", details=("facts", "sites"))
        for _ in range(2):  # the second question comes within the first one's second
            found = discover(
                node.bus, node.settings.topics, node.keys["operator"], trusts, query, expected=frozenset({NODE})
            )
            assert (found.silent, found.doubts) == ((), {})
            assert found.nodes[NODE].facts == {"env": "live"}
            query = attrs.evolve(query, id="another")
