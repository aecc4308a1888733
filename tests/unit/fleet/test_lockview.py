"""What nodes show of locks, looked at together: what decides, who is behind, what does not count here."""

from __future__ import annotations

from datetime import timedelta

import pytest

from deploykit.errors import KeyFileError
from deploykit.fleet.lockview import shows, summary_of, view_locks
from deploykit.messages import NodeDescribed, SiteState
from deploykit.messages.statement import SignedStatement
from deploykit.names import NodeName, RepoName, SiteName
from tests.support.locking import HOUR, NOW, SHOP, Locking

BLOG = SiteName("blog")


@pytest.fixture
def people() -> Locking:
    return Locking()


def node(name: str, statement: SignedStatement | None, site: SiteName = SHOP) -> NodeDescribed:
    state = SiteState(site=site, repo=RepoName("shop"), lock=statement)
    return NodeDescribed(node=NodeName(name), instance=name, sites=(state,))


def test_the_newest_counts_and_who_shows_an_older_one_is_behind(people: Locking) -> None:
    old, new = people.lock("ann", 1), people.lock("ann", 2, reason="still moving")
    nodes = [node("web1", new), node("web2", old), node("web3", None), node("web4", new), node("blog1", None, BLOG)]
    view = view_locks(nodes, people.trust(), NOW)
    (site,) = view.sites
    assert site.newest is not None
    assert site.newest.signed == new
    assert [lock.signed for lock in site.in_force] == [new]
    assert site.behind == ("web2", "web3")
    assert len(site.lines) == 1
    assert site.lines[0].startswith("shop is locked by ann (key SHA256:")
    assert site.lines[0].endswith("still moving")
    assert view.of(BLOG) is None


def test_who_never_heard_of_a_lock_that_is_over_is_not_behind(people: Locking) -> None:
    over = people.lock("ann", 1)
    later = NOW + 2 * HOUR
    (site,) = view_locks([node("web1", over), node("web2", None)], people.trust(), later).sites
    assert (site.behind, site.in_force, site.lines) == ((), (), ())
    unlocked = people.unlock("ann", 2)
    (site,) = view_locks([node("web1", unlocked), node("web2", None), node("web3", over)], people.trust(), NOW).sites
    assert site.behind == ("web3",)
    assert site.in_force == ()


def test_what_does_not_count_here_is_shown_with_its_reason(people: Locking) -> None:
    good, forged = people.lock("ann", 1), people.lock("stranger", 99)
    nodes = [node("web1", forged), node("web2", good), node("web3", SignedStatement(body="e30=", signature="AAAA"))]
    (site,) = view_locks(nodes, people.trust(), NOW).sites
    assert site.newest is not None
    assert site.newest.signed == good
    assert site.behind == ("web1", "web3")
    assert len(site.doubts) == 2
    assert site.doubts[0].startswith("web1 shows a statement on site shop that does not count here (shop locked by")
    assert "not among the allowed signers" in site.doubts[0]
    assert "unreadable" in site.doubts[1]


def test_a_statement_on_another_site_does_not_count_for_this_one(people: Locking) -> None:
    (site,) = view_locks([node("web1", people.lock("ann", 1), BLOG)], people.trust(), NOW).sites
    assert (site.site, site.newest, site.behind) == (BLOG, None, ())
    assert "it is of site shop" in site.doubts[0]


def test_two_holders_locks_both_stand(people: Locking) -> None:
    nodes = [node("web1", people.lock("ann", 1)), node("web2", people.lock("bob", 2))]
    (site,) = view_locks(nodes, people.trust(), NOW).sites
    assert [lock.message.holder for lock in site.in_force] == ["bob", "ann"]
    assert site.behind == ("web1",)


def test_each_different_statement_is_judged_once(people: Locking) -> None:
    reads: list[int] = []
    read = people.trusted

    def trusted() -> object:
        reads.append(1)
        return read()

    people.trusted = trusted  # type: ignore[method-assign,assignment]
    counted = people.trust()
    statement = people.lock("ann", 1)
    view_locks([node(f"web{number}", statement) for number in range(200)], counted, NOW)
    assert len(reads) < 20


def test_files_that_cannot_be_read_are_an_error_and_no_doubt(people: Locking) -> None:
    people.unreadable = KeyFileError("the disk is gone")
    with pytest.raises(KeyFileError):
        view_locks([node("web1", people.lock("ann", 1))], people.trust(), NOW)


def test_whether_a_node_shows_a_statement_is_about_its_very_bytes(people: Locking) -> None:
    one, other = people.lock("ann", 1), people.lock("ann", 1, until=NOW + timedelta(hours=2))
    assert shows(node("web1", one), SHOP, one) is True
    assert shows(node("web1", other), SHOP, one) is False
    assert shows(node("web1", None), SHOP, one) is False
    assert shows(node("web1", one, BLOG), SHOP, one) is None
    assert summary_of(one).startswith("shop locked by ann until")
    assert summary_of(one).endswith(f"; key {people.keys['ann'].fingerprint}")
