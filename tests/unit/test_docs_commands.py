"""Each `deploykit` command that a page or a help text shows is one: its sub-commands, options and arguments exist."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from deploykit.cli import group

ROOT = Path(__file__).parents[2]
PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md", ROOT / "hooks" / "README.md"]
_FENCED = re.compile(r"^```(sh|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_BETWEEN = frozenset("|&;()<>")


def commands(text: str) -> Iterator[list[str]]:
    """Yield the words of each `deploykit` command in lines of a shell."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="".join(_BETWEEN))
        lexer.whitespace_split, lexer.commenters = True, "#"
        words: list[str] = []
        for word in [*lexer, ";"]:
            if not word or set(word) - _BETWEEN:
                words.append(word)
                continue
            if words and Path(words[0]).name == "deploykit":
                yield words[1:]
            words = []


def problem(words: list[str]) -> str | None:
    """Return why the command line would not be taken; values and files are not looked at."""
    command: click.Command = group
    context: click.Context | None = None
    name = "deploykit"
    while True:
        context = click.Context(command, parent=context, info_name=name)
        try:
            _, rest, _ = command.make_parser(context).parse_args([*words])
        except click.UsageError as error:
            return error.format_message()
        if not isinstance(command, click.Group) or not rest:
            return f"more than it takes: {rest}" if rest else None
        name, *words = rest
        below = command.get_command(context, name)
        if below is None:
            return f"no command {name}"
        command = below


def shown(page: Path) -> Iterator[list[str]]:
    for shell, block in _FENCED.findall(page.read_text(encoding="utf-8")):
        typed = re.findall(r"^\$ (.*)$", block, re.MULTILINE) if shell == "console" else [block]
        for text in typed:
            yield from commands(text)


def test_the_commands_on_the_pages_are_commands() -> None:
    found = [(page.name, words) for page in PAGES for words in shown(page)]
    assert len(found) > 100
    assert [(page, words, why) for page, words in found if (why := problem(words))] == []


@pytest.mark.parametrize(
    "line",
    ["deploykit publish package name=hello", "deploykit access gran alice", "deploykit access revoke a b --until 7d"],
)
def test_one_that_is_none_is_seen(line: str) -> None:
    (words,) = commands(f"true && {line} | cat   # a comment")
    assert problem(words)
