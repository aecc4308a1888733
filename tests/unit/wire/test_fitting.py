"""Messages that are cut to fit: what is kept, what is never cut, and that nothing that was seen costs the message."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, get_args

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploykit.errors import MessageError
from deploykit.messages import (
    BY_TYPE,
    Commit,
    DeployReported,
    DeployRequested,
    Message,
    NodeDescribed,
    RevisionCommitted,
    StepReport,
)
from deploykit.names import NodeName, ObjectId, RefName, SiteName, parse_ref_name, parse_repo_name
from deploykit.testing import strategies
from deploykit.wire import CONTENT_TYPE, decode, encode, encode_fitted, field_types
from deploykit.wire.fitting import LEAST, shortened
from deploykit.wire.strictjson import MAX_BODY, MAX_ITEMS

COMMIT = ObjectId("ab" * 20)


def report(**more: Any) -> DeployReported:
    said: dict[str, Any] = {"request": "r1", "answers": "cd" * 32, "release": "00001-v1-abababababab"} | more
    return DeployReported(
        node=NodeName("web1"),
        site=SiteName("shop"),
        phase="deploy",
        outcome="success",
        ref=RefName("refs/tags/v1"),
        commit=COMMIT,
        **said,
    )


def read_back(message: Message) -> Any:
    """What a reader gets of a message that may be cut."""
    frame = encode_fitted(message)
    assert len(frame.body) <= MAX_BODY
    return decode({"content-type": CONTENT_TYPE}, frame.body)


# -- a report of any length -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("character", ["\x01", "x", "\\", "ß", "😀", "\ud800", "\n"], ids=ascii)
def test_outputs_are_cut_until_the_report_fits_escapes_counted(character: str) -> None:
    steps = tuple(StepReport(name=f"s{n}", outcome="done", output=character * 700_000 + "the end") for n in range(4))
    got = read_back(report(steps=steps, detail="why " * 100_000))
    assert len(encode_fitted(report(steps=steps)).body) > 0.99 * MAX_BODY, "and no shorter than they must be"
    for step in got.steps:
        assert step.output.endswith("the end")
        assert "characters left out" in step.output
    assert (got.answers, got.release, got.commit) == ("cd" * 32, "00001-v1-abababababab", COMMIT)


def test_of_outputs_that_must_be_cut_short_ones_stay_whole_and_long_ones_get_the_same() -> None:
    outputs = ("short", "y" * 2000, "\x01" * 65_536, "\x02" * 200_000, "\x03" * 900_000)
    steps = tuple(StepReport(name=f"s{n}", outcome="done", output=text) for n, text in enumerate(outputs))
    first, second, *cut = [step.output for step in read_back(report(steps=steps)).steps]
    assert (first, second) == outputs[:2]
    assert max(map(len, cut)) - min(map(len, cut)) <= 3, "the same share for each"
    assert encode_fitted(report(id="1", time=NOW, steps=steps)) == encode_fitted(report(id="1", time=NOW, steps=steps))


def test_of_more_steps_than_a_message_may_list_the_last_are_told() -> None:
    steps = tuple(StepReport(name=f"s{n}", outcome="done", output="\x01" * 5000) for n in range(5000))
    names = [step.name for step in read_back(report(steps=steps)).steps]
    assert names == [f"s{n}" for n in range(5000 - len(names), 5000)]
    assert len(names) > 200


def test_a_message_that_fits_is_written_as_it_is() -> None:
    message = report(steps=(StepReport(name="s", outcome="done", output="\x01" * 100_000),))
    assert encode_fitted(message) == encode(message)


def test_a_file_name_that_is_no_text_costs_a_letter_and_not_the_report() -> None:
    with pytest.raises(MessageError):
        encode(report(steps=(StepReport(name="export", outcome="failed", output="cannot write \udcff"),)))
    got = read_back(report(steps=(StepReport(name="export", outcome="failed", output="cannot write \udcff"),)))
    assert got.steps[0].output == "cannot write ?"


# -- the other messages ------------------------------------------------------------------------------------------------


def test_a_push_and_a_revision_keep_the_newest_and_the_first() -> None:
    from deploykit.messages import RefUpdated

    repo = parse_repo_name("shop")
    commits = tuple(
        Commit(id=ObjectId(f"{n:040x}"), author="\x01" * 9000, time="", message="\x01" * 9000) for n in range(3000)
    )
    pushed = RefUpdated(
        repo=repo, ref=parse_ref_name("refs/heads/main"), old=COMMIT, new=COMMIT, commits=commits, commit_count=3000
    )
    got = read_back(pushed)
    assert [commit.id for commit in got.commits] == [commit.id for commit in commits[: len(got.commits)]]
    assert got.commit_count == 3000
    revision = RevisionCommitted(repo=repo, revision=7, dirs=tuple(f"{n}/{'ß' * 900}" for n in range(5000)))
    assert read_back(revision).dirs[0].startswith("0/")


def test_what_a_machine_acts_on_is_refused_and_never_cut() -> None:
    audience = tuple(NodeName(f"n{n}") for n in range(MAX_ITEMS + 1))
    asked = DeployRequested(
        site=SiteName("shop"), ref=RefName("refs/tags/v1"), commit=COMMIT, audience=audience, expires=NOW
    )
    with pytest.raises(MessageError, match="audience"):
        encode_fitted(asked)
    with pytest.raises(MessageError, match="ref"):
        encode_fitted(attrs.evolve(report(steps=()), ref=RefName("x" * 2_000_000)))
    with pytest.raises(MessageError, match="over the limit"):
        encode_fitted(NodeDescribed(node=NodeName("web1"), facts={"a": "x" * MAX_BODY}))


NOW = datetime(2026, 1, 1, tzinfo=UTC)

long_texts = st.builds(
    lambda unit, times, end: unit * times + end,
    st.sampled_from(("\x01", "x", '"', "\\", "é", "😀", "\ud800", "\udcff", "\r\n", "\x1b[2J", "ﷺ", "\u2028")),
    st.sampled_from((0, 1, 300, 30_000)),
    strategies.texts(),
)


@pytest.mark.parametrize("cls", BY_TYPE.values(), ids=lambda c: c.__name__)
@settings(max_examples=5, deadline=None)
@given(st.data())
def test_no_message_with_hostile_texts_and_lists_of_any_length_is_too_long_to_be_said(
    cls: type[Message], data: st.DataObject
) -> None:
    """Each class: every free text may be of any length, and every list of texts or records, too."""
    message = attrs.evolve(data.draw(strategies.records(cls)), extra={})
    changed: dict[str, Any] = {}
    for field in attrs.fields(cls):
        value = getattr(message, field.name)
        if field.type is str and field.name not in ("id", "source", "correlation_id", "password"):
            changed[field.name] = data.draw(long_texts)
        elif field.name in ("commits", "steps", "sites", "refs", "dirs", "projects", "classes"):
            (item, *_) = get_args(field.type)
            one = data.draw(long_texts if item is str else nested(item).map(lengthened))
            changed[field.name] = (one,) * data.draw(st.sampled_from((1, 40, 1500))) + tuple(value)
    hostile = attrs.evolve(message, **changed)
    got = read_back(hostile)
    for field in attrs.fields(cls):
        if field.name not in changed:
            assert getattr(got, field.name) == getattr(hostile, field.name)


def nested(cls: type) -> st.SearchStrategy[Any]:
    """Records of a class that stands inside messages."""
    return strategies._by_type(field_types.field_type(cls))


def lengthened(record: Any) -> Any:
    """Make the free texts of a nested record long."""
    texts = {f.name: "\x01" * 3000 for f in attrs.fields(type(record)) if f.type is str}
    return attrs.evolve(record, **texts, extra={})


@given(st.text(max_size=2000), st.integers(LEAST, 2500))
def test_a_cut_text_has_its_share_and_says_how_much_is_missing(text: str, room: int) -> None:
    cut = shortened(text, room)
    assert len(cut) <= room
    if cut == text:
        return
    head, _, rest = cut.partition("[... ")
    lost, _, tail = rest.partition(" characters left out ...]")
    assert len(head[:-1]) + int(lost) + len(tail[1:]) == len(text)
    assert text.startswith(head[:-1])
    assert text.endswith(tail[1:])
    assert len(tail) > 2 * len(head)
