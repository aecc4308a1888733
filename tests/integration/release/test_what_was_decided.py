"""What is deployed is what was decided: prepared or not, moved tags, older commits, requests that come again."""

from __future__ import annotations

import pytest

from deploykit.errors import PolicyRefused, ReleaseError
from deploykit.git.repository import Repository
from deploykit.release import Allowances
from deploykit.settings import SiteSettings
from tests.support.releasing import Shop, script


def test_prepare_and_activate_are_two_phases(shop: Shop) -> None:
    shop.put({"a": b"1"})
    commit = shop.commit(
        {"a": b"2", "deploy/pre-deploy": script("echo pre"), "deploy/post-deploy": script("echo post")}
    )
    with Repository(shop.repo.path) as source:
        prepared = shop.runner.prepare(source, "refs/tags/v2", commit, request="p1")
    assert prepared.outcome == "success"
    assert [s.name for s in prepared.steps][-1] == "finalize"
    assert shop.read("a") == "1"
    assert shop.runner.releases()[-1].status == "prepared"
    done = shop.runner.activate(commit, request="a1")
    assert done.outcome == "success"
    assert shop.read("a") == "2"
    assert [s.name for s in done.steps] == ["activate", "post-deploy", "health-check"]
    again = shop.runner.activate(commit, request="a2")
    assert (again.outcome, again.detail) == ("success", "v2 is live already")
    assert shop.runner.activate("v9").outcome == "refused"


def test_a_deploy_uses_what_was_prepared(shop: Shop) -> None:
    commit = shop.commit({"a": b"1"})
    with Repository(shop.repo.path) as source:
        prepared = shop.runner.prepare(source, "refs/tags/v1", commit)
    assert shop.deploy("v1", commit).release == prepared.release
    assert len(shop.runner.releases()) == 1


def test_what_was_prepared_before_the_live_release_was_made_is_not_activated(shop: Shop) -> None:
    commit = shop.commit({"a": b"1"})
    with Repository(shop.repo.path) as source:
        shop.runner.prepare(source, "refs/tags/v1", commit)
    shop.put({"a": b"2"})
    refused = shop.runner.activate("v1")
    assert (refused.outcome, refused.exit_code) == ("refused", 3)
    assert shop.runner.activate("v1", allow=Allowances(older=True)).outcome == "success"


def test_threat_16_a_tag_that_moved_after_it_was_decided_on_is_refused(shop: Shop) -> None:
    good = shop.commit({"a": b"good"}, tag="v1")
    shop.commit({"a": b"evil"}, tag="v1")
    result = shop.deploy("v1", good)
    assert (result.outcome, result.exit_code) == ("refused", 3)
    assert "refs/tags/v1 points at" in result.detail
    assert not (shop.path / "current").is_symlink()
    allowed = shop.deploy("v1", good, allow=Allowances(moved=True))
    assert allowed.outcome == "success"
    assert shop.read("a") == "good"


def test_threat_16_an_annotated_tag_that_moved_after_the_refs_were_packed_is_the_new_one(shop: Shop) -> None:
    """`packed-refs` still tells what the old tag stood for; the loose ref beside it is what counts."""
    who = {"GIT_COMMITTER_NAME": "A", "GIT_COMMITTER_EMAIL": "a@example.net"}
    for text in (b"1", b"2"):
        commit = shop.commit({"a": text}, tag=f"at-{text.decode()}")
        shop.repo.git("tag", "-f", "-a", "-m", "release", "v1", commit, env=who)
        if text == b"1":
            shop.repo.git("pack-refs", "--all")
    shop.deploy("v1").check()
    assert (shop.read("a"), shop.live().commit) == ("2", commit)


def test_threat_16_a_tag_that_is_gone_is_refused(shop: Shop) -> None:
    commit = shop.commit({"a": b"1"})
    shop.repo.git("update-ref", "-d", "refs/tags/v1")
    assert shop.deploy("v1", commit).outcome == "refused"
    assert shop.deploy("v1", commit, allow=Allowances(moved=True)).outcome == "success"


def test_threat_17_a_commit_older_than_the_live_one_is_refused_unless_told(shop: Shop) -> None:
    old = shop.commit({"a": b"vulnerable"})
    for n in range(3):
        shop.commit({"a": b"%d" % n})
    shop.deploy("v4")
    result = shop.deploy("v1", old)
    assert (result.outcome, result.exit_code) == ("refused", 3)
    assert isinstance(result.error, PolicyRefused)
    assert "is older than" in result.detail
    assert shop.deploy("v1", old, allow=Allowances(older=True)).outcome == "success"
    shop.deploy("v4")
    shop.settings = SiteSettings(older="allow")
    assert shop.deploy("v1", old).outcome == "success"


def test_threat_17_a_date_in_the_future_does_not_make_an_older_commit_newer(shop: Shop) -> None:
    now, shop.repo.clock = shop.repo.clock, 4_000_000_000
    old = shop.commit({"a": b"vulnerable"})
    shop.repo.clock = now
    shop.put({"a": b"mended"})
    assert "is older than" in shop.deploy("v1", old).detail


@pytest.mark.parametrize("skew", [-40_000_000, -1_600_000_000, 40_000_000])
def test_threat_17_a_commit_is_older_also_where_a_clock_was_wrong_in_between(shop: Shop, skew: int) -> None:
    shop.commit({"a": b"1"})
    now, shop.repo.clock = shop.repo.clock, shop.repo.clock + skew
    shop.commit({"a": b"2"})
    shop.repo.clock = now + 60
    shop.put({"a": b"3"})
    result = shop.deploy("v1")
    assert (result.outcome, "is older than" in result.detail) == ("refused", True)
    assert shop.put({"a": b"4"}).outcome == "success"


def test_a_commit_of_another_line_is_not_older(shop: Shop) -> None:
    base = shop.commit({"a": b"0"})
    shop.put({"a": b"1"})
    shop.repo.commit({"a": b"side"}, tag="side", branch="side", parent=base)
    assert shop.deploy("side").outcome == "success"


def test_the_same_commit_again_is_nothing_to_do_unless_asked_for(shop: Shop) -> None:
    first = shop.put({"a": b"1"})
    again = shop.deploy("v1")
    assert (again.outcome, again.release, again.detail) == ("success", first.release, "v1 is live already")
    assert shop.deploy("v1", again=True).release != first.release
    shop.repo.git("update-ref", "refs/tags/same-but-named-so", shop.live().commit)
    assert shop.deploy("same-but-named-so").release != first.release
    assert shop.read("TAG") == "Tag: same-but-named-so\n"


def test_a_request_that_comes_again_is_answered_and_not_repeated(shop: Shop) -> None:
    count = script("echo x >> $DEPLOYKIT_SHARED/count")
    first = shop.put({"a": b"1", "deploy/post-deploy": count}, request="r1")
    again = shop.deploy("v1", shop.live().commit, request="r1")
    assert again.again
    assert (again.outcome, again.release, again.steps) == (first.outcome, first.release, first.steps)
    assert (shop.path / "shared" / "count").read_text() == "x\n"
    failed = shop.put({"a": b"2", "deploy/pre-deploy": script("exit 1")}, request="r2")
    repeated = shop.deploy("v2", request="r2")
    assert (failed.outcome, repeated.outcome, repeated.again) == ("failure", "failure", True)
    with pytest.raises(ReleaseError):
        repeated.check()
    shop.put({"a": b"3"})
    assert "was used for" in shop.deploy("v3", request="r1", commit=shop.live().commit).detail
