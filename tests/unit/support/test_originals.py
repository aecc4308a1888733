"""The rebuilt programs of the original know nothing of ours: else both ends could share a mistake."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

import tests.support.originals

_HERE = Path(tests.support.originals.__file__).parent
_OWN = "tests.support.originals"


@pytest.mark.parametrize("file", sorted(_HERE.glob("*.py")), ids=lambda path: path.stem)
def test_they_import_the_standard_library_and_each_other(file: Path) -> None:
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            found.add(str(node.module))
    strangers = {name for name in found if not name.startswith(_OWN) and name.partition(".")[0] not in _ALLOWED}
    assert not strangers


#: YAML was the original's way to keep users.
_ALLOWED = sys.stdlib_module_names | {"yaml"}
