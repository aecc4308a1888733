"""Each hint names what exists: commands and their options, settings, pages. Read from the source, not from a run.

A remedy is the second argument of an error, or `remedy=`, whatever it is made of; what is filled in counts as one word.
Commands between backticks are looked for in every other text of the package, too.
"""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final, get_args, get_type_hints

import attrs
import click
import pytest

import deploykit
from deploykit.cli import COMMANDS, group
from deploykit.settings.hooks import HookSettings
from deploykit.settings.node import Settings

PACKAGE: Final = Path(deploykit.__file__).parent
DOCS: Final = Path(__file__).parents[2] / "docs"
#: Stands for what is filled in.
FILLED: Final = "FILLED"
_ERROR: Final = re.compile(r"(Error|Refused|Busy|Failed|Unsendable|Full|Closed|Damaged|Corrupt|NotFound|^Invalid\w+)$")
_OPTION: Final = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
_SECTION: Final = re.compile(r"\[\[?([a-z_]+(?:\.[A-Za-z_]+)*)\]\]?")
_PAGE: Final = re.compile(r"docs/([\w.-]+?\.md)")


@cache
def trees() -> tuple[tuple[str, ast.Module], ...]:
    files = sorted(PACKAGE.rglob("*.py"))
    return tuple((str(file.relative_to(PACKAGE)), ast.parse(file.read_text(encoding="utf-8"))) for file in files)


def texts(node: ast.AST) -> list[str]:
    """Return what an expression may be, as far as it can be seen; nothing where it is a name."""
    match node:
        case ast.Constant(value=str(value)):
            return [value]
        case ast.JoinedStr(values=values):
            return ["".join(str(v.value) if isinstance(v, ast.Constant) else FILLED for v in values)]
        case ast.IfExp(body=body, orelse=orelse):
            return [*texts(body), *texts(orelse)]
        case ast.BoolOp(values=values):
            return [text for value in values for text in texts(value)]
        case ast.BinOp(left=left, right=right, op=ast.Add()):
            return [a + b for a in texts(left) or [FILLED] for b in texts(right) or [FILLED]]
    return []


def remedies() -> Iterator[tuple[str, str]]:
    """Yield each remedy and where it stands. A module's constants and tables named for remedies are among them."""
    for file, tree in trees():
        constants = {
            target.id: statement.value
            for statement in tree.body
            if isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None
            for target in (statement.targets if isinstance(statement, ast.Assign) else [statement.target])
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            given = [node.args[1]] if _ERROR.search(name) and len(node.args) > 1 else []
            for value in [*given, *(word.value for word in node.keywords if word.arg == "remedy")]:
                found = constants.get(value.id, value) if isinstance(value, ast.Name) else value
                for text in texts(found):
                    yield f"{file}:{node.lineno}", text
        for name, value in constants.items():
            if "REMED" in name.upper() and isinstance(value, ast.Dict):
                for text in (text for one in value.values for text in texts(one)):
                    yield f"{file}:{value.lineno}", text


def in_backticks() -> Iterator[tuple[str, str]]:
    """Yield each `deploykit …` between backticks in any text but a docstring, and where."""
    for file, tree in trees():
        docstrings = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant | ast.JoinedStr) and id(node) not in docstrings | parts:
                for text in texts(node):
                    for found in re.findall(r"`(deploykit [^`\n]+)`", text):
                        yield f"{file}:{node.lineno}", found


def command_problem(words: list[str], *, whole: bool) -> str | None:
    """Return why `deploykit WORDS` could not be typed.

    Args:
        whole: what it cannot do without has to be there; else it only is the name of a command.
    """
    command: click.Command = group
    context: click.Context | None = None
    name = "deploykit"
    while True:
        context = click.Context(command, parent=context, info_name=name)
        try:
            _, rest, _ = command.make_parser(context).parse_args([*words])
        except click.UsageError as error:
            return error.format_message()
        if not isinstance(command, click.Group):
            needed = [p for p in command.params if isinstance(p, click.Argument) and p.required]
            given = [word for word in words if not word.startswith("-")]
            if rest:
                return f"more than it takes: {rest}"
            return f"needs {needed[0].name}" if whole and needed and len(given) < len(needed) else None
        if not rest:
            return None if not whole or "--help" in words or name == "deploykit" else f"{name} needs a command"
        name, *words = rest
        if name == FILLED:
            return None
        below = command.get_command(context, name)
        if below is None:
            return f"no command {name}"
        command = below


def shown_problem(shown: str, *, whole: bool) -> str | None:
    """Return what is wrong with a command between backticks; None for what is no command of ours."""
    try:
        first, *words = shlex.split(shown)
    except ValueError:
        return None
    if first != "deploykit":
        of_ours = first in COMMANDS and words
        return "begin it with `deploykit`" if of_ours and not command_problem([first, *words], whole=False) else None
    if any(word.startswith("--") for word in words):
        whole = True
    return command_problem(words, whole=whole and "--help" not in words)


@cache
def options() -> frozenset[str]:
    """Every option of every command."""
    found: set[str] = {"--help", "--version"}
    waiting: list[click.Command] = [group]
    while waiting:
        command = waiting.pop()
        for parameter in command.params:
            found.update([*parameter.opts, *parameter.secondary_opts])
        if isinstance(command, click.Group):
            context = click.Context(command)
            below = (command.get_command(context, name) for name in command.list_commands(context))
            waiting.extend(one for one in below if one is not None)
    return frozenset(found)


def classes_in(hint: object) -> Iterator[type]:
    """Yield the settings classes that a type has room for."""
    if isinstance(hint, type) and attrs.has(hint):
        yield hint
    for part in get_args(hint):
        yield from classes_in(part)


def lead_on(cls: type, path: list[str]) -> bool:
    """Return whether a path of keys exists below a settings class; a name in capitals is anybody's own."""
    if not path:
        return True
    first, *rest = path
    try:
        hints = get_type_hints(cls)
    except NameError:  # a name that is imported for types only
        hints = {}
    if first not in {field.name for field in attrs.fields(cls)}:
        return False
    below = list(classes_in(hints.get(first)))
    while rest and (rest[0].isupper() or "FILLED" in rest[0]):
        rest = rest[1:]
    return not rest or not below or any(lead_on(one, rest) for one in below)


def setting_problem(text: str) -> list[str]:
    """Return the tables that a text names and that the settings do not have."""
    paths = [found.split(".") for found in _SECTION.findall(text)]
    return [".".join(path) for path in paths if not (lead_on(Settings, path) or lead_on(HookSettings, path))]


def test_there_are_remedies() -> None:
    assert len(list(remedies())) > 500
    assert len(list(in_backticks())) > 50


def test_the_commands_that_texts_name_are_commands() -> None:
    wrong = [(at, shown, why) for at, shown in in_backticks() if (why := shown_problem(shown, whole=False))]
    assert wrong == []


def test_the_commands_that_remedies_name_begin_with_deploykit() -> None:
    shown = [(at, one) for at, text in remedies() for one in re.findall(r"`([^`\n]+)`", text)]
    assert [(at, one, why) for at, one in shown if (why := shown_problem(one, whole=False))] == []


def test_a_remedy_says_run_only_of_a_command_that_can_be_typed_as_it_is() -> None:
    shown = [(at, one) for at, text in remedies() for one in re.findall(r"\brun `(deploykit [^`]+)`", text)]
    assert [(at, one, why) for at, one in shown if (why := shown_problem(one, whole=True))] == []


def test_the_options_that_remedies_name_are_options() -> None:
    wrong = []
    for at, text in remedies():
        ours = re.sub(r"`(?!deploykit )[^`]*`", "", text)
        wrong += [(at, option) for option in _OPTION.findall(ours) if option not in options()]
    assert wrong == []


def test_the_tables_that_remedies_name_are_settings() -> None:
    assert [
        (at, text, why) for at, text in remedies() if "pip install" not in text and (why := setting_problem(text))
    ] == []


def test_the_pages_that_texts_name_are_pages() -> None:
    found = [
        (file, page)
        for file, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for page in _PAGE.findall(node.value)
    ]
    assert len(found) > 20
    assert [(file, page) for file, page in found if not (DOCS / page).is_file()] == []


@pytest.mark.parametrize(
    "shown",
    [
        "deploykit mirror check --repair",
        "deploykit mirror chekc /srv/x",
        "deploykit release list --evrything",
        "release list",
        "deploykit use rollback",
    ],
)
def test_a_hint_that_leads_nowhere_is_seen(shown: str) -> None:
    assert shown_problem(shown, whole=False)


def test_a_table_that_does_not_exist_is_seen() -> None:
    assert setting_problem("set it in [truts] or [jenkins.server.NAME]") == ["truts", "jenkins.server.NAME"]
    assert setting_problem("[[trust.grants]], [webhook.sources.NAME] or [notify.channels.NAME]") == []
