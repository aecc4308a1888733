"""Grants by right, phase and repository; and every key that signed a command must be allowed it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import attrs
import pytest

from deploykit.config import parse_settings
from deploykit.errors import PolicyRefused, SettingsError
from deploykit.messages import (
    BY_TYPE,
    ApprovalWanted,
    DeployPhase,
    LocksWanted,
    Message,
    NodeQueried,
    RolloutAbort,
    SiteLocked,
    SiteUnlocked,
)
from deploykit.names import RepoName, SiteName
from deploykit.settings import GrantSettings
from deploykit.trust.grants import grant_problems, grant_warnings
from deploykit.trust.policy import Policy
from deploykit.trust.rights import RIGHTS, type_names
from deploykit.trust.signature import Signers
from tests.support.asked import CAP, NOW, SECOND, SKEW, WEB1, policy, request, signer
from tests.support.mandates import HOUR, approved, command, person

SHOP, BANK = SiteName("shop"), SiteName("bank")
DEPLOY = GrantSettings(principal="ops", types=("deploy.requested",))
RUN = GrantSettings(principal="runner", types=("rollout.run",), sites=("shop",))
PHASES: tuple[DeployPhase, ...] = ("deploy", "prepare", "activate", "rollback", "discard")


def refusal(rules: Policy, message: Message, who: Signers) -> str:
    try:
        rules.authorize(message, who, WEB1, NOW)
    except PolicyRefused as error:
        return str(error)
    return ""


# -- phases ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("phases", "allowed"),
    [
        ((), set(PHASES)),
        (("deploy",), {"deploy"}),
        (("prepare",), {"prepare", "discard"}),
        (("prepare", "activate"), {"prepare", "activate", "discard"}),
        (("rollback",), {"rollback"}),
        (("discard",), {"discard"}),
    ],
)
def test_a_grant_for_some_phases_allows_no_other(phases: tuple[DeployPhase, ...], allowed: set[str]) -> None:
    rules = policy(attrs.evolve(DEPLOY, phases=phases))
    for phase in PHASES:
        told = refusal(rules, request(phase=phase), signer("ops"))
        assert (told == "") is (phase in allowed), told
        assert not told or f"for site shop in phase {phase}" in told


def test_phases_of_one_grant_and_sites_of_another_do_not_add_up() -> None:
    rules = policy(attrs.evolve(DEPLOY, phases=("prepare",)), attrs.evolve(DEPLOY, sites=("bank",)))
    assert refusal(rules, request(phase="activate"), signer("ops")) != ""
    assert refusal(rules, request(phase="activate", site=BANK), signer("ops")) == ""


# -- repositories ----------------------------------------------------------------------------------------------------


def with_repos(repos: Mapping[SiteName, tuple[RepoName, ...]] | None, *grants: GrantSettings) -> Policy:
    return Policy(grants=grants, max_expiry=CAP, skew=SKEW, repos=repos)


def test_a_grant_for_some_repositories_is_for_their_sites_alone() -> None:
    some = attrs.evolve(DEPLOY, repos=("shop-*", "!shop-old"))
    for repo, allowed in (("shop-eu", True), ("shop-old", False), ("bank", False)):
        assert (refusal(with_repos({SHOP: (RepoName(repo),)}, some), request(), signer("ops")) == "") is allowed
    assert refusal(with_repos({BANK: (RepoName("shop-eu"),)}, some), request(), signer("ops")) != "", "unknown: denied"
    assert refusal(with_repos({}, DEPLOY), request(), signer("ops")) == "", "by default for all"
    assert with_repos(None, some).may("deploy.requested", signer("ops"), SHOP), "a machine that only looks on"


def test_of_a_site_of_several_repositories_a_grant_must_name_each() -> None:
    for repos, allowed in ((("app", "theme"), True), (("app",), False), (("*", "!theme"), False), ((), True)):
        some = attrs.evolve(DEPLOY, repos=repos)
        rules = with_repos({SHOP: (RepoName("app"), RepoName("theme"))}, some)
        assert (refusal(rules, request(), signer("ops")) == "") is allowed
    assert refusal(with_repos({SHOP: ()}, attrs.evolve(DEPLOY, repos=("*",))), request(), signer("ops")) != ""


def test_repositories_hold_for_aborts_and_questions_too() -> None:
    rules = with_repos(
        {SHOP: (RepoName("shop"),), BANK: (RepoName("bank"),)},
        attrs.evolve(DEPLOY, types=("rollout.abort", "node.queried"), repos=("shop",)),
    )
    assert rules.may_abort(signer("ops"), SHOP)
    assert not rules.may_abort(signer("ops"), BANK)
    question = NodeQueried(time=NOW, expires=NOW + SECOND)
    assert refusal(rules, question, signer("ops")) == ""
    assert rules.may_ask_about(question, signer("ops"), SHOP)
    assert not rules.may_ask_about(question, signer("ops"), BANK)
    assert refusal(rules, attrs.evolve(question, site=BANK), signer("ops")) != ""


# -- rights ----------------------------------------------------------------------------------------------------------


def test_who_runs_rollouts_sends_what_names_a_mandate_and_discards() -> None:
    rules = policy(RUN)
    for phase in PHASES:
        assert refusal(rules, command(phase=phase), signer("runner")) == ""
        told = refusal(rules, request(phase=phase), signer("runner"))
        assert (told == "") is (phase == "discard")
        assert not told or "that others approved, and this command names no mandate" in told
    assert refusal(rules, command(site=BANK), signer("runner")) != ""
    assert refusal(policy(DEPLOY), command(), signer("ops")) == "", "who may deploy may run what was approved"


def test_who_runs_rollouts_for_some_phases_runs_no_other() -> None:
    rules = policy(attrs.evolve(RUN, phases=("prepare", "activate")))
    assert refusal(rules, command(phase="activate"), signer("runner")) == ""
    assert "in phase deploy" in refusal(rules, command(phase="deploy"), signer("runner"))


def test_who_runs_rollouts_ends_their_own_and_is_heard_about_them() -> None:
    abort = RolloutAbort(time=NOW, site=SHOP, rollout="r1", expires=NOW + SECOND)
    assert policy(RUN).authorize_abort(abort, signer("runner"), WEB1, NOW) is False
    assert policy(RUN).may_coordinate(signer("runner"), SHOP)
    assert not policy(RUN).may_coordinate(signer("runner"), BANK)
    with pytest.raises(PolicyRefused, match="may abort no rollout of site bank"):
        policy(RUN).authorize_abort(attrs.evolve(abort, site=BANK), signer("runner"), WEB1, NOW)


def test_leaving_out_builds_under_a_mandate_is_for_those_who_approve() -> None:
    assert refusal(policy(RUN), command(without_build=True), signer("runner")) == ""
    assert "not without a build" in refusal(policy(DEPLOY), request(without_build=True), signer("ops"))


def test_a_right_alone_allows_no_message() -> None:
    every = GrantSettings(principal="ops", types=RIGHTS)
    for phase in PHASES[:-1]:
        assert refusal(policy(every), request(phase=phase, without_build=True), signer("ops")) != ""
    for right in RIGHTS:
        assert policy(every).may(right, signer("ops"), SHOP)
        assert not policy(DEPLOY).may(right, signer("ops"), SHOP)


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (approved(), "judge_mandate"),
        (SiteLocked(time=NOW, site=SHOP, serial=1, until=NOW + HOUR), r"may\(\)"),
        (SiteUnlocked(time=NOW, site=SHOP, serial=2), r"may\(\)"),
        (ApprovalWanted(time=NOW, node=WEB1, site=SHOP, rollout="r", mandate="m", request="x"), "may_speak_for"),
        (LocksWanted(time=NOW, node=WEB1), "may_speak_for"),
    ],
)
def test_what_asks_for_nothing_is_judged_elsewhere(message: Message, says: str) -> None:
    names = ("rollout.approved", "site.locked", "site.unlocked", "rollout.approval-wanted", "site.locks-wanted")
    with pytest.raises(PolicyRefused, match=says):
        policy(GrantSettings(principal="ops", types=names)).authorize(message, signer("ops"), WEB1, NOW)


# -- several keys ----------------------------------------------------------------------------------------------------


def test_threat_44_a_signature_that_is_added_to_anothers_command_must_be_of_one_who_may_send_it() -> None:
    ann, eve = person("ann"), person("eve")
    rules = policy(attrs.evolve(DEPLOY, principal="ann"), GrantSettings(principal="eve", types=("notice",)))
    assert refusal(rules, request(), Signers(each=(ann,))) == ""
    assert "key SHA256:eve may not send" in refusal(rules, request(), Signers(each=(ann, eve)))
    abort = RolloutAbort(time=NOW, site=SHOP, rollout="r1", expires=NOW + SECOND)
    assert rules.authorize_abort(abort, Signers(each=(ann,)), WEB1, NOW) is False
    with pytest.raises(PolicyRefused):
        rules.authorize_abort(abort, Signers(each=(ann, eve)), WEB1, NOW)


# -- settings --------------------------------------------------------------------------------------------------------

HEAD = 'node = "web1"\n[broker]\naddress = "stomp://localhost"\n[[trust.grants]]\nprincipal = "ops"\n'


def test_rights_phases_and_repositories_are_read_from_the_settings() -> None:
    text = 'types = ["deploy.requested", "without-build"]\nphases = ["prepare", "rollback"]\nrepos = ["shop-*"]\n'
    (grant,) = parse_settings((HEAD + text).encode()).trust.grants
    assert grant.phases == ("prepare", "rollback")
    assert list(grant_warnings((grant,))) == []
    with pytest.raises(SettingsError, match=r"trust\.grants\[0\]\.phases\[0\]: expected one of 'deploy'"):
        parse_settings((HEAD + 'types = ["deploy.requested"]\nphases = ["install"]\n').encode())


def test_the_old_field_for_leaving_out_builds_says_what_to_write() -> None:
    with pytest.raises(SettingsError, match="without_build: is a right now") as caught:
        parse_settings((HEAD + 'types = ["deploy.requested"]\nwithout_build = true\n').encode())
    assert 'types = ["deploy.requested", "without-build"]' in str(caught.value)


@pytest.mark.parametrize("right", RIGHTS)
def test_every_right_is_known_and_a_wrong_one_is_named(right: str) -> None:
    assert list(grant_problems((GrantSettings(principal="ops", types=(right,)),))) == []
    (line,) = grant_problems((GrantSettings(principal="ops", types=(right + "s",)),))
    assert right in line


@pytest.mark.parametrize(
    ("changes", "warned"),
    [
        ({"types": ("rollout.run",)}, None),
        ({"types": ("rollout.run",), "phases": ("deploy",)}, None),
        ({"types": ("rollout.approved",), "phases": ("deploy",)}, None),
        ({"types": ("rollout.approved", "without-build")}, None),
        ({"types": ("lock.override", "lock.release")}, None),
        ({"types": ("lock.override",), "phases": ("rollback",)}, None),
        ({"types": ("lock.release",), "phases": ("rollback",)}, "trust.grants[0].phases"),
        ({"types": ("node.queried",), "phases": ("deploy",)}, "trust.grants[0].phases"),
        ({"types": ("site.locked",), "phases": ("deploy",)}, "trust.grants[0].phases"),
        ({"types": ("without-build",)}, "trust.grants[0].types"),
        ({"types": ("deploy.requested",), "repos": ("shop",)}, None),
        ({"types": ("deploy.requested",), "jobs": ("x",)}, "trust.grants[0].jobs"),
        ({"types": ("deploy.requested",), "sites": ("!bank",)}, "trust.grants[0].sites"),
        ({"types": ("deploy.requested",), "repos": ("!bank",)}, "trust.grants[0].repos"),
    ],
)
def test_what_can_never_allow_anything_is_warned_about(changes: dict[str, Any], warned: str | None) -> None:
    grant = attrs.evolve(DEPLOY, **changes)
    assert list(grant_problems((grant,))) == []
    assert [line.partition(":")[0] for line in grant_warnings((grant,))] == ([warned] if warned else [])


@pytest.mark.parametrize("kind", BY_TYPE.values(), ids=lambda kind: kind.__name__)
def test_a_grant_may_name_each_message_type_whatever_was_loaded_before(kind: type[Message]) -> None:
    """Messages are loaded on first use: in a fresh program nobody has used this one yet."""
    program = (
        "from deploykit.operations.explainrights import _names\n"
        "from deploykit.settings import GrantSettings\n"
        "from deploykit.trust.grants import grant_problems\n"
        f"names = {type_names(kind)!r}\n"
        "assert [*grant_problems((GrantSettings(principal='ops', types=names),))] == []\n"
        "assert _names(names[1]) == names\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
