"""The table [facts]: what is wrong in it is found before a node says it, and by the words of the setting."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from deploykit.config import load_settings
from deploykit.config.crosschecks import warnings
from deploykit.errors import SettingsError
from deploykit.settings import FactsSettings

FILE = """
node = "web1"
[facts]
files = ["/etc/facts.json", "/etc/facts.yaml"]
facter = true
allow = ["os.*"]
every = 60
[facts.own]
env = "live"
since = 2024-03-01
roles = ["web", "cache"]
cores = 8
[facts.own.place]
rack = "b4"
"""


def load(tmp_path: Path, text: str) -> FactsSettings:
    file = tmp_path / "deploykit.toml"
    file.write_text(text)
    file.chmod(0o600)
    return load_settings(file).facts


def test_every_setting_is_read(tmp_path: Path) -> None:
    assert load(tmp_path, FILE) == FactsSettings(
        files=(Path("/etc/facts.json"), Path("/etc/facts.yaml")),
        facter=True,
        allow=("os.*",),
        every=60.0,
        own={"env": "live", "since": "2024-03-01", "roles": ("web", "cache"), "cores": 8, "place": {"rack": "b4"}},
    )


def test_by_default_nothing_is_read_but_the_classes_of_puppet() -> None:
    facts = FactsSettings()
    assert (facts.files, facts.facter, facts.allow, dict(facts.own), facts.every) == ((), False, (), {}, 300.0)
    assert [str(file) for file in facts.classes_files] == [
        "/var/lib/puppet/state/classes.txt",
        "/opt/puppetlabs/puppet/cache/state/classes.txt",
        "/var/cache/puppet/state/classes.txt",
    ]


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("every = 1", "facts.every: expected at least 10"),
        ('allow = [""]', "facts.allow[0]: expected a pattern"),
        ('allow = ["a\\u001b"]', "facts.allow[0]: expected a pattern"),
        ("own = { big = 'BIG' }".replace("BIG", "x" * 2000), "facts.own.big: longer than 1024 bytes"),
        ('own = { "a\\nb" = 1 }', "facts.own.a\\nb: expected a name without control characters"),
        ("own = { x = inf }", "facts.own.x: expected a finite number"),
        ("own = { m = { k = [nan] } }", "facts.own.m.k: expected a finite number"),
        ("files = 'x'", "facts.files"),
        ("facter = 1", "facts.facter"),
        ("fact = 1", "facts"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, table: str, says: str) -> None:
    with pytest.raises(SettingsError) as wrong:
        load(tmp_path, f'node = "web1"\n[facts]\n{table}\n')
    assert any(says in problem for problem in wrong.value.problems), wrong.value.problems


def test_too_many_own_facts_are_refused() -> None:
    assert FactsSettings(own={f"f{n}": n for n in range(257)}).problems() == (
        "own: expected at most 256 facts, not 257",
    )


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        (FactsSettings(files=(Path("/x"),)), "facts.allow: empty, so no fact of files and facter is sent"),
        (FactsSettings(own={"site": "x"}), "facts.own.site: selectors use site for something else"),
        (FactsSettings(allow=("*",)), "facts.allow: means nothing without files or facter"),
    ],
)
def test_settings_that_do_nothing_are_warned_of(tmp_path: Path, facts: FactsSettings, says: str) -> None:
    file = tmp_path / "deploykit.toml"
    file.write_text('node = "web1"\n')
    file.chmod(0o600)
    settings = attrs.evolve(load_settings(file), facts=facts)
    assert any(says in line for line in warnings(settings))
