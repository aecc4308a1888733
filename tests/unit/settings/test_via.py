"""The settings of the console by which commands reach the fleet."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploykit.settings.via import ViaSettings


@pytest.mark.parametrize("name", ["token_file", "ca_file"])
def test_a_file_for_no_console_is_a_mistake(name: str) -> None:
    alone = ViaSettings(**{name: Path("/etc/deploykit/x")})  # type: ignore[arg-type]  # by name
    assert [problem.partition(":")[0] for problem in alone.problems()] == [name]
    whole = ViaSettings(url="https://deploy.example.org", **{name: Path("/etc/deploykit/x")})  # type: ignore[arg-type]
    assert whole.problems() == ()


def test_without_any_of_them_commands_go_by_the_broker() -> None:
    assert ViaSettings().problems() == ()
