"""Bodies become the classes of actions, or each wrong field is named; the schema and the decoder agree."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from deploykit.web.actions.asked import ControlAsked, DeployAsked, GrantAsked, LockAsked, NodesAsked, RollbackAsked
from deploykit.web.api.bodies import MAX_FIELD, MAX_LIST, decode_body, decode_one_of
from deploykit.web.api.bodyschema import body_schema, choice_schema
from deploykit.web.api.posted import NothingAsked, RetryAsked
from deploykit.web.api.problems import RequestRefused

SITE = {"site": "shop"}
FULL: dict[str, Any] = {
    "ref": "v1.2",
    "commit": "",
    "chosen": {"select": "C@nginx", "nodes": ["web*"], "everybody": False, "exactly": ["web1", "web2"]},
    "options": {"first": "1", "first_nodes": ["web1"], "batch": ["1", "10%"], "on_failure": "rollback"},
    "reason": "the fix for carts",
    "approval": True,
    "plan": "abc",
}


def refused(cls: type, body: bytes, fixed: dict[str, str] | None = None) -> RequestRefused:
    with pytest.raises(RequestRefused) as caught:
        decode_body(cls, body, fixed)
    return caught.value


def fields(error: RequestRefused) -> dict[str, str]:
    return {each.parameter: each.detail for each in error.parameters}


def test_a_body_becomes_what_it_asks_for() -> None:
    asked = decode_body(DeployAsked, json.dumps(FULL).encode(), SITE)
    assert asked.site == "shop"
    assert asked.chosen == NodesAsked(select="C@nginx", nodes=("web*",), exactly=("web1", "web2"))
    assert asked.options.batch == ("1", "10%")
    assert asked.approval


def test_what_is_absent_has_its_default() -> None:
    assert decode_body(RollbackAsked, b"{}", SITE) == RollbackAsked(site="shop")
    assert decode_body(RetryAsked, b"") == RetryAsked(plan="")
    assert decode_body(NothingAsked, b"{}") == NothingAsked()


def test_each_wrong_field_is_named_with_its_path() -> None:
    body = {"reff": "v1", "approval": "yes", "chosen": {"nodes": ["a", 7], "all": True}, "options": []}
    error = refused(DeployAsked, json.dumps(body).encode(), SITE)
    assert error.status == 422
    found = fields(error)
    assert set(found) == {"reff", "approval", "chosen.nodes[1]", "chosen.all", "options"}
    assert "unknown; there are ref, commit" in found["reff"]
    assert found["approval"] == "expected true or false, not a text"
    assert found["chosen.nodes[1]"] == "expected a text, not a number"


def test_the_site_of_the_url_cannot_be_given_a_second_time() -> None:
    assert fields(refused(DeployAsked, b'{"site":"docs"}', SITE)) == {"site": "given by the URL"}


def test_what_is_needed_is_missed() -> None:
    assert fields(refused(GrantAsked, b"")) == {"site": "needed", "user": "needed"}
    assert fields(refused(ControlAsked, b'{"kind":"stop"}')) == {
        "kind": "expected one of pause, resume, promote, abort"
    }


@pytest.mark.parametrize(
    "body",
    [b"{", b"\xff", b'{"ref":"a","ref":"b"}', b'{"ref":NaN}', b"[" * 100_000, b'{"ref":"\\ud800"}', b"\xef\xbb\xbf{}"],
    ids=["cut", "bytes", "twice", "nan", "deep", "surrogate", "bom"],
)
def test_what_is_no_json_is_refused_as_such(body: bytes) -> None:
    assert refused(DeployAsked, body, SITE).status == 400


@pytest.mark.parametrize("body", [b"[]", b"null", b"1", b'"x"', b"true"])
def test_what_is_no_object_is_refused(body: bytes) -> None:
    assert refused(DeployAsked, body, SITE).status == 422


@pytest.mark.parametrize("text", ["a\nb", "a\x00", "\x1b[31m", "\x7f", "x" * (MAX_FIELD + 1)])
def test_a_text_has_no_control_character_and_an_end(text: str) -> None:
    assert list(fields(refused(DeployAsked, json.dumps({"reason": text}).encode(), SITE))) == ["reason"]


def test_a_list_has_an_end_and_few_problems_are_named() -> None:
    many = json.dumps({"chosen": {"nodes": ["a"] * (MAX_LIST + 1)}}).encode()
    assert fields(refused(DeployAsked, many, SITE)) == {"chosen.nodes": f"at most {MAX_LIST} items"}
    assert len(refused(DeployAsked, json.dumps({"chosen": {"nodes": [1] * 500}}).encode(), SITE).parameters) == 10
    assert len(refused(DeployAsked, json.dumps(dict.fromkeys(map(str, range(500)))).encode(), SITE).parameters) == 10


def test_the_kind_of_a_plan_is_named_and_a_deploy_where_it_is_not() -> None:
    classes = {"deploy": DeployAsked, "rollback": RollbackAsked}
    assert decode_one_of(classes, b"{}", SITE) == DeployAsked(site="shop")
    assert decode_one_of(classes, b'{"kind":"rollback","to":"v1"}', SITE) == RollbackAsked(site="shop", to="v1")
    for body in (b'{"kind":"retry"}', b'{"kind":[]}'):
        with pytest.raises(RequestRefused, match="kind"):
            decode_one_of(classes, body, SITE)


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(max_size=3), st.lists(st.text(max_size=2), max_size=2)
)
NESTED = st.dictionaries(
    st.sampled_from(["select", "nodes", "everybody", "exactly", "first", "batch", "quorum", "x"]), VALUES, max_size=4
)
BODIES = st.dictionaries(
    st.sampled_from([*(field.name for field in attrs.fields(DeployAsked)), "to", "kind", "user", "until", "x"]),
    st.one_of(VALUES, NESTED),
    max_size=5,
)


@settings(max_examples=300, deadline=None)
@given(body=BODIES, cls=st.sampled_from([DeployAsked, RollbackAsked, LockAsked, GrantAsked, ControlAsked]))
def test_the_decoder_takes_what_the_schema_takes(body: dict[str, Any], cls: type) -> None:
    """The schema is what others write programs by: it must neither promise too much nor too little."""
    fixed = {"site": "shop"} if cls in (DeployAsked, RollbackAsked, LockAsked) else {}
    components: dict[str, Any] = {}
    reference = body_schema(cls, components, frozenset(fixed))
    described = {**reference, "components": {"schemas": components}}
    by_schema = Draft202012Validator(described).is_valid(body)
    try:
        decode_body(cls, json.dumps(body).encode(), fixed)
    except RequestRefused:
        assert not by_schema
    else:
        assert by_schema


@settings(max_examples=100, deadline=None)
@given(body=BODIES)
def test_the_schema_of_a_plan_takes_what_its_decoder_takes(body: dict[str, Any]) -> None:
    classes = {"deploy": DeployAsked, "rollback": RollbackAsked}
    components: dict[str, Any] = {}
    described = {**choice_schema(classes, components, frozenset(SITE)), "components": {"schemas": components}}
    by_schema = Draft202012Validator(described).is_valid(body)
    try:
        decode_one_of(classes, json.dumps(body).encode(), SITE)
    except RequestRefused:
        assert not by_schema
    else:
        assert by_schema
