"""Locks as nodes show them, and what a coordinator passes on of them."""

from __future__ import annotations

from datetime import timedelta
from typing import cast

import pytest

from deploykit.bus import Bus
from deploykit.errors import KeyFileError
from deploykit.fleet.lockwatch import LockWatch, shown_lock
from deploykit.messages import SiteState
from deploykit.messages.statement import SignedStatement
from deploykit.messages.topics import TopicMap
from deploykit.names import RepoName, SiteName
from deploykit.testing.fakes import FakeBus
from deploykit.trust.statements import statement_of
from tests.support.locking import HOUR, NOW, SHOP, Locking


@pytest.fixture(scope="module")
def people() -> Locking:
    return Locking()


class Watching:
    """A coordinator's watch over a bus that notes what is published."""

    def __init__(self, people: Locking) -> None:
        self.bus = FakeBus()
        self.watch = LockWatch(SHOP, cast(Bus, self.bus), TopicMap(), people.trust("desk"))

    def hears(self, statement: SignedStatement | None, seconds: float) -> list[SignedStatement]:
        """Have a report carry a statement; return what is published."""
        self.bus.sent.clear()
        self.watch.hear(statement, NOW, seconds)
        assert all(sent.destination == TopicMap().deploy for sent in self.bus.sent)
        return [statement_of(sent.frame) for sent in self.bus.sent]


def test_a_lock_is_passed_on_when_it_is_first_heard_of(people: Locking) -> None:
    watching = Watching(people)
    lock = people.lock("ann", 1)
    assert watching.hears(None, 0.0) == []
    assert watching.hears(lock, 1.0) == [lock]
    assert all(watching.hears(lock, 1.0 + node / 100) == [] for node in range(100)), "the same from a hundred nodes"


def test_who_shows_an_older_statement_is_given_the_newer_but_not_each_time(people: Locking) -> None:
    watching = Watching(people)
    old, new = people.lock("ann", 1), people.lock("ann", 2)
    watching.hears(new, 0.0)
    assert watching.hears(old, 1.0) == [], "it was published a moment ago"
    assert watching.hears(old, 6.0) == [new]
    assert watching.hears(old, 7.0) == []
    assert watching.hears(old, 12.0) == [new]


def test_what_does_not_count_here_or_is_of_another_site_is_not_passed_on(people: Locking) -> None:
    watching = Watching(people)
    for statement in (
        people.lock("ops", 1),
        people.lock("stranger", 1),
        people.lock("ann", 1, site=SiteName("blog")),
        SignedStatement(body="AAAA", signature="AAAA"),
    ):
        assert watching.hears(statement, 0.0) == []


def shown(people: Locking, statement: SignedStatement | None, **clock: float) -> object:
    state = SiteState(site=SHOP, repo=RepoName("shop"), lock=statement)
    return shown_lock(state, people.trust("desk"), NOW + timedelta(**clock))


def test_a_lock_in_force_is_shown_with_holder_and_end(people: Locking) -> None:
    lock = shown_lock(
        SiteState(site=SHOP, repo=RepoName("shop"), lock=people.lock("ann", 1)), people.trust("desk"), NOW
    )
    assert lock is not None
    assert (lock.holder, lock.until) == ("ann", NOW + HOUR)
    assert lock.text.startswith(f"locked by ann (key {people.keys['ann'].fingerprint}) until 2026-03-01 13:00 UTC")


def test_no_lock_an_unlock_one_that_is_over_and_one_still_to_come_are_none(people: Locking) -> None:
    assert shown(people, None) is None
    assert shown(people, people.unlock("ann", 1)) is None
    assert shown(people, people.lock("ann", 1), hours=2) is None
    assert shown(people, people.lock("ann", 1, since=NOW + HOUR, until=NOW + 2 * HOUR)) is None
    assert shown(people, people.lock("ann", 1, site=SiteName("blog"))) is None


def test_what_this_machine_cannot_verify_is_shown_as_the_nodes_word(people: Locking) -> None:
    """The node obeys the lock; an operator whose settings lack the grant must not believe it open."""
    for by in ("ops", "stranger"):
        lock = shown(people, people.lock(by, 1, reason="x\ny"))
        assert "not verified here" in str(lock)
        assert "SHA256" not in str(lock)
        assert shown(people, people.lock(by, 1), hours=2) is None
        assert shown(people, people.lock(by, 1, since=NOW + HOUR, until=NOW + 2 * HOUR)) is None
        assert shown(people, people.lock(by, 1, site=SiteName("blog"))) is None
        assert shown(people, people.unlock(by, 1)) is None
    assert shown(people, SignedStatement(body="AAAA", signature="AAAA")) is None
    people.unreadable = KeyFileError("gone")
    try:
        assert "not verified here" in str(shown(people, people.lock("ann", 1)))
    finally:
        people.unreadable = None
