"""Docstrings and names in plain technical English: the worst habits of earlier versions stay away.

Only what can be judged without a person is judged here: how a docstring begins, phrases that were always wrong, and
names that say how a value came instead of what it is.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import pytest

import deploykit

PACKAGE: Final = Path(deploykit.__file__).parent
TEMPLATE: Final = Path(__file__).parents[2] / "hooks" / "hook.py.in"

#: What a docstring must not begin with -> what to write.
BEGINNINGS: Final = {
    "Tell ": "Return …",
    "Tells ": "what the class is",
    "Say ": "Return …, Print … or Log …",
    "Find out ": "Return …",
}
#: Phrases that a docstring must not hold, as regular expressions -> what to write.
PHRASES: Final = {
    r"\b(?:tells?|told) of\b": "report, announce, list",
    r"\btold again\b": "reported again",
    r"\bunless told\b|\bas told\b|\bwas told\b|\bis told\b|\bare told\b": "what is passed, configured or reported",
    r"\bin vain\b": "without success",
    r"\b(?:as|so|too|less) dear\b": "expensive, slow",
    r"\b(?:take|takes|took) us\b": "accepts our login",
    r"\bnobody (?:was|is) asked\b": "no broker reachable",
    r"\bfinal word\b": "the verdict",
    r"\bit is well\b|\bends? well\b": "is sound, ends without an error",
    r"\bis no trouble\b": "is ignored",
    r"\bnot whole in\b": "incomplete",
    r"(?-i:\bMind\b)": "Note, or nothing",
    r"\b(?:he|him|his)\b": "they, the caller",
}
#: Words that no name of a function, class, argument or variable may have as a part -> what to use.
NAMES: Final = {
    "told": "reported, data, env, pairs …: what it is",
    "said": "text, line, values …: what it is",
    "trouble": "problem, failure",
    "troubles": "problems, failures",
    "mistakes": "problems",
}
#: Docstrings that say nothing, however many words they have.
EMPTY: Final = frozenset({"do it", "do so", "see above", "see there", "as above"})

_PARTS = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])")


def problems(source: str) -> Iterator[str]:
    """Everything that is wrong with the words of one module, each with its line."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            for problem in docstring_problems(ast.get_docstring(node) or "..."):
                yield f"{getattr(node, 'lineno', 1)}: {problem}"
        for name in names_of(node):
            for better in better_for(name):
                yield f"{getattr(node, 'lineno', 1)}: the name {name}: use {better}"


def docstring_problems(text: str) -> Iterator[str]:
    """Everything that is wrong with one docstring."""
    for beginning, better in BEGINNINGS.items():
        if text.startswith(beginning):
            yield f"a docstring begins with {beginning.strip()!r}: write {better!r}"
    words = re.sub(r"[^\w\s`]", "", text).split()
    if len(words) == 1 or " ".join(words).lower() in EMPTY:
        yield f"the docstring {text!r} says nothing: imperative and object"
    flat = " ".join(text.split())
    for phrase, better in PHRASES.items():
        for hit in re.finditer(phrase, flat, re.IGNORECASE):
            yield f"a docstring has {hit[0]!r}: write {better!r}"


#: What may give a name; a match of each node would cost more than all else.
_NAMING: Final = (
    *(ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.arg, ast.Name, ast.Attribute, ast.alias),
    *(ast.ExceptHandler, ast.MatchAs, ast.MatchStar),
)


@cache
def better_for(name: str) -> tuple[str, ...]:
    """What to use in place of the parts of a name that are not plain."""
    return tuple(NAMES[part] for part in map(str.lower, _PARTS.findall(name)) if part in NAMES)


def names_of(node: ast.AST) -> list[str]:
    """The names that a node gives: to a function, a class, an argument, a variable, an attribute, an import."""
    if not isinstance(node, _NAMING):
        return []
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
            return [name]
        case ast.alias(asname=str(name)) | ast.ExceptHandler(name=str(name)):
            return [name]
        case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
            return [name]
    return []


def test_every_module_uses_plain_words() -> None:
    files = sorted(PACKAGE.rglob("*.py"))
    assert len(files) > 10
    found = []
    for file in files:
        where = file.relative_to(PACKAGE).as_posix()
        found += [f"{where}:{problem}" for problem in problems(file.read_text())]
    assert found == []


def test_the_hook_scripts_use_plain_words() -> None:
    assert list(problems(TEMPLATE.read_text())) == []


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ('def f():\n    """Tell whether it is there."""', "begins with 'Tell'"),
        ('async def f():\n    """Tell the time."""', "begins with 'Tell'"),
        ('def f():\n    """Say what it is."""', "begins with 'Say'"),
        ('class C:\n    """Tells events apart."""', "begins with 'Tells'"),
        ('def f():\n    """Now."""', "says nothing"),
        ('def f():\n    """Decide."""', "says nothing"),
        ('class C:\n    """Start:"""', "says nothing"),
        ('"""Do it."""', "says nothing"),
        ('"""Every ref that is told of."""', "'told of'"),
        ('"""Parse it. No argparse: it is as\ndear as the rest."""', "'as dear'"),
        ('"""Wait until a broker takes us."""', "'takes us'"),
        ('"""Return the answer.\n\n    A caller gives his own name.\n    """', "'his'"),
        ('"""Send it. Mind that it may fail."""', "'Mind'"),
        ("told = 1", "the name told"),
        ("def f():\n    said: list[str] = []", "the name said"),
        ("def f(on_trouble): ...", "the name on_trouble"),
        ("def site_mistakes(): ...", "the name site_mistakes"),
        ("class _Troubles: ...", "the name _Troubles"),
        ("COMMITS_TOLD = 50", "the name COMMITS_TOLD"),
        ("for _, told in pairs: ...", "the name told"),
        ("self._said = 1", "the name _said"),
        ("x = [said for said in y]", "the name said"),
        ("from a import b as told", "the name told"),
        ("match x:\n    case [told]: ...", "the name told"),
        ("if (said := f()): ...", "the name said"),
    ],
)
def test_bad_words_are_found(source: str, says: str) -> None:
    assert any(says in problem for problem in problems(source)), list(problems(source))


@pytest.mark.parametrize(
    "source",
    [
        'def f():\n    """Return whether it is there."""',
        'class C:\n    """Telling time."""\n    retold = 1',
        '"""The mindful reader finds this; the chief says so."""',
        'x = {"trouble": report.trouble, "told": 1}',
        "f(said=1)",
        "def f():\n    return 1",
    ],
)
def test_plain_words_pass(source: str) -> None:
    assert list(problems(source)) == []
