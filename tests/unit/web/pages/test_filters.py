"""Single values on a page: nothing hidden, times in UTC, addresses quoted, no scheme but http."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from deploykit.web.pages.filters import (
    counted,
    duration,
    finalize,
    first_line,
    http_only,
    iso,
    path_of,
    plain,
    ref_words,
    short_commit,
    utc,
)


@given(st.text(st.characters()))
def test_no_text_hides_or_reorders_anything(text: str) -> None:
    shown = plain(text)
    assert not set(shown) & {"\x00", "\x1b", "\x7f", "\u202e", "\u2066", "\u200b", "\ufeff"}
    shown.encode()  # no half characters


def test_what_people_write_stays_as_it_is() -> None:
    for text in ("größe", "日本語", "two\nlines\tand a tab", "👩\u200d🚀 away"):
        assert plain(text) == text


def test_none_is_nothing_and_markup_is_left_alone() -> None:
    assert finalize(None) == ""
    assert finalize(Markup("<b>\u202e</b>")) == Markup("<b>\u202e</b>")
    assert finalize("a\x00b") == "a\\x00b"
    assert finalize(3) == 3


@pytest.mark.parametrize(
    ("ref", "words"),
    [
        ("refs/heads/feature/x", "feature/x"),
        ("refs/tags/v1", "v1"),
        ("refs/notes/x", "notes/x"),
        ("refs/heads/", "heads/"),
        ("", ""),
        (None, ""),
    ],
)
def test_refs_are_written_as_people_write_them(ref: str | None, words: str) -> None:
    assert ref_words(ref) == words


def test_times_are_written_in_utc_whatever_their_zone() -> None:
    time = datetime(2026, 3, 29, 2, 30, tzinfo=timezone(timedelta(hours=2)))
    assert iso(time) == "2026-03-29T00:30:00Z"
    assert utc(time) == "2026-03-29 00:30:00 UTC"
    assert utc(datetime(2026, 1, 1, tzinfo=UTC)) == "2026-01-01 00:00:00 UTC"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "< 1 s"),
        (0.04, "< 0.1 s"),
        (9.94, "9.9 s"),
        (59.6, "1 min"),
        (61, "1 min 1 s"),
        (3600, "1 h"),
        (None, ""),
        (-1, ""),
    ],
)
def test_lengths_of_time_have_at_most_two_units(seconds: float | None, words: str) -> None:
    assert duration(seconds).replace("\u00a0", " ") == words


@given(st.lists(st.text(st.characters()), min_size=1, max_size=3), st.text(st.characters()))
def test_no_name_leaves_its_place_in_an_address(parts: list[str], asked: str) -> None:
    address = path_of("/base", parts, {"q": asked})
    path, _, query = address.partition("?")
    assert path.count("/") == 1 + len(parts)
    assert "?" not in query
    assert not set(address) & set("\"'<>\\ \n&#")


def test_what_is_empty_is_not_asked_for() -> None:
    assert path_of("", ("deploys",), {"site": "", "after": None}) == "/deploys"
    assert path_of("", ("history", "diff"), {"site": "a", "from_": "n:1"}) == "/history/diff?site=a&from=n%3A1"


@pytest.mark.parametrize("url", ["javascript:alert(1)", "data:text/html,x", " JaVaScript:x", "//x", "http://a\nb", ""])
def test_only_http_becomes_a_link(url: str) -> None:
    assert http_only(url) == ""


def test_http_addresses_become_links() -> None:
    assert http_only("https://ci.example.org/1") == "https://ci.example.org/1"


def test_short_words() -> None:
    assert short_commit("a" * 40) == "a" * 10
    assert first_line("\n Fix it\n\nbecause") == "Fix it"
    assert counted(1200, "node") == "1\u202f200 nodes"
