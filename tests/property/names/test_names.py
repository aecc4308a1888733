"""Ref names as git sees them, and path components that never collide, on whatever hypothesis finds."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from deploykit.errors import InvalidName
from deploykit.names import parse_ref_name, path_component
from deploykit.testing.strategies import ref_names, texts
from tests.support.needs import needs

NASTY = [
    "/",
    ".",
    "..",
    ".lock",
    "@",
    "{",
    "@{",
    "\\",
    "~",
    "^",
    ":",
    "?",
    "*",
    "[",
    " ",
    "\x7f",
    "\x1f",
    "-",
    "a",
    "ß",
    "\x85",
]
candidates = st.lists(st.sampled_from(NASTY) | st.characters(codec="utf-8"), max_size=8).map("".join)


def we_accept(text: str) -> bool:
    try:
        parse_ref_name(text)
    except InvalidName:
        return False
    return True


@settings(max_examples=300, deadline=None)
@given(
    st.tuples(st.sampled_from(["refs/heads/", "refs/tags/", "refs/", "refs", "heads/", ""]), candidates).map("".join)
)
@example("refs/heads/a./b")
@example("refs/heads/a.lock/b")
@example("refs/heads/a.lock")
@example("refs/heads/@")
@example("refs/heads/a.")
@example("refs/heads/.a")
@example("refs/heads/a..b")
@example("refs/stash")
def test_we_take_for_a_ref_name_what_git_takes_for_one(text: str) -> None:
    git = needs("git", package="git")
    if "\x00" in text:  # no argument can hold it
        assert not we_accept(text)
        return
    said = subprocess.run([git, "check-ref-format", os.fsencode(text)], check=False, timeout=30).returncode == 0
    assert we_accept(text) == (said and text.startswith("refs/"))


@given(ref_names())
def test_the_strategy_for_ref_names_draws_what_the_parser_takes(name: str) -> None:
    assert we_accept(name)


anything = st.text(st.characters(), max_size=300) | texts() | candidates


@settings(max_examples=500)
@given(anything, anything)
@example("a/b", "a_b")
@example("a/b", "a%2Fb")
@example(".", "%2E")
@example("", "%")
@example("é", "é")
def test_two_texts_never_share_a_path_component(first: str, second: str) -> None:
    assert (path_component(first) == path_component(second)) == (first == second)


@settings(max_examples=500)
@given(anything)
def test_a_path_component_is_one_plain_short_directory_name(text: str) -> None:
    component = path_component(text)
    assert 0 < len(component) <= 200
    assert component.isascii()
    assert component.isprintable()
    assert not set(component) & set("/\\ :*?\"<>|$`'")
    assert component[0] not in ".-"
    assert os.path.normpath(component) == component


def test_a_path_component_can_be_made_in_a_directory(tmp_path: Path) -> None:
    for text in ("x" * 5000, "ß" * 300, "a/b/c", "..", "\x00", "\ud800"):
        (tmp_path / path_component(text)).mkdir()
