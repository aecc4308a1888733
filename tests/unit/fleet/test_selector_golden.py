"""The golden table: what operators of other systems expect of a selector, row by row."""

from __future__ import annotations

import pytest

from deploykit.errors import SelectorError, UsageError
from deploykit.fleet.selection import Selection
from deploykit.fleet.selector import Selector
from tests.support.selecting import GOLDEN

MATCHES = [
    "nginx",
    "/ngin/ and env=live",
    "/^role::web/ and not env=stage",
    "nginx or missing and missing2",
    "!(missing and nginx)",
    "not not nginx",
    "env=/liv/",
    "country=/de|at/ and env=/^live$/",
    "processorcount>=9",
    "processorcount<10",
    "roles=web",
    "roles=/^we/",
    "(env=live)and(nginx)",
    "env = live",
    'env="live"',
    "env=/(?i)LIVE/",
    r"path=/^\/srv/",
]
DOES_NOT = [
    "ngin",
    "role::web",
    "env=liv",
    "env=LIVE",
    "(nginx or missing) and missing2",
    "not (missing or nginx)",
    "env=/^liv$/",
    "env=/LIVE/",
    "processorcount>10",
    "roles=we",
    "os=Debian",
    "missing or nginx and missing2",
]
OPTIONS_MATCH = [
    Selection(facts=("uptime>9",)),
    Selection(identities=(r"/^web\d+\./",)),
    Selection(identities=("web02", "web01.example.net")),
]
OPTIONS_DO_NOT = [
    Selection(facts=("nosuch!=x",)),
    Selection(classes=("Nginx",)),
    Selection(identities=("web01",)),
    Selection(identities=("/WEB/",)),
]
#: Text, position of what is wrong, the way out.
ERRORS = [
    ("nginx and", 9, ""),
    ("(nginx", 0, "add )"),
    ("nginx)", 5, "no bracket is open"),
    ("nginx env=live", 6, "join terms by `and` or `or`"),
    ("nginx AND env=live", 6, "write `and`"),
    ("nginx && env=live", 6, "write `and`"),
    ("env=live or", 11, ""),
    ("and and", 0, "/^and$/"),
    ("", 0, "nginx and env=live"),
    (" ", 1, "nginx and env=live"),
]
#: What MCollective reads wrongly, and we do not.
MENDED_MATCH = [
    "env!=stage",
    "env=~/li/",
    "path='/srv/www'",
    'path="/srv/www"',
    r"path=/^\/srv\/www$/",
    "memory_gb>9",
    "not kernelversion>10.0.0",
    "kernelversion<10.0.0",
]
MENDED_DO_NOT = ["env!=live", "env!~/li/", "roles!=web", "kernelversion>10.0.0", "memory_gb<9", "nosuch!~/x/"]


@pytest.mark.parametrize("text", [*MATCHES, *MENDED_MATCH])
def test_the_node_matches(text: str) -> None:
    assert Selector.parse(text).matches(GOLDEN)
    assert Selection(selects=(text,)).matches(GOLDEN)
    assert not Selector.parse(f"not ({text})").matches(GOLDEN)


@pytest.mark.parametrize("text", [*DOES_NOT, *MENDED_DO_NOT])
def test_the_node_does_not_match(text: str) -> None:
    assert not Selector.parse(text).matches(GOLDEN)
    assert not Selection(selects=(text,)).matches(GOLDEN)
    assert Selector.parse(f"not ({text})").matches(GOLDEN)


@pytest.mark.parametrize("selection", OPTIONS_MATCH, ids=repr)
def test_the_options_match(selection: Selection) -> None:
    assert selection.matches(GOLDEN)


@pytest.mark.parametrize("selection", OPTIONS_DO_NOT, ids=repr)
def test_the_options_do_not_match(selection: Selection) -> None:
    assert not selection.matches(GOLDEN)


@pytest.mark.parametrize(("text", "position", "remedy"), ERRORS)
def test_what_is_no_selector_is_refused_with_its_place_and_the_way_out(text: str, position: int, remedy: str) -> None:
    with pytest.raises(SelectorError) as caught:
        Selector.parse(text)
    assert caught.value.position == position
    assert caught.value.exit_code == 2
    assert isinstance(caught.value, UsageError)
    assert remedy in caught.value.remedy
    if text.strip():
        assert f"at character {position + 1} of `{text}`" in caught.value.problem


def test_a_fact_needs_an_operator() -> None:
    (problem,) = Selection(facts=("env",)).problems()
    assert problem == "-F: expected an operator after env at character 4 of `env` (as in env=VALUE; a class is -C env)"


def test_each_row_of_options_means_the_same_in_a_longer_list() -> None:
    both = Selection(facts=("uptime>9", "env=live"), classes=("nginx", "apache"), identities=("x", "/web/"))
    assert both.matches(GOLDEN)
    assert not Selection(facts=("uptime>9", "env=stage"), classes=("nginx",)).matches(GOLDEN)
    assert not Selection(classes=("nginx", "missing")).matches(GOLDEN)
