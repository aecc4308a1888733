"""The outbox against a list: whatever is put, settled, buried and retried, in whatever order, from several openers."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import HealthCheck, given, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from deploykit.errors import OutboxError
from deploykit.outbox import Outbox, Outgoing, Record
from deploykit.outbox.format import Malformed, pack, parse_envelope, parse_head
from deploykit.wire.frame import Frame

_TEXT = st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]), max_size=20)
_FRAMES = st.builds(Frame, st.dictionaries(_TEXT, _TEXT, max_size=3), st.binary(max_size=200))
_OUTGOING = st.builds(Outgoing, st.sampled_from(["/topic/a", "/topic/b", "/queue/\N{SNOWMAN}"]), _FRAMES)


class OutboxMachine(RuleBasedStateMachine):
    """`waiting` and `dead` are what the outbox should hold."""

    @initialize(openers=st.integers(1, 3))
    def open(self, openers: int) -> None:
        self.place = tempfile.mkdtemp()
        self.boxes = [Outbox(self.place + "/spool") for _ in range(openers)]
        self.waiting: list[tuple[str, Outgoing]] = []
        self.dead: list[tuple[str, Outgoing, str]] = []

    def teardown(self) -> None:
        shutil.rmtree(self.place)

    def record(self, data: st.DataObject) -> tuple[int, Record, Outbox]:
        box = data.draw(st.sampled_from(self.boxes), "box")
        index = data.draw(st.integers(0, len(self.waiting) - 1), "record")
        return index, next(r for r in box.pending() if r.id == self.waiting[index][0]), box

    @rule(data=st.data(), items=st.lists(_OUTGOING, max_size=4))
    def put(self, data: st.DataObject, items: list[Outgoing]) -> None:
        ids = data.draw(st.sampled_from(self.boxes), "box").put_many(items)
        self.waiting += zip(ids, items, strict=True)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        index, record, box = self.record(data)
        box.ack(record)
        del self.waiting[index]
        box.ack(record)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), reason=st.text(max_size=30))
    def bury(self, data: st.DataObject, reason: str) -> None:
        index, record, box = self.record(data)
        record_id = box.dead_letter(record, reason)
        self.dead.append((record_id, self.waiting.pop(index)[1], " ".join(reason.split())))

    @precondition(lambda self: self.dead)
    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.dead) - 1))
        box = data.draw(st.sampled_from(self.boxes), "box")
        old_id, item, _ = self.dead.pop(index)
        self.waiting.append((box.retry(box.find(old_id)), item))

    @precondition(lambda self: self.dead)
    @rule(data=st.data())
    def drop_dead(self, data: st.DataObject) -> None:
        record_id, _, _ = self.dead.pop(data.draw(st.integers(0, len(self.dead) - 1)))
        box = data.draw(st.sampled_from(self.boxes), "box")
        box.ack(box.find(record_id))

    @invariant()
    def holds_what_it_should(self) -> None:
        for box in self.boxes:
            found = [(r.id, Outgoing(r.destination, r.frame)) for r in box.pending()]
            assert found == self.waiting
            dead = {(r.id, r.frame.body, r.reason) for r in box.dead()}
            assert dead == {(i, item.frame.body, reason) for i, item, reason in self.dead}
            assert list(box.set_aside()) == []


TestOutbox = OutboxMachine.TestCase
TestOutbox.settings = settings(
    max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


@given(items=st.lists(_OUTGOING, min_size=1, max_size=4), cut=st.data())
@settings(deadline=None)
def test_a_file_that_is_cut_or_changed_anywhere_is_never_taken_for_whole(
    items: list[Outgoing], cut: st.DataObject
) -> None:
    data = pack(items)
    where = cut.draw(st.integers(0, len(data) - 1), "where")
    flipped = bytearray(data)
    flipped[where] ^= cut.draw(st.integers(1, 255), "bits")
    with tempfile.TemporaryDirectory() as place:
        box = Outbox(place + "/spool")
        for name, content in (("1", data[:where]), ("2", bytes(flipped)), ("3", data)):
            Path(box.path, f"{name.zfill(20)}-00000000.rec").write_bytes(content)
        found = [(r.id.partition("-")[0][-1], Outgoing(r.destination, r.frame)) for r in box.pending()]
        assert found == [("3", item) for item in items]
        assert len(list(box.set_aside())) == 2


@given(st.binary(max_size=300))
def test_random_bytes_are_malformed_or_understood(data: bytes) -> None:
    for parse in (parse_head, parse_envelope):
        try:
            parse(data)
        except Malformed:
            continue


@given(_OUTGOING)
def test_what_pack_takes_parse_gives_back(item: Outgoing) -> None:
    try:
        data = pack([item])
    except OutboxError:
        return
    head = parse_head(data)
    assert (head.records, head.size) == (1, len(data) - head.length)
    line, _, rest = data[head.length :].partition(b"\n")
    envelope = parse_envelope(line)
    assert (envelope.destination, envelope.headers) == (item.destination, item.frame.headers)
    assert rest[: envelope.body] == item.frame.body
