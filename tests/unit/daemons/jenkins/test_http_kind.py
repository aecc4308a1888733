"""Requests of kind `http`: what a template makes of hostile values."""

from __future__ import annotations

import json
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploykit.daemons.jenkins.http_kind import fill_body, fill_target, parse_headers, sign_body
from deploykit.errors import SettingsError
from deploykit.settings.buildservers import FORM_BODY, JSON_BODY

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@given(TEXT)
def test_a_value_stays_where_it_stands_in_a_url(value: str) -> None:
    target = fill_target("https://ci/a/x{JOB}/run?ref={REF}&z=1", {"JOB": value, "REF": value})
    parts = urlsplit(f"https://ci{target}")
    assert parts.path.count("/") == 3
    assert parse_qs(parts.query, keep_blank_values=True) == {"ref": [value], "z": ["1"]}
    assert target.isascii()
    assert target.isprintable()
    assert " " not in target


@pytest.mark.parametrize("value", [".", "..", "a/../b", "../a", "a\\..\\b"])
def test_a_value_does_not_lead_out_of_its_part_of_the_path(value: str) -> None:
    with pytest.raises(ValueError, match=r"\. or \.\."):
        fill_target("https://ci/a/{JOB}/run", {"JOB": value})


def test_a_value_with_a_placeholder_in_it_is_not_filled_again() -> None:
    assert fill_target("https://ci/{A}", {"A": "{B}", "B": "canary"}) == "/%7BB%7D"


def test_a_value_that_no_parameter_has_is_named() -> None:
    with pytest.raises(ValueError, match=r"\{REF\}: the job has no parameter of that name"):
        fill_target("https://ci/{REF}", {})


@given(TEXT)
def test_a_value_stays_inside_its_string_in_a_json_body(value: str) -> None:
    body = fill_body('{"ref": "{REF}", "inputs": {"x": "{REF}"}}', JSON_BODY, {"REF": value})
    assert json.loads(body) == {"ref": value, "inputs": {"x": value}}


@given(TEXT)
def test_a_value_stays_one_field_of_a_form(value: str) -> None:
    body = fill_body("ref={REF}&x=1", FORM_BODY, {"REF": value})
    assert parse_qs(body, keep_blank_values=True) == {"ref": [value], "x": ["1"]}


def test_the_signature_is_githubs() -> None:
    digest = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    assert sign_body("It's a Secret to Everybody", b"Hello, World!") == f"sha256={digest}"


def test_a_headers_file_is_read_line_by_line() -> None:
    text = "# for ci\n\nAuthorization: Bearer canary\nX-A:b\n"
    assert parse_headers(text) == [("Authorization", "Bearer canary"), ("X-A", "b")]


@pytest.mark.parametrize("line", ["canary", "A canary", "A B: canary", ": canary", "Host: canary", "A: canary\x01"])
def test_a_line_that_is_no_header_is_named_by_its_number_only(line: str) -> None:
    with pytest.raises(SettingsError, match="headers_file: line 2") as caught:
        parse_headers(f"X: y\n{line}\n")
    assert "canary" not in str(caught.value)
