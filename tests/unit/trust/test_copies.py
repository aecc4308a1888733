"""Threat 44: whatever somebody does to the signatures of a message on its way, it is acted on once, or refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import permutations
from pathlib import Path

import pytest

from deploykit.errors import SignatureError
from deploykit.ids import Claim, IdStore
from deploykit.messages import DeployRequested
from deploykit.names import NodeName, ObjectId, RefName, SiteName
from deploykit.settings.trust import GrantSettings, TrustSettings
from deploykit.trust.allowed_signers import AllowedSigners
from deploykit.trust.check import Trust, Verified
from deploykit.trust.signature import HEADER, BodySigner
from deploykit.trust.sshsig import encode_header
from deploykit.wire import Frame, encode
from tests.support.keys import fixed_key
from tests.support.securitykeys import SoftwareSecurityKey

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
WEB1 = NodeName("web1")
MESSAGE = encode(
    DeployRequested(
        source="operator/desk",
        time=NOW,
        site=SiteName("shop"),
        ref=RefName("refs/tags/v1"),
        commit=ObjectId("1a" * 20),
        audience=(WEB1,),
        expires=NOW + timedelta(minutes=10),
        phase="deploy",
        requested_by="ann",
    )
)
ANN, BOB, CAT = SoftwareSecurityKey.ecdsa(seed=1), SoftwareSecurityKey.ed25519(seed=2), fixed_key(3)
EVERYBODY: tuple[BodySigner, ...] = (ANN, BOB, CAT)
ALLOWED = AllowedSigners.parse(
    "\n".join(f"{name} {key.public_openssh}" for name, key in (("ann", ANN), ("bob", BOB), ("cat", CAT)))
)
TRUST = Trust.from_settings(
    TrustSettings(grants=(GrantSettings(principal="ann", types=("deploy.requested",)),)), WEB1, trusted=lambda: ALLOWED
)


def signed(*keys: BodySigner) -> Frame:
    """The message with signatures in this order, made anew."""
    value = ",".join(encode_header(key.sign_body(MESSAGE.body)) for key in keys)
    return Frame({**MESSAGE.headers, HEADER: value}, MESSAGE.body)


def checked(*keys: BodySigner) -> Verified:
    return TRUST.check(signed(*keys), NOW)


@pytest.fixture
def ids(tmp_path: Path) -> IdStore:
    return IdStore(tmp_path / "ids.sqlite")


def claim(ids: IdStore, command: Verified) -> Claim:
    assert command.message is not None
    return ids.claim(command.keys, command.message.id, command.digest, NOW, keep_until=NOW + timedelta(hours=1))


@pytest.mark.parametrize("first", [(ANN, BOB), (ANN,), (ANN, BOB, CAT)], ids=["two", "one", "three"])
def test_threat_44_no_order_loss_or_addition_of_signatures_makes_it_new(
    ids: IdStore, first: tuple[BodySigner, ...]
) -> None:
    ANN.high_s = False
    original = checked(*first)
    assert claim(ids, original) is Claim.FRESH
    assert claim(ids, original) is Claim.RESUME
    assert original.message is not None
    ids.done(original.keys, original.message.id, b"reply", NOW)
    for high_s in (False, True):
        ANN.high_s = high_s
        for count in (1, 2, 3):
            for keys in permutations(EVERYBODY, count):
                if set(keys) & set(first):
                    assert claim(ids, checked(*keys)) is Claim.DONE


@pytest.mark.parametrize("keys", [(ANN, ANN), (ANN, BOB, ANN), (BOB, BOB)])
def test_threat_44_one_key_twice_is_refused(keys: tuple[BodySigner, ...]) -> None:
    with pytest.raises(SignatureError, match="one key signed twice"):
        checked(*keys)


def test_threat_44_the_forms_of_one_signature_answer_to_one_name() -> None:
    names = set()
    for high_s in (False, True):
        ANN.high_s = high_s
        names |= {checked(ANN, BOB).copy, checked(BOB, ANN).copy}
    assert len(names) == 1
    assert checked(ANN).copy not in names
