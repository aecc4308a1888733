"""Whose mirror an error says is damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploykit.daemons.agent.damage import damaged_among
from deploykit.errors import DeploykitError, MirrorCorrupt, PreflightRefused, TreeDamaged, TreeError
from deploykit.mirror import Mirror
from deploykit.names import RepoName
from deploykit.settings.mirror import MirrorSettings

SHOP, THEME = RepoName("shop"), RepoName("theme")
URL = "https://example.org/x.git"
MIRRORS = {repo: Mirror(Path(f"/m/{repo}.git"), URL, MirrorSettings()) for repo in (SHOP, THEME)}


def caused(error: DeploykitError, *causes: BaseException) -> DeploykitError:
    outer: BaseException = error
    for cause in causes:
        outer.__cause__ = cause
        outer = cause
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (None, set()),
        (TreeError("a name is not allowed"), set()),
        (TreeDamaged("an object", repository="/m/theme.git"), {THEME}),
        (MirrorCorrupt("its refs", repository="/m/shop.git"), {SHOP}),
        (TreeDamaged("an object of a clone's alternate", repository="/elsewhere"), set()),
        (TreeDamaged("an object that none of them has"), {SHOP, THEME}),
        (caused(PreflightRefused("theme: x"), OSError(), TreeDamaged("x", repository="/m/theme.git")), {THEME}),
    ],
)
def test_the_error_or_a_cause_of_it_says_whose(error: DeploykitError | None, expected: set[RepoName]) -> None:
    assert damaged_among(MIRRORS, error) == expected
