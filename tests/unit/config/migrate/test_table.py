"""The page's tables are what the conversion's own rows say, and each new key in them exists."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from pathlib import Path

import attrs
import pytest

from deploykit.config.migrate.kinds import KINDS, kind_of_name
from deploykit.config.migrate.model import HOOKS_FILE
from deploykit.config.migrate.table import main, page_with_tables
from deploykit.settings import Settings
from deploykit.settings.hooks import HookSettings

PAGE = Path(__file__).parents[4] / "docs" / "migration.md"


def known(kind: object, path: list[str]) -> bool:
    """Whether a path leads to a setting."""
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        return any(known(each, path) for each in typing.get_args(kind) if each is not type(None))
    if not path:
        return True
    if isinstance(kind, type) and attrs.has(kind):
        name, listed, _ = path[0].partition("[]")
        inner = typing.get_type_hints(kind).get(name)
        if listed:
            return typing.get_origin(inner) is tuple and known(typing.get_args(inner)[0], path[1:])
        return inner is not None and known(inner, path[1:])
    if origin is Mapping:
        return known(typing.get_args(kind)[1], path[1:])
    return False


@pytest.mark.parametrize("kind", KINDS)
def test_each_new_key_exists(kind: str) -> None:
    rows = kind_of_name(kind).rows
    assert rows
    for row in rows:
        if row.new:
            _, hooks, path = row.new.rpartition(f"{HOOKS_FILE}: ")
            assert known(HookSettings if hooks else Settings, path.split(".")), row.new


@pytest.mark.parametrize("kind", KINDS)
def test_each_key_has_one_row_and_one_that_is_gone_a_reason(kind: str) -> None:
    rows = kind_of_name(kind).rows
    assert len({row.old for row in rows}) == len(rows)
    assert [row.old for row in rows if not row.new and not row.note] == []


def test_the_page_has_the_tables_as_they_are() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page_with_tables(page) == page, "run: python -m deploykit.config.migrate.table --write docs/migration.md"


def test_the_tables_are_written_between_the_marks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- made by deploykit.config.migrate.table -->\nold\n"
                    "<!-- end of what deploykit.config.migrate.table made -->\nafter\n")  # fmt: skip
    assert main(["--write", str(page)]) == 0
    assert page.read_text().startswith("before\n")
    assert page.read_text().endswith("after\n")
    assert "\nold\n" not in page.read_text()
    assert main([]) == 0
    assert "`repo-list.NAME.mode`" in capsys.readouterr().out
    assert main(["--what"]) == 2


def test_a_page_without_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="marks"):
        page_with_tables("nothing")


@pytest.mark.parametrize(
    ("path", "is_known"),
    [
        ("broker.address", True),
        ("repositories.X.checkouts[].mode", True),
        ("repositories.X.checkouts.mode", False),
        ("broker.adress", False),
        ("jenkins.jobs[].projects", True),
        ("topics.notices.X", True),
        ("broker.address.x", False),
    ],
)
def test_a_key_that_does_not_exist_is_found(path: str, is_known: bool) -> None:
    assert known(Settings, path.split(".")) is is_known
