"""Which results a deploy carries: the newest of each required job, and no more than a command may hold."""

from __future__ import annotations

from deploykit.builds import SignedResult
from deploykit.messages import BuildEvidence, BuildFinished, DeployRequested
from deploykit.operations.builds import carried, newest
from deploykit.wire import encode
from tests.support.asked import request
from tests.support.builds import JOB, result, signed


def known(*results: BuildFinished) -> list[tuple[SignedResult, BuildFinished]]:
    return [(signed(each), each) for each in results]


def numbers(evidence: tuple[BuildEvidence, ...]) -> list[tuple[str, int, str]]:
    found = [SignedResult.from_evidence(each).unverified() for each in evidence]
    return sorted((each.job, each.number, each.outcome) for each in found)


def test_the_highest_number_of_each_required_job_goes_along_whatever_its_outcome() -> None:
    results = known(result(), result(number=42, outcome="failure"), result(job="lint"), result(job="other", number=9))
    assert numbers(carried(newest(results, (JOB, "lint")))) == [("lint", 41, "success"), (JOB, 42, "failure")]
    assert len(newest(results, ())) == 3


def test_a_result_goes_along_once_and_both_of_one_number_do() -> None:
    twice = result()
    results = [*known(twice), *known(twice), *known(result(outcome="failure"))]
    assert [outcome for _, _, outcome in numbers(carried(newest(results, (JOB,))))] == ["failure", "success"]


def test_no_more_than_a_command_may_hold_goes_along() -> None:
    many = known(*[result(job=f"job-{number}") for number in range(40)])
    assert len(carried(newest(many, ()))) == 16
    large = known(*[result(job=f"job-{number}", url="x" * 60_000) for number in range(16)])
    evidence = carried(newest(large, ()))
    assert 5 < len(evidence) < 16
    body = encode(request(evidence=evidence))
    assert isinstance(body.body, bytes)
    assert DeployRequested.TYPE in body.headers["deploykit-type"]
