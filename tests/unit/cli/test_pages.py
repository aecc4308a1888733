"""The pages that errors name are shown with their path on this machine, in a clone and where a wheel was installed."""

from __future__ import annotations

import shutil
from pathlib import Path

import click
import pytest

from deploykit import cli
from deploykit.cli import pages
from deploykit.errors import SettingsError

DOCS = Path(__file__).parents[3] / "docs"


def test_in_a_clone_they_are_beside_the_package() -> None:
    assert pages.pages_directory(DOCS.parent / "deploykit") == DOCS


@pytest.mark.parametrize("library", ["lib/python3.11/site-packages", "lib/python3/dist-packages"])
def test_where_a_wheel_was_installed_they_are_below_its_prefix(tmp_path: Path, library: str) -> None:
    package = tmp_path / library / "deploykit"
    package.mkdir(parents=True)
    installed = tmp_path / "share" / "doc" / "deploykit"
    installed.mkdir(parents=True)
    shutil.copy(DOCS / "wire-format.md", installed)
    assert pages.pages_directory(package) == installed


def test_docs_of_another_package_are_not_ours(tmp_path: Path) -> None:
    package = tmp_path / "lib" / "python3.11" / "site-packages" / "deploykit"
    (package.parent / "docs").mkdir(parents=True)
    (package.parent / "docs" / "index.md").touch()
    assert pages.pages_directory(package) != package.parent / "docs"


def test_an_error_names_the_path_of_a_page(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "pages_directory", lambda: DOCS)
    problems = ("x (docs/keys.md)", "y (docs/no-page.md, /srv/docs/keys.md)")
    cli.report(SettingsError("nothing is there", "see docs/access.md for an example", problems=problems))
    said = capsys.readouterr().err.splitlines()
    assert said == [
        f"deploykit: nothing is there (see {DOCS / 'access.md'} for an example)",
        f"  x ({DOCS / 'keys.md'})",
        "  y (docs/no-page.md, /srv/docs/keys.md)",
    ]


def test_without_pages_the_text_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "pages_directory", lambda: None)
    assert pages.with_pages("see docs/access.md") == "see docs/access.md"


def test_help_says_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "pages_directory", lambda: DOCS)
    context = click.Context(cli.group, info_name="deploykit", terminal_width=300, max_content_width=300)
    assert f"are in {DOCS}" in cli.group.get_help(context)
