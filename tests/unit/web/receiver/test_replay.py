"""`deploykit webhook test`: a payload in a file, tried without a server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from deploykit.cli.webhook import webhook
from deploykit.errors import DeploykitError
from tests.support.forges import FORGES, NEW, OLD, ForgedChange, ForgedRequest
from tests.support.webhooks import OURS, THEIRS, push_of, source_tables


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Settings with a source of each forge."""
    start = f'node = "web1"\nstate = "{tmp_path}/state"\n[outbox]\npath = "{tmp_path}/spool"\n'
    file = tmp_path / "deploykit.toml"
    file.write_text(start + source_tables(tmp_path))
    return file


def tried(config: Path, source: str, request: ForgedRequest, *words: str, expect: int = 0) -> Result:
    """Run the command on a request's body."""
    file = config.with_name("body")
    file.write_bytes(request.body)
    result = CliRunner().invoke(webhook, ["test", source, str(file), "-c", str(config), *words])
    assert result.exit_code == expect, (result.output, result.exception)
    return result


def as_json(result: Result) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(result.output)
    return found


@pytest.mark.parametrize("forge", FORGES)
def test_a_push_is_shown_as_it_would_be_published_also_signed(config: Path, forge: str) -> None:
    shown = tried(config, forge, push_of(forge)).output
    assert "refs/heads" not in shown.partition("\n")[0]
    assert f"[{OURS}] main moved" in shown
    assert "/topic/deploykit.source" in shown
    found = as_json(tried(config, forge, push_of(forge), "--sign", "--json"))
    assert (found["published"], found["status"], found["repository"]) == (True, 202, THEIRS)
    body = found["messages"][0]["body"]
    assert (body["data"]["ref"], body["data"]["old"], body["data"]["new"]) == ("refs/heads/main", OLD, NEW)
    assert not (config.parent / "spool").exists()
    assert not (config.parent / "state").exists()


def test_given_headers_are_checked(config: Path) -> None:
    request = push_of("github")
    headers = [word for name, value in request.headers.items() for word in ("--header", f"{name}: {value}")]
    assert as_json(tried(config, "github", request, *headers, "--check", "--json"))["published"]
    changed = ForgedRequest(request.headers, request.body + b" ")
    found = as_json(tried(config, "github", changed, *headers, "--check", "--json", expect=1))
    assert (found["status"], found["result"]) == (401, "refused")
    assert "refused with 401" in tried(config, "github", changed, *headers, "--check", expect=1).output


def test_a_form_is_known_by_its_beginning(config: Path) -> None:
    assert as_json(tried(config, "gogs", push_of("gogs", form=True), "--json"))["published"]


def test_what_is_not_published_says_why_and_ends_with_1(config: Path) -> None:
    for request, words, says in (
        (push_of("github"), ("--event", "ping"), "answered with 200"),
        (push_of("github", repository="a/b"), (), "webhook.sources.github.repositories"),
        (push_of("github", changes=[ForgedChange("refs/notes/x", OLD, NEW)]), (), "webhook.sources.github.refs"),
        (ForgedRequest({}, b"{"), (), "refused with 400"),
        (ForgedRequest({}, b" " * (6 << 20)), (), "refused with 413: the body is longer than"),
    ):
        assert says in tried(config, "github", request, *words, expect=1).output


def test_wrong_usage_is_named(config: Path) -> None:
    with pytest.raises(DeploykitError, match="there are: github"):
        invoke(config, "nobody")
    with pytest.raises(DeploykitError, match="leave out --event"):
        invoke(config, "azure", "--event", "push")
    assert "not both" in tried(config, "github", push_of("github"), "--sign", "--check", expect=2).output
    missing = CliRunner().invoke(webhook, ["test", "github", "/nowhere", "-c", str(config)])
    assert (missing.exit_code, "/nowhere" in missing.output) == (2, True)
    listening = CliRunner().invoke(webhook, ["--listen", "nowhere", "-c", str(config)])
    assert "--listen: expected" in str(listening.exception)
    assert "NAME: VALUE" in tried(config, "github", push_of("github"), "--header", "x", expect=2).output


def invoke(config: Path, source: str, *words: str) -> None:
    file = config.with_name("body")
    file.write_bytes(b"{}")
    result = CliRunner().invoke(webhook, ["test", source, str(file), "-c", str(config), *words])
    if result.exception is not None:
        raise result.exception


def test_secrets_are_not_needed_unless_asked_for_and_never_shown(config: Path) -> None:
    for file in config.parent.glob("github.*"):
        file.unlink()
    tried(config, "github", push_of("github"))
    with pytest.raises(DeploykitError, match=r"secret_files\[0\]"):
        invoke(config, "github", "--sign")


def test_a_hostile_payload_writes_no_control_characters(config: Path) -> None:
    request = push_of("github", pusher="\x1b[31meve\u202e", title="a\x07")
    shown = tried(config, "github", request).output
    assert "\x1b" not in shown
    assert "\u202e" not in shown


def test_it_needs_no_server_library() -> None:
    code = "import sys; sys.modules['starlette'] = sys.modules['uvicorn'] = None; import deploykit.web.receiver.replay"
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ))
