"""What every ledger does, on SQLite and on PostgreSQL: a function each, which takes an open ledger and its clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import attrs

from deploykit.errors import LedgerError
from deploykit.web.ledger.access import KeptAccess
from deploykit.web.ledger.answers import KeptAnswer
from deploykit.web.ledger.ledger import Ledger
from deploykit.web.ledger.passkeys import KeptPasskey
from deploykit.web.ledger.tokens import KeptToken


class LedgerClock:
    """The time in a ledger, which a test moves."""

    def __init__(self) -> None:
        self.at = 1_700_000_000.0

    def __call__(self) -> float:
        return self.at

    def pass_by(self, seconds: float) -> None:
        """Let time pass."""
        self.at += seconds


_LASTS: Final = {"idle": 60.0, "longest": 600.0}


def a_session_ends_when_it_is_idle_or_old(ledger: Ledger, clock: LedgerClock) -> None:
    made = ledger.sessions.begin("a" * 64, "ann", groups=["ops, all", "web"], login="oidc", proof="p")
    assert ledger.sessions.find("a" * 64, **_LASTS) == made
    assert made.groups == ("ops, all", "web")
    clock.pass_by(50)
    ledger.sessions.use("a" * 64)
    clock.pass_by(50)
    assert ledger.sessions.find("a" * 64, **_LASTS) is not None
    clock.pass_by(11)
    assert ledger.sessions.find("a" * 64, **_LASTS) is None
    ledger.sessions.use("a" * 64)
    clock.pass_by(500)
    ledger.sessions.use("a" * 64)
    assert ledger.sessions.find("a" * 64, **_LASTS) is None, "it is too old, however busy"
    assert ledger.sessions.prune(**_LASTS, most_of_one=9, most=9) == 1
    assert ledger.sessions.list_of("ann") == ()


def of_too_many_sessions_those_go_that_were_used_longest_ago(ledger: Ledger, clock: LedgerClock) -> None:
    for at in range(6):
        clock.pass_by(1)
        ledger.sessions.begin(f"{at}", "ann" if at < 4 else "bob", login="password", proof="p")
    assert ledger.sessions.prune(**_LASTS, most_of_one=2, most=3) == 3
    assert [each.key for each in ledger.sessions.list_of("ann")] == ["3"]
    assert [each.key for each in ledger.sessions.list_of("bob")] == ["5", "4"]
    assert ledger.sessions.end_all_of("bob", but="5") == 1
    assert ledger.sessions.end("5")
    assert not ledger.sessions.end("5")


def a_token_is_good_until_it_expires_or_is_revoked(ledger: Ledger, clock: LedgerClock) -> None:
    token = KeptToken(key="k" * 64, id="one", owner="ann", label="ci", role="stage", sites=("shop", "blog-*"))
    made = ledger.tokens.add(token, seconds=100)
    assert ledger.tokens.find("k" * 64) == made
    assert (made.made, made.expires, made.used) == (clock.at, clock.at + 100, None)
    ledger.tokens.use("k" * 64)
    first = clock.at
    clock.pass_by(30)
    ledger.tokens.use("k" * 64)
    assert ledger.tokens.list("ann")[0].used == first, "one write a minute is enough"
    clock.pass_by(40)
    ledger.tokens.use("k" * 64)
    assert ledger.tokens.list()[0].used == clock.at
    assert not ledger.tokens.end("one", owner="bob")
    clock.pass_by(30)
    assert ledger.tokens.find("k" * 64) is None
    assert [each.id for each in ledger.tokens.list("ann")] == ["one"], "the owner sees that it has expired"
    assert ledger.tokens.prune(1000) == 0
    assert ledger.tokens.end("one", owner="ann")
    assert ledger.tokens.list() == ()


def a_passkey_is_for_one_purpose_and_its_counter_goes_up(ledger: Ledger, clock: LedgerClock) -> None:
    made = ledger.passkeys.add(KeptPasskey(credential="c", purpose="login", name="ann", public_key=b"\x00k", rp_id="h"))
    assert ledger.passkeys.find("c", "login") == made
    assert ledger.passkeys.find("c", "signing") is None
    assert ledger.passkeys.used("c", 0)
    assert ledger.passkeys.used("c", 5)
    for counter in (5, 4, 0):
        assert not ledger.passkeys.used("c", counter), "somebody has a copy"
    clock.pass_by(5)
    assert ledger.passkeys.used("c", (1 << 32) - 1), "it has 32 bits without a sign"
    assert not ledger.passkeys.rename("c", "bob", "mine")
    assert ledger.passkeys.rename("c", "ann", "blue one")
    (found,) = ledger.passkeys.list("ann", "login")
    assert (found.label, found.counter, found.used) == ("blue one", (1 << 32) - 1, clock.at)
    try:
        ledger.passkeys.add(KeptPasskey(credential="c", purpose="signing", name="bob"))
    except LedgerError:
        pass
    else:
        raise AssertionError("one credential was kept twice")
    assert not ledger.passkeys.remove("c", "bob")
    assert ledger.passkeys.remove("c", "ann")


def what_is_good_once_is_taken_once_and_in_time(ledger: Ledger, clock: LedgerClock) -> None:
    made = ledger.once.put("invite", "ann", 60)
    assert ledger.once.look(made, "invite") == "ann"
    assert ledger.once.take(made, "login") is None, "another purpose"
    assert ledger.once.take(made, "invite") == "ann"
    assert ledger.once.take(made, "invite") is None
    late = ledger.once.put("invite", "bob", 60)
    clock.pass_by(60)
    assert ledger.once.take(late, "invite") is None
    assert ledger.once.prune() == 1


def a_key_of_an_api_call_is_taken_once(ledger: Ledger, clock: LedgerClock) -> None:
    assert ledger.answers.begin("k", "request") is None
    assert ledger.answers.begin("k", "request") == KeptAnswer(request="request", status=0)
    ledger.answers.finish("k", 202, location="/deploys/1", body="{}")
    done = KeptAnswer(request="request", status=202, location="/deploys/1", body="{}")
    assert ledger.answers.begin("k", "another") == done
    ledger.answers.drop("k")
    assert ledger.answers.begin("k", "request") == done, "what was answered stays"
    assert ledger.answers.begin("m", "request") is None
    ledger.answers.drop("m")
    assert ledger.answers.begin("m", "request") is None
    clock.pass_by(100)
    assert ledger.answers.prune(50) == 2


def of_a_user_and_site_the_last_grant_is_kept(ledger: Ledger, clock: LedgerClock) -> None:
    first = KeptAccess(request="1", site="shop", user="ann", password_hash="$6$x", until=clock.at + 10, asked_by="bob")
    ledger.access.add(first)
    clock.pass_by(1)
    second = ledger.access.add(attrs.evolve(first, request="2", until=clock.at + 50))
    ledger.access.add(KeptAccess(request="3", site="blog", user="ann", password_hash="$6$y"))
    assert ledger.access.find("shop", "ann") == second
    assert [each.request for each in ledger.access.list("shop")] == ["2"]
    clock.pass_by(100)
    assert ledger.access.prune(10) == 1, "one without an end stays"
    assert ledger.access.end("blog", "ann")
    assert not ledger.access.end("blog", "ann")


def who_is_there_is_seen_for_a_while(ledger: Ledger, clock: LedgerClock) -> None:
    assert ledger.presence.here("shop", "ann", "deploy") == ()
    clock.pass_by(30)
    (ann,) = ledger.presence.here("shop", "bob", "deploy")
    assert (ann.name, ann.what, ann.since) == ("ann", "deploy", clock.at - 30)
    assert ledger.presence.here("blog", "bob", "deploy") == ()
    clock.pass_by(61)
    assert ledger.presence.here("shop", "bob", "rollback") == ()
    ledger.presence.here("shop", "ann", "lock")
    ledger.presence.gone("shop", "bob")
    assert ledger.presence.here("shop", "ann", "lock") == ()
    clock.pass_by(100)
    assert ledger.presence.prune() == 2


CHECKS: Final[tuple[Callable[[Ledger, LedgerClock], None], ...]] = (
    a_session_ends_when_it_is_idle_or_old,
    of_too_many_sessions_those_go_that_were_used_longest_ago,
    a_token_is_good_until_it_expires_or_is_revoked,
    a_passkey_is_for_one_purpose_and_its_counter_goes_up,
    what_is_good_once_is_taken_once_and_in_time,
    a_key_of_an_api_call_is_taken_once,
    of_a_user_and_site_the_last_grant_is_kept,
    who_is_there_is_seen_for_a_while,
)

__all__ = ["CHECKS", "LedgerClock"]
