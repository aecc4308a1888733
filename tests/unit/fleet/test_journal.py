"""A journal gives back what was written, refuses what is no record, and any beginning of it can be gone on from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from deploykit.errors import DeploykitError, JournalDamaged, RolloutError
from deploykit.fleet.commands import CommandMaker, SentCommand
from deploykit.fleet.journal import (
    AbortRecord,
    CommandRecord,
    DoubtRecord,
    EndRecord,
    EventRecord,
    JournalContents,
    JournalHead,
    JournalRecord,
    RolloutJournal,
    decode_record,
    encode_record,
    journal_path,
    read_journal,
    read_summary,
)
from deploykit.fleet.plan import Plan, RolloutOptions, Target, make_plan
from deploykit.fleet.replay import replay
from deploykit.fleet.rollout import NodeAnswered, RolloutModel, outstanding_asks, start, step
from deploykit.fleet.rolloutevents import AbortAsked, Ask
from deploykit.messages import BuildEvidence
from deploykit.names import NodeName, ObjectId, RefName, SiteName
from deploykit.trust.signature import SigningKey

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
BEGUN = NOW.timestamp()
KEY = SigningKey.generate()
PLAN = make_plan(
    site=SiteName("shop"),
    nodes=[NodeName(f"web{n}") for n in range(1, 4)],
    target=Target(ref=RefName("refs/tags/v1"), commit=ObjectId("ab" * 20)),
    options=RolloutOptions(timeout=60.0),
    rollout="shop-1",
)
HEAD = JournalHead(plan=PLAN, begun=BEGUN, evidence=(BuildEvidence(body="Ym9keQ==", signature="c2ln"),))
MAKER = CommandMaker(
    rollout="shop-1",
    site=PLAN.site,
    requested_by="ada",
    correlation_id="c",
    key=KEY,
    expires_in=timedelta(minutes=1),
)


def story(plan: Plan = PLAN) -> tuple[list[JournalRecord], list[RolloutModel]]:
    """Return the journal of a rollout that succeeds, and its models; each with those of all beginnings."""
    model, actions = start(plan, BEGUN)
    records: list[JournalRecord] = [CommandRecord(command=command) for command in commands(actions)]
    models = [model]
    at = BEGUN
    while not model.ended:
        at += 1.0
        node, phase = next(iter(model.outstanding.items()))
        event = NodeAnswered(node=node, phase=phase, outcome="success")
        model, actions = step(plan, model, event, at)
        records.append(EventRecord(at=at, event=event))
        records += [CommandRecord(command=command) for command in commands(actions)]
        models.append(model)
    records.append(EndRecord(state=model.state, at=at, exit_code=0, counts={"active": 3}))
    return records, models


def commands(actions: Sequence[object]) -> list[SentCommand]:
    return [
        command
        for action in actions
        if isinstance(action, Ask)
        for command in MAKER.deploys(action.phase, action.target, action.nodes, NOW)
    ]


RECORDS: list[JournalRecord] = [
    EventRecord(at=BEGUN + 1, event=AbortAsked(by="ada", rollback=True), control="1-a.json"),
    *[
        CommandRecord(command=command)
        for command in MAKER.deploys(
            "deploy", Target(ref=RefName("refs/tags/v1"), commit=ObjectId("ab" * 20)), PLAN.nodes, NOW
        )
    ],
    AbortRecord(abort=MAKER.abort("why", NOW)),
    DoubtRecord(node=NodeName("web1"), reason="not signed: ü"),
    EndRecord(state="aborted", at=BEGUN + 2, exit_code=1, counts={"active": 1, "skipped": 2}),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_a_record_comes_back_as_it_was(record: JournalRecord) -> None:
    assert decode_record(json.loads(json.dumps(encode_record(record)))) == record


def test_a_command_comes_back_byte_for_byte() -> None:
    record = RECORDS[1]
    assert isinstance(record, CommandRecord)
    again = decode_record(json.loads(json.dumps(encode_record(record))))
    assert isinstance(again, CommandRecord)
    assert again.command.frame.body == record.command.frame.body
    assert dict(again.command.frame.headers) == dict(record.command.frame.headers)


def test_a_journal_is_read_back(tmp_path: Path) -> None:
    with RolloutJournal.create(tmp_path, HEAD) as journal:
        journal.append(RECORDS)
        assert read_journal(journal.path) == JournalContents(head=HEAD, records=tuple(RECORDS))
        assert read_summary(journal.path) == (HEAD, RECORDS[-1])
    with RolloutJournal.open(journal_path(tmp_path, "shop-1")) as again:
        assert again.contents.records == tuple(RECORDS)


def test_without_an_end_a_summary_has_none(tmp_path: Path) -> None:
    with RolloutJournal.create(tmp_path, HEAD) as journal:
        assert read_summary(journal.path) == (HEAD, None)
        journal.append(RECORDS[:2])
        assert read_summary(journal.path) == (HEAD, None)


def test_from_every_beginning_a_rollout_stands_where_it_stood() -> None:
    records, models = story()
    events = 0
    for count in range(len(records) + 1):
        if count and isinstance(records[count - 1], EventRecord):
            events += 1
        replayed = replay(JournalContents(head=HEAD, records=tuple(records[:count])))
        assert replayed.model == models[events]
        assert (replayed.end is not None) == (count == len(records))


def test_what_was_asked_and_not_answered_has_its_command_and_nothing_else_is_wanted() -> None:
    records, _ = story()
    for count in range(len(records) + 1):
        replayed = replay(JournalContents(head=HEAD, records=tuple(records[:count])))
        for ask in outstanding_asks(PLAN, replayed.model):
            for node in ask.nodes:
                command = replayed.book.usable(node, ask, NOW)
                written = any(
                    isinstance(record, CommandRecord)
                    and record.command.request.phase == ask.phase
                    and node in record.command.request.audience
                    for record in records[:count]
                )
                assert (command is not None) == written
                if command is not None:
                    assert replayed.book.wanted(node, command.request.id) is command
                    assert replayed.book.usable(node, ask, NOW + timedelta(hours=1)) is None
    assert replayed.model.ended
    first = next(record for record in records if isinstance(record, CommandRecord))
    assert all(replayed.book.wanted(node, first.command.request.id) is None for node in PLAN.nodes)


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"unknown": 1},
        {"event": {}, "at": 1.0},
        {"event": encode_record(RECORDS[0])["event"], "at": "soon"},
        {"command": {}},
        {"command": {"headers": {}, "body": "%%%"}},
        {"command": {"headers": {"a": 1}, "body": ""}},
        {"command": {"headers": {}, "body": ""}},
        {"abort": encode_record(RECORDS[1])["command"]},
        {"command": encode_record(RECORDS[2])["abort"]},
        {"doubt": {"node": "../..", "reason": ""}},
        {"end": {}},
        {"end": {"state": "done", "at": 1.0, "exit_code": 0, "counts": {}}},
    ],
)
def test_what_is_no_record_is_refused_and_its_line_is_named(tmp_path: Path, value: dict[str, object]) -> None:
    with pytest.raises((DeploykitError, ValueError, TypeError, KeyError)):
        decode_record(value)
    with RolloutJournal.create(tmp_path, HEAD) as journal:
        journal.append(RECORDS[:1])
        with journal.path.open("a") as file:
            file.write(json.dumps(value) + "\n")
        with pytest.raises(JournalDamaged, match=r"journal\.jsonl: line 3"):
            read_journal(journal.path)


@pytest.mark.parametrize("rollout", ["", ".", "..", "../x", "a/b", ".hidden", "-x", "a\n", "x" * 300, "ü"])
def test_an_id_that_is_no_name_of_a_directory_is_refused(tmp_path: Path, rollout: str) -> None:
    with pytest.raises(RolloutError, match="no id of a rollout"):
        journal_path(tmp_path, rollout)


def test_a_journal_whose_events_do_not_fit_its_plan_changes_nothing() -> None:
    stray = EventRecord(at=BEGUN, event=NodeAnswered(node=NodeName("web9"), phase="prepare", outcome="success"))
    model, _ = start(PLAN, BEGUN)
    assert replay(JournalContents(head=HEAD, records=(stray,))).model == model


@pytest.mark.parametrize("begun", ["Infinity", "NaN", "-1", "1e300", "1" + "0" * 400])
def test_a_time_that_is_no_date_damages_the_journal(tmp_path: Path, begun: str) -> None:
    with RolloutJournal.create(tmp_path, HEAD) as journal:
        pass
    text = journal.path.read_text()
    journal.path.write_text(text.replace(f'"begun":{BEGUN}', f'"begun":{begun}'))
    assert journal.path.read_text() != text
    for read in (read_journal, read_summary):
        with pytest.raises(JournalDamaged, match="line 1 is damaged"):
            read(journal.path)


@pytest.mark.parametrize("end", ['"at":1e300,"exit_code":1,"counts":{}', '"at":1,"exit_code":1,"counts":{"x":1e999}'])
def test_an_end_with_numbers_that_are_none_damages_the_journal(tmp_path: Path, end: str) -> None:
    with RolloutJournal.create(tmp_path, HEAD) as journal:
        pass
    with journal.path.open("a") as file:
        file.write(f'{{"end":{{"state":"failed",{end}}}}}\n')
    for read in (read_journal, read_summary):
        with pytest.raises(JournalDamaged, match="line 2 is damaged"):
            read(journal.path)


@pytest.mark.parametrize(
    ("field", "value"), [("rollout", "../../x"), ("rollout", "\x1b[31m"), ("requested_by", "\ud800")]
)
def test_a_hostile_plan_is_no_plan(tmp_path: Path, field: str, value: str) -> None:
    with RolloutJournal.create(tmp_path, HEAD) as journal:
        pass
    head = json.loads(journal.path.read_text())
    head["plan"][field] = value
    journal.path.write_text(json.dumps(head) + "\n")
    with pytest.raises(JournalDamaged) as caught:
        read_journal(journal.path)
    assert str(caught.value).isprintable()
