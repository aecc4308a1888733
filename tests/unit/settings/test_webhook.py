"""`[webhook]`: every problem is found with its path, and what is right but not meant is warned of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deploykit.config.crosschecks import problems, warnings
from deploykit.names import NodeName, RepoName
from deploykit.settings import Settings
from deploykit.settings.webhook import WebhookSettings, WebhookSourceSettings

RIGHT: dict[str, Any] = {
    "forge": "github",
    "secret_files": (Path("/etc/deploykit/forge.secret"),),
    "repositories": {"group/shop": RepoName("shop")},
}


def with_source(name: str = "forge", **changes: Any) -> WebhookSettings:
    return WebhookSettings(sources={name: WebhookSourceSettings(**{**RIGHT, **changes})})


def test_a_right_one_has_no_problems_and_its_path_follows_its_name() -> None:
    assert with_source().problems() == ()
    assert with_source().path_of("forge") == "/hook/forge"
    assert with_source(path="/in/here").path_of("forge") == "/in/here"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"secret_files": ()}, "secret_files: expected one file"),
        ({"secret_files": (Path("a"), Path("b"), Path("c"))}, "secret_files: expected one file"),
        ({"repositories": {}}, "repositories: expected at least one"),
        ({"refs": ()}, "refs: expected patterns"),
        ({"path": "hook"}, "path: expected /hook/NAME"),
        ({"path": "/hook/../x/"}, "path: expected /hook/NAME"),
        ({"header": "X-Own"}, "header: github has its own"),
        ({"forge": "generic"}, "header: which header"),
        ({"forge": "generic", "header": "a b"}, "header: not the name"),
    ],
)
def test_what_is_wrong_with_a_source_is_named_with_its_path(changes: dict[str, Any], says: str) -> None:
    assert any(line.startswith(f"sources.forge.{says}") for line in with_source(**changes).problems())


@pytest.mark.parametrize("name", ["", "a b", "a/../b?", "x" * 101])
def test_a_name_that_makes_no_path_is_refused(name: str) -> None:
    assert any("is no name for a source" in line for line in with_source(name).problems())


def test_two_sources_at_one_path_are_refused() -> None:
    one = WebhookSourceSettings(**RIGHT)
    two = WebhookSourceSettings(**{**RIGHT, "path": "/hook/a"})
    found = WebhookSettings(sources={"a": one, "b": two}).problems()
    assert found == ("sources.b.path: source a has it already",)


@pytest.mark.parametrize("changes", [{"max_body": 26 << 20}, {"max_body": 10}, {"deadline": 0.0}, {"listen": "x"}])
def test_limits_have_limits(changes: dict[str, Any]) -> None:
    (found,) = WebhookSettings(**changes).problems()
    assert found.startswith(next(iter(changes)))


def machine(webhook: WebhookSettings) -> Settings:
    return Settings(node=NodeName("web1"), webhook=webhook)


def test_a_pattern_that_matches_no_ref_is_found() -> None:
    (found,) = problems(machine(with_source(refs=("main", "refs/tags/*"))))
    assert found.startswith("webhook.sources.forge.refs: expected full ref names")


def test_an_address_that_others_reach_is_warned_of() -> None:
    assert warnings(machine(with_source())) == []
    open_one = WebhookSettings(listen="0.0.0.0:8471", sources=with_source().sources)
    (found,) = warnings(machine(open_one))
    assert found.startswith("webhook.listen: 0.0.0.0:8471 can be reached by other machines")
    assert warnings(machine(WebhookSettings(listen="0.0.0.0:8471"))) == []
