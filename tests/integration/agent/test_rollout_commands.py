"""Rollouts on one node: who may abort and discard, and that nothing of an aborted one goes live. No bus, no fetch."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest

from deploykit.audit import open_audit
from deploykit.audit.files import read_records
from deploykit.audit.record import AuditRecord
from deploykit.builds.store import builds_of
from deploykit.bus import Ack, Delivery
from deploykit.daemons.agent import rollouts
from deploykit.daemons.agent.deployer import SiteDeployer
from deploykit.daemons.agent.deploys import DeployHandler
from deploykit.daemons.agent.gate import BuildGate
from deploykit.daemons.agent.mandates import mandates_of
from deploykit.daemons.agent.progress import ProgressSender
from deploykit.daemons.agent.reports import Reporter
from deploykit.daemons.agent.rollouts import rollouts_of
from deploykit.daemons.service.auditing import AuditWriter
from deploykit.git.repository import Repository
from deploykit.ids import Claim, IdStore
from deploykit.messages import DeployPhase, DeployReported, DeployRequested, Message, RolloutAbort, utc_now
from deploykit.messages.topics import TopicMap
from deploykit.names import NodeName, ObjectId, RefName, RepoName, SiteName
from deploykit.release import Runner, Site
from deploykit.settings import GrantSettings, NodeSiteSettings, RepositorySettings, Settings, TrustSettings
from deploykit.system.durable import replace_file
from deploykit.testing.fakes import FakeBus
from deploykit.trust.allowed_signers import AllowedSigners
from deploykit.trust.check import Trust
from deploykit.trust.signature import SigningKey, body_digest, sign
from deploykit.wire import Frame, encode
from tests.support.keys import fixed_key
from tests.support.openmirrors import FakeMirrors
from tests.support.releasing import Shop, script
from tests.support.resultaudit import result_audit
from tests.support.wait import wait_until

AHEAD: tuple[DeployPhase, ...] = ("activate", "deploy", "prepare")
BACK: DeployPhase = "rollback"
WEB1, WEB2 = NodeName("web1"), NodeName("web2")
SHOP, BLOG = SiteName("shop"), SiteName("blog")
#: ann and bob deploy both sites; ann has two keys; carol may abort rollouts of the shop, dan those of the blog.
KEYS = {name: fixed_key(at) for at, name in enumerate(("ann", "ann2", "bob", "carol", "dan", "eve", "nobody"), 1)}
PRINCIPALS = {"ann": "ann", "ann2": "ann", "bob": "bob", "carol": "carol", "dan": "dan", "eve": "eve"}
GRANTS = (
    GrantSettings(principal="ann", types=("deploy.requested",)),
    GrantSettings(principal="bob", types=("deploy.requested",)),
    GrantSettings(principal="carol", types=("rollout.abort",), sites=("shop",)),
    GrantSettings(principal="dan", types=("rollout.abort",), sites=("blog",)),
)


class FakeReporter(Reporter):
    """Keeps the reports."""

    def __init__(self) -> None:
        self.reports: list[DeployReported] = []

    def report(self, *messages: Message, announced: bool = True) -> tuple[Frame, ...]:
        self.reports += [message for message in messages if isinstance(message, DeployReported)]
        return tuple(encode(message) for message in messages)

    def report_again(self, body: bytes) -> None:
        pass


class World:
    """A node with two sites of one repository: versions 1 to 3 are tagged, the shop has version 1 live."""

    def __init__(self, root: Path) -> None:
        self.shop = Shop(root)
        noted = script('while [ -e "$DEPLOYKIT_SHARED/hold" ]; do : > "$DEPLOYKIT_SHARED/held"; sleep 0.01; done')
        self.commits = {f"v{n}": self.shop.commit({"a": b"%d" % n, "deploy/pre-deploy": noted}) for n in range(1, 4)}
        assert self.shop.deploy("v1").outcome == "success"
        repo = RepoName("repo")
        self.settings = Settings(
            node=WEB1,
            state=root / "state",
            trust=TrustSettings(grants=GRANTS),
            repositories={repo: RepositorySettings(url=str(self.shop.repo.path))},
            sites={
                SHOP: NodeSiteSettings(path=self.shop.path, repo=repo),
                BLOG: NodeSiteSettings(path=root / "blog", repo=repo),
            },
        )
        self.reporter = FakeReporter()
        self.now = datetime.now(UTC)
        self.start()

    def start(self) -> None:
        """Start the node's handler, as after a restart: what it knows is on the disk."""
        settings = self.settings
        lines = "".join(f"{who} {KEYS[name].public_openssh}\n" for name, who in PRINCIPALS.items())
        trust = Trust.from_settings(settings.trust, WEB1, trusted=lambda: AllowedSigners.parse(lines))
        settings.state.mkdir(exist_ok=True)
        builds, self.audit = builds_of(settings.state), open_audit(settings)
        gate = BuildGate(settings, trust, builds, result_audit(self.audit, builds, WEB1))
        progress = ProgressSender(WEB1, FakeBus(), TopicMap(), None)
        deployer = SiteDeployer(settings, FakeMirrors(self.shop.repo.path), gate, progress)
        self.ids = IdStore(settings.state / "ids.sqlite")
        self.memory = rollouts_of(settings.state)
        writer = AuditWriter(self.audit, "agent/web1", utc_now)
        self.handler = DeployHandler(
            *(WEB1, deployer, self.reporter, self.ids, trust, self.audit),
            rollouts=self.memory,
            sites=settings.sites,
            mandates=mandates_of(settings, trust, self.reporter, writer, self.memory),
            now=lambda: self.now,
        )

    def command(self, phase: DeployPhase, tag: str = "v2", rollout: str | None = "r1", **more: Any) -> DeployRequested:
        command = DeployRequested(
            time=self.now,
            site=SHOP,
            ref=RefName(f"refs/tags/{tag}"),
            commit=ObjectId(self.commits[tag]),
            audience=(WEB1,),
            expires=self.now + timedelta(minutes=5),
            phase=phase,
            rollout=rollout,
        )
        return attrs.evolve(command, **more)

    def send(self, message: Message, who: str, key: SigningKey | None = None) -> None:
        """Hand a signed message over as a bus would."""
        frame = sign(encode(message), key or KEYS[who])
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

    def obey(self, command: DeployRequested, who: str = "ann") -> DeployReported:
        """Send a command and return the one report on it."""
        before = len(self.reporter.reports)
        self.send(command, who)
        (report,) = self.reporter.reports[before:]
        assert report.request == command.id
        return report

    def ask(self, phase: DeployPhase, tag: str = "v2", rollout: str | None = "r1", who: str = "ann") -> str:
        """Send a command and return its outcome, and the detail where it is not plain success."""
        report = self.obey(self.command(phase, tag, rollout), who)
        return report.outcome if report.outcome == "success" else f"{report.outcome}: {report.detail}"

    def abort(self, who: str, rollout: str = "r1", **more: Any) -> RolloutAbort:
        abort = RolloutAbort(
            time=self.now, site=SHOP, rollout=rollout, expires=self.now + timedelta(minutes=5), requested_by=f"{who}!"
        )
        abort = attrs.evolve(abort, **more)
        before = len(self.reporter.reports)
        self.send(abort, who)
        assert len(self.reporter.reports) == before or who == "nobody", "an abort has no answer"
        return abort

    def recorded(self, action: str) -> list[AuditRecord]:
        records = (r for r in read_records(self.audit.path) if isinstance(r, AuditRecord))
        return [record for record in records if record.action == action]

    def decisions(self) -> list[str]:
        """What was decided on aborts."""
        return [record.decision for record in self.recorded("rollout.abort")]

    def live(self) -> str:
        return self.shop.read("a")

    def prepared(self, tag: str = "v2") -> bool:
        return self.shop.site.state().prepared(f"refs/tags/{tag}", self.commits[tag]) is not None


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


# -- abort -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["ann", "ann2", "carol"])
def test_after_an_abort_nothing_of_the_rollout_goes_live_but_the_way_back_is_open(world: World, who: str) -> None:
    assert world.ask("prepare") == "success"
    world.abort(who, reason="the canary burns")
    for phase in AHEAD:
        refused = world.obey(world.command(phase))
        assert refused.outcome == "refused"
        assert f"rollout r1 was aborted by {who}! (key {KEYS[who].fingerprint}): the canary burns" in refused.detail
    assert (world.live(), world.prepared()) == ("1", True)
    assert world.ask("discard") == "success"
    assert (world.live(), world.prepared()) == ("1", False)
    assert world.ask("activate", "v2", "r2").startswith("refused"), "it is gone"
    assert world.ask("deploy", "v2", "r2") == "success", "another rollout goes on"
    assert world.ask("rollback", "v1") == "success"
    assert world.live() == "1"
    assert [(r.decision, r.details["rollout"], r.target) for r in world.recorded("rollout.abort")] == [
        ("allowed", "r1", "shop")
    ]


def test_an_abort_that_comes_before_the_rollout_stops_the_commands_of_its_signer(world: World) -> None:
    world.abort("ann2")
    assert world.ask("prepare").startswith("refused")
    assert not world.prepared()
    world.start()
    assert world.ask("deploy").startswith("refused"), "a restart forgets no abort"
    assert world.ask("deploy", rollout=None) == "success", "a command without a rollout is none of it"


def test_an_abort_of_another_rollout_of_another_site_or_by_the_holder_of_its_grant_changes_nothing(
    world: World,
) -> None:
    assert world.ask("prepare") == "success"
    world.abort("ann", "r2")
    world.abort("ann", site=BLOG)
    world.abort("dan", site=BLOG)
    world.abort("dan")
    world.abort("ann", site=SiteName("elsewhere"))
    assert world.decisions() == ["allowed", "allowed", "allowed", "denied"]
    assert world.ask("activate") == "success"
    assert world.live() == "2"


@pytest.mark.parametrize("who", ["nobody", "eve", "bob"])
def test_a_stranger_and_another_deployer_abort_no_rollout_of_others(world: World, who: str) -> None:
    assert world.ask("prepare") == "success"
    world.abort(who)
    assert world.memory.get(SHOP, "r1").aborts == ()
    assert world.decisions() == ([] if who == "nobody" else ["denied"])
    assert world.ask("activate") == "success"


def test_a_guessed_rollout_id_that_another_aborts_before_it_starts_stops_only_the_guesser(world: World) -> None:
    world.abort("bob")
    world.abort("eve")
    assert world.ask("deploy", who="bob").startswith("refused: rollout r1 was aborted by bob!")
    assert world.ask("prepare") == "success"
    assert world.ask("activate") == "success"
    assert world.ask("deploy", "v3", who="bob").startswith("refused")
    assert world.live() == "2"


def test_who_sends_a_command_under_a_guessed_id_first_aborts_only_their_own(world: World) -> None:
    assert world.ask("prepare", "v3", who="bob") == "success"
    world.abort("bob")
    assert world.ask("activate", "v3", who="bob").startswith("refused")
    assert world.ask("prepare") == "success"
    assert world.ask("activate") == "success"
    assert world.live() == "2"


def test_the_grant_stops_everybody_also_before_the_rollout_is_known(world: World) -> None:
    world.abort("bob")
    world.abort("carol")
    assert world.ask("prepare").startswith("refused: rollout r1 was aborted by carol!")
    world.start()
    assert world.ask("deploy", who="bob").startswith("refused")
    assert world.live() == "1"


def test_an_abort_that_is_late_early_far_ahead_or_for_other_nodes_is_ignored(world: World) -> None:
    hour = timedelta(hours=1)
    world.abort("ann", expires=world.now - hour)
    world.abort("ann", time=world.now + hour)
    world.abort("ann", expires=world.now + 3 * hour)
    assert world.decisions() == ["denied"] * 3
    world.abort("ann", audience=(WEB2,))
    assert world.decisions() == ["denied"] * 3
    assert world.memory.get(SHOP, "r1").aborts == ()
    assert world.ask("deploy") == "success"


def test_copies_of_an_abort_change_nothing_and_are_recorded_once(world: World) -> None:
    abort = world.abort("ann")
    known = world.memory.path.read_bytes()
    for _ in range(20):
        world.send(abort, "ann")
    assert world.memory.path.read_bytes() == known
    assert world.decisions() == ["allowed"]
    world.now += timedelta(hours=2)
    for _ in range(20):
        world.send(abort, "ann")
    assert world.decisions() == ["allowed", "denied"], "expired: recorded once a minute"


def test_a_replay_of_an_old_activation_after_the_abort_puts_nothing_live(world: World) -> None:
    assert world.ask("prepare") == "success"
    activation = world.command("activate")
    assert world.obey(activation).outcome == "success"
    assert world.ask("rollback", "v1") == "success"
    world.abort("ann")
    world.send(activation, "ann")
    assert world.live() == "1"
    assert world.obey(attrs.evolve(activation, id="another")).outcome == "refused"
    assert world.live() == "1"


def test_after_an_abort_a_rollback_to_what_was_only_prepared_is_refused(world: World) -> None:
    """It would be an activation under another name."""
    assert world.ask("prepare") == "success"
    world.abort("ann")
    assert world.ask("rollback").startswith("refused: rollout r1 was aborted")
    assert world.live() == "1"


# -- claimed, at work, cut off -----------------------------------------------------------------------------------------


@contextmanager
def in_background(world: World, command: DeployRequested) -> Iterator[None]:
    """Send a command from another thread, which has ended when this ends."""
    thread = threading.Thread(target=world.send, args=(command, "ann"))
    thread.start()
    try:
        yield
    finally:
        thread.join(60)
    assert not thread.is_alive()


@pytest.mark.parametrize("phase", ["activate", "deploy", "prepare"])
def test_a_claimed_command_that_waits_for_its_turn_is_refused_after_the_abort(world: World, phase: DeployPhase) -> None:
    assert world.ask("prepare") == "success"
    command = world.command(phase)
    with in_background(world, command), world.shop.site.locked():
        wait_until(lambda: world.ids.claimed_at(KEYS["ann"].fingerprint, command.id), "the claim")
        world.abort("ann")
    report = world.reporter.reports[-1]
    assert (report.request, report.outcome) == (command.id, "refused")
    assert "aborted by ann!" in report.detail
    assert (report.live_known, report.commit) == (True, world.commits["v1"])
    assert world.live() == "1"


@pytest.mark.parametrize("phase", ["deploy", "prepare"])
def test_what_is_at_work_when_the_abort_comes_is_finished(world: World, phase: DeployPhase) -> None:
    hold = world.shop.path / "shared" / "hold"
    hold.touch()
    command = world.command(phase)
    with in_background(world, command):
        wait_until((world.shop.path / "shared" / "held").exists, "the script")
        world.abort("ann")
        hold.unlink()
    assert (world.reporter.reports[-1].request, world.reporter.reports[-1].outcome) == (command.id, "success")
    assert (world.live() == "2") == (phase == "deploy")
    assert world.ask("activate").startswith("refused")


def test_a_claimed_command_that_a_crash_kept_from_beginning_is_refused_when_it_comes_again(world: World) -> None:
    command = world.command("deploy")
    digest = body_digest(encode(command).body)
    claimed = world.ids.claim(KEYS["ann"].fingerprint, command.id, digest, world.now, keep_until=command.expires)
    assert claimed is Claim.FRESH
    world.abort("ann")
    world.start()
    assert world.obey(command).outcome == "refused"
    assert world.live() == "1"


def test_a_command_that_was_carried_out_before_a_crash_is_answered_whatever_was_aborted_since(world: World) -> None:
    command = world.command("deploy")
    digest = body_digest(encode(command).body)
    world.ids.claim(KEYS["ann"].fingerprint, command.id, digest, world.now, keep_until=command.expires)
    assert world.shop.deploy("v2", world.commits["v2"], request=command.id).outcome == "success"
    world.abort("ann")
    world.start()
    report = world.obey(command)
    assert (report.outcome, report.commit) == ("success", world.commits["v2"])


def test_a_preparation_that_a_crash_cut_off_does_not_go_on_after_the_abort(world: World) -> None:
    """It was at work, and is no more: nothing of it is live, and nothing has to become so."""
    command = world.command("prepare")
    digest = body_digest(encode(command).body)
    world.ids.claim(KEYS["ann"].fingerprint, command.id, digest, world.now, keep_until=command.expires)

    class Killed(BaseException):
        pass

    def kill(step: str, _: object) -> None:
        if step == "finalize":
            raise Killed

    runner = Runner(Site(world.shop.path), on_step=kill)
    with Repository(world.shop.repo.path) as source, pytest.raises(Killed):
        runner.prepare(source, "refs/tags/v2", world.commits["v2"], request=command.id)
    world.abort("ann")
    world.start()
    assert world.obey(command).outcome == "refused"
    assert (world.live(), world.prepared()) == ("1", False)


# -- discard -----------------------------------------------------------------------------------------------------------


def test_who_started_the_rollout_discards_what_it_prepared(world: World) -> None:
    assert world.ask("prepare") == "success"
    prepared = world.reporter.reports[-1].target
    report = world.obey(world.command("discard"), "ann2")
    assert (report.outcome, report.target, report.commit) == ("success", prepared, world.commits["v1"])
    assert [step.name for step in report.steps] == ["discard"]
    last = world.shop.site.history()[-1]
    assert (last.phase, last.rollout, last.requested_by) == ("discard", "r1", f"ann ({KEYS['ann2'].fingerprint})")
    again = world.obey(world.command("discard"))
    assert (again.outcome, "nothing to discard" in again.detail) == ("success", True)


def test_a_discard_of_anothers_rollout_is_refused_without_the_grant(world: World) -> None:
    assert world.ask("prepare") == "success"
    assert world.ask("discard", who="bob").startswith("refused")
    assert world.ask("discard", who="eve").startswith("refused")
    assert world.ask("discard", who="dan").startswith("refused")
    assert world.prepared()
    assert world.ask("discard", who="carol") == "success"
    assert not world.prepared()


def test_the_grant_to_abort_is_not_one_to_deploy(world: World) -> None:
    for phase in (*AHEAD, BACK):
        assert world.ask(phase, who="carol").startswith("refused")
    assert world.live() == "1"


def test_nobody_becomes_the_starter_of_a_rollout_by_a_discard_or_an_abort_of_it(world: World) -> None:
    assert world.ask("discard", who="bob") == "success", "nothing waits"
    world.abort("bob")
    assert world.ask("prepare") == "success"
    assert world.ask("discard", who="bob").startswith("refused")
    assert world.ask("discard") == "success"


def test_a_discard_that_names_another_commit_or_ref_removes_nothing(world: World) -> None:
    assert world.ask("prepare") == "success"
    other = world.obey(world.command("discard", commit=ObjectId(world.commits["v3"])))
    ref = world.obey(world.command("discard", ref=RefName("refs/tags/other")))
    assert (other.outcome, ref.outcome) == ("success", "success"), "nothing of that ref and commit waits"
    assert world.prepared()
    assert world.ask("activate") == "success"


def test_a_discard_that_names_no_rollout_needs_the_grant(world: World) -> None:
    assert world.ask("prepare", rollout=None) == "success"
    assert "must name the rollout" in world.ask("discard", rollout=None)
    assert world.prepared()
    assert world.ask("discard", rollout=None, who="carol") == "success"
    assert not world.prepared()


def test_a_discard_for_a_rollout_that_is_unknown_here_removes_nothing(world: World) -> None:
    assert world.ask("discard") == "success"
    assert world.ask("prepare", rollout="another") == "success"
    assert "no command of rollout r1 was obeyed on this node" in world.ask("discard")
    assert world.prepared()


def test_a_discard_of_what_is_live_is_refused(world: World) -> None:
    assert world.ask("deploy") == "success"
    assert "is live" in world.ask("discard")
    assert world.live() == "2"


# -- the memory --------------------------------------------------------------------------------------------------------


def test_an_abort_counts_at_once_while_the_disk_is_full_and_is_kept_as_soon_as_it_has_room(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert world.ask("prepare") == "success"
    full = threading.Event()
    full.set()
    tried = threading.Event()
    write = replace_file

    def writing(path: Path, raw: bytes, *, mode: int) -> None:
        tried.set()
        if full.is_set():
            raise OSError(28, "No space left on device")
        write(path, raw, mode=mode)

    monkeypatch.setattr(rollouts, "replace_file", writing)
    monkeypatch.setattr("deploykit.daemons.agent.rollout_aborts._RETRY_AFTER", 0.01)
    thread = threading.Thread(target=world.abort, args=("ann",))
    thread.start()
    assert tried.wait(60)
    activation = world.command("activate")
    monkeypatch.setattr("deploykit.daemons.agent.deploys._RETRY_AFTER", 0.01)
    wait_until(lambda: world.memory.get(SHOP, "r1").aborts, "the abort")
    full.clear()
    thread.join(60)
    assert world.obey(activation).outcome == "refused"
    assert world.decisions() == ["allowed"]
    world.start()
    assert world.ask("activate").startswith("refused")
