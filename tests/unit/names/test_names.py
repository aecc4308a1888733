"""Names are parsed once, strictly; what is refused is shown shortly and escaped."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from deploykit import names
from deploykit.errors import InvalidName

PARSERS = [
    names.parse_object_id,
    names.parse_ref_name,
    names.parse_repo_name,
    names.parse_node_name,
    names.parse_site_name,
]


@pytest.mark.parametrize("parse", PARSERS)
@pytest.mark.parametrize(
    "bad", ["", None, 1, b"refs/heads/x", ["a"], "a\n", "\n", "a b", "\x00", "\ud800", "/", ".", "-x"]
)
def test_what_is_no_name_is_refused(parse: Callable[[object], str], bad: object) -> None:
    with pytest.raises(InvalidName):
        parse(bad)


@pytest.mark.parametrize(
    ("parse", "good"),
    [
        (names.parse_object_id, "0" * 40),
        (names.parse_object_id, "a1" * 32),
        (names.parse_ref_name, "refs/heads/main"),
        (names.parse_ref_name, "refs/heads/-x"),
        (names.parse_ref_name, "refs/stash"),
        (names.parse_repo_name, "group/sub.group/app_1+x"),
        (names.parse_node_name, "web-1.example.org"),
        (names.parse_site_name, "shop_live"),
    ],
)
def test_good_names_pass_as_they_are(parse: Callable[[object], str], good: str) -> None:
    assert parse(good) == good


@pytest.mark.parametrize("bad", ["A" * 40, "0" * 39, "0" * 41, "0" * 63, "g" * 40, "0" * 40 + "\n", "\uff10" * 40])
def test_object_ids_are_lower_case_hex_of_two_lengths(bad: str) -> None:
    with pytest.raises(InvalidName):
        names.parse_object_id(bad)
    assert not names.all_object_ids(["0" * 40, bad])


def test_many_object_ids_are_as_strict_together_as_one_by_one() -> None:
    assert names.all_object_ids(["0" * 40, "f" * 64])
    assert names.all_object_ids([])
    assert not names.all_object_ids(["0" * 39, "0" * 41])
    with pytest.raises(TypeError):
        names.all_object_ids(["0" * 40, 7])  # type: ignore[list-item]


@pytest.mark.parametrize(
    "bad", ["../x", "a/../b", "/abs", "a//b", "a/", ".git", "a/.hidden", "a/-x", "a\\b", "a:b", "ß"]
)
def test_a_repository_name_is_no_path_trick(bad: str) -> None:
    with pytest.raises(InvalidName):
        names.parse_repo_name(bad)


@pytest.mark.parametrize("parse", PARSERS)
def test_long_names_are_refused_and_not_repeated_whole(parse: Callable[[object], str]) -> None:
    with pytest.raises(InvalidName) as caught:
        parse("refs/heads/" + "a" * 100_000)
    assert len(str(caught.value)) < 250


def test_an_error_shows_control_characters_escaped() -> None:
    with pytest.raises(InvalidName) as caught:
        names.parse_ref_name("refs/heads/\x1b[2J\n")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("ref", "short"), [("refs/heads/a/b", "a/b"), ("refs/tags/v1", "v1"), ("refs/notes/x", "refs/notes/x")]
)
def test_short_names_drop_only_the_usual_namespaces(ref: str, short: str) -> None:
    assert names.short_ref(names.parse_ref_name(ref)) == short


def test_both_zero_ids_say_no_object() -> None:
    assert names.is_zero(names.ZERO_ID)
    assert names.is_zero(names.ZERO_ID_SHA256)
    assert not names.is_zero(names.parse_object_id("0" * 39 + "1"))


@pytest.mark.parametrize(
    ("text", "component"),
    [
        ("main", "main"),
        ("a/b", "a%2Fb"),
        ("a_b", "a_b"),
        ("a%2Fb", "a%252Fb"),
        ("..", "%2E."),
        (".git", "%2Egit"),
        ("-x", "%2Dx"),
        ("", "%"),
        ("ß", "%C3%9F"),
        ("a~b", "a%7Eb"),
    ],
)
def test_path_components_are_readable_where_they_can_be(text: str, component: str) -> None:
    assert names.path_component(text) == component


def test_long_texts_become_short_components_that_still_differ() -> None:
    first, second = names.path_component("x" * 999 + "a"), names.path_component("x" * 999 + "b")
    assert first != second
    assert len(first) == len(second) == 200
