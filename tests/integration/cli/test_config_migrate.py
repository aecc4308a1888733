"""`deploykit config migrate`: old files to settings that `config check` accepts, secrets apart, losses listed."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from tests.support.cli import run, run_here
from tests.support.oldsettings import KEEPALIVE, STOMP_JENKINS


@pytest.fixture
def old(tmp_path: Path) -> Path:
    file = tmp_path / "stomp-jenkins.yaml"
    file.write_text(STOMP_JENKINS + "jenkins-ulr: x\n")
    return file


def test_the_result_is_accepted_by_config_check(old: Path, tmp_path: Path) -> None:
    (tmp_path / "keepalive.yaml").write_text(KEEPALIVE)
    new = tmp_path / "new"
    new.mkdir()
    words = ("config", "migrate", "-o", "new/deploykit.toml", "--node", "ci1", old.name, "keepalive.yaml")
    done = run(*words, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "jenkins-ulr: not a key of these settings (did you mean jenkins-url?)" in done.stderr
    assert "wrote " in done.stderr
    assert "gitpw" not in done.stderr
    check = run_here("config", "check", "-c", str(new / "deploykit.toml"))
    assert check.returncode == 0, check.stderr
    assert "ok: node ci1" in check.stdout
    again = run_here(*words, cwd=tmp_path)
    assert again.returncode == 2
    assert "--force" in again.stderr


def test_without_a_file_the_settings_are_printed_and_secrets_are_not(old: Path) -> None:
    done = run_here("config", "migrate", str(old))
    assert done.returncode == 0, done.stderr
    assert tomllib.loads(done.stdout)["broker"]["passcode_file"] == "/etc/deploykit/passcode"
    assert "broker.passcode_file: the secret is not printed" in done.stderr
    assert "gitpw" not in done.stdout + done.stderr


def test_programs_get_json(old: Path) -> None:
    found = json.loads(run_here("config", "migrate", "--json", str(old)).stdout)
    assert tomllib.loads(found["settings"])["jenkins"]["jobs"][0]["job"] == "shop-tests"
    assert {"file": str(old), "key": "jenkins-ulr"} == {
        key: value for key, value in found["lost"][-1].items() if key != "why"
    }
    assert found["secrets"]["broker.passcode_file"] == "passcode"
    assert found["problems"] == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\nb: !ruby/object:X {}\n", "line 2: the tag !ruby/object:X is not read"),
        ("a: 1\n", "not settings of a known kind (name it with --kind, one of: stomp-git"),
        (None, "cannot read"),
    ],
)
def test_what_cannot_be_read_ends_with_2(tmp_path: Path, text: str | None, says: str) -> None:
    file = tmp_path / "old\x1b.yaml"
    if text is not None:
        file.write_text(text)
    done = run_here("config", "migrate", str(file))
    assert done.returncode == 2
    assert says in done.stderr
    assert "\x1b" not in done.stderr
    assert "Traceback" not in done.stderr
