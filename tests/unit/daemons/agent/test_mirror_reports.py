"""What a node says after a fetch: each message answered once, what goes on being wrong said once."""

from __future__ import annotations

import pytest

from deploykit.daemons.agent.mirror_reports import LogLine, Said, Told, Trouble, left_out, lines_of
from deploykit.errors import OriginError
from deploykit.mirror import FetchResult, RefChange
from deploykit.mirror.model import Refusal
from deploykit.names import ZERO_ID, ObjectId, RefName

A, B, C = (ObjectId(c * 40) for c in "abc")
MAIN, TOPIC = RefName("refs/heads/main"), RefName("refs/heads/topic")
NOTHING = FetchResult()
NONE: Said = {}


def test_what_moved_is_said_under_the_id_of_the_message_that_named_it() -> None:
    result = FetchResult(changes=(RefChange(MAIN, A, B), RefChange(TOPIC, ZERO_ID, C)))
    asked = [Told(None, "deploy"), Told(RefChange(MAIN, A, B), "push")]
    lines, _ = lines_of(result, asked, {MAIN: B, TOPIC: C}, {}, NONE)
    assert lines == [LogLine(MAIN, A, B, "updated", "", "push"), LogLine(TOPIC, ZERO_ID, C, "updated", "", "deploy")]


def test_two_pushes_that_one_fetch_answered_are_both_answered() -> None:
    asked = [Told(RefChange(MAIN, A, B), "first"), Told(RefChange(MAIN, B, C), "second")]
    lines, _ = lines_of(FetchResult(changes=(RefChange(MAIN, A, C),)), asked, {MAIN: C}, {}, NONE)
    assert [(line.old, line.new, line.reason) for line in lines] == [(A, C, "first"), (A, C, "second")]


def test_a_push_that_was_here_already_is_answered_as_unchanged() -> None:
    lines, _ = lines_of(NOTHING, [Told(RefChange(MAIN, A, B), "late")], {MAIN: B}, {}, NONE)
    assert lines == [LogLine(MAIN, A, B, "unchanged", "", "late")]
    lines, _ = lines_of(NOTHING, [Told(RefChange(MAIN, A, ZERO_ID), "late")], {}, {}, NONE)
    assert lines == [LogLine(MAIN, A, ZERO_ID, "unchanged", "", "late")]


def test_a_forged_push_is_not_repeated() -> None:
    assert lines_of(NOTHING, [Told(RefChange(MAIN, A, C), "forged")], {MAIN: A}, {}, NONE) == ([], {})


def test_a_failed_fetch_is_said_to_whoever_asked_and_to_nobody_else() -> None:
    error = OriginError("the origin\nis away")
    lines, said = lines_of(error, [Told(RefChange(MAIN, A, B), "push"), Told(None, "")], {MAIN: A}, {}, NONE)
    assert lines == [LogLine(MAIN, A, A, "failed", "the origin is away", "push")], "what is held, not what is claimed"
    assert lines_of(error, [], {MAIN: A}, {}, said) == ([], {})


def test_a_ref_that_moved_but_whose_directory_did_not_is_no_success() -> None:
    trouble = {MAIN: Trouble("failed", "checkout /x: no space left")}
    result = FetchResult(changes=(RefChange(MAIN, A, B),))
    lines, said = lines_of(result, [Told(RefChange(MAIN, A, B), "push")], {MAIN: B}, trouble, NONE)
    assert lines == [LogLine(MAIN, A, B, "failed", "checkout /x: no space left", "push")]
    assert lines_of(NOTHING, [], {MAIN: B}, trouble, said)[0] == [], "said once"
    other = {MAIN: Trouble("refused", "checkout /x: a real file")}
    assert [line.outcome for line in lines_of(NOTHING, [], {MAIN: B}, other, said)[0]] == ["refused"]
    lines, said = lines_of(NOTHING, [], {MAIN: B}, {}, said)
    assert [(line.old, line.new, line.outcome) for line in lines] == [(B, B, "unchanged")]
    assert said == {}


def test_a_change_a_policy_refuses_is_said_once_and_to_each_that_asks() -> None:
    refused = FetchResult(refused=(Refusal(MAIN, B, A, "it is not a fast-forward"),))
    lines, said = lines_of(refused, [], {MAIN: B}, {}, NONE)
    assert lines == [LogLine(MAIN, B, A, "refused", "it is not a fast-forward", "")]
    assert lines_of(refused, [], {MAIN: B}, {}, said) == ([], said)
    again, _ = lines_of(refused, [Told(RefChange(MAIN, B, A), "push")], {MAIN: B}, {}, said)
    assert [line.reason for line in again] == ["push"]
    further = FetchResult(refused=(Refusal(MAIN, B, C, "it is not a fast-forward"),))
    assert [line.new for line in lines_of(further, [], {MAIN: B}, {}, said)[0]] == [C]


def test_a_ref_whose_name_no_message_may_carry_is_worded_once_for_people() -> None:
    """However its name begins: what is shown of it may look like the name of another ref."""
    refused = FetchResult(refused=(Refusal(None, None, None, "not a name", shown=str(MAIN)),))
    assert lines_of(refused, [], {MAIN: A}, {}, NONE) == ([], {})
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
    lines, said = lines_of(refused, [], held, {}, NONE)
    here = held.get(MAIN, ZERO_ID)
    assert lines[1:] == [LogLine(MAIN, here, here, "refused", "without an object", "")]
    assert lines[0] == LogLine(TOPIC, ZERO_ID, C, "updated", "", "")
    assert lines_of(FetchResult(refused=refused.refused), [], held, {}, said)[0] == []


def test_trouble_with_a_ref_that_is_gone_is_not_called_mended() -> None:
    said: Said = {MAIN: (Trouble("failed", "x"), B)}
    assert lines_of(FetchResult(changes=(RefChange(MAIN, B, ZERO_ID),)), [], {}, {}, said) == (
        [LogLine(MAIN, B, ZERO_ID, "updated", "", "")],
        {},
    )
