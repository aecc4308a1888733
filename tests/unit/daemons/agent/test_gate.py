"""The agent's gate: evidence, stored results judged anew, what was good here, and commands without a build."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import attrs
import pytest

from deploykit.audit import AuditLog
from deploykit.audit.files import read_records
from deploykit.audit.record import AuditRecord
from deploykit.builds import BuildStore, SignedResult
from deploykit.daemons.agent.gate import WITHOUT_BUILD, BuildGate, GatePassage, gate_problems
from deploykit.daemons.service.metrics import Metrics
from deploykit.errors import PolicyRefused
from deploykit.messages import BuildEvidence, BuildFinished, DeployRequested
from deploykit.names import NodeName, SiteName
from deploykit.release import Operation, Release, Site
from deploykit.release.state import SiteRecord, save_state
from deploykit.settings import GrantSettings, NodeSiteSettings, Settings
from deploykit.trust.check import Trust, Verified
from deploykit.trust.sshsig import decode_header, encode_header
from deploykit.wire import Frame
from tests.support.asked import request
from tests.support.builds import (
    COMMIT,
    DAY,
    GRANT,
    JENKINS,
    JOB,
    NOW,
    OTHER,
    SHOP,
    STRANGER,
    result,
    signed,
    trust,
)
from tests.support.resultaudit import result_audit

HEAD = "no successful build of shop-tests for 1a2b3c4d; "
REF = request().ref or ""


class GateCounts(Metrics):
    """Keeps the decisions."""

    def __init__(self) -> None:
        super().__init__()
        self.decided: list[str] = []

    def gate_decided(self, site: str, outcome: str) -> None:
        self.decided.append(f"{site} {outcome}")


class GatedNode:
    """A node with one site that requires a build, its store, and a gate."""

    def __init__(self, root: Path) -> None:
        site = NodeSiteSettings(path=root / "site", repo=SHOP, require_build=(JOB,))
        free = NodeSiteSettings(path=root / "free", repo=SHOP)
        self.settings = Settings(
            node=NodeName("web1"), state=root / "state", sites={SiteName("shop"): site, SiteName("free"): free}
        )
        self.site = Site(site.path)
        self.store = BuildStore(root / "state" / "builds.sqlite")
        self.trust = trust()
        self.counts = GateCounts()
        self.audit = AuditLog(root / "state" / "audit.log")
        self.now = NOW

    def put(self, message: BuildFinished) -> SignedResult:
        made = signed(message)
        self.store.put(made, message, JENKINS.fingerprint, NOW)
        return made

    def ask(self, asked: DeployRequested, *, resumed: bool = False) -> GatePassage:
        audit = result_audit(self.audit, self.store, self.settings.node)
        gate = BuildGate(self.settings, self.trust, self.store, audit, metrics=self.counts, now=lambda: self.now)
        return gate.ask(asked, self.site, resumed=resumed)

    def refusal(self, asked: DeployRequested) -> str:
        with pytest.raises(PolicyRefused) as caught:
            self.ask(asked)
        return caught.value.problem

    def record(self, *releases: Release, operations: tuple[Operation, ...] = ()) -> None:
        self.site.state_file.parent.mkdir(parents=True, exist_ok=True)
        save_state(self.site.state_file, SiteRecord(releases=releases, operations=operations))


def release(**changes: object) -> Release:
    base = Release(
        seq=1,
        name="1-v1",
        ref=REF,
        tag="v1",
        commit=COMMIT,
        tree=OTHER,
        status="good",
        activated="2026-01-01T00:00:00Z",
    )
    return attrs.evolve(base, **changes)  # type: ignore[arg-type]


def asked(**changes: object) -> DeployRequested:
    return request(**({"commit": COMMIT} | changes))


def carried(*results: SignedResult) -> tuple[BuildEvidence, ...]:
    return tuple(each.evidence for each in results)


@pytest.fixture
def node(tmp_path: Path) -> GatedNode:
    return GatedNode(tmp_path)


@pytest.mark.parametrize("phase", ["deploy", "prepare", "activate"])
def test_each_phase_but_the_way_back_needs_a_build(node: GatedNode, phase: str) -> None:
    assert node.refusal(asked(phase=phase)) == HEAD + "none is known"
    assert node.ask(asked(phase="rollback")).outcome == "not-needed"
    node.put(result())
    assert node.ask(asked(phase=phase)) == GatePassage("open")
    assert node.counts.decided == ["shop closed", "shop not-needed", "shop open"]


def test_a_site_that_requires_nothing_has_no_gate(node: GatedNode) -> None:
    assert node.ask(asked(site=SiteName("free"))).note == ""
    assert node.counts.decided == []


def test_a_stored_result_is_judged_anew_each_time(node: GatedNode) -> None:
    node.put(result())
    assert node.ask(asked()).outcome == "open"
    node.trust = trust(revoked=JENKINS.public_openssh)
    assert "succeeded 5 minutes ago, but its key is no longer trusted" in node.refusal(asked())
    node.trust = trust(attrs.evolve(GRANT, jobs=("other",)))
    assert "but its key may not report shop-tests of shop" in node.refusal(asked())
    node.trust = trust(attrs.evolve(GRANT, sites=("free",)))
    assert "may not report" in node.refusal(asked())
    node.trust = trust()
    node.now = NOW + 91 * DAY
    assert "number 41 succeeded 91 days ago, but results count for 90 days" in node.refusal(asked())
    node.now = NOW - timedelta(hours=1)
    assert "from the future" in node.refusal(asked())


def test_an_edited_store_opens_nothing(node: GatedNode) -> None:
    forged = signed(result(), STRANGER)
    node.store.put(forged, result(), JENKINS.fingerprint, NOW)
    assert "its key is no longer trusted" in node.refusal(asked())
    genuine = signed(result(commit=OTHER))
    edited = attrs.evolve(genuine, body=genuine.body.replace(OTHER.encode(), COMMIT.encode()))
    node.store.put(edited, result(), JENKINS.fingerprint, NOW)
    node.store.put(attrs.evolve(genuine, body=b"{"), result(), JENKINS.fingerprint, NOW)
    assert node.refusal(asked()).startswith(HEAD)


def test_a_new_node_believes_good_evidence_and_keeps_it(node: GatedNode) -> None:
    made = signed(result())
    assert node.ask(asked(evidence=carried(made))).outcome == "open"
    assert [each.signed for each in node.store.find()] == [made]
    assert node.ask(asked()).outcome == "open"
    assert node.ask(asked(evidence=carried(made))).outcome == "open"
    audited = [r for r in read_records(node.audit.path) if isinstance(r, AuditRecord)]
    assert [(r.action, r.decision, r.actor) for r in audited] == [("build.result", "allowed", JENKINS.fingerprint)]


def test_threat_40_evidence_that_does_not_count_is_denied_in_the_audit(node: GatedNode) -> None:
    node.refusal(asked(evidence=carried(signed(result(), STRANGER))))
    (record,) = read_records(node.audit.path)
    assert isinstance(record, AuditRecord)
    assert record.decision == "denied"
    assert "its key is not trusted" in record.reason


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (signed(result(), STRANGER), "number 41 succeeded 5 minutes ago, but its key is not trusted"),
        (signed(result(commit=OTHER)), "none is known"),
        (signed(result(job="shop-lint")), "none is known"),
        (signed(result(time=NOW - 91 * DAY)), "results count for 90 days"),
        (signed(result(time=NOW + DAY)), "from the future"),
        (signed(result(outcome="failure")), "number 41 failed 5 minutes ago"),
        (SignedResult(body=b"{}", signature=signed(result()).signature), "evidence 1 is no build result"),
    ],
)
def test_evidence_is_judged_as_if_it_had_come_by_itself(node: GatedNode, made: SignedResult, says: str) -> None:
    assert says in node.refusal(asked(evidence=carried(made)))
    assert node.ask(asked(evidence=carried(made, signed(result(number=42))))).outcome == "open"


def test_tampered_evidence_is_named(node: GatedNode) -> None:
    made = signed(result(outcome="failure"))
    tampered = attrs.evolve(made, body=made.body.replace(b'"failure"', b'"success"'))
    assert "its signature does not fit: it was changed" in node.refusal(asked(evidence=carried(tampered)))
    assert node.store.count() == 0


def test_a_bad_copy_does_not_hide_the_good_result_of_the_same_body_and_key(
    node: GatedNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = signed(result())
    blob = bytearray(decode_header(good.signature))
    blob[-1] ^= 1
    bad = attrs.evolve(good, signature=encode_header(bytes(blob)))
    assert bad.digest == good.digest
    assert "it was changed" in node.refusal(asked(evidence=carried(bad)))
    assert node.ask(asked(evidence=carried(good, bad))).outcome == "open"
    assert node.ask(asked(evidence=carried(bad))).outcome == "open", "the good one is stored by now"
    monkeypatch.setattr(node, "store", BuildStore(node.settings.state / "not-kept.sqlite"))
    monkeypatch.setattr(node.store, "put", lambda *_: False)
    assert node.ask(asked(evidence=carried(good, bad))).outcome == "open"


def test_a_failure_that_the_node_knows_is_not_outdone_by_older_evidence(node: GatedNode) -> None:
    node.put(result(number=42, outcome="failure"))
    assert "number 42 failed" in node.refusal(asked(evidence=carried(signed(result()))))


def test_more_evidence_than_may_be_is_refused(node: GatedNode) -> None:
    many = carried(*[signed(result(number=number)) for number in range(1, 18)])
    assert "more than 16" in node.refusal(asked(evidence=many, phase="rollback"))
    assert node.ask(asked(evidence=many[1:])).outcome == "open"


def test_what_was_good_here_needs_no_build(node: GatedNode) -> None:
    for status, activated, passes in (
        ("good", "2026-01-01T00:00:00Z", True),
        ("good", "", False),
        ("prepared", "", False),
        ("withdrawn", "2026-01-01T00:00:00Z", False),
        ("failed", "", False),
    ):
        node.record(release(status=status, activated=activated))
        if passes:
            assert node.ask(asked()).outcome == "not-needed"
        else:
            assert node.refusal(asked()) == HEAD + "none is known"
    node.record(release(commit=OTHER))
    assert node.refusal(asked())


@pytest.mark.parametrize(
    ("releases", "passes"),
    [
        ((release(status="prepared", activated=""),), False),
        ((release(status="prepared", activated=""), release(seq=2, name="2-v1")), True),
        ((release(status="failed"), release(seq=2, name="2-v1", status="prepared", activated="")), False),
        ((release(status="withdrawn"),), True),
        ((release(), release(seq=2, name="2-v2", commit=OTHER, status="prepared", activated="")), True),
    ],
)
def test_a_rollback_to_what_was_only_prepared_needs_a_build(
    node: GatedNode, releases: tuple[Release, ...], passes: bool
) -> None:
    node.record(*releases)
    if passes:
        assert node.ask(asked(phase="rollback")).outcome == "not-needed"
        return
    assert node.refusal(asked(phase="rollback")) == HEAD + "none is known"
    node.put(result())
    assert node.ask(asked(phase="rollback")).outcome == "open"


def test_results_of_other_jobs_cost_a_decision_nothing(node: GatedNode, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(1, 40):
        node.put(result(job=f"shop-{number}"))
    node.put(result())
    checked: list[Frame] = []
    check = Trust.check

    def counted(trusting: Trust, frame: Frame, now: datetime) -> Verified:
        checked.append(frame)
        return check(trusting, frame, now)

    monkeypatch.setattr(Trust, "check", counted)
    assert node.ask(asked()).outcome == "open"
    assert len(checked) == 1


def test_results_from_the_future_do_not_hide_a_failure_that_counts(node: GatedNode) -> None:
    node.put(result(number=45, outcome="failure"))
    for number in range(46, 54):
        node.put(result(number=number, time=NOW + timedelta(hours=9)))
    assert "number 45 failed" in node.refusal(asked(evidence=carried(signed(result(number=44)))))


def test_a_command_that_was_begun_here_is_not_asked_again(node: GatedNode) -> None:
    begun = Operation(number=1, phase="deploy", release="1-v1", ref=REF, commit=COMMIT, request=asked().id)
    node.record(operations=(begun,))
    assert node.ask(asked(), resumed=True).outcome == "open"
    assert node.ask(asked(without_build=True), resumed=True).note == WITHOUT_BUILD
    assert node.refusal(asked())  # another command that takes its id
    for other in (asked(id="another"), asked(commit=OTHER), asked(phase="activate")):
        with pytest.raises(PolicyRefused):
            node.ask(other, resumed=True)


def test_a_command_without_a_build_passes_and_says_so(node: GatedNode) -> None:
    assert node.ask(asked(without_build=True)) == GatePassage("without-build", WITHOUT_BUILD)
    node.put(result())
    assert node.ask(asked(without_build=True)) == GatePassage("open")


def test_what_cannot_be_read_leaves_the_gate_closed(node: GatedNode) -> None:
    node.put(result())
    content = node.store.path.read_bytes()
    node.store.path.write_bytes(b"nonsense" * 1000)
    text = node.refusal(asked(evidence=carried(signed(result()))))
    assert "cannot be read" in text
    assert str(node.store.path) not in text
    assert "no gate that requires a build opens" in gate_problems(node.settings)[0]
    assert node.ask(asked(phase="rollback")).outcome == "not-needed"
    node.store.path.write_bytes(content)
    assert gate_problems(node.settings) == ()
    node.trust = Trust.from_settings(
        attrs.evolve(node.settings.trust, allowed_signers=Path("/none"), grants=(GRANT,)), NodeName("web1")
    )
    assert "cannot be read" in node.refusal(asked())


def test_evidence_counts_although_it_cannot_be_kept(node: GatedNode, monkeypatch: pytest.MonkeyPatch) -> None:
    node.put(result(commit=OTHER))
    with monkeypatch.context() as patched:
        patched.setattr(BuildStore, "_prepare_file", lambda _: (_ for _ in ()).throw(OSError(28, "No space left")))
        assert node.ask(asked(evidence=carried(signed(result())))).outcome == "open"


def test_a_grant_is_needed_whoever_carries_the_evidence(node: GatedNode) -> None:
    node.trust = trust(GrantSettings(principal="jenkins", types=("build.finished",)))
    assert "may not report" in node.refusal(asked(evidence=carried(signed(result()))))


def test_a_discard_puts_nothing_live_and_needs_no_build(tmp_path: Path) -> None:
    node = GatedNode(tmp_path)
    assert node.ask(request(phase="discard")).outcome == "not-needed"
    assert node.counts.decided == []
    with pytest.raises(PolicyRefused, match="no successful build"):
        node.ask(request(phase="prepare"))
