"""What a node says after a fetch: each message answered once, what goes on being wrong said once."""

from __future__ import annotations

import pytest

from deploykit.daemons.agent.mirror_reports import (
    FetchAsked,
    RefProblem,
    RefReport,
    Reported,
    left_out,
    lfs_problems,
    reports_after,
    word_for,
)
from deploykit.errors import OriginError
from deploykit.mirror import FetchResult, RefChange
from deploykit.mirror.model import LfsFetched, LfsGap, Refusal
from deploykit.names import ZERO_ID, ObjectId, RefName

A, B, C = (ObjectId(c * 40) for c in "abc")
MAIN, TOPIC = RefName("refs/heads/main"), RefName("refs/heads/topic")
NOTHING = FetchResult()
NONE: Reported = {}


def test_what_moved_is_said_under_the_id_of_the_message_that_named_it() -> None:
    result = FetchResult(changes=(RefChange(MAIN, A, B), RefChange(TOPIC, ZERO_ID, C)))
    asked = [FetchAsked(None, "deploy"), FetchAsked(RefChange(MAIN, A, B), "push")]
    lines, _ = reports_after(result, asked, {MAIN: B, TOPIC: C}, {}, NONE)
    assert lines == [
        RefReport(MAIN, A, B, "updated", "", "push"),
        RefReport(TOPIC, ZERO_ID, C, "updated", "", "deploy"),
    ]


def test_two_pushes_that_one_fetch_answered_are_both_answered() -> None:
    asked = [FetchAsked(RefChange(MAIN, A, B), "first"), FetchAsked(RefChange(MAIN, B, C), "second")]
    lines, _ = reports_after(FetchResult(changes=(RefChange(MAIN, A, C),)), asked, {MAIN: C}, {}, NONE)
    assert [(line.old, line.new, line.reason) for line in lines] == [(A, C, "first"), (A, C, "second")]


def test_a_push_that_was_here_already_is_answered_as_unchanged() -> None:
    lines, _ = reports_after(NOTHING, [FetchAsked(RefChange(MAIN, A, B), "late")], {MAIN: B}, {}, NONE)
    assert lines == [RefReport(MAIN, A, B, "unchanged", "", "late")]
    lines, _ = reports_after(NOTHING, [FetchAsked(RefChange(MAIN, A, ZERO_ID), "late")], {}, {}, NONE)
    assert lines == [RefReport(MAIN, A, ZERO_ID, "unchanged", "", "late")]


def test_a_forged_push_is_not_repeated() -> None:
    assert reports_after(NOTHING, [FetchAsked(RefChange(MAIN, A, C), "forged")], {MAIN: A}, {}, NONE) == ([], {})


def test_a_failed_fetch_is_said_to_whoever_asked_and_to_nobody_else() -> None:
    error = OriginError("the origin\nis away")
    lines, said = reports_after(
        error, [FetchAsked(RefChange(MAIN, A, B), "push"), FetchAsked(None, "")], {MAIN: A}, {}, NONE
    )
    assert lines == [RefReport(MAIN, A, A, "failed", "the origin is away", "push")], "what is held, not what is claimed"
    assert reports_after(error, [], {MAIN: A}, {}, said) == ([], {})


def test_a_ref_that_moved_but_whose_directory_did_not_is_no_success() -> None:
    trouble = {MAIN: RefProblem("failed", "checkout /x: no space left")}
    result = FetchResult(changes=(RefChange(MAIN, A, B),))
    lines, said = reports_after(result, [FetchAsked(RefChange(MAIN, A, B), "push")], {MAIN: B}, trouble, NONE)
    assert lines == [RefReport(MAIN, A, B, "failed", "checkout /x: no space left", "push")]
    assert reports_after(NOTHING, [], {MAIN: B}, trouble, said)[0] == [], "said once"
    other = {MAIN: RefProblem("refused", "checkout /x: a real file")}
    assert [line.outcome for line in reports_after(NOTHING, [], {MAIN: B}, other, said)[0]] == ["refused"]
    lines, said = reports_after(NOTHING, [], {MAIN: B}, {}, said)
    assert [(line.old, line.new, line.outcome) for line in lines] == [(B, B, "unchanged")]
    assert said == {}


def test_a_change_a_policy_refuses_is_said_once_and_to_each_that_asks() -> None:
    refused = FetchResult(refused=(Refusal(MAIN, B, A, "it is not a fast-forward"),))
    lines, said = reports_after(refused, [], {MAIN: B}, {}, NONE)
    assert lines == [RefReport(MAIN, B, A, "refused", "it is not a fast-forward", "")]
    assert reports_after(refused, [], {MAIN: B}, {}, said) == ([], said)
    again, _ = reports_after(refused, [FetchAsked(RefChange(MAIN, B, A), "push")], {MAIN: B}, {}, said)
    assert [line.reason for line in again] == ["push"]
    further = FetchResult(refused=(Refusal(MAIN, B, C, "it is not a fast-forward"),))
    assert [line.new for line in reports_after(further, [], {MAIN: B}, {}, said)[0]] == [C]


def test_a_ref_whose_name_no_message_may_carry_is_worded_once_for_people() -> None:
    """However its name begins: what is shown of it may look like the name of another ref."""
    refused = FetchResult(refused=(Refusal(None, None, None, "not a name", shown=str(MAIN)),))
    assert reports_after(refused, [], {MAIN: A}, {}, NONE) == ([], {})
    text, said = left_out(refused, frozenset())
    assert str(MAIN) in text
    assert left_out(refused, said) == ("", said)
    both = FetchResult(refused=(*refused.refused, Refusal(None, None, None, "", shown="'refs/heads/..'")))
    text, said = left_out(both, said)
    assert "'refs/heads/..'" in text
    assert str(MAIN) not in text
    assert left_out(NOTHING, said) == ("", frozenset()), "it is gone, and would be said again"


def test_of_names_that_cannot_be_used_a_fetch_of_one_ref_or_a_failed_one_knows_nothing() -> None:
    said = frozenset({"x"})
    assert left_out(FetchResult(confirmed=True), said) == ("", said)
    assert left_out(OriginError("away"), said) == ("", said)


@pytest.mark.parametrize("held", [{}, {MAIN: A}])
def test_a_ref_without_an_acceptable_object_is_reported_as_it_is_held(held: dict[RefName, ObjectId]) -> None:
    refused = FetchResult(
        changes=(RefChange(TOPIC, ZERO_ID, C),), refused=(Refusal(MAIN, None, None, "without an object"),)
    )
    lines, said = reports_after(refused, [], held, {}, NONE)
    here = held.get(MAIN, ZERO_ID)
    assert lines[1:] == [RefReport(MAIN, here, here, "refused", "without an object", "")]
    assert lines[0] == RefReport(TOPIC, ZERO_ID, C, "updated", "", "")
    assert reports_after(FetchResult(refused=refused.refused), [], held, {}, said)[0] == []


def test_trouble_with_a_ref_that_is_gone_is_not_called_mended() -> None:
    said: Reported = {MAIN: (RefProblem("failed", "x"), B)}
    assert reports_after(FetchResult(changes=(RefChange(MAIN, B, ZERO_ID),)), [], {}, {}, said) == (
        [RefReport(MAIN, B, ZERO_ID, "updated", "", "")],
        {},
    )


LACKING = FetchResult(lfs=LfsFetched(gaps=(LfsGap(MAIN, "Git LFS: an object is missing: a.bin: gone"),)))


def test_a_ref_that_lacks_objects_is_a_failure_until_they_come() -> None:
    moved = FetchResult(changes=(RefChange(MAIN, A, B),), lfs=LACKING.lfs)
    asked = [FetchAsked(RefChange(MAIN, A, B), "push")]
    lines, said = reports_after(moved, asked, {MAIN: B}, lfs_problems(moved), NONE)
    assert lines == [RefReport(MAIN, A, B, "failed", "Git LFS: an object is missing: a.bin: gone", "push")]
    assert word_for(moved) == "failed"
    assert reports_after(LACKING, [], {MAIN: B}, lfs_problems(LACKING), said) == ([], said), "said once"
    lines, said = reports_after(NOTHING, [], {MAIN: B}, {}, said)
    assert [(line.outcome, line.detail) for line in lines] == [("unchanged", "the problem is gone")]
    assert (said, word_for(NOTHING)) == ({}, "unchanged")


def test_a_fetch_that_failed_does_not_say_that_what_an_earlier_one_found_is_gone() -> None:
    """Only another fetch can see it: of objects that are missing, of changes that a policy refused."""
    refused = FetchResult(refused=(Refusal(TOPIC, C, A, "it is not a fast-forward"),), lfs=LACKING.lfs)
    held = {MAIN: B, TOPIC: C}
    _, said = reports_after(refused, [], held, lfs_problems(refused), NONE)
    error = OriginError("away")
    assert reports_after(error, [], held, lfs_problems(error), said)[0] == []
    lines, _ = reports_after(NOTHING, [], held, {}, reports_after(error, [], held, {}, said)[1])
    assert sorted(line.ref for line in lines) == [MAIN, TOPIC]


def test_a_fetch_of_one_ref_says_nothing_of_what_is_refused_elsewhere() -> None:
    refused = FetchResult(refused=(Refusal(TOPIC, C, A, "it is not a fast-forward"),))
    held = {MAIN: B, TOPIC: C}
    _, said = reports_after(refused, [], held, {}, NONE)
    single = FetchResult(changes=(RefChange(MAIN, A, B),), confirmed=True)
    lines, said = reports_after(single, [FetchAsked(RefChange(MAIN, A, B), "push")], held, {}, said)
    assert [line.ref for line in lines] == [MAIN]
    single = FetchResult(confirmed=False)
    lines, said = reports_after(single, [FetchAsked(RefChange(TOPIC, C, A), "push")], held, {}, said)
    assert [(line.ref, line.detail) for line in lines] == [(TOPIC, "the problem is gone")]
