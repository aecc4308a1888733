"""`doctor` names each source of facts that cannot be used; the page about discovery has settings that work."""

from __future__ import annotations

import re
from pathlib import Path

import attrs
import pytest

from deploykit.config import load_settings
from deploykit.daemons.agent.factsources import FactSources
from deploykit.operations.factcheck import check_facts
from deploykit.settings import FactsSettings, Settings
from deploykit.settings.facts import CLASSES_FILES, MAX_CLASSES, MAX_FACTS, MAX_VALUE
from deploykit.trust.policy import Policy

PAGE = (Path(__file__).parents[3] / "docs" / "discovery.md").read_text(encoding="utf-8")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """The settings of the page, with files of this test."""
    (block,) = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    text = block.replace("/etc/mcollective/", f"{tmp_path}/").replace("/etc/deploykit/", f"{tmp_path}/")
    file = tmp_path / "deploykit.toml"
    file.write_text(text)
    file.chmod(0o600)
    return load_settings(file)


def test_the_example_of_the_page_is_what_the_page_says(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "facts.yaml").write_text("env: stage\ncountry: de\nsecret: canary\nos: {name: Debian, family: x}\n")
    (tmp_path / "facts.json").write_text('{"env": "live", "os": {"name": "Debian", "release": {"major": "12"}}}')
    sources = FactSources(settings.facts, facter=lambda: {"processors": {"count": 4, "models": ["x"]}, "env": "x"})
    sources.refresh()
    assert sources.read().facts == {
        "rack": "b4",
        "roles": ("web", "cache"),
        "env": "live",
        "country": "de",
        "os": {"name": "Debian", "release": {"major": "12"}},
        "processors": {"count": 4},
    }
    assert "node.queried" in Policy.from_settings(settings.trust).grants[0].types


def test_the_page_has_every_setting_and_the_caps() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", PAGE.partition("## Who may ask")[0], re.MULTILINE)
    assert rows == [field.name for field in attrs.fields(FactsSettings)]
    words = " ".join(PAGE.split())
    assert f"At most {MAX_FACTS} values" in words
    assert f"{MAX_VALUE // 1024} KiB for each, {MAX_CLASSES:,} classes, and 64 KiB" in words
    for place in CLASSES_FILES:
        assert f"`{place.parent}/`" in words


def test_a_source_that_cannot_be_used_is_a_finding(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "facts.json").write_text('{"env": "%s"}' % ("x" * 2000))
    facts = attrs.evolve(settings.facts, facter=False, classes_files=())
    findings = check_facts(attrs.evolve(settings, facts=facts))
    assert [finding.verdict for finding in findings] == ["error", "warning"]
    assert "facts.yaml" in findings[0].text
    assert findings[1].text == "facts left out (longer than 1024 bytes): env"
    (tmp_path / "facts.yaml").write_text("country: de\n")
    (tmp_path / "facts.json").write_text("{}")
    (finding,) = check_facts(attrs.evolve(settings, facts=facts))
    assert (finding.verdict, finding.text) == ("ok", "3 facts and 0 classes are sent")


def test_a_node_that_says_nothing_has_no_finding(settings: Settings) -> None:
    assert check_facts(attrs.evolve(settings, facts=FactsSettings(classes_files=()))) == ()
