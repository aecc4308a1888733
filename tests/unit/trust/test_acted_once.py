"""Threat 44: signatures in another order, dropped, added, doubled, or made again: acted on once, or refused."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from deploykit.errors import PolicyRefused, SignatureError
from deploykit.ids import Claim, IdStore
from deploykit.messages import DeployRequested, RolloutApproved
from deploykit.settings import GrantSettings, TrustSettings
from deploykit.trust.allowed_signers import AllowedSigners
from deploykit.trust.check import Trust, Verified
from deploykit.trust.mandate import Mandate, Requirement
from deploykit.trust.signature import HEADER, BodySigner, add_signature, body_digest, sign
from deploykit.wire import Frame, encode
from tests.support.asked import NOW, WEB1, request
from tests.support.keys import fixed_key
from tests.support.mandates import approved
from tests.support.securitykeys import SoftwareSecurityKey

ANN, BOB, EVE = fixed_key(1), fixed_key(2), fixed_key(3)
TOKEN, LOW, HIGH = (SoftwareSecurityKey.ecdsa(seed=4, high_s=high) for high in (None, False, True))
BOTH: Final = ("deploy.requested", "rollout.approved")
TRUSTED = AllowedSigners.parse(
    f"ann {ANN.public_openssh}\nbob {BOB.public_openssh}\neve {EVE.public_openssh}\nann,zoe {TOKEN.public_openssh}\n"
)
SETTINGS = TrustSettings(grants=tuple(GrantSettings(principal=name, types=BOTH) for name in ("ann", "bob")))
TRUST = Trust.from_settings(SETTINGS, WEB1, trusted=lambda: TRUSTED)


@pytest.fixture
def ids(tmp_path: Path) -> Iterator[IdStore]:
    with IdStore(tmp_path / "ids.sqlite") as opened:
        yield opened


def signed(message: DeployRequested | RolloutApproved, *keys: BodySigner) -> Frame:
    frame = sign(encode(message), keys[0])
    for key in keys[1:]:
        frame = add_signature(frame, key)
    return frame


def act(frame: Frame, ids: IdStore) -> Claim:
    """Take a command as an agent does: check, authorize, claim, act, done."""
    command = TRUST.check(frame, NOW)
    assert isinstance(command.message, DeployRequested)
    until = command.authorize(NOW, claimed_at=ids.claimed_at(command.keys, command.message.id)).keep_until
    claim = ids.claim(command.keys, command.message.id, command.digest, NOW, keep_until=until)
    if claim is Claim.FRESH:
        ids.done(command.keys, command.message.id, b"report", NOW)
    return claim


def test_a_command_of_two_keys_is_acted_on_once_whatever_becomes_of_the_signatures(ids: IdStore) -> None:
    frame = signed(request(), ANN, BOB)
    assert act(frame, ids) is Claim.FRESH
    values = frame.headers[HEADER].split(",")
    for some in (*itertools.permutations(values, 2), *itertools.permutations(values, 1)):
        assert act(Frame({**frame.headers, HEADER: ",".join(some)}, frame.body), ids) is Claim.DONE
    assert act(signed(request(), ANN, BOB, TOKEN), ids) is Claim.DONE
    assert act(signed(request(), TOKEN), ids) is Claim.DONE, "it was added to one that is done"


def test_one_key_twice_is_refused(ids: IdStore) -> None:
    frame = signed(request(), ANN)
    twice = Frame({**frame.headers, HEADER: ",".join([frame.headers[HEADER]] * 2)}, frame.body)
    with pytest.raises(SignatureError, match="one key signed twice"):
        act(twice, ids)
    low, high = (sign(frame, key).headers[HEADER] for key in (LOW, HIGH))
    with pytest.raises(SignatureError, match="one key signed twice"):
        act(Frame({**frame.headers, HEADER: f"{low},{high}"}, frame.body), ids)


def test_s_and_n_minus_s_are_one_signature(ids: IdStore) -> None:
    low, high = signed(request(), LOW), signed(request(), HIGH)
    assert low.headers[HEADER] != high.headers[HEADER]
    assert act(low, ids) is Claim.FRESH
    assert act(high, ids) is Claim.DONE
    assert act(signed(request(), HIGH, ANN), ids) is Claim.DONE
    assert TRUST.check(low, NOW).copy == TRUST.check(high, NOW).copy


def test_a_signature_of_one_who_may_not_send_it_spends_no_id(ids: IdStore) -> None:
    with pytest.raises(PolicyRefused, match="may not send"):
        act(signed(request(), ANN, EVE), ids)
    assert act(signed(request(), ANN), ids) is Claim.FRESH


def test_the_same_id_with_other_bytes_is_a_conflict_for_either_key(ids: IdStore) -> None:
    assert act(signed(request(), ANN, BOB), ids) is Claim.FRESH
    other = request(requested_by="somebody else")
    for keys in ((ANN,), (BOB,), (BOB, ANN)):
        assert act(signed(other, *keys), ids) is Claim.CONFLICT


# -- mandates --------------------------------------------------------------------------------------------------------


def judge(frame: Frame) -> str:
    """Return why a mandate does not count for a site that asks for two people; empty where it does."""
    verified: Verified = TRUST.check(frame, NOW)
    assert isinstance(verified.message, RolloutApproved)
    found = Mandate(message=verified.message, signers=verified.signer, digest=body_digest(frame.body).hex())
    try:
        TRUST.policy.judge_mandate(found, Requirement(signatures=2), NOW)
    except PolicyRefused as error:
        return str(error)
    return ""


def test_a_mandate_of_two_people_counts_in_any_order_and_with_more_signatures() -> None:
    two: tuple[BodySigner, ...] = (ANN, BOB)
    four: tuple[BodySigner, ...] = (*two, EVE, TOKEN)
    for keys in (*itertools.permutations(two), *itertools.permutations(four)):
        assert judge(signed(approved(), *keys)) == ""


def test_a_mandate_that_lost_a_signature_counts_no_more() -> None:
    frame = signed(approved(), ANN, BOB)
    for value in frame.headers[HEADER].split(","):
        assert "has that of 1" in judge(Frame({**frame.headers, HEADER: value}, frame.body))


def test_two_keys_of_one_principal_are_one_person() -> None:
    told = judge(signed(approved(), ANN, TOKEN))
    assert "several keys of one principal are one person" in told
    assert judge(signed(approved(), BOB, TOKEN)) == ""
    assert "may not approve" in judge(signed(approved(), BOB, EVE))
