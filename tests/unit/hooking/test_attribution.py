"""Which commits a push brought: the counting by bits against counting by hand, and raw commits of any kind."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploykit.hooking.attribution import attribute, parse_listing
from deploykit.hooking.commits import parse_commit
from deploykit.hooking.console import print_line
from deploykit.hooking.git import parse_push, wanted
from deploykit.hooking.process import child_environment
from deploykit.messages.source import COMMIT_TEXT, MAX_COMMITS, NAME_TEXT
from deploykit.names import RefName

ID = "a" * 40


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[tuple[str, list[str]]], list[str]]:
    """A history as git lists it (children first), and tips; some parents and tips are outside of it."""
    size = draw(st.integers(0, 40))
    outside = ["x", "y"]
    made: list[tuple[str, list[str]]] = []
    for number in range(size):
        older = [oid for oid, _ in made] + outside
        parents = draw(st.lists(st.sampled_from(older), max_size=3, unique=True))
        made.append((f"c{number}", parents))
    names = [oid for oid, _ in made] + outside
    tips = draw(st.lists(st.sampled_from(names), min_size=1, max_size=12))
    return made[::-1], tips


@given(graphs())
def test_each_tip_is_brought_what_it_reaches(graph: tuple[list[tuple[str, list[str]]], list[str]]) -> None:
    listing, tips = graph
    parents = dict(listing)
    for tip, brought in zip(tips, attribute(listing, tips), strict=True):
        reached, borders, todo = set(), set(), [tip]
        while todo:
            oid = todo.pop()
            if oid not in parents:
                borders.add(oid)
            elif oid not in reached:
                reached.add(oid)
                todo += parents[oid]
        assert brought.total == len(reached)
        assert brought.borders == borders
        in_order = [oid for oid, _ in listing if oid in reached]
        assert list(brought.newest) == in_order[:MAX_COMMITS]


def test_no_more_than_fifty_are_told_of_each_and_all_counted() -> None:
    listing = [(f"c{n}", [f"c{n + 1}"]) for n in range(1000)]
    one, other = attribute(listing, ["c0", "c990"])
    assert (one.total, len(one.newest), one.newest[0]) == (1000, 50, "c0")
    assert (other.total, other.newest[0], set(other.borders)) == (10, "c990", {"c1000"})


def test_a_listing_is_read_line_by_line() -> None:
    assert parse_listing(b"a b c\nd\n\n") == [("a", ["b", "c"]), ("d", [])]


@given(st.binary(max_size=400))
def test_any_bytes_are_a_commit_of_some_kind(raw: bytes) -> None:
    found = parse_commit(ID, raw).commit
    assert found.id == ID
    (found.message + found.author + found.time).encode()  # no half of a surrogate pair
    assert len(found.message) <= COMMIT_TEXT
    assert len(found.author) <= NAME_TEXT


@given(
    st.text(max_size=50),
    st.sampled_from(
        ["", "utf-8", "UTF-16", "utf-7", "idna", "rot13", "hex", "zlib", "../x", "undefined", "latin-1", "x" * 99]
    ),
)
def test_any_encoding_header_is_survived(text: str, encoding: str) -> None:
    head = f"tree {ID}\nauthor A <a> 1 +0000\nencoding {encoding}\n\n".encode()
    parse_commit(ID, head + text.encode("utf-8", "replace"))


def test_a_cut_text_does_not_change_its_encoding() -> None:
    """Cut in the middle of a character, a UTF-8 text must not be taken for Latin-1."""
    for start in ("", "x", "xx", "xxx"):
        found = parse_commit(ID, b"tree x\n\n" + (start + "🎉" * 9000).encode()).commit
        assert set(found.message) <= {"x", "🎉"}


def test_only_ids_are_taken_for_parents() -> None:
    """Threat 8: a crafted commit cannot have git asked for anything but an object."""
    raw = b"tree x\nparent --upload-pack=x\nparent HEAD\nparent %s\nparent :/x\n\nm" % (b"b" * 40)
    assert parse_commit(ID, raw).parents == ("b" * 40,)


def test_what_is_said_is_one_line_that_moves_no_cursor(capfd: pytest.CaptureFixture[str]) -> None:
    """Threat 23: an error may quote anything, and the pusher's terminal gets none of it as it is."""
    print_line("a\nb\x1b[2J\x07\r\u2028c \udcff ü")
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert said.rstrip("\n").isprintable()
    assert "ü" in said


# -- input -------------------------------------------------------------------------------------------------------------

refs = st.text(max_size=20).map(lambda text: f"refs/heads/{text}")


@settings(max_examples=200)
@given(st.lists(st.binary(max_size=120)))
def test_any_input_is_taken_line_by_line(lines: list[bytes]) -> None:
    push = parse_push(b"\n".join(lines), ("refs/*",))
    for change in push.changes:
        assert change.ref.startswith("refs/")
        assert change.ref.isprintable() or not change.ref.isascii()
    for text in push.refused:
        assert "\n" not in text


def test_a_ref_with_blanks_control_characters_or_half_a_character_is_refused() -> None:
    for ref in (b"refs/heads/a b", b"refs/heads/a\x1bb", b"refs/heads/\xff", b"heads/x", b"refs/heads/../x", b""):
        push = parse_push(b"%s %s %s\n" % (b"0" * 40, b"1" * 40, ref), ("*",))
        assert (push.changes, len(push.refused)) == ((), 1)


def test_patterns_choose_the_refs() -> None:
    def told(ref: str, *patterns: str) -> bool:
        return wanted(RefName(ref), patterns)

    assert told("refs/heads/a/b", "refs/heads/*")
    assert not told("refs/headsx/a", "refs/heads/*")
    assert told("refs/merge-requests/7/head", "refs/merge-requests/*/head")
    assert not told("refs/merge-requests/7/merge", "refs/merge-requests/*/head")
    assert told("refs/anything", "*")
    assert not told("refs/heads/a")


def test_only_an_allow_list_of_variables_is_handed_on() -> None:
    """Threat 34, for any variable: not a list of bad ones, but of the few good ones."""
    env = {"HOME": "/h", "PATH": "/a:.:b:/c:", "LD_PRELOAD": "x", "GIT_DIR": "y", "PYTHONPATH": "z", "TMPDIR": "/t"}
    assert child_environment(env, {"X": "1"}) == {
        "HOME": "/h",
        "PATH": "/a:/c",
        "TMPDIR": "/t",
        "LC_ALL": "C.UTF-8",
        "X": "1",
    }
    assert child_environment({"PATH": "."}, {})["PATH"].startswith("/")
    for a, b in combinations(("LD_AUDIT", "GIT_CONFIG_COUNT", "BASH_ENV", "IFS"), 2):
        assert not {a, b} & child_environment({a: "1", b: "2"}, {}).keys()
