"""The pure decision: the highest build number of each required job, whatever the order; and its texts."""

from __future__ import annotations

from datetime import timedelta
from typing import cast, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploykit.builds import GateDecision, KnownResult, decide
from deploykit.builds.gate import ago
from deploykit.messages import BuildOutcome
from deploykit.names import RepoName
from tests.support.builds import COMMIT, JOB, NOW, OTHER, SHOP, known

HEAD = "no successful build of shop-tests for 1a2b3c4d; "


def gate(*results: KnownResult, jobs: tuple[str, ...] = (JOB,)) -> GateDecision:
    return decide(jobs, SHOP, COMMIT, results, NOW)


def test_a_success_opens_and_is_named() -> None:
    decision = gate(known())
    assert decision.open
    assert [each.number for each in decision.passed] == [41]


def test_no_required_job_leaves_it_open() -> None:
    assert gate(jobs=()).open


@pytest.mark.parametrize(
    ("results", "text"),
    [
        ((), "none is known"),
        ((known(outcome="failure"),), "number 41 failed 5 minutes ago"),
        ((known(outcome="unstable"),), "number 41 was unstable 5 minutes ago"),
        ((known(outcome="aborted"),), "number 41 was aborted 5 minutes ago"),
        ((known(number=40), known(outcome="failure")), "number 41 failed 5 minutes ago"),
        ((known(outcome="failure"), known(number=40)), "number 41 failed 5 minutes ago"),
        ((known(commit=OTHER),), "none is known"),
        ((known(repo=RepoName("blog")),), "none is known"),
        ((known(job="shop-tests2"),), "none is known"),
        ((known(job="Shop-Tests"),), "none is known"),
        (
            (known(objection="its key is no longer trusted"),),
            "number 41 succeeded 5 minutes ago, but its key is no longer trusted",
        ),
        (
            (known(objection="its key is no longer trusted"), known(number=40, outcome="failure")),
            "number 40 failed 5 minutes ago",
        ),
        (
            (known(), known(outcome="failure")),
            "number 41 failed 5 minutes ago, and was reported as a success too",
        ),
        (
            (known(outcome="unstable"), known(outcome="failure")),
            "number 41 failed 5 minutes ago",
        ),
    ],
)
def test_a_refusal_says_which_it_was(results: tuple[KnownResult, ...], text: str) -> None:
    assert gate(*results).refusals == (HEAD + text,)
    assert gate(*reversed(results)).refusals == (HEAD + text,)


def test_a_rerun_that_succeeds_opens_and_one_that_fails_closes_again() -> None:
    failed, rerun = known(outcome="failure"), known(number=42)
    assert gate(failed, rerun).open
    assert gate(rerun, failed).open
    assert not gate(failed, rerun, known(number=43, outcome="failure")).open


def test_a_higher_number_counts_even_when_it_is_older() -> None:
    assert gate(known(number=42, time=NOW - timedelta(days=2)), known(outcome="failure")).open


def test_every_required_job_needs_its_own_success() -> None:
    decision = gate(known(), known(job="lint", outcome="failure"), jobs=(JOB, "lint", "docs", JOB))
    assert [text.split()[4] for text in decision.refusals] == ["lint", "docs"]
    assert gate(known(), known(job="lint", number=1), jobs=(JOB, "lint")).open


def test_what_does_not_count_closes_nothing_either() -> None:
    assert gate(known(), known(number=99, outcome="failure", objection="its key is not trusted")).open


RESULTS = st.lists(
    st.builds(
        lambda number, outcome, objection, commit: known(
            number=number, outcome=outcome, objection=objection, commit=commit
        ),
        st.integers(1, 4),
        st.sampled_from(cast("tuple[BuildOutcome, ...]", get_args(BuildOutcome))),
        st.sampled_from(("", "", "its key is not trusted")),
        st.sampled_from((COMMIT, COMMIT, OTHER)),
    ),
    max_size=7,
)


@given(RESULTS.flatmap(lambda results: st.tuples(st.just(results), st.permutations(results))))
def test_the_order_of_arrival_decides_nothing(both: tuple[list[KnownResult], list[KnownResult]]) -> None:
    results, shuffled = both
    decision = gate(*results)
    assert (decision.open, decision.refusals) == (gate(*shuffled).open, gate(*shuffled).refusals)
    assert decision == gate(*shuffled, *shuffled)
    counting = [each.result for each in results if not each.objection and each.result.commit == COMMIT]
    highest = max((each.number for each in counting), default=0)
    assert decision.open == ({each.outcome for each in counting if each.number == highest} == {"success"})


def test_ages_are_in_their_largest_unit() -> None:
    ages = [(59, "59 seconds ago"), (3600, "1 hour ago"), (91 * 86400, "91 days ago"), (0.5, "just now")]
    assert [ago(timedelta(seconds=seconds)) for seconds, _ in ages] == [text for _, text in ages]
