"""The rollouts of a machine: found, listed, and removed when they are old; one that runs never is."""

from __future__ import annotations

import errno
import re
import time
from pathlib import Path

import attrs
import pytest

from deploykit.errors import RolloutError, UsageError
from deploykit.fleet.journal import EndRecord, EventRecord, JournalHead, RolloutJournal, journal_path
from deploykit.fleet.plan import Plan, Target, make_plan
from deploykit.fleet.rolloutevents import PauseAsked
from deploykit.names import NodeName, ObjectId, RefName, SiteName
from deploykit.operations import rolloutstore
from deploykit.operations.rollout import _journal_at, read_resumable, what_goes_on
from deploykit.operations.rolloutplan import new_rollout_id
from deploykit.operations.rolloutstore import ask_rollout, find_journal, list_rollouts, prune, read_rollout, unfinished
from deploykit.settings import Settings

NOW = time.time()
SHOP = SiteName("shop")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(node=NodeName("desk"), rollouts=tmp_path)


def plan_named(rollout: str) -> Plan:
    target = Target(ref=RefName("refs/tags/v1"), commit=ObjectId("ab" * 20))
    return make_plan(site=SHOP, nodes=[NodeName("web1"), NodeName("web2")], target=target, rollout=rollout)


def begun(directory: Path, rollout: str, *, ago: float = 0.0, ended: bool = True) -> RolloutJournal:
    """Return the journal of a rollout that was begun so many seconds ago; it is closed."""
    journal = RolloutJournal.create(directory, JournalHead(plan=plan_named(rollout), begun=NOW - ago))
    with journal:
        journal.append([EventRecord(at=NOW - ago + 1, event=PauseAsked(by="ada"))])
        if ended:
            journal.append([EndRecord(state="failed", at=NOW - ago + 2, exit_code=1, counts={"failed": 2})])
    return journal


def ids(directory: Path) -> list[str]:
    return sorted(path.parent.name for path in directory.glob("*/journal.jsonl"))


def test_rollouts_are_listed_newest_first_and_damaged_ones_are_named(settings: Settings, tmp_path: Path) -> None:
    begun(tmp_path, "shop-1", ago=20)
    begun(tmp_path, "shop-2", ago=10, ended=False)
    damaged = begun(tmp_path, "shop-3")
    damaged.path.write_text("garbage\n")
    (tmp_path / "locks").mkdir()
    first, second, third = list_rollouts(settings)
    assert (first.rollout, first.state, first.ended, first.running) == ("shop-2", "preparing", None, False)
    assert (second.rollout, second.state, second.target) == ("shop-1", "failed", "v1 abababababab")
    assert third.rollout == "shop-3"
    assert "line 1 is damaged" in third.problem


def test_no_directory_means_no_rollouts(settings: Settings, tmp_path: Path) -> None:
    assert list_rollouts(attrs.evolve(settings, rollouts=tmp_path / "none")) == ()
    with pytest.raises(UsageError, match="there is no rollout"):
        find_journal(tmp_path / "none", "last")


def test_a_directory_of_another_user_is_not_an_empty_one(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(_path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", denied)
    with pytest.raises(RolloutError, match=r"Permission denied.*as the user that began"):
        list_rollouts(settings)


def test_an_id_may_be_shortened_and_last_is_the_newest(settings: Settings, tmp_path: Path) -> None:
    begun(tmp_path, "shop-1-a", ago=5)
    begun(tmp_path, "shop-1-b", ago=10)
    begun(tmp_path, "shop-2", ago=15)
    assert read_rollout(settings, "shop-2").plan.rollout == "shop-2"
    assert read_rollout(settings, "shop-1-b").plan.rollout == "shop-1-b"
    assert read_rollout(settings, "last").plan.rollout == "shop-1-a"
    assert find_journal(tmp_path, "shop-2").parent.name == "shop-2"
    with pytest.raises(UsageError, match="more than one rollout begins with shop-1: shop-1-a, shop-1-b"):
        find_journal(tmp_path, "shop-1")
    for unknown in ("blog", "../x", ""):
        with pytest.raises(UsageError, match="rollout list"):
            find_journal(tmp_path, unknown)


def test_one_that_nobody_goes_on_with_is_not_well(settings: Settings, tmp_path: Path) -> None:
    begun(tmp_path, "shop-1", ended=False)
    assert read_rollout(settings, "shop-1").exit_code == 1
    with RolloutJournal.open(journal_path(tmp_path, "shop-1")):
        assert read_rollout(settings, "shop-1").exit_code == 0
        assert unfinished(tmp_path, SHOP) == ()
    assert [entry.rollout for entry in unfinished(tmp_path, SHOP)] == ["shop-1"]
    assert unfinished(tmp_path, SHOP, but="shop-1") == ()


def test_a_request_is_kept_until_somebody_carries_it_out(settings: Settings, tmp_path: Path) -> None:
    begun(tmp_path, "shop-1", ended=False)
    assert not ask_rollout(settings, "shop-1", "pause").running
    assert [request.kind for request in read_rollout(settings, "shop-1").requests] == ["pause"]


def test_old_rollouts_are_removed_and_unfinished_ones_are_kept_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rolloutstore, "KEPT", 3)
    day = 86400.0
    for number in range(5):
        begun(tmp_path, f"shop-{number}", ago=number * day)
    begun(tmp_path, "shop-open", ago=30 * day, ended=False)
    begun(tmp_path, "shop-ancient", ago=91 * day, ended=False)
    assert set(prune(tmp_path, NOW)) == {"shop-3", "shop-4", "shop-ancient"}
    assert ids(tmp_path) == ["shop-0", "shop-1", "shop-2", "shop-open"]


def test_one_that_runs_is_never_removed(tmp_path: Path) -> None:
    begun(tmp_path, "shop-1", ago=1000 * 86400.0)
    with RolloutJournal.open(journal_path(tmp_path, "shop-1")):
        assert prune(tmp_path, NOW) == ()
    assert prune(tmp_path, NOW) == ("shop-1",)


def test_an_older_one_is_not_gone_on_with_but_it_may_be_aborted(tmp_path: Path) -> None:
    old = begun(tmp_path, "shop-1", ago=10, ended=False)
    begun(tmp_path, "shop-2")
    with pytest.raises(UsageError, match="shop-2 of shop was begun after shop-1"):
        read_resumable(tmp_path, old.path)
    assert read_resumable(tmp_path, old.path, aborting=True).rollout == "shop-1"
    with pytest.raises(UsageError, match="rollout show shop-2"):
        read_resumable(tmp_path, find_journal(tmp_path, "shop-2"))


def test_a_damaged_journal_says_how_to_go_on(settings: Settings, tmp_path: Path) -> None:
    begun(tmp_path, "shop-1").path.write_text("garbage\n{}\n")
    with pytest.raises(RolloutError, match="line 1"):
        read_rollout(settings, "shop-1")


def test_what_goes_on_without_us_is_said(settings: Settings, tmp_path: Path) -> None:
    begun(tmp_path, "shop-1", ended=False)
    stored = read_rollout(settings, "shop-1")
    lines = "\n".join(what_goes_on(stored.plan, stored.model))
    assert "web1, web2 will finish what was asked (prepare)" in lines
    assert "deploykit rollout resume shop-1" in lines
    assert "deploykit rollout abort shop-1" in lines


def test_a_new_id_is_short_sorts_by_time_and_names_the_site() -> None:
    made = new_rollout_id(SHOP)
    assert made.startswith("shop-20")
    assert new_rollout_id(SHOP) != made
    assert len(new_rollout_id(SiteName("s" * 200))) < 80


def test_a_journal_with_impossible_times_stops_no_other_rollout(settings: Settings, tmp_path: Path) -> None:
    begun(tmp_path, "shop-1")
    path = begun(tmp_path, "shop-2").path
    path.write_text(re.sub('"begun":[0-9.]+', '"begun":1' + "0" * 400, path.read_text(), count=1))
    assert [entry.rollout for entry in list_rollouts(settings)] == ["shop-1", "shop-2"]
    assert prune(tmp_path, NOW) == ()


def test_a_text_too_long_for_a_file_is_no_id(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not the id of a rollout"):
        _journal_at(tmp_path, "x" * 300)
