"""An agent that could obey nobody says why."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import pytest

from deploykit.daemons.agent.trustcheck import trust_problems
from deploykit.names import NodeName, RepoName, SiteName
from deploykit.settings import GrantSettings, NodeSiteSettings, RepositorySettings, Settings, TrustSettings
from deploykit.trust.keyformat import public_line
from tests.support.certificates import CertificateMaker, packed
from tests.support.keys import fixed_key

NOW = datetime(2026, 3, 1, tzinfo=UTC)
GRANT = GrantSettings(principal="ops", types=("deploy.requested",))


def node(tmp_path: Path, signers: str | None, *grants: GrantSettings, **changes: Any) -> Settings:
    file = tmp_path / "allowed_signers"
    if signers is not None:
        file.write_text(signers)
        file.chmod(0o644)
    settings = Settings(
        node=NodeName("web1"),
        repositories={RepoName("shop"): RepositorySettings(url="/srv/git/shop.git")},
        sites={SiteName("shop"): NodeSiteSettings(path=tmp_path / "site", repo=RepoName("shop"))},
        trust=TrustSettings(allowed_signers=file, grants=grants),
        signing_key=tmp_path / "key",
    )
    return attrs.evolve(settings, **changes)


LINE = f"ops {fixed_key(1).public_openssh}\n"


def test_a_node_that_somebody_may_deploy_to_has_no_doubts(tmp_path: Path) -> None:
    assert trust_problems(node(tmp_path, LINE, GRANT), NOW) == ()


def test_a_node_without_sites_obeys_nobody_and_that_is_right(tmp_path: Path) -> None:
    assert trust_problems(node(tmp_path, None, sites={}, signing_key=None), NOW) == ()


@pytest.mark.parametrize(
    ("signers", "grants", "changes", "says"),
    [
        (LINE, (GRANT,), {"signing_key": None}, "no signing_key"),
        (LINE, (GRANT,), {"trust": TrustSettings(grants=(GRANT,))}, r"no trust\.allowed_signers is set"),
        (None, (GRANT,), {}, "no command is obeyed: cannot read allowed_signers"),
        ("rubbish\n", (GRANT,), {}, "no command is obeyed: "),
        ("", (GRANT,), {}, "no key in allowed_signers may sign as ops"),
        (LINE.replace("ops", "eve"), (GRANT,), {}, "may sign as ops"),
        (LINE.replace("ops", 'ops valid-before="20200101Z"'), (GRANT,), {}, "may sign as ops"),
        (LINE.replace("ops", 'ops namespaces="git"'), (GRANT,), {}, "may sign as ops"),
        (LINE, (), {}, "no grant is for deploy.requested"),
        (LINE, (attrs.evolve(GRANT, types=("node.queried",)),), {}, "no grant is for deploy.requested"),
        (LINE, (attrs.evolve(GRANT, sites=("blog",)),), {}, "may deploy shop"),
    ],
)
def test_what_makes_a_node_obey_nobody_is_named(
    tmp_path: Path, signers: str | None, grants: tuple[GrantSettings, ...], changes: dict[str, Any], says: str
) -> None:
    (found,) = trust_problems(node(tmp_path, signers, *grants, **changes), NOW)
    assert re.search(says, found), found


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"principals": packed("web1", "web1.example.com")}, ""),
        ({"principals": packed("web1"), "before": int(NOW.timestamp())}, "was valid only before 2026-03-01T00:00:00Z"),
        ({"principals": packed("web1"), "type": 2}, "is a host certificate"),
        ({"principals": packed("web2")}, "is for web2, not for web1"),
        ({"principals": b"\0\0\0\x09web1"}, "signing_key: .*not a certificate"),
    ],
)
def test_a_certificate_by_which_nobody_believes_the_node_is_named(
    tmp_path: Path, fields: dict[str, Any], says: str
) -> None:
    path = tmp_path / "key-cert.pub"
    path.write_text(public_line(CertificateMaker(**fields).make()) + "\n")
    found = trust_problems(node(tmp_path, LINE, GRANT, signing_key=path), NOW)
    assert len(found) == bool(says)
    assert not says or re.search(says, found[0]), found


def test_a_revoked_key_is_nobodys(tmp_path: Path) -> None:
    revoked = tmp_path / "revoked"
    revoked.write_text(f"{fixed_key(1).public_openssh}\n")
    revoked.chmod(0o644)
    settings = node(tmp_path, LINE, GRANT)
    settings = attrs.evolve(settings, trust=attrs.evolve(settings.trust, revoked_keys=revoked))
    assert ["may sign as ops" in problem for problem in trust_problems(settings, NOW)] == [True]


BUILDS = GrantSettings(principal="ops", types=("build.finished",), repos=("shop",), jobs=("shop-*",))


@pytest.mark.parametrize(
    ("grants", "lost"),
    [
        ((BUILDS,), ""),
        ((attrs.evolve(BUILDS, jobs=("lint",)), attrs.evolve(BUILDS, jobs=("shop-tests",))), ""),
        ((), "shop-tests, lint of shop"),
        ((attrs.evolve(BUILDS, repos=()),), "shop-tests, lint of shop"),
        ((attrs.evolve(BUILDS, sites=("blog",)),), "shop-tests, lint of shop"),
        ((attrs.evolve(BUILDS, principal="jenkins"),), "shop-tests, lint of shop"),
        ((attrs.evolve(BUILDS, types=("deploy.requested",)),), "shop-tests, lint of shop"),
        ((attrs.evolve(BUILDS, jobs=("lint",)),), "shop-tests of shop"),
    ],
)
def test_a_site_whose_gate_nobody_can_open_is_named(
    tmp_path: Path, grants: tuple[GrantSettings, ...], lost: str
) -> None:
    jobs = ("shop-tests", "lint") if grants != (BUILDS,) else ("shop-tests",)
    site = NodeSiteSettings(path=tmp_path / "site", repo=RepoName("shop"), require_build=jobs)
    found = trust_problems(node(tmp_path, LINE, GRANT, *grants, sites={SiteName("shop"): site}), NOW)
    assert len(found) == (1 if lost else 0)
    assert all(f"site shop requires builds that no trusted key may report: {lost} (" in text for text in found)
