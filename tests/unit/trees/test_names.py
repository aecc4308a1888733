"""Threat 14: a name that is `.git` on some file system is refused on all of them; odd names that are not, pass."""

from __future__ import annotations

import pytest

from deploykit.trees.names import name_problem, shown
from tests.support.confusing import CONFUSING

ODD_BUT_FINE = [
    b"...",
    b" ",
    b". ",
    b".gitignore",
    b".gitattributes",
    b".gitmodules",
    b".github",
    b"git",
    b"git~2",
    b"git~10",
    b"agit~1",
    b"aux",
    b"con",
    b"-rf",
    b"a:b",
    b"a\\b",
    b"\xff\xfe",
    b".git\xff",
    b"$(id)",
    b"a\nb",
    "\u202eevil".encode(),
    "\ufeff".encode(),
    "é".encode(),
    b"x" * 255,
]


@pytest.mark.parametrize("name", CONFUSING, ids=ascii)
def test_threat_14_a_name_that_is_dot_git_anywhere_is_refused(name: bytes) -> None:
    assert name_problem(name)


@pytest.mark.parametrize("name", ODD_BUT_FINE, ids=ascii)
def test_an_odd_name_that_is_nothing_else_is_allowed(name: bytes) -> None:
    assert name_problem(name) is None


def test_a_name_in_an_error_line_cannot_speak_to_the_terminal() -> None:
    line = shown(b"a\x1b[2J\n\xff\xe2\x80\xae" + b"x" * 500)
    assert line.isascii()
    assert line.isprintable()
    assert len(line) <= 200
