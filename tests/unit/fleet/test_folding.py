"""Folded names are all names, and no two sets of names fold alike."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploykit.fleet.folding import folded_names

#: Few letters and many digits: names that could be taken for each other.
NAMES = st.sets(st.from_regex(r"[ab_]?[0-9.-]{0,4}[0-9]{1,3}[a.-]?b?", fullmatch=True), max_size=40)


def unfolded(folded: Iterable[str]) -> list[str]:
    """Return the names that folded ones stand for, as a person reads them."""
    names: list[str] = []
    for text in folded:
        found = re.fullmatch(r"([^\[\]]*)\[([0-9,-]+)\]([^\[\]]*)", text)
        if found is None:
            names.append(text)
            continue
        prefix, ranges, suffix = found.groups()
        for one in ranges.split(","):
            first, _, last = one.partition("-")
            width = len(first) if first[0] == "0" else 0
            names += [f"{prefix}{number:0{width}d}{suffix}" for number in range(int(first), int(last or first) + 1)]
    return names


@given(NAMES)
def test_every_name_is_there_once(names: set[str]) -> None:
    found = unfolded(folded_names(names))
    assert sorted(found) == sorted(names)


@pytest.mark.parametrize(
    ("names", "folded"),
    [
        ([], ()),
        (["db"], ("db",)),
        (["web1"], ("web1",)),
        (["web1", "web1"], ("web1",)),
        (["web1.eu", "web2.eu", "web1.us"], ("web[1-2].eu", "web1.us")),
        (["r1n1", "r1n2", "r2n1"], ("r1n[1-2]", "r2n1")),
        (["web1", "web01", "web001"], ("web001", "web01", "web1")),
    ],
)
def test_names_with_and_without_numbers(names: list[str], folded: tuple[str, ...]) -> None:
    assert folded_names(names) == folded


def test_ten_thousand_names_are_one_word() -> None:
    assert folded_names(f"web{number}" for number in range(1, 10_001)) == ("web[1-10000]",)
