"""The order in which a deploy command is judged, claimed, carried out and reported; no bus, no mirror, no site."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import attrs
import pytest

from deploykit.audit import AuditLog
from deploykit.audit.files import read_records, verify_files
from deploykit.audit.record import AuditEntry, AuditRecord
from deploykit.bus import Ack, Delivery, Reject, Retry, Verdict
from deploykit.daemons.agent import deploys
from deploykit.daemons.agent.deployer import SiteDeployer
from deploykit.daemons.agent.deploys import DeployHandler
from deploykit.daemons.agent.mandates import mandates_of
from deploykit.daemons.agent.reports import Reporter
from deploykit.daemons.agent.rollouts import rollouts_of
from deploykit.daemons.service.auditing import AuditWriter
from deploykit.daemons.service.metrics import Metrics
from deploykit.errors import AuditError, KeyFileError
from deploykit.ids import IdStore
from deploykit.messages import DeployReported, DeployRequested, Message
from deploykit.names import SiteName
from deploykit.release import DeployResult, Outcome, Site
from deploykit.settings import GrantSettings, Settings, TrustSettings
from deploykit.trust.allowed_signers import AllowedSigners
from deploykit.trust.check import Trust
from deploykit.trust.signature import Signers, SigningKey, body_digest, sign
from deploykit.wire import Frame, encode
from tests.support.asked import CAP, NOW, SECOND, SKEW, WEB1, WEB2, request
from tests.support.keys import fixed_key

OPERATOR, STRANGER = fixed_key(1), fixed_key(2)
SIGNERS = AllowedSigners.parse(f"ops {OPERATOR.public_openssh}\n")
GRANT = GrantSettings(principal="ops", types=("deploy.requested",), sites=("shop",))
SETTINGS = TrustSettings(grants=(GRANT,), max_expiry=CAP.total_seconds(), skew=SKEW.total_seconds())


class FakeDeployer(SiteDeployer):
    """Notes what it is asked for; may be held up."""

    def __init__(self) -> None:
        self.deployed: list[str] = []
        self.resumed: list[bool] = []
        self.again = False
        self.outcome: Outcome = "failure"
        self.on_deploy: Callable[[], object] = lambda: None
        self.go_on = threading.Event()
        self.go_on.set()

    def deploy(
        self, request: DeployRequested, signer: Signers, objection: Callable[[Site], str], *, resumed: bool = False
    ) -> DeployResult:
        assert signer.fingerprint == OPERATOR.fingerprint
        self.deployed.append(request.id)
        self.resumed.append(resumed)
        self.on_deploy()
        assert self.go_on.wait(60)
        return DeployResult(outcome=self.outcome, detail="planned", again=self.again)


class FakeReporter(Reporter):
    """Keeps the reports."""

    def __init__(self) -> None:
        self.reports: list[DeployReported] = []
        self.on_report: Callable[[], object] = lambda: None

    def report(self, *messages: Message, announced: bool = True) -> tuple[Frame, ...]:
        self.on_report()
        self.reports += [message for message in messages if isinstance(message, DeployReported)]
        return tuple(encode(message) for message in messages)

    def report_again(self, body: bytes) -> None:
        self.reports.append(self.reports[-1])


class FakeAudit(AuditLog):
    """An audit log whose disk may be full."""

    disk_full = False
    failures = 0

    def append(self, entry: AuditEntry) -> None:
        if self.disk_full:
            self.failures += 1
            raise AuditError("no space", "free the disk")
        super().append(entry)


class World:
    """A handler, its parts, and its clock."""

    def __init__(self, root: Path) -> None:
        self.now = NOW
        self.signers: AllowedSigners | None = SIGNERS
        self.deployer, self.reporter = FakeDeployer(), FakeReporter()
        self.ids = IdStore(root / "ids.sqlite")
        trust = Trust.from_settings(SETTINGS, WEB1, trusted=self.trusted)
        self.metrics = Metrics()
        self.metrics.expect("agent", sites=["shop"])
        self.audit = FakeAudit(root / "audit.log", now=lambda: self.now)
        rollouts, writer = rollouts_of(root), AuditWriter(self.audit, "agent/web1", lambda: self.now)
        settings = Settings(node=WEB1, state=root, trust=SETTINGS)
        self.handler = DeployHandler(
            *(WEB1, self.deployer, self.reporter, self.ids, trust, self.audit),
            rollouts=rollouts,
            sites=[SiteName("shop")],
            mandates=mandates_of(settings, trust, self.reporter, writer, rollouts, now=lambda: self.now, wait=0),
            now=lambda: self.now,
            metrics=self.metrics,
        )

    def trusted(self) -> AllowedSigners:
        if self.signers is None:
            raise KeyFileError("cannot read allowed_signers")
        return self.signers

    def handle(self, command: DeployRequested, key: SigningKey | None = OPERATOR, *, attempt: int = 1) -> Verdict:
        frame = sign(encode(command), key) if key else encode(command)
        return self.handler.handle(
            Delivery(
                destination="/topic/deploykit.deploy",
                headers=frame.headers,
                body=frame.body,
                message_id="1",
                id="1",
                attempt=attempt,
                redelivered=attempt > 1,
                epoch=1,
            )
        )

    def claimed(self, command: DeployRequested) -> datetime | None:
        return self.ids.claimed_at(OPERATOR.fingerprint, command.id)

    def audited(self) -> list[AuditRecord]:
        if self.audit.head is None:
            return []
        assert verify_files(self.audit.path).fault is None
        return [record for record in read_records(self.audit.path) if isinstance(record, AuditRecord)]

    def decisions(self) -> list[tuple[str, str]]:
        return [(record.action, record.decision) for record in self.audited()]

    @property
    def outcomes(self) -> list[str]:
        return [report.outcome for report in self.reporter.reports]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_an_authorized_command_is_claimed_carried_out_and_reported(world: World) -> None:
    assert isinstance(world.handle(request()), Ack)
    assert (world.deployer.deployed, world.deployer.resumed) == ([request().id], [False])
    assert (world.outcomes, world.claimed(request())) == (["failure"], NOW)
    assert isinstance(world.handle(request()), Ack)
    assert (world.outcomes, len(world.deployer.deployed)) == (["failure", "failure"], 1), "answered again, not repeated"


@pytest.mark.parametrize(
    "changes",
    [
        {"site": SiteName("blog")},
        {"expires": NOW - SKEW - SECOND},
        {"expires": NOW + CAP + SKEW + SECOND},
        {"time": NOW + SKEW + SECOND},
    ],
)
def test_a_refused_command_is_answered_and_claims_no_id(world: World, changes: dict[str, object]) -> None:
    """Or a stale copy would spend the id of a genuine request."""
    refused = request(**changes)
    assert isinstance(world.handle(refused), Ack)
    assert (world.outcomes, world.deployer.deployed, world.claimed(refused)) == (["refused"], [], None)
    assert isinstance(world.handle(request()), Ack)
    assert world.deployer.deployed == [request().id]


def test_a_resumed_command_is_judged_by_the_instant_it_was_first_claimed(world: World) -> None:
    command = request()
    until = command.expires + timedelta(days=1)
    world.ids.claim(OPERATOR.fingerprint, command.id, body_digest(encode(command).body), NOW, keep_until=until)
    world.now = command.expires + timedelta(hours=2)
    assert isinstance(world.handle(command), Ack)
    assert (world.deployer.deployed, world.outcomes) == ([command.id], ["failure"])
    fresh = attrs.evolve(command, id="another")
    assert isinstance(world.handle(fresh), Ack)
    assert (len(world.deployer.deployed), world.outcomes[-1]) == (1, "refused")


@pytest.mark.parametrize("key", [None, STRANGER])
def test_unverified_commands_get_one_fixed_answer_and_claim_no_id(world: World, key: SigningKey | None) -> None:
    for _ in range(20):
        assert isinstance(world.handle(request(), key), Ack)
    (report,) = world.reporter.reports
    assert (report.outcome, "a key that it trusts" in report.detail) == ("refused", True)
    assert (world.deployer.deployed, world.claimed(request())) == ([], None)


def test_a_command_for_another_node_is_neither_claimed_nor_answered(world: World) -> None:
    command = request(audience=(WEB2,))
    assert isinstance(world.handle(command), Ack)
    assert (world.outcomes, world.deployer.deployed, world.claimed(command)) == ([], [], None)


def test_while_the_trusted_files_cannot_be_read_a_command_waits(world: World) -> None:
    world.signers = None
    assert isinstance(world.handle(request()), Retry)
    assert (world.outcomes, world.claimed(request())) == ([], None)
    world.signers = SIGNERS
    assert isinstance(world.handle(request(), attempt=2), Ack)
    assert world.deployer.deployed == [request().id]


def test_a_command_is_counted_once_however_often_it_comes(world: World) -> None:
    for _ in range(3):
        world.handle(request())
    assert world.metrics.series("deploys_total") == {("shop", "deploy", "failure"): 1}
    assert list(world.metrics.series("deploy_duration_seconds")) == [("shop", "deploy")]


def test_what_was_carried_out_before_a_crash_is_not_counted_again(world: World) -> None:
    world.deployer.again = True
    world.handle(request())
    assert world.outcomes == ["failure"]
    assert world.metrics.series("deploys_total") == {}


def test_a_refusal_is_counted_without_a_duration_and_an_unknown_site_is_other(world: World) -> None:
    world.handle(request(expires=NOW - SKEW - SECOND))
    world.handle(request(site=SiteName("blog")))
    assert world.metrics.series("deploys_total") == {
        ("shop", "deploy", "refused"): 1,
        ("other", "deploy", "refused"): 1,
    }
    assert world.metrics.series("deploy_duration_seconds") == {}


def test_an_unverified_command_counts_as_no_deploy(world: World) -> None:
    world.handle(request(), STRANGER)
    assert world.metrics.series("deploys_total") == {}


def test_an_id_that_comes_again_with_other_bytes_is_a_dead_letter(world: World) -> None:
    world.handle(request())
    assert isinstance(world.handle(request(requested_by="eve")), Reject)
    assert len(world.deployer.deployed) == 1


def test_a_copy_of_a_command_at_work_is_answered_by_the_one_report(world: World) -> None:
    world.deployer.go_on.clear()
    worker = threading.Thread(target=world.handle, args=(request(),))
    worker.start()
    while not world.deployer.deployed:
        worker.join(0.01)
    assert isinstance(world.handle(request()), Ack)
    assert world.outcomes == []
    world.deployer.go_on.set()
    worker.join(60)
    assert (world.outcomes, len(world.deployer.deployed)) == (["failure"], 1)


# -- the audit ---------------------------------------------------------------------------------------------------------


def test_threat_40_an_allowed_command_is_in_the_audit_before_it_is_carried_out(world: World) -> None:
    seen: list[list[tuple[str, str]]] = []
    world.deployer.on_deploy = lambda: seen.append(world.decisions())
    world.reporter.on_report = lambda: seen.append(world.decisions())
    command = request(requested_by="ada")
    world.handle(command)
    assert seen == [[("deploy", "allowed")], [("deploy", "allowed"), ("deploy.result", "allowed")]]
    allowed, ended = world.audited()
    assert (allowed.target, allowed.request, allowed.correlation_id) == ("shop", "request-1", "request-1")
    assert OPERATOR.fingerprint in allowed.actor
    assert (allowed.details["ref"], allowed.details["commit"]) == ("refs/tags/v1", "a" * 40)
    assert (allowed.details["phase"], allowed.details["requested_by"]) == ("deploy", "ada")
    assert (ended.details["outcome"], ended.reason) == ("failure", "planned")
    for _ in range(3):
        world.handle(command)
    assert len(world.audited()) == 2, "an answer that is given again decides nothing"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"site": SiteName("blog")}, "blog"),
        ({"expires": NOW - SKEW - SECOND}, "expired"),
        ({"time": NOW + SKEW + SECOND}, "future"),
    ],
)
def test_threat_40_a_denied_command_is_in_the_audit_before_it_is_answered(
    world: World, changes: dict[str, object], why: str
) -> None:
    seen: list[list[tuple[str, str]]] = []
    world.reporter.on_report = lambda: seen.append(world.decisions())
    world.handle(request(**changes))
    assert seen == [[("deploy", "denied")]]
    (record,) = world.audited()
    assert why in record.reason
    assert record.reason == world.reporter.reports[0].detail


def test_threat_40_what_the_node_refuses_after_all_is_denied_before_it_is_answered(world: World) -> None:
    world.deployer.outcome = "refused"
    seen: list[list[tuple[str, str]]] = []
    world.reporter.on_report = lambda: seen.append(world.decisions())
    world.handle(request())
    assert seen == [[("deploy", "allowed"), ("deploy.result", "denied")]]


def test_threat_40_a_replay_under_a_used_id_is_denied(world: World) -> None:
    world.handle(request())
    world.handle(request(requested_by="eve"))
    assert world.decisions()[2:] == [("deploy", "denied")]
    assert "replay" in world.audited()[-1].reason


def test_copies_of_a_denied_command_are_counted_and_cost_no_record_each(world: World) -> None:
    refused = request(site=SiteName("blog"))
    for _ in range(20):
        world.handle(refused)
    world.handler.flush(time.monotonic() + 3600)
    counts = [record.details.get("count") for record in world.audited()]
    assert counts == [None, "1", "18"]
    assert {record.decision for record in world.audited()} == {"denied"}


def test_threat_40_unverified_messages_are_one_record_a_minute_with_their_count(world: World) -> None:
    seen: list[int] = []
    world.reporter.on_report = lambda: seen.append(len(world.audited()))
    for _ in range(20):
        world.handle(request(), STRANGER)
    assert seen == [1], "before the one answer"
    world.handler.flush(float("inf"))
    first, rest = world.audited()
    assert (first.actor, first.details["count"], first.details["claimed_site"]) == ("unverified", "1", "shop")
    assert (rest.decision, rest.details["count"]) == ("denied", "19")


def test_threat_40_a_command_that_cannot_be_recorded_waits(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deploys, "_RETRY_AFTER", 0.01)
    world.audit.disk_full = True
    worker = threading.Thread(target=world.handle, args=(request(),))
    worker.start()
    while world.audit.failures < 3:
        worker.join(0.01)
    assert (world.deployer.deployed, world.outcomes) == ([], [])
    world.audit.disk_full = False
    worker.join(60)
    assert (world.deployer.deployed, world.outcomes) == (["request-1"], ["failure"])
    assert world.decisions() == [("deploy", "allowed"), ("deploy.result", "allowed")]
    assert world.audited()[0].reason == "granted"


def test_a_command_that_cannot_be_recorded_before_it_expires_is_not_carried_out(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deploys, "_RETRY_AFTER", 0.01)
    world.audit.disk_full = True
    worker = threading.Thread(target=world.handle, args=(request(),))
    worker.start()
    while world.audit.failures < 2:
        worker.join(0.01)
    world.now = NOW + timedelta(hours=1)
    worker.join(60)
    assert (world.deployer.deployed, world.outcomes) == ([], ["failure"])
    assert "could not be recorded: no space" in world.reporter.reports[0].detail
    world.audit.disk_full = False
    world.handle(request())
    assert world.deployer.deployed == [], "that was its answer"
    world.handler.flush(time.monotonic())
    assert world.decisions() == [("deploy", "denied")]


def test_threat_40_a_denial_that_cannot_be_recorded_is_answered_and_recorded_later(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.audit.disk_full = True
    world.handle(request(site=SiteName("blog")))
    world.handle(request(), None)
    assert world.outcomes == ["refused", "refused"]
    assert "not in the audit yet, denied deploy blog: no space" in caplog.text
    world.handler.flush(time.monotonic())
    world.audit.disk_full = False
    world.now = NOW + timedelta(seconds=9)
    world.handle(request())
    denied, unverified, allowed, _ = world.audited()
    assert (denied.target, denied.details["decided"]) == ("blog", "2026-03-01T12:00:00.000+00:00")
    assert (unverified.actor, allowed.decision) == ("unverified", "allowed")
    assert denied.time == world.now


def test_denials_beyond_what_is_kept_are_counted(world: World) -> None:
    world.audit.disk_full = True
    for n in range(1010):
        world.handler._audit.unverified(1, str(n))
    world.audit.disk_full = False
    world.handler.flush(float("inf"))
    lost, *kept = world.audited()
    assert (lost.action, lost.decision, lost.details["count"]) == ("audit.lost", "denied", "10")
    assert [record.reason for record in kept] == [str(n) for n in range(10, 1010)]


def test_a_resumed_command_is_recorded_as_such(world: World) -> None:
    command = request()
    until = command.expires + timedelta(days=1)
    world.ids.claim(OPERATOR.fingerprint, command.id, body_digest(encode(command).body), NOW, keep_until=until)
    world.handle(command)
    assert "interrupted" in world.audited()[0].reason
    assert world.deployer.resumed == [True]


def test_threat_40_what_a_trusted_key_signed_and_is_no_message_is_denied(world: World) -> None:
    frame = sign(attrs.evolve(encode(request()), body=b"{}"), OPERATOR)
    for _ in range(5):
        world.handler.handle(
            Delivery(
                destination="/topic/deploykit.deploy",
                headers=frame.headers,
                body=frame.body,
                message_id="1",
                id="1",
                attempt=1,
                redelivered=False,
                epoch=1,
            )
        )
    (record,) = world.audited()
    assert (record.actor, record.decision) == ("a trusted key", "denied")


def test_threat_40_a_deploy_without_a_build_stands_in_the_audit(world: World) -> None:
    world.handle(request(without_build=True))
    assert world.audited()[0].details["without_build"] == "yes"
    world.handle(request(id="other"))
    assert "without_build" not in world.audited()[-1].details
