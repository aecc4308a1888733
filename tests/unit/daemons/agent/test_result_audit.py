"""Which build results count is in the audit, before they are kept; what is signed and does not count is counted."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from deploykit.audit import AuditLog
from deploykit.audit.files import read_records
from deploykit.audit.record import AuditEntry, AuditRecord
from deploykit.builds import BuildStore, judge
from deploykit.bus import Ack, Delivery, Retry, Verdict
from deploykit.daemons.agent.buildresults import BuildResultHandler
from deploykit.daemons.agent.mirrors import MirrorHandler
from deploykit.errors import AuditError, BuildStoreError
from deploykit.messages import BuildFinished
from deploykit.names import NodeName, RepoName
from deploykit.settings import Settings
from deploykit.trust.signature import SigningKey, sign
from deploykit.wire import encode
from tests.support.builds import COMMIT, DAY, JENKINS, JOB, NOW, SHOP, STRANGER, result, signed, trust
from tests.support.resultaudit import result_audit


class FakeLog(AuditLog):
    """An audit log whose disk may be full."""

    disk_full = False

    def append(self, entry: AuditEntry) -> None:
        if self.disk_full:
            raise AuditError("no space", "free the disk")
        super().append(entry)


class NoMirrors(MirrorHandler):
    """Notes what is to be fetched."""

    def __init__(self) -> None:
        self.fetched: list[RepoName] = []

    def fetch_built(self, repo: RepoName, *_: object, **__: object) -> bool:
        self.fetched.append(repo)
        return True


class Results:
    """A handler of build results, and its parts."""

    def __init__(self, root: Path) -> None:
        settings = Settings(node=NodeName("web1"), state=root)
        self.log, self.store = FakeLog(root / "audit.log"), BuildStore(root / "builds.sqlite")
        self.audit = result_audit(self.log, self.store, settings.node)
        self.handler = BuildResultHandler(settings, trust(), self.store, NoMirrors(), self.audit, now=lambda: NOW)

    def handle(self, message: BuildFinished, key: SigningKey | None = JENKINS) -> Verdict | None:
        frame = sign(encode(message), key) if key else encode(message)
        return self.handler.handle(
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

    def records(self) -> list[AuditRecord]:
        if self.log.head is None:
            return []
        return [record for record in read_records(self.log.path) if isinstance(record, AuditRecord)]


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(tmp_path)


def test_threat_40_a_result_that_counts_is_recorded_once(results: Results) -> None:
    message = result()
    for _ in range(3):
        assert isinstance(results.handle(message), Ack)
    (record,) = results.records()
    assert (record.actor, record.action, record.target) == (JENKINS.fingerprint, "build.result", JOB)
    assert record.decision == "allowed"
    assert (record.details["repo"], record.details["commit"]) == (SHOP, COMMIT)
    assert (record.details["number"], record.details["outcome"]) == ("41", "success")


def test_threat_40_a_result_that_cannot_be_recorded_is_not_kept_and_comes_again(results: Results) -> None:
    results.log.disk_full = True
    assert isinstance(results.handle(result()), Retry)
    assert results.store.count() == 0
    results.log.disk_full = False
    assert isinstance(results.handle(result()), Ack)
    assert (results.store.count(), len(results.records())) == (1, 1)


def test_threat_40_a_result_that_cannot_be_kept_is_recorded_once_however_often_it_comes(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise BuildStoreError("no space", "free the disk")

    message = result()
    with monkeypatch.context() as patched:
        patched.setattr(BuildStore, "put", full)
        for _ in range(5):
            assert isinstance(results.handle(message), Retry)
    assert isinstance(results.handle(message), Ack)
    assert (results.store.count(), len(results.records())) == (1, 1)


def test_threat_40_signed_results_that_do_not_count_are_one_record_a_minute(results: Results) -> None:
    for _ in range(20):
        assert isinstance(results.handle(result(), STRANGER), Ack)
    results.audit.flush(time.monotonic() + 3600)
    assert [(r.decision, r.details["count"]) for r in results.records()] == [("denied", "1"), ("denied", "19")]
    assert "its key is not trusted" in results.records()[0].reason


def test_an_unsigned_result_asks_for_nothing(results: Results) -> None:
    results.handle(result(), None)
    results.audit.flush(float("inf"))
    assert results.records() == []


def test_evidence_that_is_kept_already_is_not_recorded_again(results: Results) -> None:
    message = result()
    results.handle(message)
    made = signed(message)
    results.audit.counts(made, judge(made, trust(), NOW, remember=90 * DAY))
    assert len(results.records()) == 1
