"""The help of `deploykit run` knows every service."""

from __future__ import annotations

from click.testing import CliRunner

from deploykit.cli import group
from deploykit.daemons.service.registry import SERVICES


def test_the_help_names_every_service() -> None:
    shown = CliRunner().invoke(group, ["run", "--help"]).output.partition("Options:")[0].replace(",", " ").split()
    assert [name for name in SERVICES if name not in {word.strip(".:") for word in shown}] == []
