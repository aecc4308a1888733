"""The receipt table by itself: order, bounds, deadlines, resending, suspects."""

from __future__ import annotations

import threading
import time

import pytest

from deploykit.bus.events import Counters
from deploykit.bus.receipt import Batch, answers_here
from deploykit.bus.suspects import SHUT, MessageState
from deploykit.bus.unconfirmed import PendingPublish, UnconfirmedPublishes
from deploykit.errors import BusClosed, BusError, PublishError, PublishRefused
from deploykit.wire.frame import Frame


class Book:
    """A ledger and what came of each message."""

    def __init__(self, window: int = 100, in_flight: int = 10, window_bytes: int = 10**9) -> None:
        self.counters = Counters()
        self.ledger = UnconfirmedPublishes(
            window=window, in_flight=in_flight, window_bytes=window_bytes, counters=self.counters, on_settled=None
        )
        self.outcomes: dict[str, BusError | None] = {}

    def add(
        self,
        name: str,
        *,
        to: str = "/queue/q",
        deadline: float = float("inf"),
        body: bytes = b"",
    ) -> None:
        self.ledger.add(
            to,
            Frame({}, body),
            id=name,
            persistent=True,
            expires=None,
            deadline=deadline,
            done=lambda error: self.outcomes.__setitem__(name, error),
            wait_until=deadline,
        )

    def write(self) -> list[PendingPublish]:
        written = []
        while (entry := self.ledger.next_unsent()) is not None:
            written.append(entry)
        return written

    def confirm(self, entries: list[PendingPublish]) -> None:
        self.ledger.confirm([str(entry.seq).encode() for entry in entries])


def names(entries: list[PendingPublish]) -> list[str]:
    return [entry.id for entry in entries]


def test_the_order_of_calls_is_the_order_of_sends_and_resends() -> None:
    book = Book()
    for name in "abcde":
        book.add(name)
    first = book.write()
    assert names(first) == list("abcde")
    book.confirm([first[1], first[3]])
    book.ledger.connection_lost(by_broker=False)
    book.add("f")
    again = book.write()
    assert names(again) == list("acef")
    assert [entry.seq for entry in again[:3]] == [first[0].seq, first[2].seq, first[4].seq]
    assert book.counters.resent == 3
    book.confirm(again)
    assert set(book.outcomes) == set("abcdef")
    assert not any(book.outcomes.values())
    assert len(book.ledger) == 0


def test_no_more_than_the_bound_is_in_flight_and_it_is_filled_again_from_half() -> None:
    book = Book(in_flight=10)
    for number in range(30):
        book.add(str(number))
    first = book.write()
    assert len(first) == 10
    book.confirm(first[:4])
    assert book.write() == []
    book.confirm(first[4:5])
    assert names(book.write()) == [str(n) for n in range(10, 15)]
    assert book.ledger.in_flight == 10


def test_an_overdue_message_is_settled_on_time_and_not_sent() -> None:
    book = Book()
    book.add("late", deadline=5.0)
    book.add("fine", deadline=9.0)
    assert book.ledger.expire(4.9, lambda _: "") == 5.0
    assert book.ledger.expire(5.0, lambda _: "why") == 9.0
    assert isinstance(book.outcomes["late"], PublishError)
    assert "why" in str(book.outcomes["late"])
    assert names(book.write()) == ["fine"]


def test_a_receipt_after_the_deadline_is_counted_and_harmless() -> None:
    book = Book()
    book.add("late", deadline=5.0)
    entries = book.write()
    book.ledger.expire(6.0, lambda _: "")
    book.confirm(entries)
    assert book.counters.late_receipts == 1
    assert book.ledger.in_flight == 0


def test_room_is_given_by_receipts_to_those_who_wait() -> None:
    book = Book(window=2)
    book.add("a")
    book.add("b")
    waiting = threading.Thread(target=lambda: book.add("c", deadline=time.monotonic() + 60))
    waiting.start()
    time.sleep(0.05)
    assert waiting.is_alive()
    book.confirm(book.write()[:1])
    waiting.join(60)
    assert not waiting.is_alive()
    with pytest.raises(PublishError, match="no room"):
        book.add("d", deadline=time.monotonic() + 0.05)


def test_who_makes_the_room_does_not_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def wait(timeout: float) -> bool:
        raise AssertionError(f"waited for {timeout} s")

    book = Book(window=1)
    book.add("a")
    monkeypatch.setattr(book.ledger._room, "wait", wait)
    raised: list[BaseException] = []

    def the_buss_own_thread() -> None:
        answers_here()
        try:
            book.add("b", deadline=time.monotonic() + 60)
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=the_buss_own_thread)
    thread.start()
    thread.join(60)
    assert [str(error)[:40] for error in raised if isinstance(error, PublishError)] == [
        "1 messages wait for the broker's receipt"
    ]


def test_the_window_counts_bytes_too() -> None:
    book = Book(window_bytes=10_000)
    book.add("a", body=b"x" * 20_000)
    with pytest.raises(PublishError, match="no room"):
        book.add("b", deadline=time.monotonic() + 0.05)


def test_closing_settles_everything_and_refuses_what_comes_after() -> None:
    book = Book()
    book.add("a")
    book.ledger.close(BusClosed("closed"))
    assert isinstance(book.outcomes["a"], BusClosed)
    with pytest.raises(BusClosed):
        book.add("b")


def test_a_suspect_is_sent_alone_and_given_up_after_so_many_connections() -> None:
    book = Book()
    for name in ("poison", "b", "c"):
        book.add(name, to=f"/queue/{name}")
    sizes = []
    for _ in range(MessageState.GIVEN_UP):
        if book.ledger.careful:
            assert book.write() == [], "not before the connection has proved to work"
            assert (book.ledger.needs_proof(), book.ledger.needs_proof()) == (True, False)
        book.ledger.proved()
        sizes.append(len(book.write()))
        book.ledger.connection_lost(by_broker=True)
    assert sizes == [3, 3, 1, 1, 1]
    assert isinstance(book.outcomes["poison"], PublishRefused)
    assert book.ledger.in_flight == 0
    book.ledger.proved()
    for name in ("b", "c"):  # they were out when connections ended, so they are looked at, too
        rest = book.write()
        assert names(rest) == [name]
        book.confirm(rest)


def test_all_that_was_out_is_sent_one_by_one_or_each_innocent_would_cost_connections() -> None:
    book = Book(window=1000, in_flight=256)
    for n in range(300):
        book.add(f"{'poison ' * (n in (100, 200))}{n}", to=f"/queue/{n}")
    connections = 0
    while len(book.ledger) and connections < 100:
        book.ledger.proved()
        while (written := book.write()) and not any("poison" in name for name in names(written)):
            book.confirm(written)
        connections += bool(written)
        book.ledger.connection_lost(by_broker=bool(written))
    assert connections == 2 + 3 + 3  # two before anything is suspected, and three for each
    assert sum(outcome is None for outcome in book.outcomes.values()) == 298


def test_a_destination_over_which_every_connection_ends_is_shut_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("deploykit.bus.unconfirmed.monotonic", lambda: now)
    book = Book()

    def kill() -> None:
        book.ledger.proved()
        while (written := book.write()) and written[0].destination != "/queue/full":
            book.confirm(written)
        book.ledger.connection_lost(by_broker=True)

    for n in range(50):
        book.add(f"full-{n}", to="/queue/full")
        book.add(f"free-{n}", to="/queue/free")
    for _ in range(MessageState.GIVEN_UP + 1):
        kill()
    assert isinstance(book.outcomes["full-0"], PublishRefused)
    assert isinstance(book.outcomes["full-1"], PublishRefused)
    assert all(type(book.outcomes[f"full-{n}"]) is PublishError for n in range(2, 50))
    with pytest.raises(PublishError, match="/queue/full"):
        book.add("later", to="/queue/full")
    book.ledger.proved()
    while written := book.write():
        book.confirm(written)
    assert all(book.outcomes[f"free-{n}"] is None for n in range(50))
    assert not book.ledger.careful
    now = SHUT + 1
    book.add("x", to="/queue/full")
    kill()
    assert isinstance(book.outcomes["x"], PublishRefused)
    now = 2 * SHUT + 2
    book.add("y", to="/queue/full")
    book.ledger.proved()
    book.confirm(book.write())
    book.add("z", to="/queue/full")
    assert names(book.write()) == ["z"]
    assert book.outcomes["y"] is None
    assert not book.ledger.careful, "it works again"


def test_an_innocent_first_message_is_cleared_and_the_next_one_suspected() -> None:
    book = Book()
    for name in ("innocent", "poison", "c"):
        book.add(name)
    for _ in range(MessageState.GIVEN_UP * 3):
        book.ledger.proved()
        written = book.write()
        while written and written[-1].id != "poison" and "poison" not in names(written):
            book.confirm(written)
            written = book.write()
        if "poison" not in names(written):
            break
        book.ledger.connection_lost(by_broker=True)
    assert book.outcomes["innocent"] is None
    assert isinstance(book.outcomes["poison"], PublishRefused)


def test_losses_of_the_network_raise_no_suspicion() -> None:
    book = Book()
    book.add("a")
    for _ in range(MessageState.GIVEN_UP * 3):
        assert names(book.write()) == ["a"]
        book.ledger.connection_lost(by_broker=False)
    assert not book.ledger.careful


def test_a_bad_line_that_ends_every_connection_before_its_proof_is_no_messages_fault() -> None:
    book = Book()
    book.add("a")
    for _ in range(MessageState.GIVEN_UP * 3):
        book.write()
        book.ledger.connection_lost(by_broker=True)
    assert book.ledger.careful
    book.ledger.proved()
    book.confirm(book.write())
    assert book.outcomes == {"a": None}


def test_receipts_of_others_are_handed_back() -> None:
    book = Book()
    assert book.ledger.confirm([b"sub-1", b"12"]) == [b"sub-1"]


def test_a_batch_waits_for_all_and_keeps_each_outcome() -> None:
    batch = Batch()
    first, second = batch.expect(), batch.expect()
    problem = PublishError("no")
    threading.Timer(0.05, first, [None]).start()
    threading.Timer(0.1, second, [problem]).start()
    assert batch.wait(60)
    assert batch.outcomes == [None, problem]
    assert Batch().wait(0.1)


def test_a_batch_gives_up_in_time() -> None:
    batch = Batch()
    batch.expect()
    assert not batch.wait(0.05)


@pytest.mark.parametrize("call", ["proved", "needs_proof"])
def test_what_the_bus_sees_waits_for_what_a_caller_is_noting(call: str) -> None:
    """Both change how messages are sent; one that read before the other wrote would undo it."""
    book = Book()
    done = threading.Event()

    def see() -> None:
        getattr(book.ledger, call)()
        done.set()

    with book.ledger._lock:
        threading.Thread(target=see, daemon=True).start()
        assert not done.wait(0.1)
    assert done.wait(60)
