"""Comparisons for pages: what is kept, what is not, and reasons instead of errors."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from deploykit.errors import MirrorCorrupt, MirrorError, RefNotFound
from deploykit.names import ObjectId, RepoName, parse_node_name
from deploykit.operations.compare import CommitComparison
from deploykit.settings import Settings
from deploykit.web.pages.comparing import Comparisons
from tests.support.wait import wait_until

SETTINGS = Settings(node=parse_node_name("ops-1"))
OLD, NEW = "1" * 40, "2" * 40


class Counting:
    """Stands for `compare`, and counts its calls."""

    def __init__(self, *, complete: bool = True, error: Exception | None = None) -> None:
        self.calls = 0
        self._complete, self._error = complete, error

    def __call__(self, settings: Settings, repo: RepoName, old: str, new: str, **_: Any) -> CommitComparison:
        self.calls += 1
        if self._error:
            raise self._error
        return CommitComparison(repo=repo, old=ObjectId(old), new=ObjectId(new), commits_complete=self._complete)


def test_two_commits_are_compared_once() -> None:
    compare = Counting()
    comparisons = Comparisons(compare)
    first = comparisons.between(SETTINGS, "shop", OLD, NEW)
    assert comparisons.between(SETTINGS, "shop", OLD, NEW).found is first.found
    comparisons.between(SETTINGS, "shop", NEW, OLD)
    assert compare.calls == 2


def test_a_ref_may_move_so_it_is_compared_each_time() -> None:
    compare = Counting()
    comparisons = Comparisons(compare)
    for _ in range(2):
        comparisons.between(SETTINGS, "shop", OLD, "main")
    assert compare.calls == 2


def test_what_was_cut_off_is_tried_again() -> None:
    compare = Counting(complete=False)
    comparisons = Comparisons(compare)
    for _ in range(2):
        comparisons.between(SETTINGS, "shop", OLD, NEW)
    assert compare.calls == 2


def test_an_error_is_a_reason_and_is_not_kept() -> None:
    compare = Counting(error=RefNotFound("no such mirror", "make one"))
    comparisons = Comparisons(compare)
    for _ in range(4):  # more than may run at once: each gave its place back
        outcome = comparisons.between(SETTINGS, "shop", OLD, NEW)
        assert (outcome.found, outcome.problem, outcome.remedy) == (None, "no such mirror", "make one")
    assert compare.calls == 4


def test_the_repository_of_a_site_comes_from_outside() -> None:
    compare = Counting()
    assert "not a repository name" in Comparisons(compare).between(SETTINGS, "../../etc", OLD, NEW).problem
    assert Comparisons(compare).between(SETTINGS, "", OLD, NEW).problem
    assert Comparisons(compare).between(SETTINGS, "shop", "", NEW).problem
    assert compare.calls == 0


def test_many_comparisons_at_once_leave_threads_for_other_pages() -> None:
    go, begun = threading.Event(), threading.Semaphore(0)

    def slow(settings: Settings, repo: RepoName, old: str, new: str, **_: Any) -> CommitComparison:
        begun.release()
        assert go.wait(60)
        return CommitComparison(repo=repo, old=ObjectId(OLD), new=ObjectId(NEW))

    comparisons = Comparisons(slow)
    with ThreadPoolExecutor(40) as pool:
        asked = [pool.submit(comparisons.between, SETTINGS, "shop", OLD, f"main{at}") for at in range(40)]
        assert begun.acquire(timeout=60)
        wait_until(lambda: sum(one.done() for one in asked) == 32, "those that found no place have ended")
        go.set()
        outcomes = [one.result(60) for one in asked]
    assert sum(outcome.found is not None for outcome in outcomes) == 8
    assert {outcome.problem for outcome in outcomes} == {"", "too many comparisons run at this moment"}


@pytest.mark.parametrize("kind", [MirrorError, MirrorCorrupt])
def test_a_path_of_this_machine_is_for_its_log_alone(kind: type[MirrorError], caplog: pytest.LogCaptureFixture) -> None:
    compare = Counting(error=kind("cannot use /var/lib/secret: Permission denied", "see /var/lib/secret"))
    outcome = Comparisons(compare).between(SETTINGS, "shop", OLD, NEW)
    assert (outcome.problem, outcome.remedy) == ("the mirror of shop cannot be read", "the console's log says why")
    assert "/var/lib/secret" in caplog.text
