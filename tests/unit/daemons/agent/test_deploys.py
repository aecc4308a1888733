"""The order in which a deploy command is judged, claimed, carried out and reported; no bus, no mirror, no site."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta
from pathlib import Path

import attrs
import pytest

from deploykit.bus import Ack, Delivery, Reject, Retry, Verdict
from deploykit.daemons.agent.deployer import SiteDeployer
from deploykit.daemons.agent.deploys import DeployHandler
from deploykit.daemons.agent.reports import Reporter
from deploykit.daemons.service.metrics import Metrics
from deploykit.errors import KeyFileError
from deploykit.ids import IdStore
from deploykit.messages import DeployReported, DeployRequested, Message
from deploykit.names import SiteName
from deploykit.release import DeployResult
from deploykit.settings import GrantSettings, TrustSettings
from deploykit.trust.allowed_signers import AllowedSigners
from deploykit.trust.check import Trust
from deploykit.trust.signature import Signer, SigningKey, body_digest, sign
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
        self.again = False
        self.go_on = threading.Event()
        self.go_on.set()

    def deploy(self, request: DeployRequested, signer: Signer) -> DeployResult:
        assert signer.fingerprint == OPERATOR.fingerprint
        self.deployed.append(request.id)
        assert self.go_on.wait(10)
        return DeployResult(outcome="failure", detail="planned", again=self.again)


class FakeReporter(Reporter):
    """Keeps the reports."""

    def __init__(self) -> None:
        self.reports: list[DeployReported] = []

    def report(self, *messages: Message) -> tuple[Frame, ...]:
        self.reports += [message for message in messages if isinstance(message, DeployReported)]
        return tuple(encode(message) for message in messages)

    def report_again(self, body: bytes) -> None:
        self.reports.append(self.reports[-1])


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
        self.handler = DeployHandler(
            WEB1, self.deployer, self.reporter, self.ids, trust, now=lambda: self.now, metrics=self.metrics
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

    @property
    def outcomes(self) -> list[str]:
        return [report.outcome for report in self.reporter.reports]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_an_authorized_command_is_claimed_carried_out_and_reported(world: World) -> None:
    assert isinstance(world.handle(request()), Ack)
    assert world.deployer.deployed == [request().id]
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
