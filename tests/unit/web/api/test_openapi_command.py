"""`deploykit web openapi`, the committed description, and what happens without the extra."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from deploykit.cli.web import web
from deploykit.cli.webopenapi import openapi
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


def test_it_is_a_command_of_web() -> None:
    shown = CliRunner().invoke(web, ["openapi", "--help"])
    assert shown.exit_code == 0
    assert "deploykit web openapi --write openapi.json" in shown.output
