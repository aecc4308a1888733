"""The settings of the console by which commands reach the fleet."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
from click.testing import CliRunner

from deploykit.cli.config import config
from deploykit.settings.via import ViaSettings


@pytest.mark.parametrize("name", ["token_file", "ca_file"])
def test_a_file_for_no_console_is_a_mistake(name: str) -> None:
    alone = ViaSettings(**{name: Path("/etc/deploykit/x")})  # type: ignore[arg-type]  # by name
    assert [problem.partition(":")[0] for problem in alone.problems()] == [name]
    whole = attrs.evolve(alone, url="https://deploy.example.org")
    assert whole.problems() == ()


def test_without_any_of_them_commands_go_by_the_broker() -> None:
    assert ViaSettings().problems() == ()


def test_config_check_names_the_console_and_reads_the_files_for_it(tmp_path: Path) -> None:
    file, token = tmp_path / "deploykit.toml", tmp_path / "token"
    file.write_text(f'[via]\nurl = "https://deploy.example.org"\ntoken_file = "{token}"\n')
    missing = CliRunner().invoke(config, ["check", "-c", str(file)])
    assert missing.exit_code != 0
    assert "via.token_file" in str(missing.exception)
    token.write_text("dk_secret\n")
    token.chmod(0o600)
    checked = CliRunner().invoke(config, ["check", "-c", str(file)], catch_exceptions=False)
    assert checked.exit_code == 0
    assert "commands by https://deploy.example.org" in checked.stdout
    assert "dk_secret" not in checked.output
