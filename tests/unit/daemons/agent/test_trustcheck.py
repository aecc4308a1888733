"""An agent that could obey nobody says why."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import attrs
import pytest

from deploykit.daemons.agent.trustcheck import trust_problems
from deploykit.names import NodeName, RepoName, SiteName
from deploykit.settings import GrantSettings, NodeSiteSettings, RepositorySettings, Settings, TrustSettings
from deploykit.trust.keyformat import public_line
from tests.support.certificates import CertificateMaker, packed
from tests.support.keys import fixed_key
from tests.support.securitykeys import SoftwarePasskey, SoftwareSecurityKey

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


def test_a_passkey_that_can_never_count_is_nobodys(tmp_path: Path) -> None:
    settings = node(tmp_path, f"ops {SoftwarePasskey().public_openssh}\n", GRANT)
    assert ["may sign as ops" in problem for problem in trust_problems(settings, NOW)] == [True]
    named = attrs.evolve(settings.trust, rp_ids=("deploy.example.org",), origins=("https://deploy.example.org",))
    assert trust_problems(attrs.evolve(settings, trust=named), NOW) == ()
    (tmp_path / "allowed_signers").write_text(f"ops {SoftwareSecurityKey.ed25519().public_openssh}\n")
    assert trust_problems(settings, NOW) == ()


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


APPROVE = GrantSettings(principal="ann", types=("rollout.approved",))
BOTH = (GRANT, APPROVE, attrs.evolve(APPROVE, principal="bob"))
TOKEN = SoftwareSecurityKey.ed25519(seed=3).public_openssh


def signer_lines(ann: str = "ann", bob: str = "bob", *, token: bool = False) -> str:
    keys = (fixed_key(2).public_openssh, TOKEN if token else fixed_key(3).public_openssh)
    return f"{LINE}{ann} {keys[0]}\n{bob} {keys[1]}\n"


@pytest.mark.parametrize(
    ("require", "signatures", "signers", "grants", "says"),
    [
        ("", 1, LINE, (GRANT,), ""),
        ("", 2, signer_lines(), BOTH, ""),
        ("", 2, signer_lines(), BOTH[:2], "2 different people, and trusted keys can give that of 1"),
        ("", 2, signer_lines(), BOTH[:1], "that of nobody"),
        ("", 2, signer_lines(), (*BOTH[:2], attrs.evolve(BOTH[2], sites=("blog",))), "that of 1"),
        ("", 2, signer_lines(), (*BOTH[:2], attrs.evolve(BOTH[2], repos=("blog",))), "that of 1"),
        ("", 2, signer_lines(), (*BOTH[:2], attrs.evolve(BOTH[2], repos=("sh*",))), ""),
        ("", 2, signer_lines(bob='bob valid-before="20200101Z"'), BOTH, "that of 1"),
        ("", 2, f"{LINE}*,!ops {fixed_key(2).public_openssh}\n", BOTH, "that of 1"),
        ("", 2, signer_lines(ann="ann,bob", bob="ann"), BOTH, ""),
        ("", 2, signer_lines(ann="ann", bob="ann"), BOTH, "that of 1"),
        ("", 2, f"{LINE}ann,bob cert-authority {fixed_key(2).public_openssh}\n", BOTH, ""),
        ("", 3, signer_lines(), BOTH, "3 different people, and trusted keys can give that of 2"),
        ("person", 1, signer_lines(), BOTH, r"1 person with a key that shows presence \(keys on security keys, sk-…\)"),
        ("person", 1, signer_lines(token=True), BOTH, ""),
        ("person", 2, signer_lines(token=True), BOTH, "that of 1"),
        ("person", 2, f"{LINE}ann,bob cert-authority {fixed_key(2).public_openssh}\n", BOTH, ""),
    ],
)
def test_a_site_whose_mandates_nobody_could_approve_is_named(
    tmp_path: Path,
    require: Literal["", "person"],
    signatures: int,
    signers: str,
    grants: tuple[GrantSettings, ...],
    says: str,
) -> None:
    site = NodeSiteSettings(path=tmp_path / "site", repo=RepoName("shop"), require=require, signatures=signatures)
    found = trust_problems(node(tmp_path, signers, *grants, sites={SiteName("shop"): site}), NOW)
    assert len(found) == (1 if says else 0), found
    assert all(text.startswith("site shop asks for the approval of ") and re.search(says, text) for text in found), (
        found
    )


def test_who_may_only_run_approved_rollouts_makes_a_site_reachable(tmp_path: Path) -> None:
    run = attrs.evolve(GRANT, types=("rollout.run",))
    assert trust_problems(node(tmp_path, LINE, run), NOW) == ()
    (found,) = trust_problems(node(tmp_path, LINE, attrs.evolve(GRANT, repos=("blog",))), NOW)
    assert "no trusted key may deploy shop" in found
