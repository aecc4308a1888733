"""Grants for build results and for deploys without one: both are denied unless a grant says exactly that."""

from __future__ import annotations

from datetime import timedelta

import attrs
import pytest

from deploykit.errors import PolicyRefused
from deploykit.messages import BuildFinished, Notice
from deploykit.names import SiteName
from deploykit.settings import GrantSettings
from deploykit.trust.grants import grant_problems, grant_warnings
from deploykit.trust.signature import sign
from deploykit.wire import encode
from tests.support.asked import NOW, WEB1, policy, request, signer
from tests.support.builds import JENKINS, REMEMBER, result, trust
from tests.support.builds import NOW as BUILT

DEPLOY = GrantSettings(principal="ops", types=("deploy.requested",))
ONCALL = GrantSettings(principal="ops", types=("deploy.requested", "without-build"), sites=("shop",))


def test_a_build_result_is_no_request() -> None:
    every = GrantSettings(principal="ops", types=("build.finished",), repos=("*",), jobs=("*",))
    with pytest.raises(PolicyRefused, match="judge it with authorize_build"):
        policy(every).authorize(result(time=NOW), signer("ops"), WEB1, NOW)


def test_a_build_result_counts_longer_than_a_command() -> None:
    verified = trust().check(sign(encode(result(time=BUILT - timedelta(days=3))), JENKINS), BUILT)
    assert isinstance(verified.build(BUILT, remember=REMEMBER), BuildFinished)
    with pytest.raises(PolicyRefused, match="no build result"):
        trust().check(sign(encode(Notice(text="x")), JENKINS), BUILT).build(BUILT, remember=REMEMBER)


def test_without_a_build_needs_its_own_grant() -> None:
    urgent = request(without_build=True)
    with pytest.raises(PolicyRefused, match=r"may deploy, but not without a build for site shop .*to the types"):
        policy(DEPLOY).authorize(urgent, signer("ops"), WEB1, NOW)
    assert policy(DEPLOY, ONCALL).authorize(urgent, signer("ops"), WEB1, NOW) is DEPLOY
    assert policy(ONCALL).authorize(request(), signer("ops"), WEB1, NOW) is ONCALL
    for refused in (attrs.evolve(urgent, site=SiteName("blog")), urgent):
        who = "ops" if refused.site == "blog" else "else"
        with pytest.raises(PolicyRefused):
            policy(ONCALL).authorize(refused, signer(who), WEB1, NOW)


def test_a_grant_of_before_that_names_neither_repositories_nor_jobs_is_warned_about() -> None:
    old = GrantSettings(principal="jenkins", types=("build.finished",))
    assert list(grant_problems((old,))) == []
    assert [line.partition(":")[0] for line in grant_warnings((old,))] == [
        "trust.grants[0].repos",
        "trust.grants[0].jobs",
    ]
    useless = attrs.evolve(old, repos=("*",), jobs=("*",), types=("build.finished", "without-build"))
    odd = (attrs.evolve(DEPLOY, jobs=("x",)), useless)
    assert [line.partition(":")[0] for line in grant_warnings(odd)] == [
        "trust.grants[0].jobs",
        "trust.grants[1].types",
    ]
    assert list(grant_warnings((ONCALL, attrs.evolve(old, repos=("*",), jobs=("*",))))) == []
