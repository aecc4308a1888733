"""What a key may do, and why not, in the words of the settings."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import attrs
import pytest

from deploykit.cli.config import explain as command
from deploykit.errors import KeyFileError, SettingsError, UsageError
from deploykit.messages import DeployRequested, NodeQueried
from deploykit.names import NodeName, RepoName, SiteName
from deploykit.operations.explain import ExplainedKey, explain, explain_keys
from deploykit.operations.explainrights import ExplainedRight
from deploykit.settings import GrantSettings, NodeSiteSettings, Settings, TrustSettings
from deploykit.trust.allowed_signers import AllowedSigners
from deploykit.trust.keyformat import public_line
from deploykit.trust.policy import Policy
from deploykit.trust.signaturerules import SignatureRules
from tests.support.certificates import AUTHORITY, CertificateMaker, packed
from tests.support.keys import fixed_key
from tests.support.mandates import person
from tests.support.securitykeys import SoftwarePasskey, SoftwareSecurityKey

NOW = datetime(2026, 3, 1, tzinfo=UTC)
ANN, BOB, EVE, CA = (fixed_key(number) for number in (1, 2, 3, 4))
TOKEN = SoftwareSecurityKey.ed25519(seed=5)
LINES = f"""
ann@example.com {ANN.public_openssh} ann's laptop
ann@example.com {TOKEN.public_openssh} ann's token
bob@example.com valid-before="20260101Z" {BOB.public_openssh}
*@ci.example.com cert-authority {CA.public_openssh}
"""
GRANTS = (
    GrantSettings(principal="ann@example.com", types=("deploy.requested",), sites=("*", "!bank"), phases=("prepare",)),
    GrantSettings(principal="ann@example.com", types=("RolloutApproved", "without-build"), repos=("shop",)),
    GrantSettings(principal="runner", types=("rollout.run",)),
    GrantSettings(principal="build@ci.example.com", types=("build.finished",), repos=("shop",), jobs=("tests", "lint")),
)


def node(require: Literal["", "person"] = "", grants: tuple[GrantSettings, ...] = GRANTS) -> Settings:
    return Settings(
        node=NodeName("web1"),
        sites={
            SiteName(name): NodeSiteSettings(path=Path("/srv") / name, repo=RepoName(name), require=require)
            for name in ("shop", "bank")
        },
        trust=TrustSettings(grants=grants),
    )


def one(
    asked: str,
    settings: Settings | None = None,
    signers: str = LINES,
    *,
    revoked: str = "",
    rules: SignatureRules | None = None,
) -> ExplainedKey:
    allowed = attrs.evolve(AllowedSigners.parse(signers, revoked=revoked), rules=rules or SignatureRules())
    (found,) = explain(settings or node(), allowed, asked, NOW)
    return found


def right(key: ExplainedKey, name: str, site: str = "shop") -> ExplainedRight:
    (found,) = [each for each in key.rights if (each.right, each.site) == (name, site)]
    return found


def test_a_key_is_named_by_fingerprint_line_or_file(tmp_path: Path) -> None:
    by_print = one(ANN.fingerprint)
    assert one(ANN.public_openssh + " some comment") == by_print
    (tmp_path / "key").write_bytes(ANN.to_openssh())
    (tmp_path / "key").chmod(0o600)
    (tmp_path / "key.pub").write_text(ANN.public_openssh + "\n")
    assert one(str(tmp_path / "key.pub")) == one(str(tmp_path / "key")) == by_print
    assert [(line.line, line.comment) for line in by_print.lines] == [(2, "ann's laptop")]
    with pytest.raises(KeyFileError):
        one(str(tmp_path / "absent"))


def test_a_principal_means_every_key_that_may_sign_as_it() -> None:
    found = list(explain(node(), AllowedSigners.parse(LINES), "ann@example.com", NOW))
    assert [key.fingerprint for key in found] == [ANN.fingerprint, TOKEN.fingerprint]
    with pytest.raises(UsageError, match=r"'anne' is no fingerprint, no key file, and no principal"):
        one("anne")
    assert one("runner").problem == "no key of allowed_signers may sign as runner"


def test_what_is_granted_names_the_grant_and_its_limits() -> None:
    deploys = right(one(ANN.fingerprint), "deploy.requested")
    assert (deploys.allowed, deploys.principals, deploys.grants) == (True, ("ann@example.com",), (0,))
    assert deploys.why == "in phases prepare"
    assert right(one(ANN.fingerprint), "rollout.approved").grants == (1,), "a grant may use the class's name"


@pytest.mark.parametrize(
    ("name", "site", "why"),
    [
        ("deploy.requested", "bank", "trust.grants[0] is for sites *, !bank"),
        ("rollout.approved", "bank", "trust.grants[1] is for repositories shop, not bank"),
        ("without-build", "bank", "trust.grants[1] is for repositories shop, not bank"),
        ("rollout.run", "shop", "granted only to runner"),
        ("lock.release", "shop", "no grant is for lock.release"),
        ("build.finished", "shop", "granted only to build@ci.example.com"),
    ],
)
def test_what_is_not_granted_says_why(name: str, site: str, why: str) -> None:
    found = right(one(ANN.fingerprint), name, site)
    assert (found.allowed, found.why) == (False, why)


def test_a_key_that_counts_for_nothing_says_why() -> None:
    assert "is not among the allowed signers" in one(EVE.fingerprint).problem
    assert "was valid only before" in one(BOB.fingerprint).problem
    assert "an authority signs no message itself" in one(CA.fingerprint).problem
    assert "was valid only before" in one(BOB.fingerprint).lines[0].objection
    assert one(ANN.fingerprint, revoked=ANN.public_openssh).problem.endswith("is revoked")
    for key in (one(EVE.fingerprint), one(BOB.fingerprint)):
        assert not any(each.allowed for each in key.rights)
        assert {each.why for each in key.rights} == {key.problem}


def test_a_passkey_counts_only_for_a_site_that_the_settings_name() -> None:
    passkey = SoftwarePasskey("https://deploy.example.org", "deploy.example.org")
    lines = f"ann@example.com {passkey.public_openssh}\n"
    name = passkey.fingerprint
    assert "made for 'deploy.example.org', which is not in trust.rp_ids" in one(name, signers=lines).problem
    rules = SignatureRules(rp_ids=frozenset(["deploy.example.org"]))
    assert one(name, signers=lines, rules=rules).problem == ""


def test_where_a_site_asks_for_a_person_a_file_key_approves_nothing() -> None:
    settings = node("person")
    refused = right(one(ANN.fingerprint, settings), "rollout.approved")
    assert (refused.allowed, refused.why) == (
        False,
        "the site asks for a person, and a key of type ssh-ed25519 shows none",
    )
    assert right(one(TOKEN.fingerprint, settings), "rollout.approved").allowed
    deploys = right(one(ANN.fingerprint, settings), "deploy.requested")
    assert deploys.why == "in phases prepare; inside a mandate of 1 person with a key that shows presence"


def test_an_authority_is_explained_as_the_principal_that_it_certifies() -> None:
    key = one("build@ci.example.com")
    assert (key.fingerprint, key.lines[0].authority) == (CA.fingerprint, True)
    assert right(key, "build.finished").why == "jobs tests, lint of shop"
    grants = (*GRANTS, GrantSettings(principal="other@ci.example.com", types=("deploy.requested",)))
    assert not right(one("build@ci.example.com", node(grants=grants)), "deploy.requested").allowed
    assert right(one("other@ci.example.com", node(grants=grants)), "deploy.requested").allowed


def test_a_certificate_is_explained_by_its_authority_and_its_names(tmp_path: Path) -> None:
    lines = f"*@example.com cert-authority {AUTHORITY.public_openssh}\n"
    file = tmp_path / "key-cert.pub"
    made = CertificateMaker(key=EVE.public_blob, principals=packed("ann@example.com"), serial=9)
    file.write_text(public_line(made.make()) + "\n")
    key = one(str(file), signers=lines)
    assert (key.fingerprint, key.certificate) == (EVE.fingerprint, "key id 'ann@laptop' serial 9")
    assert right(key, "deploy.requested").principals == ("ann@example.com",)
    assert one(public_line(made.make()), signers=lines) == key
    file.write_text(public_line(attrs.evolve(made, principals=packed("ann@example.org")).make()) + "\n")
    assert "line 1 allows none of its principals" in one(str(file), signers=lines).problem
    assert "which is no authority" in one(public_line(made.make())).problem


def test_without_sites_the_sites_of_the_grants_are_named() -> None:
    settings = attrs.evolve(node(), sites={})
    assert right(one(ANN.fingerprint, settings), "deploy.requested", "").why == "for sites *, !bank; in phases prepare"


def test_it_says_what_a_node_decides() -> None:
    """Against the policy itself, for every key, site and two message types."""
    settings = node(grants=(*GRANTS, GrantSettings(principal="bob@example.com", types=("node.queried",))))
    policy = Policy.from_settings(settings.trust, repos=settings.site_repos)
    for name in ("ann@example.com", "bob@example.com", "eve@example.com"):
        key = one(ANN.fingerprint, settings, f"{name} {ANN.public_openssh}\n")
        for site in settings.sites:
            for kind, text in ((DeployRequested, "deploy.requested"), (NodeQueried, "node.queried")):
                may = policy.may((kind.TYPE, text), person(name), site)
                assert right(key, text, site).allowed is may


# -- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    signers = tmp_path / "allowed_signers"
    signers.write_text(LINES)
    signers.chmod(0o644)
    settings = tmp_path / "deploykit.toml"
    settings.write_text(
        f'node = "web1"\nstate = "{tmp_path}/state"\n[broker]\naddress = "stomp://127.0.0.1"\n'
        f'[repositories.shop]\nurl = "/srv/git/shop.git"\n[sites.shop]\npath = "{tmp_path}/site"\nrepo = "shop"\n'
        f'[trust]\nallowed_signers = "{signers}"\n'
        '[[trust.grants]]\nprincipal = "ann@example.com"\ntypes = ["deploy.requested"]\n'
    )
    return settings


def test_the_command_shows_each_right_with_a_yes_or_a_no(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command.main([ANN.fingerprint, "bob@example.com", "-c", str(file)], standalone_mode=False)
    shown = capsys.readouterr().out
    assert f"{ANN.fingerprint} ssh-ed25519\n  line 2: signs as ann@example.com (ann's laptop)\n" in shown
    assert "  site shop:\n    yes deploy.requested   as ann@example.com (trust.grants[0])\n" in shown
    assert "    no  lock.override      no grant is for lock.override\n" in shown
    assert re.search(
        r"^  may do nothing: key SHA256:\S+ does not count: line 4 was valid only before", shown, re.MULTILINE
    )


def test_the_command_prints_json(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command.main(["ann@example.com", "-c", str(file), "--json"], standalone_mode=False)
    (first, second) = json.loads(capsys.readouterr().out)["keys"]
    assert (first["fingerprint"], second["kind"]) == (ANN.fingerprint, "sk-ssh-ed25519@openssh.com")
    assert first["rights"][0] == {
        "right": "deploy.requested",
        "site": "shop",
        "allowed": True,
        "principals": ["ann@example.com"],
        "grants": [0],
        "why": "",
    }


def test_settings_without_allowed_signers_say_so() -> None:
    with pytest.raises(SettingsError, match=r"no trust\.allowed_signers is set"):
        explain_keys(node(), ["ann"], NOW)
