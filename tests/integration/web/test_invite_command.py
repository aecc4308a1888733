"""`deploykit web invite`, as a process, against the ledger of a console."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.cli import run

CONFIG = """
[web]
url = "https://deploy.example.org"
login = "{login}"

[[web.access]]
users = ["alice"]
"""


def config(tmp_path: Path, login: str = "passkey") -> Path:
    file = tmp_path / "deploykit.toml"
    file.write_text(f'node = "ops-1"\nstate = "{tmp_path / "state"}"\n{CONFIG.format(login=login)}')
    return file


def test_a_link_is_printed_alone_so_that_it_can_be_copied(tmp_path: Path) -> None:
    found = run("web", "invite", "alice", "--config", str(config(tmp_path)), cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith("https://deploy.example.org/invite/")
    assert found.stdout.count("\n") == 1
    assert "send it to alice alone" in found.stderr


def test_a_script_reads_json(tmp_path: Path) -> None:
    found = run("web", "invite", "bob", "--json", "--config", str(config(tmp_path)), cwd=tmp_path)
    data = json.loads(found.stdout)
    assert (data["name"], data["seconds"]) == ("bob", 86400)
    code = data["url"].rpartition("/")[2]
    stored = b"".join(each.read_bytes() for each in (tmp_path / "state" / "web").glob("ledger.db*"))
    assert code.encode() not in stored


def test_a_name_that_no_rule_names_is_said(tmp_path: Path) -> None:
    found = run("web", "invite", "bob", "--config", str(config(tmp_path)), cwd=tmp_path)
    assert "no [[web.access]] names bob" in found.stderr


def test_a_console_without_passkeys_says_what_to_set(tmp_path: Path) -> None:
    file = tmp_path / "deploykit.toml"
    file.write_text(f'node = "ops-1"\nstate = "{tmp_path / "state"}"\n')
    found = run("web", "invite", "bob", "--config", str(file), cwd=tmp_path)
    assert found.returncode == 2
    assert "passkeys = true" in found.stderr
