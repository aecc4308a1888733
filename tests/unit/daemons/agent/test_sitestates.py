"""What a node says of a site is what the site's own records and its directory say."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import attrs
import pytest

from deploykit.daemons.agent import sitestates
from deploykit.daemons.agent.sitestates import count_drift, describe_site, origin_of, when
from deploykit.git.repository import Repository
from deploykit.names import RepoName, SiteName
from deploykit.release import Site
from deploykit.settings import NodeSiteSettings
from tests.support.releasing import Shop

NAME = SiteName("shop")


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def settings(shop: Shop) -> NodeSiteSettings:
    return NodeSiteSettings(path=shop.path, repo=RepoName("shop"), release=shop.settings)


def damaged(shop: Shop) -> None:
    Site(shop.path, shop.settings).state_file.write_text("{")


def test_a_prepared_release_and_the_way_back_are_named(shop: Shop) -> None:
    for at in range(2):
        assert shop.put({"index.html": b"%d" % at}).outcome == "success"
    commit = shop.commit({"index.html": b"3"})
    with Repository(shop.repo.path) as source:
        prepared = shop.runner.prepare(source, "refs/tags/v3", commit, request="r1", requested_by="ada\x1b[31m")
    state, cut = describe_site(NAME, settings(shop), history=10)
    assert (state.ref, cut, state.problem) == ("refs/tags/v2", (), "")
    assert state.previous is not None
    assert state.previous.ref == "refs/tags/v1"
    assert state.prepared is not None
    assert (state.prepared.release, state.prepared.commit) == (prepared.release, commit)
    assert [operation.phase for operation in state.history] == ["prepare", "deploy", "deploy"]
    assert state.last == state.history[0]
    assert (state.last.request, state.last.outcome) == ("r1", "success")
    assert state.last.requested_by == "ada [31m"
    assert state.last.finished is not None


def test_only_so_many_operations_are_listed(shop: Shop) -> None:
    for at in range(4):
        shop.put({"index.html": b"%d" % at})
    state, _ = describe_site(NAME, settings(shop), history=2)
    assert [operation.number for operation in state.history] == [4, 3]


def test_what_the_site_asks_of_mandates_is_said_whatever_its_records_look_like(shop: Shop) -> None:
    asking = attrs.evolve(settings(shop), require="person", signatures=2)
    for harm in (lambda: None, lambda: shop.put({"index.html": b"1"}), lambda: damaged(shop)):
        harm()
        state, _ = describe_site(NAME, asking)
        assert (state.require, state.signatures) == ("person", 2)
    assert state.problem, "the last one could not be read"
    plain, _ = describe_site(NAME, settings(shop))
    assert (plain.require, plain.signatures) == ("", 1)


@pytest.mark.parametrize("harm", ["gone", "unknown", "damaged", "foreign"])
def test_a_site_that_is_not_as_its_records_say_has_a_problem(shop: Shop, harm: str) -> None:
    shop.put({"index.html": b"1"})
    live = shop.live().name
    if harm == "gone":
        shutil.rmtree(shop.path / "releases" / live)
    elif harm == "unknown":
        shutil.copytree(shop.path / "releases" / live, shop.path / "releases" / "by-hand")
        (shop.path / "current").unlink()
        (shop.path / "current").symlink_to("releases/by-hand")
    elif harm == "damaged":
        (shop.path / ".deploykit" / "state.json").write_text('{"format": 1}')
    else:
        (shop.path / ".deploykit" / "state.json").write_text('{"format": 99}')
    state, _ = describe_site(NAME, settings(shop), drift=True, history=5)
    assert state.problem
    assert state.problem.isprintable()
    assert (state.release, state.commit, state.modified) == ("", None, None)


def test_drift_counts_changed_missing_and_added_paths(shop: Shop) -> None:
    shop.put({"a": b"1", "b": b"2", "c": b"3"})
    assert describe_site(NAME, settings(shop), drift=True)[0].modified == 0
    live = shop.path / "current"
    (live / "a").write_text("other")
    (live / "b").unlink()
    (live / "new").mkdir()
    (live / "d").write_text("x")
    state, cut = describe_site(NAME, settings(shop), drift=True)
    assert (state.modified, cut) == (4, ())
    assert describe_site(NAME, settings(shop))[0].modified is None


def test_a_comparison_that_takes_too_long_is_given_up(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.put({f"d{at}/file": b"x" for at in range(50)})
    assert count_drift(shop.site, shop.live().name, seconds=0) == (None, "not counted within 0 s")
    monkeypatch.setattr(sitestates.count_drift, "__kwdefaults__", {"seconds": 0.0})
    state, cut = describe_site(NAME, settings(shop), drift=True)
    assert (state.modified, cut) == (None, ("drift of shop: not counted within 0 s",))
    assert state.ref == "refs/tags/v1"


def test_a_release_without_a_manifest_is_not_counted(shop: Shop) -> None:
    shop.put({"a": b"1"})
    for file in (shop.path / ".deploykit" / "manifests").iterdir():
        file.unlink()
    state, cut = describe_site(NAME, settings(shop), drift=True)
    assert (state.modified, cut) == (None, ("drift of shop: there is no manifest",))


def test_a_site_where_nothing_was_deployed_is_empty_and_has_no_problem(shop: Shop) -> None:
    state, cut = describe_site(NAME, settings(shop), drift=True, history=5)
    assert (state.release, state.problem, state.last, state.history, cut) == ("", "", None, (), ())


def test_what_is_no_full_name_is_none() -> None:
    assert origin_of("v1", "ab" * 20) == (None, "ab" * 20)
    assert origin_of("refs/tags/v1", "abc") == (None, None)
    assert when("2026-03-01T12:00:00+00:00") == datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
    assert when("2026-03-01T12:00:00") == datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
    assert when("") is when("yesterday") is None
