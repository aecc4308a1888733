"""Others judge what we write: the `cloudevents` package, and `jsonschema` with the schemas we publish."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import attrs
import pytest
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from deploykit.errors import MessageError
from deploykit.messages import BY_TYPE, Message, Unknown
from deploykit.testing import strategies
from deploykit.wire import CONTENT_TYPE, decode, encode
from deploykit.wire.schema import file_name, schema

relaxed = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
classes = pytest.mark.parametrize("cls", BY_TYPE.values(), ids=lambda c: c.__name__)
COMMITTED = Path(__file__).parents[3] / "docs" / "schemas"


@cache
def validator(wire_type: str) -> Draft202012Validator:
    """The schema as it is committed: what a reader of the first release holds us to."""
    found = json.loads((COMMITTED / file_name(BY_TYPE[wire_type])).read_text())
    Draft202012Validator.check_schema(found)
    return Draft202012Validator(found, format_checker=Draft202012Validator.FORMAT_CHECKER)


@classes
@relaxed
@given(st.data())
def test_what_we_write_is_valid_by_our_published_schema(cls: type[Message], data: st.DataObject) -> None:
    body = encode(data.draw(strategies.records(cls))).body
    assert [e.message for e in validator(cls.TYPE).iter_errors(json.loads(body))] == []


@relaxed
@given(strategies.messages())
def test_what_we_write_is_a_cloudevent(message: Message) -> None:
    frame = encode(message)
    event = JSONFormat().read(CloudEvent, frame.body)
    assert (event.get_id(), event.get_source(), event.get_time()) == (message.id, message.source, message.time)
    assert event.get_extension("correlationid") == (message.correlation_id or None)
    assert frame.headers["content-type"] == JSONFormat.CONTENT_TYPE


@relaxed
@given(strategies.messages())
def test_we_read_what_the_cloudevents_package_writes(message: Message) -> None:
    if isinstance(message, Unknown):  # it writes data of another media type as Python's str() of it
        message = attrs.evolve(message, content_type="")
    ours = encode(message).body
    theirs = JSONFormat().write(JSONFormat().read(CloudEvent, ours))
    assert decode({"content-type": CONTENT_TYPE}, theirs) == decode({"content-type": CONTENT_TYPE}, ours)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(sorted(BY_TYPE)).flatmap(lambda t: strategies.records(BY_TYPE[t])),
    strategies.json_values(),
    st.data(),
)
def test_what_we_read_is_valid_by_our_published_schema(message: Message, value: Any, data: st.DataObject) -> None:
    event = json.loads(encode(message).body)
    place = event if data.draw(st.booleans()) else event["data"]
    name = data.draw(st.sampled_from(sorted(place)))
    if data.draw(st.booleans()):
        del place[name]
    else:
        place[name] = value
    try:
        decode({"content-type": CONTENT_TYPE}, json.dumps(event).encode())
    except MessageError:
        return
    found = BY_TYPE.get(str(event.get("type")))
    if found is not None:
        problems = [e.message for e in validator(found.TYPE).iter_errors(json.loads(json.dumps(event)))]
        assert [p for p in problems if not p.startswith("None")] == []  # null attributes are absent ones to us


@classes
def test_the_schema_refuses_what_we_refuse(cls: type[Message]) -> None:
    strict = Draft202012Validator(schema(cls))
    assert not strict.is_valid({})
    assert not strict.is_valid(
        {"specversion": "1.0", "type": cls.TYPE, "id": "", "source": "s", "time": "t", "data": {}}
    )


def test_a_password_in_clear_is_invalid_by_the_schema() -> None:
    event = {
        "specversion": "1.0",
        "type": "deploykit.access.grant-requested.v1",
        "id": "1",
        "source": "s",
        "time": "2026-01-01T00:00:00Z",
        "data": {"site": "s", "user": "u"},
    }
    strict = validator("deploykit.access.grant-requested.v1")
    assert strict.is_valid(event)
    assert not strict.is_valid({**event, "data": {"site": "s", "user": "u", "password": "x"}})
