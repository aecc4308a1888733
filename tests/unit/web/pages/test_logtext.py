"""Lines of a log, without what only a terminal understands."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploykit.web.pages.logtext import MAX_LINE, shown_line, shown_lines


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("plain text, ünïcode 日本", "plain text, ünïcode 日本"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b[38;2;1;2;3mtrue colour\x1b[m", "true colour"),
        ("\x9b31mC1\x9b0m", "C1"),
        ("\x1b]0;a title\x07text", "text"),
        ("\x1b]8;;https://evil.example.net\x1b\\a link\x1b]8;;\x1b\\", "a link"),
        ("\x1bPq data \x1b\\after", "after"),
        ("\x1b(Bcharset \x1b7saved\x1b8", "charset saved"),
        ("\x1b[2J\x1b[Hcleared", "cleared"),
        ("cut off \x1b[3", "cut off "),
        ("10 %\r50 %\r100 %", "100 %"),
        ("done\r\n", "done"),
        ("a\ttab", "a\ttab"),
        ("bell\x07 nul\x00", "bell\\x07 nul\\x00"),
        ("right to left \u202eevil", "right to left \\u202eevil"),
        ("<script>alert(1)</script>&amp;", "<script>alert(1)</script>&amp;"),
        ("half \ud800", "half \\ud800"),
        ("", ""),
    ],
)
def test_a_line_is_shown_without_what_a_terminal_would_do(line: str, shown: str) -> None:
    assert shown_line(line) == shown


def test_a_line_of_megabytes_is_cut() -> None:
    assert shown_line("x" * 5_000_000) == "x" * MAX_LINE + "…"


@pytest.mark.parametrize("piece", ["\x1b[", "\x1b]", "\x1b[0;", "\x1b]8;;", "\x1bP\x1b", "\x1b ", "\r"])
def test_a_hostile_line_costs_no_more_than_its_length(piece: str) -> None:
    started = time.process_time()
    shown_line(piece * 100_000)
    assert time.process_time() - started < 0.5


@given(st.lists(st.text(alphabet=st.sampled_from("ab \x1b[]0;m\r\n\x07\x9b\x9d\\P\t\ud800\u202e")), max_size=10))
def test_whatever_comes_each_line_stays_one_line_of_printable_text(lines: list[str]) -> None:
    text = shown_lines(lines)
    assert text.count("\n") == len(lines)
    assert text.replace("\n", "").replace("\t", "").isprintable()
    text.encode()
