"""What was prepared and never live is discarded; what is live, or was, stays."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from deploykit.errors import PolicyRefused
from deploykit.git.repository import Repository
from deploykit.release import DeployResult, Runner
from tests.support.cli import run as run_cli
from tests.support.releasing import Shop, script


def _prepare(shop: Shop, tag: str, *, request: str = "", rollout: str = "") -> DeployResult:
    with Repository(shop.repo.path) as source:
        done = shop.runner.prepare(source, f"refs/tags/{tag}", request=request, rollout=rollout)
    assert done.outcome == "success", done
    return done


def _discard(shop: Shop, tag: str, commit: str, **more: str) -> DeployResult:
    return shop.runner.discard(f"refs/tags/{tag}", commit, **more)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """A site with version 1 live; its scripts note that they ran."""
    shop = Shop(tmp_path)
    noted = script('echo "$DEPLOYKIT_STEP $DEPLOYKIT_TAG" >> $DEPLOYKIT_SHARED/ran')
    assert shop.put({"a": b"1", "deploy/post-deploy": noted}).outcome == "success"
    return shop


def test_a_prepared_release_is_removed_and_the_live_one_is_untouched(shop: Shop) -> None:
    commit = shop.commit({"a": b"2", "deploy/post-deploy": script("exit 1")})
    prepared = _prepare(shop, "v2", request="p", rollout="roll")
    ran = (shop.path / "shared" / "ran").read_text()

    done = _discard(shop, "v2", commit, request="d", requested_by="ann", rollout="roll")

    assert (done.outcome, done.release) == ("success", prepared.release)
    assert prepared.release in done.detail
    assert [s.name for s in done.steps] == ["discard"]
    assert (done.about.status if done.about else "", done.live.tag if done.live else "") == ("discarded", "v1")
    assert prepared.release not in shop.names()
    assert shop.read("a") == "1"
    assert (shop.path / "shared" / "ran").read_text() == ran, "no script ran"
    shop.whole()
    last = shop.site.history()[-1]
    assert (last.phase, last.outcome, last.ref, last.commit) == ("discard", "success", "refs/tags/v2", commit)
    assert (last.request, last.requested_by, last.rollout) == ("d", "ann", "roll")
    assert [s.output for s in shop.site.steps(last)] == [done.detail]
    assert {p.stem for p in (shop.path / ".deploykit" / "manifests").iterdir()} == {shop.live().name}


def test_what_was_discarded_can_neither_be_activated_nor_gone_back_to_but_deployed_anew(shop: Shop) -> None:
    commit = shop.commit({"a": b"2"})
    _prepare(shop, "v2")
    _discard(shop, "v2", commit)
    with Repository(shop.repo.path) as source:
        for way in (shop.runner.activate, shop.runner.rollback):
            refused = way(commit, ref="refs/tags/v2", source=source)
            assert refused.outcome == "refused", refused
    assert shop.read("a") == "1"
    assert shop.deploy("v2").outcome == "success"
    assert shop.read("a") == "2"


def test_discarding_again_and_discarding_nothing_are_successes_that_say_so(shop: Shop) -> None:
    commit = shop.commit({"a": b"2"})
    never = _discard(shop, "v2", commit)
    assert (never.outcome, never.release) == ("success", "")
    assert "nothing to discard" in never.detail
    _prepare(shop, "v2")
    first = _discard(shop, "v2", commit, request="d")
    again = _discard(shop, "v2", commit, request="d")
    assert (again.outcome, again.again, again.detail) == ("success", True, first.detail)
    other = _discard(shop, "v2", commit, request="d2")
    assert (other.outcome, other.again) == ("success", False)
    assert "nothing to discard" in other.detail
    assert [o.request for o in shop.site.history() if o.phase == "discard"] == ["d"]


def test_a_request_that_was_used_for_something_else_discards_nothing(shop: Shop) -> None:
    commit = shop.commit({"a": b"2"})
    prepared = _prepare(shop, "v2", request="p")
    assert _discard(shop, "v2", commit, request="p").outcome == "refused"
    assert prepared.release in shop.names()


def test_only_exactly_this_ref_and_commit_goes(shop: Shop) -> None:
    second = shop.commit({"a": b"2"})
    shop.repo.git("tag", "other", second)
    third = shop.commit({"a": b"3"})
    kept = {_prepare(shop, "v2").release, _prepare(shop, "v3").release} - {""}
    before = shop.names()
    for tag, commit in (("other", second), ("v2", third), ("v3", second)):
        done = _discard(shop, tag, commit)
        assert (done.outcome, "nothing to discard" in done.detail) == ("success", True), done
    assert shop.names() == before
    assert kept & before


def test_what_is_live_or_was_good_is_refused(shop: Shop) -> None:
    live = shop.live()
    refused = _discard(shop, "v1", live.commit)
    assert refused.outcome == "refused"
    assert "is live" in refused.detail
    second = shop.put({"a": b"2"})
    assert second.outcome == "success"
    assert "was live" in _discard(shop, "v1", live.commit).detail
    assert shop.runner.rollback().outcome == "success"
    left = shop.runner.releases()[-1]
    assert left.status == "withdrawn"
    assert _discard(shop, "v2", left.commit).outcome == "refused"
    assert {live.name, left.name} <= shop.names()
    assert not [o for o in shop.site.history() if o.phase == "discard"]


def test_a_prepared_twin_of_the_live_release_goes_and_the_live_one_stays(shop: Shop) -> None:
    live = shop.live()
    twin = _prepare(shop, "v1")
    assert twin.release != live.name
    done = _discard(shop, "v1", live.commit)
    assert (done.outcome, done.release) == ("success", twin.release)
    assert shop.names() == {live.name}
    assert _discard(shop, "v1", live.commit).outcome == "success", "idempotent: nothing waits any more"
    shop.whole()


def test_a_prepared_release_that_current_was_turned_to_by_hand_is_live_and_stays(shop: Shop) -> None:
    commit = shop.commit({"a": b"2"})
    prepared = _prepare(shop, "v2")
    link = shop.path / "current"
    link.unlink()
    link.symlink_to(f"releases/{prepared.release}")
    assert _discard(shop, "v2", commit).outcome == "refused"
    shop.whole()
    assert shop.read("a") == "2"


def test_a_pinned_release_is_refused(shop: Shop) -> None:
    commit = shop.commit({"a": b"2"})
    prepared = _prepare(shop, "v2")
    shop.runner.pin(prepared.release)
    refused = _discard(shop, "v2", commit)
    assert refused.outcome == "refused"
    assert "pin" in refused.detail
    shop.runner.pin(prepared.release, pinned=False)
    assert _discard(shop, "v2", commit).outcome == "success"


def test_a_site_that_was_never_set_up_has_nothing_to_discard_and_is_not_made(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    assert _discard(shop, "v1", "1" * 40).outcome == "success"
    assert not shop.path.exists()


def test_an_operation_that_may_not_begin_is_refused_under_the_lock_and_touches_nothing(shop: Shop) -> None:
    shop.commit({"a": b"2"})
    asked = []

    def not_now() -> None:
        asked.append(shop.runner.current())
        raise PolicyRefused("the rollout was aborted")

    before = shop.site.history()
    runner = Runner(shop.site, may_begin=not_now)
    with Repository(shop.repo.path) as source:
        tries: tuple[Callable[[], DeployResult], ...] = (
            lambda: runner.deploy(source, "refs/tags/v2"),
            lambda: runner.prepare(source, "refs/tags/v2"),
            lambda: runner.activate("v2"),
        )
        for go in tries:
            result = go()
            assert (result.outcome, result.detail) == ("refused", "the rollout was aborted")
            assert result.live is not None
    assert len(asked) == len(tries)
    assert shop.site.history() == before


def test_the_rollout_stands_in_the_records_of_each_operation(shop: Shop) -> None:
    commit = shop.commit({"a": b"2"})
    _prepare(shop, "v2", rollout="r1")
    assert shop.runner.activate(commit, ref="refs/tags/v2", rollout="r1").outcome == "success"
    assert shop.runner.rollback(rollout="r2").outcome == "success"
    assert shop.put({"a": b"3"}, rollout="r3").outcome == "success"
    assert [(o.phase, o.rollout) for o in shop.site.history()[1:]] == [
        ("prepare", "r1"),
        ("activate", "r1"),
        ("rollback", "r2"),
        ("deploy", "r3"),
    ]


def test_the_command_discards_the_newest_prepared_release_or_the_named_one(shop: Shop) -> None:
    commit = shop.commit({"a": b"2"})
    prepared = _prepare(shop, "v2")
    for words in ((), ("v2",), (commit[:12],)):
        done = run_cli("release", "discard", str(shop.path), *words, "--json")
        said = json.loads(done.stdout)
        assert (done.returncode, said["outcome"], said["release"]) == (0, "success", prepared.release)
        prepared = _prepare(shop, "v2")
    assert run_cli("release", "discard", str(shop.path), prepared.release).returncode == 0
    nothing = run_cli("release", "discard", str(shop.path))
    assert (nothing.returncode, "nothing" in nothing.stdout) == (0, True)
    live = run_cli("release", "discard", str(shop.path), "v1")
    assert (live.returncode, "is live" in live.stderr) == (1, True)
    unknown = run_cli("release", "discard", str(shop.path), "v9")
    assert (unknown.returncode, "no release v9" in unknown.stderr) == (1, True)
    assert run_cli("release", "discard", str(shop.path / "nowhere")).returncode == 1
    shop.whole()


def test_the_history_of_a_release_names_the_rollout_and_the_discard(shop: Shop) -> None:
    commit = shop.commit({"a": b"2"})
    _prepare(shop, "v2", rollout="roll\x1b1")
    _discard(shop, "v2", commit, rollout="roll-2", requested_by="ann")
    shown = run_cli("release", "show", str(shop.path), "v2")
    assert shown.returncode == 0
    assert "discarded, gone" in shown.stdout
    assert r"in rollout roll\x1b1: success" in shown.stdout
    assert " by ann in rollout roll-2: success removed " in shown.stdout


def test_a_record_without_a_rollout_is_read(shop: Shop) -> None:
    """Records that were written before there were rollouts."""
    state = shop.path / ".deploykit" / "state.json"
    data = json.loads(state.read_text())
    for operation in data["operations"]:
        del operation["rollout"]
    state.write_text(json.dumps(data))
    assert [attrs.asdict(o)["rollout"] for o in shop.site.history()] == [""]
