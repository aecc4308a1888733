"""Which statements on a site's lock count, which of them decides, and what they forbid."""

from __future__ import annotations

import itertools
from datetime import datetime, timedelta

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploykit.errors import KeyFileError, PolicyRefused, SignatureError, UsageError
from deploykit.messages import Notice, SiteUnlocked
from deploykit.messages.deploy import DeployPhase
from deploykit.messages.statement import SignedStatement
from deploykit.names import SiteName
from deploykit.settings import GrantSettings
from deploykit.trust.locks import KEPT_OF_KEY, KEPT_OF_SITE, LockBook, LockDecision, next_serial
from deploykit.trust.signature import add_signature
from deploykit.trust.statements import frame_of, statement_of
from tests.support.locking import HOUR, NOW, SHOP, Locking, lock

SECOND = timedelta(seconds=1)
SKEW = timedelta(seconds=30)
DAY = timedelta(days=1)

PEOPLE = Locking()


def book(people: Locking, *statements: SignedStatement, now: datetime = NOW) -> LockBook:
    made = LockBook(people.trust())
    for statement in statements:
        made.add(statement, now)
    return made


def decide(
    known: LockBook, phase: DeployPhase = "deploy", *, by: str = "ops", override: str = "", now: datetime = NOW
) -> LockDecision:
    return known.decide(SHOP, phase, now, signers=[PEOPLE.signer(by)], override=override)


# -- what a lock forbids -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("allow_rollback", [True, False])
@pytest.mark.parametrize("phase", ["deploy", "prepare", "activate", "rollback", "discard"])
def test_a_lock_forbids_every_phase_but_discard_and_rollback_where_it_allows_that(
    phase: DeployPhase, allow_rollback: bool
) -> None:
    known = book(PEOPLE, PEOPLE.lock("ann", 1, allow_rollback=allow_rollback))
    passes = phase == "discard" or (phase == "rollback" and allow_rollback)
    assert bool(decide(known, phase).objection) is not passes


def test_a_refusal_says_who_and_why_and_until_when_and_the_way_out() -> None:
    decision = decide(book(PEOPLE, PEOPLE.lock("ann", 1, holder="Ann\n<b>", reason="stock\ttaking")))
    assert decision.objection == (
        f"site shop is locked by Ann <b> (key {PEOPLE.keys['ann'].fingerprint}) until 2026-03-01 13:00 UTC: "
        "stock taking; wait, unlock it, or say why not to wait with --override-lock REASON"
    )
    assert decision.lock is not None
    assert decision.lock.message.serial == 1


def test_a_site_without_statements_is_not_locked() -> None:
    assert decide(book(PEOPLE)) == LockDecision()
    other = book(PEOPLE, PEOPLE.lock("ann", 1, site=SiteName("blog")))
    assert decide(other) == LockDecision()


@pytest.mark.parametrize(
    ("after", "locked"),
    [(-HOUR, True), (timedelta(), True), (HOUR, True), (HOUR + SKEW, True), (HOUR + SKEW + SECOND, False)],
)
def test_a_lock_without_since_begins_at_once_whatever_the_clock_says_and_ends_by_it(
    after: timedelta, locked: bool
) -> None:
    """A node whose clock is an hour behind obeys the lock; one an hour ahead lets it end an hour early."""
    known = book(PEOPLE, PEOPLE.lock("ann", 1), now=NOW + after)
    assert bool(decide(known, now=NOW + after).objection) is locked


@pytest.mark.parametrize(
    ("now", "locked"),
    [(HOUR - SKEW - SECOND, False), (HOUR - SKEW, True), (2 * HOUR + SKEW, True), (2 * HOUR + SKEW + SECOND, False)],
)
def test_a_lock_with_since_counts_between_both_with_the_skew_at_each_end(now: timedelta, locked: bool) -> None:
    known = book(PEOPLE, PEOPLE.lock("ann", 1, since=NOW + HOUR, until=NOW + 2 * HOUR))
    assert bool(decide(known, now=NOW + now).objection) is locked


# -- which statement counts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("until", [30 * DAY + SECOND, timedelta(), -HOUR])
def test_a_lock_of_more_than_thirty_days_or_that_ends_before_it_begins_is_refused(until: timedelta) -> None:
    with pytest.raises(PolicyRefused, match=r"longer than 30 days|ends before it begins"):
        book(PEOPLE, PEOPLE.lock("ann", 1, until=NOW + until))
    with pytest.raises(PolicyRefused, match=r"longer than 30 days|ends before it begins"):
        book(PEOPLE, PEOPLE.lock("ann", 1, since=NOW + 90 * DAY, until=NOW + 90 * DAY + until))
    book(PEOPLE, PEOPLE.lock("ann", 1, until=NOW + 30 * DAY))


def test_a_lock_dated_ahead_cannot_last_longer_for_it() -> None:
    """Else a key could lock for a year: with a time of its own choice, eleven months ahead."""
    with pytest.raises(PolicyRefused, match="longer than 30 days"):
        book(PEOPLE, PEOPLE.lock("ann", 1, time=NOW + 300 * DAY, until=NOW + 330 * DAY))
    behind = book(PEOPLE, PEOPLE.lock("ann", 1, until=NOW + 30 * DAY), now=NOW - HOUR)  # the node's clock is wrong
    assert decide(behind, now=NOW - HOUR).objection


def test_only_who_is_granted_locks_and_only_for_the_sites_of_the_grant() -> None:
    for by in ("ops", "oncall", "nobody"):
        with pytest.raises(PolicyRefused, match="may not lock site shop"):
            book(PEOPLE, PEOPLE.lock(by, 1))
    with pytest.raises(SignatureError, match="not among the allowed signers"):
        book(PEOPLE, PEOPLE.lock("stranger", 1))
    narrow = GrantSettings(principal="ann", types=("SiteLocked",), sites=("blog",))
    known = LockBook(PEOPLE.trust(grants=[narrow]))
    with pytest.raises(PolicyRefused, match="may not lock site shop"):
        known.add(PEOPLE.lock("ann", 1), NOW)
    assert known.add(PEOPLE.lock("ann", 1, site=SiteName("blog")), NOW).news


def test_the_right_to_release_alone_unlocks_and_does_not_lock() -> None:
    PEOPLE.rights["janitor"], PEOPLE.keys["janitor"] = ("lock.release",), PEOPLE.keys["nobody"]
    try:
        known = book(PEOPLE, PEOPLE.lock("ann", 1))
        with pytest.raises(PolicyRefused, match="may not lock"):
            known.add(PEOPLE.lock("janitor", 2), NOW)
        known.add(PEOPLE.unlock("janitor", 3), NOW)
        assert not decide(known).objection
    finally:
        del PEOPLE.rights["janitor"], PEOPLE.keys["janitor"]


def test_what_is_no_statement_or_too_long_or_changed_is_refused() -> None:
    with pytest.raises(PolicyRefused, match="no statement on a lock"):
        book(PEOPLE, PEOPLE.signed("ann", Notice(text="locked, honestly")))
    with pytest.raises(PolicyRefused, match="shorter reason"):
        book(PEOPLE, PEOPLE.lock("ann", 1, reason="x" * 2000))
    genuine = PEOPLE.lock("ann", 1)
    other = PEOPLE.lock("ann", 2)
    with pytest.raises(SignatureError, match="does not fit"):
        book(PEOPLE, attrs.evolve(genuine, body=other.body))


# -- which statement decides ---------------------------------------------------------------------------------------


def test_an_unlock_with_a_higher_serial_lifts_the_lock_and_replays_of_it_change_nothing() -> None:
    first, second, third = PEOPLE.lock("ann", 1), PEOPLE.unlock("ann", 2), PEOPLE.lock("ann", 3)
    known = book(PEOPLE, first, second)
    assert not decide(known).objection
    noted = known.add(first, NOW)
    assert (noted.news, noted.newer and noted.newer.message.serial) == (False, 2)
    assert not decide(known).objection
    known.add(third, NOW)
    assert known.add(second, NOW).newer is not None
    assert decide(known).objection


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_the_order_in_which_statements_come_does_not_matter(order: tuple[int, ...]) -> None:
    statements = [
        PEOPLE.lock("ann", 1, reason="one"),
        PEOPLE.unlock("ann", 2),
        PEOPLE.lock("ann", 2, id="zz", reason="two"),
        PEOPLE.lock("ann", 2, id="a", reason="three"),
    ]
    known = book(PEOPLE, *(statements[at] for at in order))
    assert "two" in decide(known).objection, "of one serial, the highest id decides"
    assert len(known.in_force(SHOP, NOW)) == 1


def test_who_is_neither_holder_nor_granted_cannot_lift_a_lock_nor_shorten_it() -> None:
    """Else `site.locked` would be worth `lock.release`: lock over it for a second, or unlock over it."""
    known = book(PEOPLE, PEOPLE.lock("ann", 1))
    noted = known.add(PEOPLE.unlock("bob", 2), NOW)
    assert noted.newer is not None
    assert noted.newer.message.serial == 1
    assert "by ann" in decide(known).objection
    known.add(PEOPLE.lock("bob", 3, until=NOW + 60 * SECOND), NOW)
    assert decide(known).objection.count("locked by") == 2, "both stand"
    known.add(PEOPLE.unlock("bob", 4), NOW)
    assert "by ann" in decide(known).objection
    assert "by bob" not in decide(known).objection
    known.add(PEOPLE.unlock("ann", 5), NOW)
    assert not decide(known).objection


def test_two_who_lock_at_once_are_both_heeded_until_both_are_gone() -> None:
    one, two = PEOPLE.lock("ann", 7), PEOPLE.lock("bob", 7)
    for known in (book(PEOPLE, one, two), book(PEOPLE, two, one)):
        assert [str(each.message.holder) for each in known.in_force(SHOP, NOW)] == ["bob", "ann"]
        known.add(PEOPLE.unlock("bob", 8), NOW)
        assert decide(known).objection.count("locked by") == 1
        newest = known.newest(SHOP, NOW)
        assert newest is not None
        assert newest.message.holder == "ann", "what others are shown is the lock that still stands"


def test_the_grant_to_release_lifts_everybodys_locks() -> None:
    known = book(PEOPLE, PEOPLE.lock("ann", 1), PEOPLE.lock("bob", 1), PEOPLE.unlock("chief", 2))
    assert not decide(known).objection
    assert known.add(PEOPLE.lock("ann", 1), NOW).newer is not None


def test_another_key_of_the_same_principal_may_unlock() -> None:
    people = Locking()
    people.keys["ann2"] = people.keys["nobody"]

    def unlock_as(principals: str) -> str:
        trusted = people.trusted
        line = f'{principals} namespaces="deploykit" {people.keys["ann2"].public_openssh}'

        def more() -> object:
            from deploykit.trust.allowed_signers import AllowedSigners

            return AllowedSigners.parse(f'ann namespaces="deploykit" {people.keys["ann"].public_openssh}\n{line}')

        people.trusted = more  # type: ignore[method-assign, assignment]
        try:
            known = book(people, people.lock("ann", 1), people.unlock("ann2", 2))
            return decide(known).objection
        finally:
            people.trusted = trusted  # type: ignore[method-assign]

    assert not unlock_as("ann")
    assert unlock_as("ann,bob") == ""
    assert unlock_as("bob")


def test_a_second_signature_makes_nobody_a_holder() -> None:
    """Headers are not signed: anybody may add a signature to another's lock, or put theirs in its place."""
    genuine = PEOPLE.lock("ann", 1)
    both = statement_of(add_signature(frame_of(genuine), PEOPLE.keys["bob"]))
    with pytest.raises(PolicyRefused, match="one signature"):
        book(PEOPLE, both)
    theirs = PEOPLE.signed("bob", lock("ann", 1))
    known = book(PEOPLE, theirs, genuine, PEOPLE.unlock("bob", 2))
    assert PEOPLE.keys["ann"].fingerprint in decide(known).objection
    assert PEOPLE.keys["bob"].fingerprint not in decide(known).objection


# -- trust that changes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["revoked", "removed", "no grant"])
def test_statements_of_a_key_that_has_no_say_any_more_do_not_count_and_the_next_lower_does_again(how: str) -> None:
    people = Locking()
    known = book(people, people.lock("ann", 1), people.unlock("chief", 2**53 - 1))
    assert not decide(known).objection
    if how == "revoked":
        people.revoked.add("chief")
    else:
        people.rights.pop("chief")
        if how == "no grant":
            people.rights["chief"] = ()
    again = LockBook(people.trust(), known.kept)
    assert "by ann" in decide(again).objection
    people.revoked.clear()
    people.rights["chief"] = ("lock.release",)
    assert not decide(LockBook(people.trust(), again.kept)).objection, "the bytes were kept"


def test_an_unlock_carries_the_lock_that_it_lifts_to_who_never_heard_of_it() -> None:
    people = Locking()
    lock = people.lock("ann", 1)
    known = book(people, people.unlock("chief", 2, locked=lock))
    assert not decide(known).objection
    people.revoked.add("chief")
    assert "by ann" in decide(known).objection, "chief had no right to lift it"
    by_bob = book(people, people.unlock("bob", 2, locked=lock))
    assert "by ann" in decide(by_bob).objection, "bob has none either, and says which lock there is"
    for carried in (
        people.lock("ops", 1),
        people.lock("ann", 1, site=SiteName("blog")),
        people.unlock("ann", 1),
        attrs.evolve(lock, body=people.lock("ann", 9).body),
    ):
        noted = LockBook(people.trust()).add(people.unlock("bob", 2, locked=carried), NOW)
        assert (noted.news, noted.carried) == (True, None)


def test_a_holder_with_the_highest_serial_there_is_blocks_a_site_until_its_key_is_revoked() -> None:
    people = Locking()
    known = book(people, people.lock("bob", 2**53 - 1, id="~" * 36))
    newest = known.newest(SHOP, NOW)
    assert newest is not None
    with pytest.raises(UsageError, match="highest serial"):
        next_serial(newest.message.serial, NOW)
    people.revoked.add("bob")
    assert not decide(known).objection
    assert known.newest(SHOP, NOW) is None
    assert known.add(people.lock("ann", next_serial(None, NOW)), NOW).news


def test_a_lock_outlives_the_validity_of_the_key_that_made_it() -> None:
    """A certificate of eight hours makes locks of a week; an unlock must not lose its force when its key expires."""
    people = Locking()
    people.options["ann"] = ',valid-before="20260301123000Z"'
    known = book(people, people.lock("ann", 1, until=NOW + DAY))
    later = NOW + HOUR
    assert decide(known, now=later).objection
    assert decide(LockBook(people.trust(), known.kept), now=later).objection, "judged anew after a restart"
    with pytest.raises(SignatureError, match="does not count"):
        book(people, people.lock("ann", 1, until=NOW + DAY), now=later)


def test_what_is_judged_by_other_files_fails_to_no_open_site(monkeypatch: pytest.MonkeyPatch) -> None:
    """The files change, and cannot be read between the look at them and the verification."""
    people = Locking()
    known = book(people, people.lock("ann", 1))
    people.options["bob"] = ',valid-before="20400101Z"'
    monkeypatch.setattr("deploykit.trust.locks.judge", failing)
    assert decide(known).objection


def failing(*_: object, **__: object) -> object:
    raise KeyFileError("cannot read")


def test_while_the_trusted_files_cannot_be_read_what_counted_before_counts() -> None:
    people = Locking()
    known = book(people, people.lock("ann", 1))
    people.unreadable = KeyFileError("cannot read")
    assert decide(known).objection
    with pytest.raises(KeyFileError):
        known.add(people.unlock("ann", 2), NOW)


# -- overriding ----------------------------------------------------------------------------------------------------


def test_holder_and_grant_may_override_with_a_reason_and_nobody_else() -> None:
    known = book(PEOPLE, PEOPLE.lock("ann", 1))
    for by in ("ann", "oncall"):
        decision = decide(known, by=by, override="the shop burns")
        assert (decision.objection, decision.overridden) == ("", "the shop burns")
        assert decision.lock is not None
        assert decide(known, by=by).objection, "without a reason the lock holds for them too"
        assert decide(known, by=by, override=" \n").objection
    for by in ("ops", "bob", "chief", "stranger"):
        refused = decide(known, by=by, override="please")
        assert "lock.override" in refused.objection
        assert "until 2026-03-01 13:00 UTC" in refused.objection
        assert not refused.overridden


def test_a_holder_does_not_override_the_lock_of_another() -> None:
    known = book(PEOPLE, PEOPLE.lock("ann", 1), PEOPLE.lock("bob", 2))
    assert decide(known, by="ann", override="mine").objection
    assert not decide(known, by="oncall", override="both").objection


def test_an_override_where_nothing_is_locked_is_none() -> None:
    assert decide(book(PEOPLE), by="oncall", override="just in case") == LockDecision()


# -- what is kept --------------------------------------------------------------------------------------------------


def test_few_statements_of_each_key_and_site_are_kept_the_newest() -> None:
    known = book(PEOPLE, PEOPLE.lock("bob", 1))
    for serial in range(2, 20):
        known.add(PEOPLE.lock("ann", serial), NOW)
    serials = [each.message.serial for each in known.counting(SHOP, NOW)]
    assert serials == [19, 18, 17, 16, 1]
    assert len(known.kept) == KEPT_OF_KEY + 1
    noted = known.add(PEOPLE.lock("ann", 5), NOW)
    assert noted.newer is not None
    assert not noted.news, "a replay of what was forgotten is no news, else anybody could fill the audit"
    assert len(known.kept) == KEPT_OF_KEY + 1


def test_many_keys_cannot_fill_the_book() -> None:
    people = Locking()
    for at in range(40):
        people.keys[f"p{at}"], people.rights[f"p{at}"] = people.keys["ann"].generate(), ("site.locked",)
    known = book(people)
    for at, serial in itertools.product(range(40), (1, 2)):
        known.add(people.lock(f"p{at}", serial), NOW)
    assert len(known.kept) == KEPT_OF_SITE


def test_copies_of_one_statement_are_one() -> None:
    known = book(PEOPLE, PEOPLE.lock("ann", 1), PEOPLE.lock("ann", 1))
    assert len(known.kept) == 1


def test_serials_grow_by_the_clock_and_beyond_every_known_one() -> None:
    seconds = int(NOW.timestamp())
    assert next_serial(None, NOW) == seconds
    assert next_serial(5, NOW) == seconds
    assert next_serial(seconds + 3600, NOW) == seconds + 3601, "an operator whose clock was an hour ahead locked"


# -- any history ---------------------------------------------------------------------------------------------------

_HISTORY = st.lists(
    st.tuples(st.sampled_from(["ann", "bob", "chief"]), st.integers(1, 4), st.booleans()), max_size=6, unique=True
)


@settings(max_examples=60, deadline=None)
@given(_HISTORY, st.randoms(use_true_random=False))
def test_all_who_know_the_same_statements_agree(history: list[tuple[str, int, bool]], random: object) -> None:
    statements = [PEOPLE.lock(by, serial) if locks else PEOPLE.unlock(by, serial) for by, serial, locks in history]
    one = book(PEOPLE, *statements)
    shuffled = list(statements)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    two = book(PEOPLE, *shuffled, *shuffled)
    assert one.in_force(SHOP, NOW) == two.in_force(SHOP, NOW)
    assert one.newest(SHOP, NOW) == two.newest(SHOP, NOW)
    newest = one.newest(SHOP, NOW)
    assert (newest is None or isinstance(newest.message, SiteUnlocked)) is (not one.in_force(SHOP, NOW))
