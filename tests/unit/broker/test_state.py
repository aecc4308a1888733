"""Bounds of the embedded broker's state that no client can see."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from deploykit.broker.core import BrokerCore
from deploykit.broker.fault_state import FaultState
from deploykit.broker.frames import StompFrame
from deploykit.broker.routing import Router, dead_letter_queue, durable_key
from deploykit.broker.state import BrokerLimits, Queue, QueueEntry, StoredMessage


def _message(size: int = 0, expires: float | None = None) -> StoredMessage:
    return StoredMessage(destination="/queue/a", headers={}, body=b"x" * size, expires=expires)


def test_expired_messages_leave_nothing_behind_in_a_queue_that_nobody_reads() -> None:
    queue = Queue(key="/queue/a", destination="/queue/a", limits=BrokerLimits())
    kept = QueueEntry(seq=0, message=_message())
    queue.add(kept)
    for seq in range(1, 10_000):
        queue.add(QueueEntry(seq=seq, message=_message(expires=1.0)))
        for entry in queue.expired(2.0):
            queue.settle(entry)
    assert (queue.count, queue.expiring) == (1, 0)
    assert len(queue._ready) < 100
    assert queue.take() is kept


def test_one_step_makes_no_more_output_for_a_client_than_the_high_water_mark() -> None:
    limits = BrokerLimits(high_water=10_000)
    router = Router(limits=limits, faults=FaultState(), keep=False, epoch="e", first_seq=1, record=0)
    core = BrokerCore(router=router, users=None, limits=limits, faults=FaultState(), server="test")
    session = core.open_session()
    core.handle(session, StompFrame(command="CONNECT"), 0.0)
    core.handle(session, StompFrame(command="SUBSCRIBE", headers={"destination": "/queue/a"}), 0.0)
    for _ in range(100):
        router.publish(_message(1000), 0.0)
    assert 10_000 <= session.unflushed < 12_000
    assert router.queues["/queue/a"].count == 100 - sum(frame.command == "MESSAGE" for frame in session.output)


def test_the_size_of_messages_bounds_a_queue_as_well_as_their_number() -> None:
    queue = Queue(key="/queue/a", destination="/queue/a", limits=BrokerLimits(max_queue_bytes=5000))
    sizes = 0
    while not queue.full:
        queue.add(QueueEntry(seq=sizes, message=_message(1000)))
        sizes += 1
    assert sizes == 4


_NAMES = ["destination", "id", "ack", "message-id", "subscription", "transaction", "receipt", "durable", "requeue"]
_NAMES += ["auto-delete", "x-queue-name", "activemq.subscriptionName", "client-id", "prefetch-count", "selector"]
_NAMES += ["persistent", "expires", "expiration", "heart-beat", "accept-version", "login", "passcode", "reason"]
_VALUES = ["", "1", "true", "t", "/queue/a", "/queue/DLQ.a", "/topic/t", "client", "client-individual", "1.1", "1.2"]
_VALUES += ["1-1", "e-1", "-1", "0,0", "9" * 30, "²", "é\n:\\"]
_COMMANDS = [
    "SEND",
    "SUBSCRIBE",
    "UNSUBSCRIBE",
    "ACK",
    "NACK",
    "BEGIN",
    "COMMIT",
    "ABORT",
    "DISCONNECT",
    "CONNECT",
    "X",
]
_FRAMES = st.builds(
    StompFrame,
    command=st.sampled_from(_COMMANDS),
    headers=st.dictionaries(st.sampled_from(_NAMES), st.sampled_from(_VALUES), max_size=6),
    body=st.just(b""),
)


@given(version=st.sampled_from(["1.0", "1.1", "1.2"]), frames=st.lists(_FRAMES, max_size=12))
def test_any_frames_end_in_an_answer_never_in_an_exception(version: str, frames: list[StompFrame]) -> None:
    router = Router(limits=BrokerLimits(), faults=FaultState(), keep=True, epoch="e", first_seq=1, record=9)
    core = BrokerCore(router=router, users=None, limits=BrokerLimits(), faults=FaultState(), server="test")
    session = core.open_session()
    core.handle(session, StompFrame(command="CONNECT", headers={"accept-version": version, "client-id": "c"}), 0.0)
    for frame in frames:
        ended = session.closing
        before = len(session.output)
        assert core.handle(session, frame, 1.0)
        if "receipt" in frame.headers and not ended:
            answers = [one.headers.get("receipt-id") for one in session.output[before:]]
            assert frame.headers["receipt"] in answers
    core.lost(session, 1.0)
    core.router.expire(2.0)


def test_no_two_durable_subscriptions_share_a_key() -> None:
    assert durable_key("a", "/topic/b c") != durable_key("a /topic/b", "c")
    assert durable_key("a b", "c") != durable_key("a", "b c")


def test_dead_letters_are_named_after_their_destination() -> None:
    assert dead_letter_queue("/queue/a") == dead_letter_queue("/topic/a") == "/queue/DLQ.a"
