"""`deploykit web openapi`, the committed description, and what happens without the extra."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from deploykit.cli.webextra import needs_web_extra
from deploykit.cli.webopenapi import openapi
from deploykit.errors import UsageError
from deploykit.web.api.openapi import openapi_text

COMMITTED = Path(__file__).parents[4] / "docs" / "openapi.json"


def test_the_committed_description_is_the_one_the_code_makes() -> None:
    assert COMMITTED.read_text(encoding="utf-8") == openapi_text(), (
        "run `deploykit web openapi --write docs/openapi.json`"
    )


def test_it_is_printed_or_written(tmp_path: Path) -> None:
    printed = CliRunner().invoke(openapi, [])
    assert printed.exit_code == 0
    assert json.loads(printed.output)["openapi"] == "3.1.0"
    file = tmp_path / "openapi.json"
    assert "written to" in CliRunner().invoke(openapi, ["--write", str(file)]).output
    assert file.read_text(encoding="utf-8") == openapi_text()
    assert "up to date" in CliRunner().invoke(openapi, ["--write", str(file)]).output


def test_without_the_extra_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "starlette.middleware.cors", None)
    says = r"starlette is missing \(pip install 'deploykit\[web\]'\)"
    with pytest.raises(UsageError, match=says) as caught, needs_web_extra():
        importlib.import_module("starlette.middleware.cors")
    assert caught.value.exit_code == 2
    with pytest.raises(ModuleNotFoundError), needs_web_extra():
        importlib.import_module("deploykit.nothing_of_this_name")
