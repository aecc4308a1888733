"""Settings of access files: what cannot be meant is named with its path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deploykit.names import SiteName
from deploykit.settings import AccessSettings, AccessSiteSettings

USERS = Path("/etc/nginx/users")


def settings(**changes: Any) -> AccessSettings:
    return AccessSettings(sites={SiteName("shop"): AccessSiteSettings(**{"file": USERS, **changes})})


def test_usual_settings_are_fine() -> None:
    assert settings().problems() == ()
    haproxy = settings(kind="haproxy", userlist="stage", test=("/usr/sbin/haproxy", "-c"), reload=("/bin/true",))
    assert haproxy.problems() == ()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"file": Path("users")}, "sites.shop.file: expected an absolute path"),
        ({"kind": "haproxy"}, "sites.shop.userlist: needed for haproxy"),
        ({"userlist": "stage"}, "sites.shop.userlist: needed for haproxy, and only there"),
        ({"test": ("nginx", "-t")}, "sites.shop.test: expected the full path of a program"),
        ({"reload": ("systemctl reload nginx",)}, "sites.shop.reload: expected the full path of a program"),
    ],
)
def test_what_cannot_be_meant_is_named(changes: dict[str, Any], problem: str) -> None:
    (found,) = settings(**changes).problems()
    assert found.startswith(problem)


def test_two_sites_share_neither_a_file_nor_a_label() -> None:
    shop, docs = SiteName("shop"), SiteName("docs")
    both = AccessSettings(
        sites={shop: AccessSiteSettings(file=USERS, label="Shop"), docs: AccessSiteSettings(file=USERS, label="Shop")}
    )
    assert [problem.partition(":")[0] for problem in both.problems()] == ["sites.docs.file", "sites.docs.label"]
    lists = [AccessSiteSettings(file=USERS, kind="haproxy", userlist=name) for name in ("a", "b")]
    assert AccessSettings(sites=dict(zip((shop, docs), lists, strict=True))).problems() == ()


def test_what_nobody_says_is_no_longer_than_what_is_accepted() -> None:
    (problem,) = AccessSettings(default_days=400).problems()
    assert problem == "default_days: expected at most longest_days (366), not 400"


@pytest.mark.parametrize("changes", [{"default_days": 0}, {"longest_days": float("inf")}, {"gather": -1}])
def test_times_are_times(changes: dict[str, Any]) -> None:
    assert len(AccessSettings(**changes).problems()) == 1
