"""Payloads that nobody thought of: any JSON, and real payloads with any JSON somewhere inside."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploykit.errors import WebhookRefused
from deploykit.messages.base import one_line
from deploykit.names import is_zero, parse_object_id, parse_ref_name
from deploykit.settings.webhook import Forge, GenericMapping
from deploykit.web.receiver.forges import ForgeDelivery, parse
from tests.support.forges import FORGES, PAYLOADS, ForgedCommit, forged
from tests.support.hostilejson import paths_of

KEYS = st.sampled_from(
    [
        "ref",
        "before",
        "after",
        "repository",
        "full_name",
        "changes",
        "new",
        "old",
        "target",
        "hash",
        "type",
        "name",
        "id",
    ]
) | st.text(max_size=8)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=30)
    | st.sampled_from(["refs/heads/main", "0" * 40, "a" * 40, "a" * 64, "branch", "push", "tag_push", "git.push"])
)
JSON = st.recursive(
    LEAVES, lambda below: st.lists(below, max_size=4) | st.dictionaries(KEYS, below, max_size=6), max_leaves=25
)


def judged(forge: Forge, headers: dict[str, str], payload: Any, mapping: GenericMapping | None = None) -> None:
    """Fail unless the payload is refused with 400, or means something that the rest of the program can rely on."""
    try:
        delivery = parse(forge, headers, payload, mapping or GenericMapping())
    except WebhookRefused as error:
        refusal = error
    else:
        relied_on(delivery)
        return
    assert refusal.status == 400
    assert one_line(str(refusal), 2000) == str(refusal)


def relied_on(delivery: ForgeDelivery) -> None:
    """Fail unless the rest of the program can rely on what a delivery holds."""
    assert bool(delivery.pushes) != bool(delivery.ignored)
    assert delivery.repository or not delivery.pushes
    for push in delivery.pushes:
        assert parse_ref_name(push.ref)
        assert len(parse_object_id(push.old)) == len(parse_object_id(push.new))
        assert len(push.commits) <= min(push.commit_count, 50)
        assert not (is_zero(push.new) and (push.commits or push.forced))
        json.dumps([c.message + c.author + c.time for c in push.commits], ensure_ascii=False).encode()


@given(st.data())
@pytest.mark.parametrize("forge", FORGES)
def test_any_json_is_a_delivery_or_a_refusal(forge: Forge, data: st.DataObject) -> None:
    event = data.draw(st.sampled_from(sorted(PAYLOADS[forge])) | st.text(max_size=20))
    headers = dict.fromkeys(forged(forge).lowered, event)
    judged(forge, headers, data.draw(JSON))


@given(st.data())
@pytest.mark.parametrize("forge", FORGES)
def test_a_payload_with_any_json_inside_is_a_delivery_or_a_refusal(forge: Forge, data: st.DataObject) -> None:
    event = data.draw(st.sampled_from(sorted(PAYLOADS[forge])))
    request = forged(forge, event, commits=[ForgedCommit("c1" * 20), ForgedCommit("2e" * 20)])
    payload = json.loads(request.body)
    paths = sorted(paths_of(payload), key=repr)
    for path in data.draw(st.lists(st.sampled_from(paths), min_size=1, max_size=3)):
        replace(payload, path, data.draw(JSON))
    judged(forge, request.lowered, payload)


def replace(payload: Any, path: tuple[str | int, ...], value: Any) -> None:
    """Put a value where a path leads, unless what was replaced before has cut it off."""
    with suppress(TypeError, IndexError, KeyError):
        for key in path[:-1]:
            payload = payload[key]
        payload[path[-1]] = value


@given(JSON, st.text(alphabet="ab.0159-", max_size=20))
def test_any_mapping_over_any_json_is_a_delivery_or_a_refusal(payload: Any, path: str) -> None:
    mapping = GenericMapping(repository=path, ref=path, new=path, old=path, pusher=path, delivery=path)
    judged("generic", {}, payload, mapping)
