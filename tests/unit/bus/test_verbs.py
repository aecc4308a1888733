"""ACK and NACK, byte for byte: what each STOMP version wants, and what keeps a broker from taking one for another's."""

from __future__ import annotations

import pytest

from deploykit.bus.stomp.frames import escaping
from deploykit.bus.stomp.verbs import Verbs

DELIVERED = {"message-id": "m:1", "subscription": "deploykit-7", "ack": "a-1"}


def settled(version: str, delivered: dict[str, str]) -> list[str]:
    written: list[bytes] = []
    verbs = Verbs(version, escaping(version), written.append)
    verbs.ack(delivered)
    verbs.nack(delivered, {"requeue": "true"})
    return [frame.decode() for frame in written]


@pytest.mark.parametrize(
    ("version", "head"),
    [
        ("1.0", "message-id:m:1\nsubscription:deploykit-7\n"),
        ("1.1", "message-id:m\\c1\nsubscription:deploykit-7\n"),
        ("1.2", "id:a-1\n"),
    ],
)
def test_a_message_is_settled_by_its_id_and_its_subscription(version: str, head: str) -> None:
    """Without the subscription ActiveMQ takes it, on 1.0, for the same message of one that has ended."""
    assert settled(version, DELIVERED) == [f"ACK\n{head}\n\0", f"NACK\n{head}requeue:true\n\n\0"]


def test_where_the_broker_named_no_subscription_none_is_named() -> None:
    assert settled("1.0", {"message-id": "m"})[0] == "ACK\nmessage-id:m\n\n\0"
