"""docs/architecture.md: the stations of its walks exist, and each walk is short enough to follow."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
WALKS = PAGE.partition("## Walks\n")[2].partition("\n## ")[0]
STATIONS = re.findall(r"^(\d+)\. `([^`:]+): (\w+)`", WALKS, re.MULTILINE)
MENTIONED = re.findall(r"`((?:\w+/)+\w+\.py)(?:: (\w+))?`", PAGE)


def names_in(file: Path) -> set[str]:
    """The functions, methods and classes of a file."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return {node.name for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, kinds)}


def test_there_are_eight_walks_of_at_most_twelve_stations() -> None:
    numbers = [int(number) for number, _, _ in STATIONS]
    assert numbers.count(1) == 8
    assert max(numbers) <= 12
    assert len(numbers) == len(re.findall(r"^\d+\. ", WALKS, re.MULTILINE))


@pytest.mark.parametrize(("file", "name"), sorted({(file, name) for _, file, name in STATIONS}))
def test_a_station_exists(file: str, name: str) -> None:
    assert name in names_in(ROOT / file)


@pytest.mark.parametrize(("file", "name"), sorted(set(MENTIONED)))
def test_every_file_the_page_mentions_exists(file: str, name: str) -> None:
    path = next((root / file for root in (ROOT, ROOT / "deploykit") if (root / file).exists()), None)
    assert path is not None
    assert not name or name in names_in(path)
