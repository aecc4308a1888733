"""Whether a lock lets one command be obeyed: who may override it, and what report and audit then hold."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from deploykit.daemons.agent import lock_guard
from deploykit.daemons.agent.guards import AuthorizedCommand
from deploykit.daemons.agent.lock_guard import LockGuard
from deploykit.daemons.agent.locks import LockKeeper
from deploykit.daemons.agent.mandates import Mandates
from deploykit.errors import KeyFileError
from deploykit.messages import DeployRequested
from deploykit.release import Site
from deploykit.settings import GrantSettings
from deploykit.trust.check import Authorized
from deploykit.trust.locks import LockBook, LockDecision
from deploykit.trust.signature import Signers, sign
from deploykit.wire import encode
from tests.support.asked import report, request
from tests.support.locking import NOW, SHOP, Locking

PEOPLE = Locking()
DIGEST = "ab" * 32


class BookKeeper(LockKeeper):
    """Decides by a book, without a store."""

    def __init__(self) -> None:
        self.book = LockBook(PEOPLE.trust())
        self.book.add(PEOPLE.lock("ann", 1), NOW)

    def decide(self, request: DeployRequested, signers: Iterable[Signers], now: datetime) -> LockDecision:
        return self.book.decide(SHOP, request.phase, now, signers=signers, override=request.override_lock)


class HeldMandates(Mandates):
    """Has one mandate, that somebody signed."""

    def __init__(self, by: str, override: str, *, site: str = "shop") -> None:
        self.by = by
        self.stored = SimpleNamespace(message=SimpleNamespace(site=site, override_lock=override))
        self.failure: Exception | None = None

    def find(self, digest: str, *, wait: bool = False) -> object:  # type: ignore[override]
        return self.stored if digest == DIGEST else None

    def weigh(self, stored: object, now: datetime) -> object:  # type: ignore[override]
        if self.failure is not None:
            raise self.failure
        return SimpleNamespace(mandate=SimpleNamespace(signers=PEOPLE.signer(self.by)))


def guard(by: str, mandates: HeldMandates | None = None, **changes: object) -> LockGuard:
    asked = request(**changes)
    command = PEOPLE.trust().check(sign(encode(asked), PEOPLE.keys[by]), NOW)
    authorized = Authorized(grant=GrantSettings(principal=by, types=("deploy.requested",)), keep_until=NOW)
    return LockGuard.of(
        AuthorizedCommand(request=asked, command=command, authorized=authorized, judged_at=NOW),
        locks=BookKeeper(),
        mandates=mandates or HeldMandates("nobody", ""),
    )


def test_what_is_refused_names_the_lock_in_report_and_audit() -> None:
    asked = guard("ops")
    objection = asked.enter(NOW)
    assert objection is not None
    assert not objection.missing
    assert "by ann" in objection.why
    assert asked.details["lock"] == "1 lock-1-ann"
    refused = asked.complete(report(outcome="refused"))
    assert refused.lock == PEOPLE.lock("ann", 1)
    assert not refused.overridden


def test_what_is_obeyed_where_nothing_is_locked_says_nothing_of_locks() -> None:
    later = guard("ops")
    assert later.enter(NOW + timedelta(hours=2)) is None
    done = report()
    assert later.complete(done) == done
    assert not later.details


def test_a_lock_that_let_a_command_pass_is_not_in_its_report() -> None:
    back = guard("ops", phase="rollback")
    assert back.enter(NOW) is None
    assert back.complete(report(phase="rollback")).lock is None


def test_a_lock_that_comes_while_a_command_is_at_work_is_no_part_of_its_success() -> None:
    running = guard("ops")
    assert running.enter(NOW) is not None
    assert running.complete(report(outcome="success")).lock is None


def test_an_override_is_in_report_and_audit_on_one_line() -> None:
    over = guard("oncall", override_lock="it\nburns")
    assert over.enter(NOW) is None
    done = over.complete(report())
    assert (done.overridden, done.lock) == ("it burns", PEOPLE.lock("ann", 1))
    assert over.details["override_lock"] == "it burns"


def test_who_approved_the_same_reason_overrides_by_their_right_and_for_no_other_reason() -> None:
    for by, approver, override, site, passes in (
        ("ops", "oncall", "burns", "shop", True),
        ("ops", "ann", "burns", "shop", True),
        ("ops", "bob", "burns", "shop", False),
        ("ops", "oncall", "another", "shop", False),
        ("ops", "oncall", "burns", "blog", False),
    ):
        mandates = HeldMandates(approver, override, site=site)
        asked = guard(by, mandates, override_lock="burns", mandate=DIGEST)
        assert (asked.enter(NOW) is None) is passes, (approver, override, site)
    mandates = HeldMandates("oncall", "burns")
    assert guard("ops", mandates, override_lock="burns").enter(NOW) is not None, "it names no mandate"
    assert guard("ops", mandates, override_lock="burns", mandate="cd" * 32).enter(NOW) is not None
    assert guard("ops", mandates, mandate=DIGEST).enter(NOW) is not None, "the command asks for no override"
    mandates.failure = KeyFileError("cannot read")
    assert guard("ops", mandates, override_lock="burns", mandate=DIGEST).enter(NOW) is not None


@pytest.mark.parametrize("carried_out", [True, False])
def test_what_was_carried_out_before_the_lock_is_answered(
    carried_out: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock_guard, "carried_out", lambda *_: carried_out)
    assert bool(guard("ops").objection(Site(tmp_path), NOW)) is not carried_out
