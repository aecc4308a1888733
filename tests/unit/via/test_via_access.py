"""Accesses through a console: with a key of ours the password never leaves this process; nothing is granted early."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from deploykit.cli import group
from deploykit.errors import DeploykitError
from deploykit.messages import AccessGrantRequested, AccessRevokeRequested
from deploykit.trust.keyfiles import generate_key
from deploykit.web.actions.asked import GrantAsked
from deploykit.web.actions.shown import AccessRow, ActionOutcome
from deploykit.web.viewer import Viewer
from deploykit.wire import CONTENT_TYPE, decode
from tests.support.consoleserver import api_alone, serving
from tests.support.fixedaccess import PASSWORD
from tests.support.fixedactions import FixedActions
from tests.support.fixedqueries import FixedQueries


@pytest.fixture
def console() -> FixedActions:
    return FixedActions()


@pytest.fixture
def url(console: FixedActions) -> Iterator[str]:
    with serving(api_alone(FixedQueries(), actions=console.console)) as server:
        yield server.url.rstrip("/")


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DEPLOYKIT_CONFIG", str(tmp_path / "none.toml"))


@pytest.fixture
def key(tmp_path: Path) -> Path:
    generate_key(tmp_path / "key")
    return tmp_path / "key"


def run(*words: object) -> Result:
    result = CliRunner().invoke(group, [str(word) for word in words])
    if result.exception and not isinstance(result.exception, DeploykitError | SystemExit):
        raise result.exception
    return result


def reported(console: FixedActions, *states: tuple[str, str], problems: tuple[tuple[str, str], ...] = ()) -> None:
    row = AccessRow(site="docs", user="carol", requested_by="ann", nodes=states, problems=problems)
    console.access.rows = [row]


def relayed(console: FixedActions) -> object:
    ((body, _),) = console.calls("relay")
    assert isinstance(body, bytes)
    return decode({"content-type": CONTENT_TYPE}, body)


def test_with_a_key_only_the_hash_leaves_this_process(console: FixedActions, url: str, key: Path) -> None:
    reported(console, ("web-1", "granted"), ("web-2", "granted"))
    done = run("access", "grant", "carol", "docs", "--until", "7d", "--via", url, "--key", key, "--json")
    assert done.exit_code == 0, done.output
    password = json.loads(done.output)["password"]
    message = relayed(console)
    assert isinstance(message, AccessGrantRequested)
    assert message.password_hash is not None
    assert message.password_hash.startswith("$6$")
    assert message.until is not None
    assert password not in repr(console.asked)
    assert console.calls("grant") == []


def test_without_one_the_console_makes_it(console: FixedActions, url: str) -> None:
    done = run("access", "grant", "carol", "docs", "--via", url, "--timeout", "0.1")
    assert console.calls("grant") == [(GrantAsked(site="docs", user="carol"),)]
    assert f"shown this once: {PASSWORD}" in done.output


def test_what_no_node_has_reported_is_not_granted(console: FixedActions, url: str, key: Path) -> None:
    reported(console, ("web-1", "asked"))
    done = run("access", "grant", "carol", "docs", "--via", url, "--key", key, "--timeout", "0.1")
    assert done.exit_code == 1
    assert "no node has reported" in done.output
    assert "web-1: no report yet" in done.output


def test_a_password_that_opens_nothing_is_not_shown(console: FixedActions, url: str, key: Path) -> None:
    reported(console, ("web-1", "refused"))
    done = run("access", "grant", "carol", "docs", "--via", url, "--key", key)
    assert done.exit_code == 3
    assert "shown this once" not in done.output


def test_an_access_that_is_as_before_is_not_taken_for_the_new_one(console: FixedActions, url: str, key: Path) -> None:
    reported(console, ("web-1", "granted"), problems=(("web-1", "an access lasts 366 days at most"),))
    done = run("access", "grant", "carol", "docs", "--until", "900d", "--via", url, "--key", key)
    assert done.exit_code == 1
    assert "web-1: not done, the access is as before: an access lasts 366 days at most" in done.output
    assert "shown this once" not in done.output, "the old password counts"


def test_a_revocation_after_which_nothing_is_left_says_what_was_done(console: FixedActions, url: str) -> None:
    reported(console, ("web-1", "granted"))
    done = run("access", "revoke", "carol", "docs", "--via", url)
    assert done.exit_code == 0
    assert "all nodes were asked to keep carol out of docs" in done.output


def test_an_extension_keeps_the_password(console: FixedActions, url: str, key: Path) -> None:
    reported(console, ("web-1", "granted"))
    done = run("access", "grant", "carol", "docs", "--extend", "--until", "30d", "--via", url, "--key", key)
    assert done.exit_code == 0, done.output
    message = relayed(console)
    assert isinstance(message, AccessGrantRequested)
    assert message.password_hash is None
    assert run("access", "grant", "carol", "docs", "--extend", "--via", url).exit_code == 0
    assert console.calls("extend") == [(GrantAsked(site="docs", user="carol"),)]


def test_a_revocation_is_waited_for(
    console: FixedActions, url: str, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported(console, ("web-1", "granted"))
    original = FixedActions.relay

    def obeyed(self: FixedActions, viewer: Viewer, body: bytes, signature: str) -> ActionOutcome:
        self.access.rows = []
        return original(self, viewer, body, signature)

    monkeypatch.setattr(FixedActions, "relay", obeyed)
    done = run("access", "revoke", "carol", "docs", "--via", url, "--key", key)
    assert done.exit_code == 0, done.output
    assert isinstance(relayed(console), AccessRevokeRequested)


def test_a_revocation_that_no_node_has_reported_is_not_done(console: FixedActions, url: str, key: Path) -> None:
    reported(console, ("web-1", "granted"))
    done = run("access", "revoke", "carol", "docs", "--via", url, "--key", key, "--timeout", "0.1")
    assert done.exit_code == 1
    assert "web-1: granted" in done.output
    assert run("access", "revoke", "carol", "docs", "--via", url).exit_code == 0
    assert console.calls("revoke") == [("docs", "carol")]


def test_nodes_are_chosen_by_whoever_signs(url: str) -> None:
    done = run("access", "grant", "carol", "docs", "--node", "web-1", "--via", url)
    assert "--node needs a key" in str(done.exception)


def test_the_list_is_what_nodes_reported(console: FixedActions, url: str) -> None:
    reported(console, ("web-1", "granted"), ("web-2", "asked"))
    assert "web-1: granted, web-2: asked" in run("access", "list", "docs", "--via", url).output
    listed = json.loads(run("access", "list", "--via", url, "--json").output)
    assert listed["access"][0]["user"] == "carol"
    console.access.rows = []
    assert "nobody has access" in run("access", "list", "--via", url).output
