"""The house stays easy to find one's way in: small modules, and no class name that means two things."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import deploykit

PACKAGE = Path(deploykit.__file__).parent
#: Lines of the longest module: beyond this it asks to be two.
MOST_LINES = 400


def classes_of(source: str) -> list[str]:
    """The public classes that a module defines at its top."""
    tree = ast.parse(source)
    return [node.name for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]


def test_no_module_is_long() -> None:
    lines = {str(f.relative_to(PACKAGE)): len(f.read_text().splitlines()) for f in PACKAGE.rglob("*.py")}
    assert len(lines) > 100
    assert {name: count for name, count in lines.items() if count > MOST_LINES} == {}


def test_no_class_name_stands_twice() -> None:
    where: defaultdict[str, list[str]] = defaultdict(list)
    for file in PACKAGE.rglob("*.py"):
        for name in classes_of(file.read_text()):
            where[name].append(str(file.relative_to(PACKAGE)))
    assert {name: files for name, files in where.items() if len(files) > 1} == {}


def test_private_classes_and_those_inside_others_do_not_count() -> None:
    assert classes_of("class A:\n    class B: ...\nclass _C: ...\ndef f():\n    class D: ...") == ["A"]
