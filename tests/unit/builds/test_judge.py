"""Which signed build results count: key, grant, repository, job, age; and what stands in a refusal."""

from __future__ import annotations

from datetime import timedelta

import attrs
import pytest

from deploykit.builds import KnownResult, SignedResult, judge, judge_to_keep, read_results, write_results
from deploykit.errors import MessageError, UsageError
from deploykit.messages import BuildEvidence, BuildFinished, Notice
from deploykit.names import NodeName, SiteName
from deploykit.settings import GrantSettings, TrustSettings
from deploykit.trust.allowed_signers import AllowedSigners
from deploykit.trust.check import Trust
from deploykit.trust.signature import add_signature, sign
from deploykit.wire import Frame, encode
from tests.support.builds import (
    DAY,
    GRANT,
    JENKINS,
    NOW,
    REMEMBER,
    STRANGER,
    result,
    signed,
    trust,
)
from tests.support.securitykeys import SoftwareSecurityKey

SECOND = timedelta(seconds=1)
SKEW = timedelta(seconds=30)


def judged(made: SignedResult, believes: Trust | None = None, **keywords: object) -> KnownResult:
    return judge(made, believes or trust(), NOW, remember=REMEMBER, **keywords)  # type: ignore[arg-type]


def test_a_result_by_a_granted_key_counts() -> None:
    found = judged(signed(result()))
    assert (found.objection, found.result, found.signer) == ("", result(id=found.result.id), JENKINS.fingerprint)


@pytest.mark.parametrize(
    ("changes", "objection"),
    [
        ({"time": NOW - 89 * DAY}, ""),
        ({"time": NOW - REMEMBER - SKEW}, ""),
        ({"time": NOW - REMEMBER - SKEW - SECOND}, "results count for 90 days"),
        ({"time": NOW - 91 * DAY}, "results count for 90 days"),
        ({"time": NOW - timedelta(hours=2)}, ""),
        ({"time": NOW + SKEW}, ""),
        ({"time": NOW + SKEW + SECOND}, "claims to be from the future"),
        ({"repo": "blog"}, "may not report shop-tests of blog"),
        ({"job": "deploy-all"}, "may not report deploy-all of shop"),
        ({"number": 0}, "names no number"),
        ({"repo": None}, "names no repository"),
        ({"commit": None}, "names no commit"),
    ],
)
def test_age_repository_and_job_decide(changes: dict[str, object], objection: str) -> None:
    found = judged(signed(result(**changes)))
    assert objection in found.objection
    assert bool(found.objection) == bool(objection)


def test_the_key_decides() -> None:
    assert judged(signed(result(), STRANGER)).objection == "its key is not trusted"
    assert judged(signed(result()), trust(revoked=JENKINS.public_openssh)).objection == "its key is not trusted"
    assert judged(signed(result()), trust(revoked=JENKINS.public_openssh), again=True).objection == (
        "its key is no longer trusted"
    )
    ours = signed(result())
    changed = attrs.evolve(ours, body=ours.body.replace(b'"number":41', b'"number":42'))
    assert judged(changed).objection == "its signature does not fit: it was changed"
    assert judged(attrs.evolve(ours, signature="U1NI")).objection == "its signature does not fit: it was changed"


@pytest.mark.parametrize(
    "grant",
    [
        attrs.evolve(GRANT, repos=()),
        attrs.evolve(GRANT, jobs=()),
        attrs.evolve(GRANT, repos=(), jobs=()),
        attrs.evolve(GRANT, types=("deploy.requested",)),
        attrs.evolve(GRANT, principal="other"),
        attrs.evolve(GRANT, jobs=("*", "!shop-tests")),
    ],
)
def test_both_patterns_and_the_type_must_be_granted(grant: GrantSettings) -> None:
    assert judged(signed(result()), trust(grant)).objection == "its key may not report shop-tests of shop"


def test_two_grants_do_not_add_up() -> None:
    halves = (attrs.evolve(GRANT, repos=("blog",)), attrs.evolve(GRANT, jobs=("other",)))
    assert judged(signed(result()), trust(*halves)).objection


def test_a_grant_for_one_site_counts_for_that_site() -> None:
    believes = trust(attrs.evolve(GRANT, sites=("stage",)))
    assert judged(signed(result()), believes).objection == ""
    assert judged(signed(result()), believes, site=SiteName("stage")).objection == ""
    assert judged(signed(result()), believes, site=SiteName("live")).objection


def test_a_good_signature_over_something_else_is_no_result() -> None:
    with pytest.raises(MessageError, match="Notice is no build result"):
        judged(SignedResult.from_frame(sign(encode(Notice(text="x")), JENKINS)))
    with pytest.raises(MessageError):
        judged(SignedResult.from_frame(sign(Frame({}, b"Repo: shop\nURL: x\nStatus: Success\n"), JENKINS)))


def test_an_unsigned_or_huge_result_cannot_be_kept() -> None:
    with pytest.raises(MessageError, match="not signed"):
        SignedResult.from_frame(encode(result()))
    with pytest.raises(MessageError, match="too large"):
        SignedResult.from_frame(sign(encode(result(url="x" * 70_000)), JENKINS))


def test_threat_44_two_signatures_of_one_key_are_one_result() -> None:
    token, message = SoftwareSecurityKey.ecdsa(), result()
    made = []
    for high_s in (False, True):
        token.high_s = high_s
        made.append(signed(message, token))
    assert made[0].signature != made[1].signature
    assert made[0].digest == made[1].digest != signed(message).digest
    assert attrs.evolve(made[0], signature="AAAA").digest != attrs.evolve(made[0], signature="BBBB").digest


def test_a_result_is_the_word_of_one_key() -> None:
    frame = add_signature(sign(encode(result()), JENKINS), STRANGER)
    with pytest.raises(MessageError, match="several signatures"):
        SignedResult.from_frame(frame)


def test_a_signature_that_does_not_show_enough_says_so() -> None:
    token = SoftwareSecurityKey.ecdsa(presence=False)
    allowed = AllowedSigners.parse(f"jenkins {token.public_openssh}")
    believes = Trust.from_settings(TrustSettings(grants=(GRANT,)), NodeName("web1"), trusted=lambda: allowed)
    assert "does not show a person" in judged(signed(result(), token), believes).objection
    token.presence = True
    assert judged(signed(result(), token), believes).objection == ""


def test_results_travel_as_evidence_and_as_lines_byte_for_byte() -> None:
    made = (signed(result()), signed(result(number=42, outcome="failure")))
    assert [SignedResult.from_evidence(each.evidence) for each in made] == list(made)
    assert read_results(write_results(made).encode() + b"\n\n", "x") == made


def test_a_file_that_holds_no_results_is_refused_with_every_line() -> None:
    text = write_results([signed(result())]).encode() + b"{}\nnothing\n" + b'{"body": "!", "signature": "x"}\n'
    with pytest.raises(UsageError) as caught:
        read_results(text, "results.jsonl")
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [
        f"results.jsonl, line {number}" for number in (2, 3, 4)
    ]
    with pytest.raises(MessageError):
        SignedResult.from_evidence(BuildEvidence(body="A", signature="A"))


def test_what_is_decoded_is_what_was_verified() -> None:
    assert isinstance(signed(result()).unverified(), BuildFinished)


@pytest.mark.parametrize(
    ("ahead", "kept"),
    [(-DAY, True), (-91 * DAY, False), (timedelta(minutes=2), True), (DAY, True), (DAY + SECOND, False)],
)
def test_a_result_from_a_clock_that_is_ahead_is_kept_until_its_time_has_come(ahead: timedelta, kept: bool) -> None:
    made = signed(result(time=NOW + ahead))
    assert (judge_to_keep(made, trust(), NOW, remember=REMEMBER).objection == "") == kept
    if ahead > timedelta(0):
        assert judged(made).objection
        assert judge(made, trust(), NOW + ahead, remember=REMEMBER).objection == ""
    assert judge_to_keep(signed(result(time=NOW + ahead), STRANGER), trust(), NOW, remember=REMEMBER).objection
