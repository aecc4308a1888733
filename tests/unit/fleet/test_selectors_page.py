"""docs/selectors.md says what is so: each example in its tables, and its figures."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from deploykit.errors import SelectorError
from deploykit.fleet import selector as module
from deploykit.fleet.selector import Selector
from tests.support.selecting import GOLDEN

PAGE = (Path(__file__).parents[3] / "docs" / "selectors.md").read_text(encoding="utf-8")


def table(head: str) -> list[tuple[str, str]]:
    """The rows of the table with such a head, two cells each."""
    rows = PAGE.partition(f"{head}\n|---|---|\n")[2].partition("\n\n")[0].splitlines()
    return [(left.strip(), right.strip()) for left, right in (row.strip("|").split(" | ") for row in rows)]


def code(cell: str) -> str:
    return cell.removeprefix("`").removesuffix("`")


EXAMPLES = table("| matches | does not |")
REFUSED = table("| is no selector | because |")


def test_the_tables_are_found() -> None:
    assert len(EXAMPLES) > 20
    assert len(REFUSED) > 5


@pytest.mark.parametrize(("matching", "other"), EXAMPLES)
def test_examples_match_or_do_not(matching: str, other: str) -> None:
    assert Selector.parse(code(matching)).matches(GOLDEN)
    assert not Selector.parse(code(other)).matches(GOLDEN)


@pytest.mark.parametrize(("text", "why"), REFUSED)
def test_what_is_no_selector_is_refused_as_the_page_says(text: str, why: str) -> None:
    with pytest.raises(SelectorError) as caught:
        Selector.parse(code(text))
    assert why in str(caught.value)


def test_the_node_is_the_one_of_the_golden_table() -> None:
    (facts,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    assert json.loads(facts) == dict(GOLDEN.facts)
    for name in (GOLDEN.node, *GOLDEN.classes):
        assert f"`{name}`" in PAGE


def test_the_figures_are_those_of_the_code() -> None:
    limits = f"{module.MAX_TEXT // 1024} KiB, {module.MAX_TERMS} terms, {module.MAX_DEPTH} brackets"
    assert limits in PAGE
