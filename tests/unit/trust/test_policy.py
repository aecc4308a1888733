"""What a genuine message may ask for: default deny, by type, site, audience and time."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import attrs
import pytest

from deploykit.errors import NotAddressed, PolicyRefused, SettingsError, SignatureError
from deploykit.messages import (
    AccessGrantRequested,
    AccessRevokeRequested,
    DeployRequested,
    Message,
    NodeQueried,
    Notice,
    RefUpdated,
    Unknown,
)
from deploykit.names import NodeName, ObjectId, RefName, RepoName, SiteName
from deploykit.settings import GrantSettings, TrustSettings
from deploykit.trust.allowed_signers import AllowedSigners
from deploykit.trust.policy import Policy, addressed_to, type_names
from deploykit.trust.signature import SigningKey, sign, verify
from deploykit.wire.frame import Frame
from tests.support import signers
from tests.support.asked import CAP, NOW, OPS, SECOND, SKEW, WEB1, WEB2, policy, request, signer

# -- threat 4: valid caller, wrong site or action --------------------------------------------------------------------


def ref_updated() -> RefUpdated:
    zero = ObjectId("0" * 40)
    return RefUpdated(time=NOW, repo=RepoName("r"), ref=RefName("refs/heads/m"), old=zero, new=zero)


GRANTS = (
    GrantSettings(principal="ops", types=("deploy.requested",)),
    GrantSettings(principal="shopkeeper", types=("DeployRequested",), sites=("shop",)),
    GrantSettings(principal="tester", types=("deploykit.deploy.requested.v1",), sites=("*", "!shop")),
    GrantSettings(principal="herald", types=("notice",)),
    GrantSettings(principal="stager", types=("notice", "deploy.requested"), sites=("stage-?",)),
)
MESSAGES: dict[str, Message] = {
    "deploy shop": request(),
    "deploy blog": request(site=SiteName("blog")),
    "deploy stage-1": request(site=SiteName("stage-1")),
    "deploy stage-10": request(site=SiteName("stage-10")),
    "notice": Notice(time=NOW, text="hello"),
    "ref": ref_updated(),
}
ALLOWED = {
    ("ops", "deploy shop"),
    ("ops", "deploy blog"),
    ("ops", "deploy stage-1"),
    ("ops", "deploy stage-10"),
    ("shopkeeper", "deploy shop"),
    ("tester", "deploy blog"),
    ("tester", "deploy stage-1"),
    ("tester", "deploy stage-10"),
    ("herald", "notice"),
    ("stager", "deploy stage-1"),
}
PRINCIPALS = ("ops", "shopkeeper", "tester", "herald", "stager", "nobody", "OPS", "op", "*", "")


@pytest.mark.parametrize(("principal", "message"), list(itertools.product(PRINCIPALS, MESSAGES)))
def test_threat_4_only_what_a_grant_says_is_allowed(principal: str, message: str) -> None:
    """The whole matrix of principals and messages: each allowed pair is written down, every other one is refused."""
    by_name = signers.one(fingerprint="SHA256:x", principals=((principal.replace("*", "star"),),))
    if (principal, message) in ALLOWED:
        policy(*GRANTS).authorize(MESSAGES[message], by_name, WEB1, NOW)
    else:
        with pytest.raises(PolicyRefused, match="may not send"):
            policy(*GRANTS).authorize(MESSAGES[message], by_name, WEB1, NOW)


def test_threat_4_without_grants_nobody_may_anything() -> None:
    for message in MESSAGES.values():
        with pytest.raises(PolicyRefused, match="may not send"):
            Policy().authorize(message, signer("*"), WEB1, NOW)


def test_threat_4_grants_do_not_add_up() -> None:
    """Type from one grant and site from another are not a permission."""
    two = policy(
        GrantSettings(principal="ann", types=("deploy.requested",), sites=("blog",)),
        GrantSettings(principal="ann", types=("notice",), sites=("shop",)),
    )
    with pytest.raises(PolicyRefused, match="for site shop"):
        two.authorize(request(), signer("ann"), WEB1, NOW)


def test_a_grant_for_some_sites_does_not_cover_a_message_without_one() -> None:
    with pytest.raises(PolicyRefused):
        policy(GrantSettings(principal="a", types=("notice",), sites=("shop",))).authorize(
            Notice(time=NOW, text="x"), signer("a"), WEB1, NOW
        )


def test_patterns_stand_in_allowed_signers_and_names_in_grants() -> None:
    OPS.authorize(request(), signer("o*", "!op"), WEB1, NOW)
    with pytest.raises(PolicyRefused):
        OPS.authorize(request(), signer("*", "!ops"), WEB1, NOW)


def test_a_type_can_be_named_in_three_ways() -> None:
    assert type_names(DeployRequested) == ("deploykit.deploy.requested.v1", "deploy.requested", "DeployRequested")


def test_threat_4_what_we_do_not_understand_cannot_be_granted() -> None:
    unknown = Unknown(time=NOW, type="deploykit.deploy.requested.v2")
    for name in ("Unknown", "deploykit.deploy.requested.v2", "deploy.requested", ""):
        with pytest.raises(PolicyRefused, match="may not send"):
            policy(GrantSettings(principal="ops", types=(name,))).authorize(unknown, signer("ops"), WEB1, NOW)


# -- threat 5: replay on another node or destination -----------------------------------------------------------------


def test_threat_5_a_command_for_another_node_is_ignored() -> None:
    OPS.authorize(request(), signer("ops"), WEB1, NOW)
    with pytest.raises(NotAddressed, match="not for web2"):
        OPS.authorize(request(), signer("ops"), WEB2, NOW)


@pytest.mark.parametrize(
    "audience", [(), (NodeName("web10"),), (NodeName("web"),), (NodeName("WEB1"),), (NodeName("*"),)]
)
def test_threat_5_only_the_exact_name_is_an_audience(audience: tuple[NodeName, ...]) -> None:
    assert not addressed_to(request(audience=audience), WEB1)
    with pytest.raises(NotAddressed):
        OPS.authorize(request(audience=audience), signer("ops"), WEB1, NOW)


def test_threat_5_the_audience_is_signed() -> None:
    """Putting another node in costs the signature; sending the same bytes elsewhere changes no audience."""
    key = SigningKey.generate()
    allowed = AllowedSigners.parse(f"ops {key.public_openssh}")
    frame = sign(Frame({"destination": "/topic/deploy"}, b'{"audience":["web1"]}'), key)
    with pytest.raises(SignatureError):
        verify(Frame(frame.headers, frame.body.replace(b"web1", b"web2")), allowed, NOW)
    elsewhere = Frame({**frame.headers, "destination": "/topic/other"}, frame.body)
    with pytest.raises(NotAddressed):
        OPS.authorize(request(), verify(elsewhere, allowed, NOW), WEB2, NOW)


def test_messages_without_an_audience_are_for_everybody() -> None:
    assert addressed_to(Notice(time=NOW, text="x"), WEB2)
    assert addressed_to(access(), WEB2)
    assert not addressed_to(access(audience=(WEB1,)), WEB2)


def access(**changes: object) -> AccessGrantRequested:
    base = AccessGrantRequested(time=NOW, site=SiteName("shop"), user="ann", password_hash="$2b$12$x")
    return attrs.evolve(base, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (access(), ""),
        (access(site=SiteName("blog")), "may not send"),
        (access(audience=(WEB2,)), "not for web1"),
        (access(time=NOW - CAP - SKEW - SECOND), "stale"),
        (access(expires=NOW - SKEW - SECOND), "expired"),
        (access(expires=NOW + CAP + SKEW + SECOND), "further ahead"),
        (access(until=NOW + timedelta(days=14)), ""),
        (AccessRevokeRequested(time=NOW, site=SiteName("shop"), user="ann"), "may not send"),
    ],
)
def test_access_commands_are_judged_like_deploys(message: Message, says: str) -> None:
    doors = policy(GrantSettings(principal="ops", types=("access.grant-requested",), sites=("shop",)))
    judge(message, not says, says, doors)


# -- threat 3: stale or future ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expires", "passes"),
    [
        (NOW, True),
        (NOW - SKEW + SECOND, True),
        (NOW - SKEW, True),
        (NOW - SKEW - SECOND, False),
        (NOW - timedelta(days=400), False),
        (datetime.min.replace(tzinfo=UTC), False),
    ],
)
def test_threat_3_an_expired_command_is_refused_to_the_second(expires: datetime, passes: bool) -> None:
    judge(request(expires=expires, time=NOW - timedelta(hours=1)), passes, "expired")


@pytest.mark.parametrize(
    ("expires", "passes"),
    [
        (NOW + CAP, True),
        (NOW + CAP + SKEW - SECOND, True),
        (NOW + CAP + SKEW, True),
        (NOW + CAP + SKEW + SECOND, False),
        (NOW + timedelta(days=400), False),
        (datetime.max.replace(tzinfo=UTC), False),
    ],
)
def test_threat_3_the_receiver_caps_the_expiry_to_the_second(expires: datetime, passes: bool) -> None:
    judge(request(expires=expires), passes, "further ahead")


@pytest.mark.parametrize(
    ("made", "passes"),
    [
        (NOW, True),
        (NOW + SKEW - SECOND, True),
        (NOW + SKEW, True),
        (NOW + SKEW + SECOND, False),
        (datetime.max.replace(tzinfo=UTC), False),
    ],
)
def test_threat_3_a_command_from_the_future_is_refused_to_the_second(made: datetime, passes: bool) -> None:
    judge(request(time=made), passes, "future")


@pytest.mark.parametrize(("age", "passes"), [(CAP + SKEW, True), (CAP + SKEW + SECOND, False)])
def test_threat_3_a_signed_message_without_an_expiry_goes_stale(age: timedelta, passes: bool) -> None:
    heralds = policy(GrantSettings(principal="ops", types=("notice",)))
    judge(Notice(time=NOW - age, text="x"), passes, "stale", heralds)


def test_threat_3_a_time_without_a_zone_is_refused() -> None:
    judge(request(expires=NOW.replace(tzinfo=None)), False, "zone")
    judge(request(time=NOW.replace(tzinfo=None)), False, "zone")


def judge(message: Message, passes: bool, says: str, by: Policy = OPS) -> None:
    if passes:
        by.authorize(message, signer("ops"), WEB1, NOW)
    else:
        with pytest.raises(PolicyRefused, match=says):
            by.authorize(message, signer("ops"), WEB1, NOW)


def test_ids_are_remembered_until_no_replay_can_pass() -> None:
    """Threat 2's share here: a command taken at the last instant of the cap dies just inside `remember_for`."""
    late = request(expires=NOW + CAP + SKEW)
    OPS.authorize(late, signer("ops"), WEB1, NOW)
    OPS.authorize(late, signer("ops"), WEB1, NOW + OPS.remember_for)
    with pytest.raises(PolicyRefused, match="expired"):
        OPS.authorize(late, signer("ops"), WEB1, NOW + OPS.remember_for + SECOND)


@pytest.mark.parametrize(
    ("expires", "until"),
    [
        (NOW, NOW + SKEW),
        (NOW - timedelta(days=1), NOW - timedelta(days=1) + SKEW),
        (NOW + CAP + SKEW, NOW + CAP + 2 * SKEW),
        (datetime.max.replace(tzinfo=UTC), NOW + CAP + 2 * SKEW),
        (datetime.min.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC) + SKEW),
    ],
)
def test_a_replay_can_pass_until_expiry_and_skew_and_no_longer_than_the_cap(expires: datetime, until: datetime) -> None:
    assert OPS.replayable_until(request(expires=expires), NOW) == until


def test_a_replay_of_a_message_without_expiry_can_pass_for_the_whole_time() -> None:
    assert OPS.replayable_until(Notice(time=NOW, text="x"), NOW) == NOW + OPS.remember_for


# -- settings --------------------------------------------------------------------------------------------------------


def test_a_policy_is_made_from_settings() -> None:
    made = Policy.from_settings(TrustSettings(grants=GRANTS, max_expiry=60, skew=5))
    assert made == Policy(grants=GRANTS, max_expiry=timedelta(seconds=60), skew=timedelta(seconds=5))
    assert made.remember_for == timedelta(seconds=70)


@pytest.mark.parametrize(
    ("trust", "says"),
    [
        (TrustSettings(max_expiry=0), "trust.max_expiry"),
        (TrustSettings(max_expiry=float("inf")), "trust.max_expiry"),
        (TrustSettings(max_expiry=1e12), "trust.max_expiry"),
        (TrustSettings(skew=-1), "trust.skew"),
        (TrustSettings(skew=float("nan")), "trust.skew"),
        (TrustSettings(grants=(GrantSettings(principal="*", types=("notice",)),)), r"grants\[0\].principal"),
        (TrustSettings(grants=(GrantSettings(principal="", types=("notice",)),)), r"grants\[0\].principal"),
        (TrustSettings(grants=(GrantSettings(principal="a,b", types=("notice",)),)), r"grants\[0\].principal"),
        (TrustSettings(grants=(GrantSettings(principal="a", types=("deploy.request",)),)), "unknown message type"),
        (TrustSettings(grants=(GrantSettings(principal="a", types=("*",)),)), "unknown message type"),
        (TrustSettings(grants=(GrantSettings(principal="a", types=()),)), "allows nothing"),
        (TrustSettings(grants=(GrantSettings(principal="a", types=("notice",), sites=()),)), "allows nothing"),
    ],
)
def test_mistakes_in_the_settings_are_named(trust: TrustSettings, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        Policy.from_settings(trust)


def test_all_mistakes_in_the_settings_are_told_at_once() -> None:
    bad = GrantSettings(principal="", types=("nonsense", "*"), sites=())
    with pytest.raises(SettingsError, match="5 mistakes") as caught:
        Policy.from_settings(TrustSettings(grants=(bad,), skew=-1))
    assert len(caught.value.problems) == 5


def test_an_embedding_program_can_name_its_own_types() -> None:
    @attrs.frozen(kw_only=True)
    class Own(Message):
        TYPE = "com.example.own.v2"

    grants = (GrantSettings(principal="a", types=("Own",)),)
    made = Policy.from_settings(TrustSettings(grants=grants), own_types=[Own])
    made.authorize(Own(time=NOW), signer("a"), WEB1, NOW)


# -- questions about no site in particular ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sites", "asked", "allowed", "shown"),
    [
        (("*",), None, True, {"shop", "bank"}),
        (("*", "!bank"), None, True, {"shop"}),
        (("*", "!bank"), "bank", False, set()),
        (("shop",), "shop", True, {"shop"}),
        (("shop",), None, True, {"shop"}),
        (("shop",), "bank", False, set()),
        (("None",), None, True, set()),
        (("None",), "shop", False, set()),
    ],
)
def test_a_question_about_no_site_in_particular_is_answered_with_those_that_are_granted(
    sites: tuple[str, ...], asked: str | None, allowed: bool, shown: set[str]
) -> None:
    rules = Policy(grants=(GrantSettings(principal="ops", types=("node.queried",), sites=sites),), max_expiry=CAP)
    question = NodeQueried(time=NOW, site=None if asked is None else SiteName(asked), expires=NOW + SECOND)
    if allowed:
        assert rules.authorize(question, signer("ops"), WEB1, NOW).sites == sites
        names = (SiteName("shop"), SiteName("bank"))
        assert {site for site in names if rules.may_ask_about(question, signer("ops"), site)} == shown
        return
    with pytest.raises(PolicyRefused, match=f"may not send NodeQueried .* for site {asked}"):
        rules.authorize(question, signer("ops"), WEB1, NOW)


def test_another_grant_lets_nobody_ask() -> None:
    question = NodeQueried(time=NOW, expires=NOW + SECOND)
    with pytest.raises(PolicyRefused, match="may not send NodeQueried"):
        OPS.authorize(question, signer("ops"), WEB1, NOW)
    assert not OPS.may_ask_about(question, signer("ops"), SiteName("shop"))
