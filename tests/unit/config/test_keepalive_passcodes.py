"""Passcodes of keepalive destinations: only in private files, from the environment or a file, and never shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deploykit.bus.passcode import secrets_of
from deploykit.config import parse_settings
from deploykit.errors import SettingsError
from deploykit.operations.filecheck import file_problems
from tests.support.cli import run

RAW = b"""
node = "web1"
[keepalive.destinations.builds]
destination = "/queue/builds"
login = "bob"
passcode = "canary-b"
"""


def problems(raw: bytes, **how: object) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        parse_settings(raw, **how)  # type: ignore[arg-type]
    return caught.value.problems


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o604])
def test_a_file_that_holds_one_must_be_private(mode: int) -> None:
    (line,) = problems(RAW, mode=mode)
    assert f"keepalive.destinations.builds: the file holds a passcode but has mode {mode:04o}" in line
    assert "canary" not in line
    assert parse_settings(RAW, mode=0o640).keepalive.destinations["builds"].passcode == "canary-b"


def test_it_may_come_from_the_environment() -> None:
    raw = RAW.replace(b'"canary-b"', b'"env:BOB"').replace(b'"bob"', b'"env:WHO"')
    settings = parse_settings(raw, mode=0o644, environ={"BOB": "canary-e", "WHO": "bob"})
    found = settings.keepalive.destinations["builds"]
    assert (found.login, found.passcode) == ("bob", "canary-e")
    assert "canary" not in repr(settings)
    assert any(
        "keepalive.destinations.builds.passcode: environment variable BOB" in p for p in problems(raw, environ={})
    )


def test_its_file_is_read_when_the_settings_are(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    raw = RAW.replace(b'passcode = "canary-b"', f'passcode_file = "{secret}"'.encode())
    (line,) = problems(raw)
    assert f"keepalive.destinations.builds.passcode_file: cannot read {secret}" in line
    secret.write_text("canary-f\n")
    secret.chmod(0o644)
    (line,) = problems(raw)
    assert "has mode 0644" in line
    secret.chmod(0o600)
    settings = parse_settings(raw)
    assert not [each for each in file_problems(settings) if each.startswith("keepalive")]
    ask = secrets_of(settings.broker, *settings.keepalive.destinations.values())
    assert ask() == ("canary-f",)
    secret.write_text("canary-g\n")
    assert ask() == ("canary-f", "canary-g")
    secret.chmod(0o644)
    assert [each for each in file_problems(settings) if each.startswith("keepalive.destinations.builds.passcode_file")]


@pytest.mark.parametrize(
    "table", [b"keepalive = 3", b"[keepalive]\ndestinations = 3", b"[keepalive.destinations]\nx = 3"]
)
def test_what_is_no_table_is_a_problem_and_no_crash(table: bytes) -> None:
    assert any(line.startswith("keepalive") or ": keepalive" in line for line in problems(table, mode=0o644))


def test_config_show_leaves_login_and_passcode_out(tmp_path: Path) -> None:
    file = tmp_path / "deploykit.toml"
    file.write_bytes(RAW)
    file.chmod(0o600)
    for words in ((), ("--json",)):
        done = run("config", "show", "-c", str(file), *words)
        assert done.returncode == 0, done.stderr
        assert "canary" not in done.stdout + done.stderr
        assert "/queue/builds" in done.stdout
        if words:
            shown = json.loads(done.stdout)["keepalive"]["destinations"]["builds"]
            assert shown == {"destination": "/queue/builds", "passcode_file": None}
