"""Commands for a site of several repositories on one node: what goes live, what is reported, who may, which builds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import attrs
import pytest

from deploykit.audit import open_audit
from deploykit.audit.files import read_records
from deploykit.audit.record import AuditRecord
from deploykit.builds.store import builds_of
from deploykit.bus import Ack, Delivery
from deploykit.daemons.agent.deployer import SiteDeployer
from deploykit.daemons.agent.deploys import DeployHandler
from deploykit.daemons.agent.gate import BuildGate
from deploykit.daemons.agent.mandates import mandates_of
from deploykit.daemons.agent.progress import ProgressSender
from deploykit.daemons.agent.rollouts import rollouts_of
from deploykit.daemons.agent.sitestates import describe_site
from deploykit.daemons.service.auditing import AuditWriter
from deploykit.git.repository import Repository
from deploykit.ids import IdStore
from deploykit.messages import BuildEvidence, BuildFinished, DeployReported, DeployRequested, Message, SitePart, utc_now
from deploykit.messages.site import id_of, version_of
from deploykit.messages.topics import TopicMap
from deploykit.mirror import Mirror
from deploykit.names import NodeName, ObjectId, RefName, RepoName, SiteName
from deploykit.settings import GrantSettings, NodeSiteSettings, RepositorySettings, Settings, TrustSettings
from deploykit.testing.fakes import FakeBus
from deploykit.trust.allowed_signers import AllowedSigners
from deploykit.trust.check import Trust
from deploykit.trust.signature import sign
from deploykit.wire import encode
from tests.integration.agent.test_rollout_commands import FakeReporter
from tests.support.builds import signed
from tests.support.keys import fixed_key
from tests.support.openmirrors import FakeMirrors
from tests.support.parts import Assembly
from tests.support.resultaudit import result_audit

WEB1, SHOP = NodeName("web1"), SiteName("shop")
APP, THEME, DATA = RepoName("app"), RepoName("theme"), RepoName("data")
PLACES = {"app": "app", "theme": "web/theme", "data": "data"}
#: ann deploys everything, bob only sites of app and theme, carl those of all three. ci reports builds.
KEYS = {name: fixed_key(at) for at, name in enumerate(("ann", "bob", "carl", "ci"), 71)}
GRANTS = (
    GrantSettings(principal="ann", types=("deploy.requested", "without-build")),
    GrantSettings(principal="bob", types=("deploy.requested",), repos=("app", "theme")),
    GrantSettings(principal="carl", types=("deploy.requested",), repos=("app", "theme", "data")),
    GrantSettings(principal="ci", types=("build.finished",), repos=("*",), jobs=("*",)),
)


class ManyMirrors(FakeMirrors):
    """Opens the repositories themselves; notes what is fetched."""

    def __init__(self, origins: Mapping[RepoName, Path]) -> None:
        self._origins = origins
        self.fetched: list[RepoName] = []

    def mirror(self, repo: RepoName) -> Mirror:
        return cast(Mirror, Repository(self._origins[repo]))

    def sync(self, repo: RepoName, **_: Any) -> bool:
        self.fetched.append(repo)
        return True


class World:
    """A node with a site of three repositories, each with versions 1 and 2."""

    def __init__(self, root: Path, **site: Any) -> None:
        self.made = Assembly(root, PLACES)
        self.commits: dict[tuple[RepoName, str], ObjectId] = {}
        for repo, worked in self.made.repos.items():
            for tag in ("v1", "v2"):
                self.commits[repo, tag] = ObjectId(worked.push({"file": f"{repo} {tag}".encode()}, tag=tag))
        self.settings = Settings(
            node=WEB1,
            state=root / "state",
            trust=TrustSettings(grants=GRANTS),
            repositories={repo: RepositorySettings(url=each.url) for repo, each in self.made.repos.items()},
            sites={
                SHOP: NodeSiteSettings(path=self.made.path, parts=self.made.places, release=self.made.settings, **site)
            },
        )
        settings = self.settings
        lines = "".join(f"{name} {key.public_openssh}\n" for name, key in KEYS.items())
        trust = Trust.from_settings(
            settings.trust, WEB1, trusted=lambda: AllowedSigners.parse(lines), repos=settings.site_repos
        )
        settings.state.mkdir()
        self.reporter = FakeReporter()
        builds, self.audit = builds_of(settings.state), open_audit(settings)
        self.mirrors = ManyMirrors({repo: each.origin for repo, each in self.made.repos.items()})
        gate = BuildGate(settings, trust, builds, result_audit(self.audit, builds, WEB1))
        progress = ProgressSender(WEB1, FakeBus(), TopicMap(), None)
        memory = rollouts_of(settings.state)
        writer = AuditWriter(self.audit, "agent/web1", utc_now)
        self.handler = DeployHandler(
            WEB1,
            SiteDeployer(settings, self.mirrors, gate, progress),
            self.reporter,
            IdStore(settings.state / "ids.sqlite"),
            trust,
            self.audit,
            rollouts=memory,
            sites=settings.sites,
            mandates=mandates_of(settings, trust, self.reporter, writer, memory),
        )

    def parts(self, **tags: str) -> tuple[SitePart, ...]:
        return tuple(
            SitePart(repo=RepoName(repo), ref=RefName(f"refs/tags/{tag}"), commit=self.commits[RepoName(repo), tag])
            for repo, tag in sorted(tags.items())
        )

    def command(self, parts: tuple[SitePart, ...], **more: Any) -> DeployRequested:
        expires = datetime.now(UTC) + timedelta(minutes=5)
        return DeployRequested(site=SHOP, parts=parts, audience=(WEB1,), expires=expires, **more)

    def obey(self, command: DeployRequested, who: str = "ann") -> DeployReported:
        before = len(self.reporter.reports)
        self.send(command, who)
        (report,) = self.reporter.reports[before:]
        return report

    def send(self, message: Message, who: str) -> None:
        frame = sign(encode(message), KEYS[who])
        verdict = self.handler.handle(
            Delivery(
                destination="/topic/x",
                headers=frame.headers,
                body=frame.body,
                message_id="1",
                id="1",
                attempt=1,
                redelivered=False,
                epoch=1,
            )
        )
        assert isinstance(verdict, Ack)

    def evidence(self, repo: RepoName, tag: str, job: str) -> BuildEvidence:
        built = signed(
            BuildFinished(
                source="jenkins/ci", job=job, number=1, repo=repo, commit=self.commits[repo, tag], outcome="success"
            ),
            KEYS["ci"],
        )
        return built.evidence

    def live(self) -> dict[str, str]:
        return {repo: self.made.read(f"{place}/file") for repo, place in PLACES.items()}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


OLD = {"app": "v1", "theme": "v1", "data": "v1"}
NEW = {"app": "v2", "theme": "v2", "data": "v1"}


def test_all_parts_go_live_and_back_as_one_and_every_answer_names_them(world: World) -> None:
    first, second = world.parts(**OLD), world.parts(**NEW)
    assert world.obey(world.command(first)).outcome == "success"
    report = world.obey(world.command(second))
    assert (report.outcome, version_of(report)) == ("success", (None, id_of(second), second))
    assert report.target is not None
    assert report.target.parts == second
    assert report.previous is not None
    assert report.previous.parts == first
    assert world.live() == {"app": "app v2", "theme": "theme v2", "data": "data v1"}
    state, _ = describe_site(SHOP, world.settings.sites[SHOP], history=5)
    assert (state.repo, state.repos, version_of(state)) == (APP, (APP, DATA, THEME), version_of(report))
    assert state.previous is not None
    assert state.previous.parts == first
    assert [operation.parts for operation in state.history] == [second, first]
    back = world.obey(world.command(first, phase="rollback"))
    assert (back.outcome, back.parts) == ("success", first)
    assert world.live() == {"app": "app v1", "theme": "theme v1", "data": "data v1"}
    recorded = [r for r in read_records(world.audit.path) if isinstance(r, AuditRecord)]
    assert any(f"theme refs/tags/v2 {world.commits[THEME, 'v2']}" in r.details.get("parts", "") for r in recorded)


def test_prepared_parts_are_activated_and_discarded_by_the_same_parts(world: World) -> None:
    assert world.obey(world.command(world.parts(**OLD))).outcome == "success"
    second = world.parts(**NEW)
    prepared = world.obey(world.command(second, phase="prepare"))
    assert (prepared.outcome, prepared.achieved) == ("success", (None, id_of(second), second))
    assert world.live()["app"] == "app v1"
    assert world.obey(world.command(second, phase="activate")).parts == second
    third = world.parts(**NEW | {"data": "v2"})
    for phase, outcome in (("prepare", "success"), ("discard", "success"), ("activate", "refused")):
        assert world.obey(world.command(third, phase=phase, rollout="r1")).outcome == outcome


def test_a_command_that_names_other_repositories_than_the_site_has_touches_nothing(world: World) -> None:
    assert world.obey(world.command(world.parts(**OLD))).outcome == "success"
    few = world.obey(world.command(world.parts(app="v2", theme="v2")))
    assert (few.outcome, few.detail) == (
        "refused",
        "site shop is made of app, data, theme here, and the command names those of app, theme",
    )
    one = attrs.evolve(
        world.command(world.parts(**NEW)), parts=(), ref=RefName("refs/tags/v2"), commit=world.commits[APP, "v2"]
    )
    assert "and the command names one commit" in world.obey(one).detail
    assert world.live()["app"] == "app v1"


def test_a_commit_that_is_not_there_is_fetched_from_its_own_repository_and_all_stays_as_it_was(world: World) -> None:
    assert world.obey(world.command(world.parts(**OLD))).outcome == "success"
    gone = tuple(attrs.evolve(p, commit=ObjectId("e" * 40)) if p.repo == DATA else p for p in world.parts(**NEW))
    assert world.obey(world.command(gone)).outcome in ("refused", "failure")
    assert world.mirrors.fetched == [DATA]
    assert world.live() == {"app": "app v1", "theme": "theme v1", "data": "data v1"}


def test_a_grant_for_some_repositories_must_name_each_of_the_site(world: World) -> None:
    assert world.obey(world.command(world.parts(**OLD)), "bob").outcome == "refused"
    assert world.obey(world.command(world.parts(**OLD)), "carl").outcome == "success"


def test_the_gate_asks_for_the_builds_of_each_commit_but_of_what_was_good_here(tmp_path: Path) -> None:
    world = World(tmp_path, require_build=("tests",), require_build_of={THEME: ("css", "icons"), DATA: ()})
    first = world.parts(**OLD)
    app, css, icons = (world.evidence(*e) for e in ((APP, "v1", "tests"), (THEME, "v1", "css"), (THEME, "v1", "icons")))
    refused = world.obey(world.command(first, evidence=(app, css)))
    assert refused.outcome == "refused"
    assert f"theme: no successful build of icons for {world.commits[THEME, 'v1'][:8]}" in refused.detail
    assert "app:" not in refused.detail
    assert "data:" not in refused.detail
    assert world.obey(world.command(first, evidence=(icons,))).outcome == "success", "the others were kept"
    refused = world.obey(world.command(world.parts(**OLD | {"app": "v2"})))
    assert "app: no successful build of tests" in refused.detail
    assert "theme:" not in refused.detail
    other = (world.evidence(THEME, "v1", "tests"), world.evidence(DATA, "v1", "tests"))
    assert world.obey(world.command(world.parts(**OLD | {"app": "v2"}), evidence=other)).outcome == "refused"
    assert world.obey(world.command(world.parts(**OLD | {"data": "v2"}))).outcome == "success", "it needs none"
    assert (
        world.obey(world.command(world.parts(**OLD | {"app": "v2", "data": "v2"}), without_build=True)).outcome
        == "success"
    )


@pytest.mark.parametrize("phase", ["rollback", "activate", "discard"])
def test_parts_that_a_record_does_not_have_are_not_taken_for_those_of_its_id(world: World, phase: str) -> None:
    """Somebody has changed the record: the id that it stands under is that of other parts."""
    first, second = world.parts(**OLD), world.parts(**NEW)
    asked = second if phase == "discard" else first
    assert world.obey(world.command(first)).outcome == "success"
    made = world.command(second, phase="prepare" if phase == "discard" else "deploy", rollout="r1")
    assert world.obey(made).outcome == "success"
    file = world.made.site.state_file
    kept = json.loads(file.read_text())
    (release,) = [each for each in kept["releases"] if each["commit"] == id_of(asked)]
    release["parts"][1]["commit"] = world.commits[DATA, "v2"]
    file.write_text(json.dumps(kept))
    before = world.live()
    report = world.obey(world.command(asked, phase=phase, rollout="r1"))
    assert report.outcome == "refused"
    assert "has the id of the command's parts, and is made of others" in report.detail
    assert world.live() == before
