"""docs/build-gate.md and contrib's page of the key keep their word: settings are accepted, refusals are worded so."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest

from deploykit.builds import KnownResult, decide, judge
from deploykit.config import parse_settings
from deploykit.config.crosschecks import warnings
from deploykit.names import RepoName
from deploykit.settings import GrantSettings
from tests.support.builds import (
    COMMIT,
    DAY,
    JENKINS,
    JOB,
    NOW,
    REMEMBER,
    SHOP,
    STRANGER,
    known,
    result,
    signed,
    trust,
)

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "build-gate.md").read_text(encoding="utf-8")
KEY_PAGE = (ROOT / "contrib" / "jenkins" / "signing-key.md").read_text(encoding="utf-8")
ORIGIN = b'[repositories.shop]\nurl = "https://git.example.com/shop.git"\n'


def blocks(page: str) -> list[str]:
    found = re.findall(r"^( *)```toml\n(.*?)^ *```$", page, re.MULTILINE | re.DOTALL)
    return [re.sub(rf"^{indent}", "", text, flags=re.MULTILINE) for indent, text in found]


def test_the_settings_on_the_page_are_accepted_without_a_warning() -> None:
    one, _, grant = blocks(PAGE)
    settings = parse_settings((one + grant).encode())
    assert [site.require_build for site in settings.sites.values()] == [(JOB,)]
    assert settings.repositories[RepoName("shop")].fetch_on == "build"
    assert warnings(settings) == []


def test_the_parts_on_the_page_wait_for_the_builds_that_it_names() -> None:
    _, parts, _ = blocks(PAGE)
    (site,) = parse_settings(parts.encode()).sites.values()
    assert site.require_build == ("tests",)
    assert site.require_build_of == {"theme": ("css",)}


def test_the_settings_on_the_page_of_the_key_are_accepted() -> None:
    (_, node) = blocks(KEY_PAGE)
    settings = parse_settings(ORIGIN + node.encode())
    assert warnings(settings) == []


NO_GRANT = trust(GrantSettings(principal="jenkins", types=("notice",)))
REVOKED = trust(revoked=JENKINS.public_openssh)


@pytest.mark.parametrize(
    "results",
    [
        [],
        [known(outcome="failure")],
        [known(), known(outcome="failure")],
        [judge(signed(result()), REVOKED, NOW, remember=REMEMBER, again=True)],
        [judge(signed(result(), STRANGER), trust(), NOW, remember=REMEMBER)],
        [judge(signed(result()), NO_GRANT, NOW, remember=REMEMBER)],
        [judge(signed(result(time=NOW - 91 * DAY)), trust(), NOW, remember=REMEMBER)],
        [judge(signed(result(time=NOW + timedelta(hours=1))), trust(), NOW, remember=REMEMBER)],
        [judge(signed(result(number=0)), trust(), NOW, remember=REMEMBER)],
    ],
    ids=["none", "failed", "twice", "revoked", "unknown", "grant", "old", "future", "number"],
)
def test_each_refusal_is_on_the_page(results: list[KnownResult]) -> None:
    head = "no successful build of shop-tests for 1a2b3c4d; "
    (text,) = decide((JOB,), SHOP, COMMIT, results, NOW).refusals
    assert text.startswith(head)
    assert f"`{head}`" in PAGE
    rows = re.findall(r"^\| `(?:…, )?(?:but )?([^`]+)`", PAGE, re.MULTILINE)
    assert any(row in text for row in rows), text
