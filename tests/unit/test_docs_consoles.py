"""The settings that the pages about the console, accesses and notifications show are taken as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from deploykit.config.load import parse_settings

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ("access", "console", "console-actions", "console-login", "console-signing", "notify")
_FENCED = re.compile(r"^```toml\n(.*?)^```$", re.MULTILINE | re.DOTALL)
#: What the other blocks of a page need besides themselves: one line of a table, and roles or claims of a login.
_AROUND = {"template =": '[notify.channels.ops]\nkind = "irc"\nurl = "ircs://irc.example.org:6697/#ops"\n'}


def blocks(page: str) -> list[str]:
    return _FENCED.findall((DOCS / f"{page}.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES)
def test_the_settings_on_a_page_are_settings(page: str) -> None:
    found = blocks(page)
    assert found
    for block in found:
        before = next((text for start, text in _AROUND.items() if block.startswith(start)), "")
        parse_settings(f'node = "here"\n{before}{block}'.encode(), where=page)
