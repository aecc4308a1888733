"""Who may abort a rollout and discard what it prepared: the grant `rollout.abort`, by site; deployers their own."""

from __future__ import annotations

from datetime import timedelta

import attrs
import pytest

from deploykit.errors import NotAddressed, PolicyRefused
from deploykit.messages import RolloutAbort
from deploykit.names import SiteName
from deploykit.settings import GrantSettings
from deploykit.trust.grants import grant_problems, grant_warnings
from tests.support.asked import CAP, NOW, SECOND, SKEW, WEB1, WEB2, policy, request, signer

DEPLOYER = GrantSettings(principal="ops", types=("deploy.requested",), sites=("shop",))
ABORTER = GrantSettings(principal="duty", types=("rollout.abort",), sites=("shop", "shop-*"))
POLICY = policy(DEPLOYER, ABORTER, GrantSettings(principal="herald", types=("notice",)))


def abort(**changes: object) -> RolloutAbort:
    base = RolloutAbort(time=NOW, site=SiteName("shop"), rollout="r1", expires=NOW + timedelta(minutes=5))
    return attrs.evolve(base, **changes)  # type: ignore[arg-type]


def test_the_grant_aborts_for_all_and_a_grant_to_deploy_only_for_its_own() -> None:
    assert POLICY.authorize_abort(abort(), signer("duty"), WEB1, NOW) is True
    assert POLICY.authorize_abort(abort(), signer("ops"), WEB1, NOW) is False
    assert POLICY.may_abort(signer("duty"), SiteName("shop-1"))
    assert not POLICY.may_abort(signer("ops"), SiteName("shop"))
    assert POLICY.authorize(abort(), signer("duty"), WEB1, NOW) == ABORTER


@pytest.mark.parametrize("who", ["herald", "nobody"])
def test_who_may_neither_deploy_nor_abort_is_refused_and_no_principal_is_named(who: str) -> None:
    with pytest.raises(PolicyRefused, match="may abort no rollout of site shop") as refused:
        POLICY.authorize_abort(abort(), signer(who), WEB1, NOW)
    assert who not in str(refused.value)


@pytest.mark.parametrize("who", ["ops", "duty"])
def test_a_grant_for_one_site_aborts_nothing_of_another(who: str) -> None:
    with pytest.raises(PolicyRefused):
        POLICY.authorize_abort(abort(site=SiteName("blog")), signer(who), WEB1, NOW)


@pytest.mark.parametrize(
    "changes",
    [
        {"expires": NOW - SKEW - SECOND},
        {"expires": NOW + CAP + SKEW + SECOND},
        {"time": NOW + SKEW + SECOND},
    ],
)
def test_an_abort_out_of_time_is_refused_and_both_edges_count_as_inside(changes: dict[str, object]) -> None:
    with pytest.raises(PolicyRefused):
        POLICY.authorize_abort(abort(**changes), signer("duty"), WEB1, NOW)
    for edge in ({"expires": NOW - SKEW}, {"expires": NOW + CAP + SKEW}, {"time": NOW + SKEW}):
        assert POLICY.authorize_abort(abort(**edge), signer("duty"), WEB1, NOW)


def test_an_abort_for_other_nodes_is_not_addressed() -> None:
    with pytest.raises(NotAddressed):
        POLICY.authorize_abort(abort(audience=(WEB2,)), signer("duty"), WEB1, NOW)


def test_who_may_abort_may_discard_and_nothing_else() -> None:
    assert POLICY.authorize(request(phase="discard"), signer("duty"), WEB1, NOW) == ABORTER
    assert POLICY.authorize(request(phase="discard"), signer("ops"), WEB1, NOW) == DEPLOYER
    for phase in ("deploy", "prepare", "activate", "rollback"):
        with pytest.raises(PolicyRefused):
            POLICY.authorize(request(phase=phase), signer("duty"), WEB1, NOW)
    with pytest.raises(PolicyRefused):
        POLICY.authorize(request(phase="discard", site=SiteName("blog")), signer("duty"), WEB1, NOW)


def test_a_grant_to_abort_is_a_known_type_and_draws_no_warning() -> None:
    for name in ("rollout.abort", "RolloutAbort", RolloutAbort.TYPE):
        grant = attrs.evolve(ABORTER, types=(name,))
        assert list(grant_problems((grant,))) == []
        assert list(grant_warnings((grant,))) == []
        assert policy(grant).may_abort(signer("duty"), SiteName("shop"))
    odd = attrs.evolve(ABORTER, types=("rollout.abort", "without-build"))
    assert [line.partition(":")[0] for line in grant_warnings((odd,))] == ["trust.grants[0].types"]
    assert list(grant_problems((attrs.evolve(ABORTER, types=("rollout.aborted",)),))) != []
