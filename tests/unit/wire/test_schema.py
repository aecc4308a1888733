"""The committed schemas say what the code does, and no change slips in that a mixed fleet could not take."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import attrs
import pytest

from deploykit.errors import UsageError
from deploykit.messages import BY_TYPE, Message, Notice, RefUpdated
from deploykit.messages.base import Count
from deploykit.wire import CONTENT_TYPE, decode, encode, redact
from deploykit.wire.schema import file_name, incompatibilities, schema, schema_text, updates, wire_class

ROOT = Path(__file__).parents[3]
COMMITTED = ROOT / "docs" / "schemas"
FROZEN = ROOT / "tests" / "data" / "wire-v1"

classes = pytest.mark.parametrize("cls", BY_TYPE.values(), ids=lambda c: c.__name__)


@classes
def test_no_type_changed_in_a_way_that_older_readers_could_not_take(cls: type[Message]) -> None:
    assert incompatibilities(json.loads((COMMITTED / file_name(cls)).read_text()), schema(cls)) == []


@classes
def test_the_committed_schema_is_the_one_the_code_makes(cls: type[Message]) -> None:
    made = (COMMITTED / file_name(cls)).read_text()
    assert made == schema_text(cls), "run: deploykit message schema --write docs/schemas"


def test_every_committed_schema_has_its_class() -> None:
    assert {f.name for f in COMMITTED.glob("*.json")} == {file_name(cls) for cls in BY_TYPE.values()}


# -- bodies of the first release, kept for ever ------------------------------------------------------------------------


@classes
def test_a_body_of_the_first_release_is_read_as_it_was(cls: type[Message]) -> None:
    kept = json.loads((FROZEN / file_name(cls)).read_text())
    message = decode({"content-type": CONTENT_TYPE}, json.dumps(kept["body"]).encode())
    assert type(message) is cls
    assert within(kept["read"], redact(message))


@classes
def test_a_body_of_the_first_release_is_passed_on_whole(cls: type[Message]) -> None:
    body = json.loads((FROZEN / file_name(cls)).read_text())["body"]
    message = decode({"content-type": CONTENT_TYPE}, json.dumps(body).encode())
    assert message is not None
    again = json.loads(encode(message).body)
    assert {k: again[k] for k in body if k != "data"} == {k: v for k, v in body.items() if k != "data"}
    assert within(body["data"], again["data"])


@pytest.mark.parametrize("name", sorted(each.name for each in (FROZEN / "parts").glob("*.json")))
def test_a_body_of_the_first_release_with_parts_is_read_and_passed_on_as_it_was(name: str) -> None:
    kept = json.loads((FROZEN / "parts" / name).read_text())
    message = decode({"content-type": CONTENT_TYPE}, json.dumps(kept["body"]).encode())
    assert message is not None
    assert f"{message.TYPE}.json" == name
    assert within(kept["read"], redact(message))
    assert within(kept["body"]["data"], json.loads(encode(message).body)["data"])


def within(old: object, new: object) -> bool:
    """Whether all that was said is said still, at every level; new fields may have been added."""
    if isinstance(old, dict) and isinstance(new, dict):
        return all(key in new and within(value, new[key]) for key, value in old.items())
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(map(within, old, new))
    return old == new


# -- the judgement itself ----------------------------------------------------------------------------------------------


def changed(path: str, value: Any = ..., base: type[Message] = RefUpdated) -> list[str]:
    """What the judgement says of a schema with one place set to a value, or taken out."""
    old = schema(base)
    new = copy.deepcopy(old)
    *way, last = path.split("/")
    place: Any = new
    for key in way:
        place = place[key]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return incompatibilities(old, new)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("properties/data/properties/pusher", ...),
        ("properties/data/properties/pusher/type", "integer"),
        ("properties/data/properties/pusher/maxLength", 10),
        ("properties/data/properties/commits/maxItems", 5000),
        ("properties/data/properties/repo/pattern", ".*"),
        ("properties/data/required", ["repo", "ref", "old", "new", "pusher"]),
        ("properties/data/required", ["repo", "ref", "old"]),
        ("properties/data/additionalProperties", False),
        ("properties/type/const", "deploykit.source.ref-updated.v2"),
        ("properties/specversion/const", "2.0"),
        ("required", ["specversion", "type", "id", "source", "data"]),
        ("$defs/Commit/properties/message", ...),
        ("$defs/Commit/required", ["id"]),
        ("properties/data/properties/forced", {"anyOf": [{"type": "boolean"}, {"type": "null"}]}),
    ],
)
def test_a_change_that_breaks_a_mixed_fleet_is_found(path: str, value: object) -> None:
    assert changed(path, value)


@pytest.mark.parametrize("path", ["properties/data/properties/outcome/enum"])
@pytest.mark.parametrize("value", [["success"], ["success", "failure", "unstable", "aborted", "skipped"]])
def test_a_choice_that_comes_or_goes_is_found(path: str, value: object) -> None:
    assert changed(path, value, wire_class("build.finished"))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("properties/data/properties/newer", {"type": "string"}),
        ("$defs/Newer", {"type": "object"}),
        ("$defs/Commit/properties/newer", {"type": "string"}),
        ("description", "In other words."),
        ("$defs/Commit/description", "In other words."),
    ],
)
def test_an_optional_field_and_better_words_are_allowed(path: str, value: object) -> None:
    assert changed(path, value) == []


def test_a_field_that_happens_to_be_called_title_is_judged_like_any_other() -> None:
    old = {"properties": {"title": {"type": "string"}}}
    assert incompatibilities(old, {"properties": {"title": {"type": "integer"}}})


@attrs.frozen(kw_only=True, slots=True)
class RequiredMore(Notice):
    """A notice as a careless change would make it."""

    urgency: Count


@attrs.frozen(kw_only=True, slots=True)
class OptionalMore(Notice):
    """A notice as a careful change would make it."""

    urgency: Count = 0


def test_the_judgement_works_on_real_classes_and_agrees_with_the_reader() -> None:
    old, body = schema(Notice), encode(Notice(text="x")).body
    assert incompatibilities(old, schema(OptionalMore)) == []
    assert incompatibilities(old, schema(RequiredMore)) == [
        "/properties/data: urgency is required now, older writers leave it out"
    ]
    newer = encode(OptionalMore(text="x", urgency=3))
    assert decode(newer.headers, newer.body).extra == {"urgency": 3}  # type: ignore[union-attr]
    assert decode({"content-type": CONTENT_TYPE}, body) is not None


def test_files_are_not_updated_past_a_breaking_change() -> None:
    committed = {file_name(cls): schema_text(cls) for cls in BY_TYPE.values()}
    assert updates(committed) == {}
    assert set(updates({})) == set(committed)
    broken = json.loads(committed[file_name(Notice)])
    broken["properties"]["data"]["properties"]["gone"] = {"type": "string"}
    with pytest.raises(UsageError, match="gone: is gone"):
        updates(committed | {file_name(Notice): json.dumps(broken)})


def test_a_class_is_found_by_any_of_its_names() -> None:
    assert {wire_class(n) for n in ("RefUpdated", "source.ref-updated", "deploykit.source.ref-updated.v1")} == {
        RefUpdated
    }
    with pytest.raises(UsageError, match="no message type"):
        wire_class("source")
