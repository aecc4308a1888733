"""Signed payloads with any field removed or replaced: an answer of 2xx or 400, and whatever is taken can be encoded."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from deploykit.hooking.enqueue import outgoing_of
from deploykit.messages import Message
from deploykit.messages.topics import TopicMap
from deploykit.web.receiver.deliveries import PublishedDelivery
from deploykit.web.receiver.intake import WebhookIntake
from tests.support.forges import FORGES, signed
from tests.support.webhooks import SECRETS, ReceiverWorld, push_of

#: Put in the place of each value.
HOSTILE: tuple[Any, ...] = (
    *(None, True, 0, -1, 10**30, 1e308, [], {}, [[]], [None], {"": None}),
    *("", "x" * 5000, "\u202e\x1b[31m\n", "../../etc", "refs/heads/a..b", "0" * 40, "<script>", "\x00"),
)
REMOVED = object()


class Forgetful:
    """A store that knows nothing."""

    def find(self, source: str, delivery_id: str, digest: bytes) -> PublishedDelivery | None:
        return None

    def mark(self, source: str, delivery_id: str, digest: bytes, now: float) -> None:
        pass


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a payload."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from places(item, (*path, key))


def changed(payload: Any, path: tuple[Any, ...], value: Any) -> Any:
    """Return a copy of a payload with one place changed."""
    made = copy.deepcopy(payload)
    at = made
    for key in path[:-1]:
        at = at[key]
    if value is REMOVED:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return made


@pytest.mark.parametrize("forge", FORGES)
def test_no_field_makes_more_than_a_refusal(tmp_path: Path, forge: str) -> None:
    encoded: list[int] = []

    def publish(messages: Sequence[Message]) -> None:
        encoded.append(len(outgoing_of(messages, TopicMap(), notices=True, legacy=len(encoded) % 2 == 0)))

    with ReceiverWorld(tmp_path) as world:
        intake = WebhookIntake(world.settings, publish, Forgetful(), now=lambda: world.now)
    request = push_of(forge)
    payload = json.loads(request.body)
    statuses: Counter[int] = Counter()
    for path in places(payload):
        for value in (REMOVED, *HOSTILE):
            body = json.dumps(changed(payload, path, value)).encode()
            proof = signed(forge, body, SECRETS[forge])
            headers = {name.lower(): text for name, text in {**request.headers, **proof}.items()}
            answer = intake.take(forge, headers, body)
            assert answer.status in (200, 202, 400), (path, value, answer)
            assert not answer.detail.startswith(("cannot be published", "cannot be understood")), (path, value, answer)
            statuses[answer.status] += 1
    assert min(statuses[202], statuses[400]) > 10
    assert encoded
