"""Whatever fails around a deploy: one final report, which is true, no second deploy, and no dead letter.

Each call the handler makes is made to fail, once or again and again, in the ways that calls fail: with an error of
ours, of the system, of nobody. The bus is played by `handled`, which does with a verdict what a bus does.
"""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest

from deploykit.audit import open_audit
from deploykit.builds.store import builds_of
from deploykit.bus import Ack, Delivery, Reject, Retry, Verdict
from deploykit.daemons.agent import deploy_decisions, deployer, deploys, reports, strangers
from deploykit.daemons.agent.deploy_reports import DeployReportMaker
from deploykit.daemons.agent.deployer import SiteDeployer
from deploykit.daemons.agent.deploys import DeployHandler
from deploykit.daemons.agent.gate import BuildGate
from deploykit.daemons.agent.mandates import mandates_of
from deploykit.daemons.agent.mirrors import MirrorHandler
from deploykit.daemons.agent.progress import ProgressSender
from deploykit.daemons.agent.reports import Reporter
from deploykit.daemons.agent.rollouts import rollouts_of
from deploykit.daemons.service.auditing import AuditWriter
from deploykit.errors import (
    DeploykitError,
    IdForgotten,
    IdStoreError,
    MirrorCorrupt,
    MirrorError,
    OutboxError,
    TreeDamaged,
)
from deploykit.fleet.sender import ASK_AGAIN
from deploykit.ids import IdStore
from deploykit.messages import DeployReported, DeployRequested, utc_now
from deploykit.messages.topics import TopicMap
from deploykit.mirror import Mirror
from deploykit.mirror.pool import MirrorPool
from deploykit.names import ObjectId, RefName, SiteName
from deploykit.outbox import Outbox
from deploykit.release import DeployResult, Runner
from deploykit.settings import (
    GrantSettings,
    NodeSiteSettings,
    RepositorySettings,
    Settings,
    SiteSettings,
    TrustSettings,
)
from deploykit.testing.fakes import FakeBus
from deploykit.trust import check as checks
from deploykit.trust.check import Trust
from deploykit.trust.keyfiles import generate_key, load_signing_key, load_trusted, trust
from deploykit.trust.policy import Policy
from deploykit.trust.signature import HEADER, sign, verify
from deploykit.wire import CONTENT_TYPE, Frame, decode, encode
from tests.support.node import NODE, SHOP, Origin
from tests.support.resultaudit import result_audit
from tests.support.wait import wait_until

SITE = SiteName("shop")
ATTEMPTS = 5

ERRORS = {
    "ours": DeploykitError("planned"),
    "the system's": OSError(errno.ENOSPC, "No space left on device"),
    "nobody's": RuntimeError("planned"),
    "memory": MemoryError(),
}


@attrs.define
class Fault:
    """Makes one function fail the first so many times that it is called."""

    owner: Any
    name: str
    error: Exception
    times: float
    #: It does its work before it fails.
    after: bool = False
    calls: int = 0

    def plan(self, patch: pytest.MonkeyPatch) -> Fault:
        real = getattr(self.owner, self.name)

        def failing(*args: Any, **options: Any) -> Any:
            self.calls += 1
            if self.calls > self.times:
                return real(*args, **options)
            if self.after:
                real(*args, **options)
            raise self.error.with_traceback(None)

        patch.setattr(self.owner, self.name, failing)
        return self


class World:
    """One node's handler over a real origin, disk, key and store of ids; no bus."""

    def __init__(self, root: Path, origin: Origin, commit: ObjectId) -> None:
        self.commit = commit
        operator, node = generate_key(root / "operator.key"), generate_key(root / "node.key")
        signers = root / "allowed_signers"
        trust(signers, "ops@example.org", operator.public_blob)
        trust(signers, str(NODE), node.public_blob)
        self.site = root / "site"
        grant = GrantSettings(principal="ops@example.org", types=("deploy.requested",), sites=("shop",))
        self.settings = Settings(
            node=NODE,
            state=root / "state",
            trust=TrustSettings(allowed_signers=signers, grants=(grant,)),
            repositories={SHOP: RepositorySettings(url=str(origin.path))},
            sites={SITE: NodeSiteSettings(path=self.site, repo=SHOP, release=SiteSettings())},
            fetch_spread=0.0,
        )
        self.key = operator
        self.outbox = Outbox(root / "spool", shared=False)
        self._reporter = Reporter(self.outbox, TopicMap(), load_signing_key(root / "node.key"))
        self.mirroring = MirrorHandler(self.settings, self._reporter)
        self.ids = IdStore(root / "state" / "ids.sqlite")
        self.deploying = self.handler()
        self.request = self.command()

    def handler(self) -> DeployHandler:
        trust = Trust.from_settings(self.settings.trust, NODE, trusted=self.trusted)
        builds, audit = builds_of(self.settings.state), open_audit(self.settings)
        gate = BuildGate(self.settings, trust, builds, result_audit(audit, builds, NODE))
        progress = ProgressSender(NODE, FakeBus(), TopicMap(), None)
        deployer = SiteDeployer(self.settings, self.mirroring, gate, progress)
        rollouts, writer = rollouts_of(self.settings.state), AuditWriter(audit, f"agent/{NODE}", utc_now)
        return DeployHandler(
            NODE,
            deployer,
            self._reporter,
            self.ids,
            trust,
            audit,
            rollouts=rollouts,
            sites=self.settings.sites,
            mandates=mandates_of(self.settings, trust, self._reporter, writer, rollouts),
        )

    def trusted(self) -> Any:
        return load_trusted(self.settings.trust)

    def command(self, **changes: Any) -> DeployRequested:
        now = datetime.now(UTC)
        made = DeployRequested(
            source="operator/test",
            time=now,
            site=SITE,
            ref=RefName("refs/tags/v1"),
            commit=self.commit,
            audience=(NODE,),
            expires=now + timedelta(minutes=5),
        )
        return attrs.evolve(made, **changes)

    def delivery(self, attempt: int = 1, request: DeployRequested | None = None) -> Delivery:
        frame = sign(encode(request or self.request), self.key)
        return Delivery(
            destination="/topic/deploykit.deploy",
            headers=frame.headers,
            body=frame.body,
            message_id="1",
            id="1",
            attempt=attempt,
            redelivered=attempt > 1,
            epoch=1,
        )

    def reports(self) -> list[DeployReported]:
        """What waits for the broker, each checked as an asker would."""
        found = []
        for record in self.outbox.pending():
            message = decode(record.frame.headers, record.frame.body, record.destination)
            if isinstance(message, DeployReported):
                frame = Frame(record.frame.headers, record.frame.body)
                assert verify(frame, self.trusted(), datetime.now(UTC)).is_principal(str(NODE))
                found.append(message)
        return found

    def done(self) -> bool:
        return self.ids.reply(self.key.fingerprint, self.request.id) is not None

    def live(self) -> bool:
        return (self.site / "current" / "index.html").exists()

    def releases(self) -> int:
        where = self.site / "releases"
        return sum(1 for _ in where.iterdir()) if where.exists() else 0


def handled(world: World, handler: DeployHandler | None = None, request: DeployRequested | None = None) -> Verdict:
    """Hand the command over as a bus would: again while the handler fails, and not for ever."""
    chosen = handler or world.deploying
    for attempt in range(1, ATTEMPTS + 1):
        try:
            verdict = chosen.handle(world.delivery(attempt, request))
        except Exception:
            continue
        if not isinstance(verdict, Retry):
            return verdict
    return Reject("gave up: a dead letter")


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Origin, ObjectId]:
    origin = Origin(tmp_path_factory.mktemp("git"))
    return origin, origin.push(tag="v1", files={"index.html": "one\n"})


@pytest.fixture
def world(tmp_path: Path, pushed: tuple[Origin, ObjectId], monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(deploys, "_RETRY_AFTER", 0.001)
    monkeypatch.setattr(deploy_decisions, "_REPEAT_AFTER", 0.0)
    made = World(tmp_path, *pushed)
    made.mirroring.start()
    try:
        yield made
    finally:
        made.mirroring.stop()
        made.ids.close()


#: Every call the handler makes: where it stands, and whether the handler acts before (then the deploy did happen).
BEFORE: dict[str, tuple[Any, str]] = {
    "decode": (checks, "decode"),
    "addressed": (checks, "addressed_to"),
    "trusted signers": (checks, "verify"),
    "authorize": (Policy, "authorize"),
    "replayable": (Policy, "replayable_until"),
    "digest": (checks, "body_digest"),
    "claimed_at": (IdStore, "claimed_at"),
    "claim": (IdStore, "claim"),
    "one line": (deployer, "one_line"),
    "mirror": (MirrorHandler, "mirror"),
    "resolve": (Mirror, "resolve"),
    "sync": (MirrorHandler, "sync"),
    "site": (deployer, "Site"),
    "runner": (deployer, "Runner"),
    "deploy": (Runner, "deploy"),
}
AROUND: dict[str, tuple[Any, str]] = {
    "mirror close": (Mirror, "__exit__"),
    "renew": (MirrorPool, "reclone"),
    "reply": (checks, "copy_digest"),
    "steps": (DeployReportMaker, "with_steps"),
    "encode": (reports, "encode_fitted"),
    "sign": (reports, "sign"),
    "topic": (reports, "topic_of"),
    "outbox": (Outbox, "put_many"),
    "done": (IdStore, "done"),
}


def check(world: World, verdict: Verdict) -> DeployReported:
    """Hold the promise: one true report, and the same one, without a deploy, for who asks again."""
    assert isinstance(verdict, Ack), verdict
    (report,) = world.reports()
    assert (report.request, report.node) == (world.request.id, NODE)
    assert (report.outcome == "success") == world.live(), report
    assert world.releases() == int(world.live())
    if not world.done():
        return report
    operations = sorted(p.name for p in world.site.glob(".deploykit/history/*"))
    assert isinstance(handled(world), Ack)
    assert [each.id for each in world.reports()] == [report.id, report.id]
    assert sorted(p.name for p in world.site.glob(".deploykit/history/*")) == operations
    return report


#: Where it fails again and again, nobody knows yet whose command it is: that is the bus' to settle.
UNREAD = ("decode", "addressed")
#: What is called when the id is claimed: it ends done, whatever fails.
CLAIMED = ("mirror", "resolve", "sync", "site", "runner", "deploy", *AROUND)


@pytest.mark.parametrize(
    ("call", "times"), [(call, n) for call in (*BEFORE, *AROUND) for n in ((1,) if call in UNREAD else (1, 2, 7))]
)
@pytest.mark.parametrize("kind", ERRORS)
def test_every_call_of_the_handler_may_fail_and_one_true_report_comes(
    world: World, call: str, kind: str, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if call == "renew":  # it is called where a mirror is damaged
        Fault(Runner, "deploy", TreeDamaged("an object is missing"), 1).plan(monkeypatch)
    if call == "sync":  # it is called where the mirror does not hold the commit
        Fault(Mirror, "resolve", MirrorError("not here yet"), 1).plan(monkeypatch)
    owner, name = (BEFORE | AROUND)[call]
    fault = Fault(owner, name, ERRORS[kind], times, after=call == "mirror close").plan(monkeypatch)
    verdict = handled(world)
    monkeypatch.undo()
    monkeypatch.setattr(deploys, "_RETRY_AFTER", 0.001)
    assert fault.calls > 0, "it is called"
    report = check(world, verdict)
    if call in AROUND and call != "renew":
        assert report.outcome == "success"
    if call in CLAIMED:
        assert world.done()


@pytest.mark.parametrize("call", ["mirror", "resolve", "sync", "site", "runner", "deploy", "renew", "steps"])
@pytest.mark.parametrize("kind", ERRORS)
def test_what_always_fails_around_a_deploy_is_answered_for_good(
    world: World, call: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if call == "renew":
        Fault(Runner, "deploy", TreeDamaged("an object is missing"), 1).plan(monkeypatch)
    if call == "sync":
        Fault(Mirror, "resolve", MirrorError("not here yet"), 1).plan(monkeypatch)
    owner, name = (BEFORE | AROUND)[call]
    Fault(owner, name, ERRORS[kind], float("inf")).plan(monkeypatch)
    report = check(world, handled(world))
    assert report.outcome == ("success" if call == "steps" else "failure")
    assert world.done()


@pytest.mark.parametrize("error", [IdStoreError("cannot write to id store"), OutboxError("no space left on device")])
def test_a_disk_without_room_costs_time_however_long_it_lasts(
    world: World, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry: tuple[Any, str] = (IdStore, "claim") if isinstance(error, IdStoreError) else (Outbox, "put_many")
    Fault(entry[0], entry[1], error, 200).plan(monkeypatch)
    assert check(world, handled(world)).outcome == "success"


def test_a_report_is_decided_once_however_often_it_must_be_said(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    acts = Fault(Runner, "deploy", RuntimeError(), 0).plan(monkeypatch)
    Fault(Outbox, "put_many", OutboxError("no space left on device"), 50).plan(monkeypatch)
    check(world, handled(world))
    assert acts.calls == 1


def test_a_report_that_is_said_is_not_said_again_because_its_id_cannot_be_written(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    Fault(IdStore, "done", IdStoreError("no space left on device"), 50).plan(monkeypatch)
    check(world, handled(world))  # counts the reports


def test_a_report_that_cannot_be_written_is_told_in_one_line(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a future version puts into it that its own encoder refuses."""
    real = DeployReportMaker.with_steps

    def wrong(self: DeployReportMaker, request: DeployRequested, copy: str, result: DeployResult) -> DeployReported:
        return attrs.evolve(real(self, request, copy, result), commit=ObjectId(""))

    monkeypatch.setattr(DeployReportMaker, "with_steps", wrong)
    report = check(world, handled(world))
    assert (report.outcome, report.commit) == ("success", world.commit)


def test_an_agent_that_ends_while_its_report_finds_no_room_leaves_it_to_the_next_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = Fault(Outbox, "put_many", OutboxError("no space left on device"), float("inf")).plan(monkeypatch)
    verdicts: list[Verdict] = []
    worker = threading.Thread(target=lambda: verdicts.append(world.deploying.handle(world.delivery())))
    worker.start()
    wait_until(lambda: full.calls > 3, "some tries", 60)
    world.deploying.finish()
    worker.join(60)
    assert [type(verdict) for verdict in verdicts] == [Retry]
    assert isinstance(verdicts[0], Retry)
    assert verdicts[0].after >= 900, "an attempt each time, and the scripts of others may run for long"
    assert not world.done()
    full.times = 0
    world.deploying = world.handler()
    assert check(world, handled(world)).outcome == "success"
    assert world.releases() == 1


def test_a_stored_report_that_is_damaged_is_said_to_be_so(world: World) -> None:
    check(world, handled(world))
    world.ids.done(world.key.fingerprint, world.request.id, b"\x00", datetime.now(UTC))
    assert isinstance(handled(world), Ack)
    last = world.reports()[-1]
    assert (last.outcome, "damaged" in last.detail) == ("failure", True)
    assert world.releases() == 1


def test_a_stored_report_of_another_version_is_signed_as_it_stands(world: World) -> None:
    """Written again by this version it might be other bytes, which the signature would not fit."""
    check(world, handled(world))
    stored = world.ids.reply(world.key.fingerprint, world.request.id)
    assert stored is not None
    older = stored.replace(b'"detail":"",', b"")
    assert older != stored
    world.ids.done(world.key.fingerprint, world.request.id, older, datetime.now(UTC))
    assert isinstance(handled(world), Ack)
    assert len(world.reports()) == 3, "and each of them is verified there"


def test_an_id_that_may_have_been_forgotten_is_refused_and_not_waited_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    Fault(IdStore, "claim", IdForgotten("ids that old were forgotten"), float("inf")).plan(monkeypatch)
    assert isinstance(handled(world), Ack)
    (report,) = world.reports()
    assert (report.outcome, world.live()) == ("refused", False)


def test_a_damaged_mirror_is_cloned_anew_and_the_report_tells_of_the_damage(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    Fault(Mirror, "resolve", MirrorCorrupt("objects are missing"), 1).plan(monkeypatch)
    renewed = Fault(MirrorPool, "reclone", RuntimeError(), 0).plan(monkeypatch)
    Fault(Runner, "deploy", MirrorCorrupt("objects are missing"), 1).plan(monkeypatch)
    assert check(world, handled(world)).outcome == "failure"
    assert renewed.calls == 2, "by who looked for the commit, and by who read the tree; the pool does it once"


def test_a_refusal_by_policy_waits_for_room_too(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    late = world.command(expires=datetime.now(UTC) + timedelta(days=30))
    world.request = late
    Fault(Outbox, "put_many", OutboxError("no space left on device"), 20).plan(monkeypatch)
    assert isinstance(handled(world), Ack)
    (report,) = world.reports()
    assert report.outcome == "refused"


@pytest.mark.parametrize("how", ["a signature", "the files"])
def test_a_genuine_command_waits_while_signatures_cannot_be_checked_and_is_obeyed_then(
    world: World, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Strangers have spent the answer of the minute: it would never hear of it."""
    world.deploying._strangers._count.add("a stranger's message", time.monotonic())
    if how == "a signature":
        Fault(checks, "verify", OSError(errno.EMFILE, "Too many open files"), 2).plan(monkeypatch)
        verdict = handled(world)
    else:
        signers = world.settings.trust.allowed_signers
        assert signers is not None
        away = signers.rename(signers.with_name("away"))
        assert isinstance(world.deploying.handle(world.delivery()), Retry)
        away.rename(signers)
        verdict = world.deploying.handle(world.delivery(2))
    assert check(world, verdict).outcome == "success"


def test_what_nobody_vouches_for_is_read_only_where_it_may_be_answered(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A body of 1 MiB can cost a third of a second to read."""
    reads = Fault(strangers, "decode", RuntimeError(), 0).plan(monkeypatch)
    checked = Fault(checks, "decode", RuntimeError(), 0).plan(monkeypatch)
    good = world.delivery()
    unsigned = {name: value for name, value in good.headers.items() if name != HEADER}
    for number in range(50):
        headers = unsigned if number % 2 else {**good.headers, HEADER: "U1NI"}
        assert isinstance(world.deploying.handle(attrs.evolve(good, headers=headers)), Ack)
    assert (reads.calls, checked.calls) == (1, 0)
    assert [report.outcome for report in world.reports()] == ["refused"]


@pytest.mark.parametrize("headers", [{"content-type": "x/y"}, {"content-type": "text/plain"}, {"content-type": ""}])
def test_a_copy_of_a_command_under_other_headers_is_neither_kept_nor_answered(
    world: World, headers: dict[str, str]
) -> None:
    """Who has no key could fill the dead letters, or have the node refuse what it is about to obey."""
    good = world.delivery()
    for number in range(20):
        changed = {**good.headers, **headers, "deploykit-id": str(number)}
        assert isinstance(world.deploying.handle(attrs.evolve(good, headers=changed)), Ack)
    assert world.reports() == []
    assert check(world, handled(world)).outcome == "success"


def test_what_a_known_signer_sent_and_nobody_can_read_is_kept_once_an_interval(world: World) -> None:
    verdicts = []
    for body in (b"{", b"{", b"[", b"{"):
        frame = sign(Frame({"content-type": CONTENT_TYPE}, body), world.key)
        delivery = attrs.evolve(world.delivery(), headers=frame.headers, body=frame.body)
        verdicts.append(type(world.deploying.handle(delivery)))
    assert verdicts == [Reject, Ack, Reject, Ack]


def test_a_report_is_said_again_once_an_interval_and_before_an_asker_asks_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anybody can send copies of a command, and a report can be large."""
    monkeypatch.undo()
    assert ASK_AGAIN > deploy_decisions._REPEAT_AFTER > 0
    world.deploying = world.handler()
    for _ in range(20):
        assert isinstance(handled(world), Ack)
    assert len(world.reports()) == 2
    world.deploying._decider._repeated._until.clear()  # the interval is over
    assert isinstance(handled(world), Ack)
    assert len(world.reports()) == 3


def test_the_remedy_at_the_end_of_a_long_detail_is_reported(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    result = DeployResult(outcome="refused", detail="x" * 1000 + ": do this")
    monkeypatch.setattr(Runner, "deploy", lambda *_, **__: result)
    assert check(world, handled(world)).detail.endswith(": do this")


def test_a_command_whose_id_cannot_be_looked_up_is_answered_when_it_has_expired(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    lookups = Fault(IdStore, "claimed_at", IdStoreError("the id store is damaged"), 10).plan(monkeypatch)
    start = datetime.now(UTC)
    world.deploying._decider._now = lambda: start + timedelta(minutes=6 if lookups.calls > 3 else 0)
    assert isinstance(handled(world), Ack)
    (report,) = world.reports()
    assert (report.outcome, lookups.calls, world.live()) == ("failure", 5, False)
    assert report.detail == "its id could not be looked up: the id store is damaged"
