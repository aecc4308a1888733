"""The examples in the pages about messages run, with the tests and not only when the pages are built."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
_FENCED = re.compile(r"^```\{doctest\}\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def examples(page: str) -> list[str]:
    return _FENCED.findall((DOCS / page).read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", ["embedding.md", "rollouts.md", "signatures.md"])
def test_the_examples_of_a_page_say_what_python_says(page: str) -> None:
    blocks = examples(page)
    assert blocks
    test = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, page, page, 0)
    said: list[str] = []
    outcome = doctest.DocTestRunner(verbose=False).run(test, out=said.append)
    assert outcome.failed == 0, "".join(said)
    assert outcome.attempted >= 7


def test_the_library_is_embedded_in_ten_lines() -> None:
    lines = [line for line in examples("embedding.md")[0].splitlines() if line.startswith((">>> ", "... "))]
    assert len(lines) <= 10
    text = "\n".join(lines)
    for step in ("Notice(", "sign(", "encode(", "decode(", "verify("):
        assert step in text


def test_every_link_has_a_text() -> None:
    """Sphinx fills an empty one in; everywhere else nothing is seen of it."""
    pages = [*sorted(DOCS.glob("*.md")), DOCS.parent / "README.md", DOCS.parent / "CHANGELOG.md"]
    assert len(pages) > 10
    assert [page.name for page in pages if "[](" in page.read_text(encoding="utf-8")] == []
