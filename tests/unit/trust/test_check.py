"""The one call that judges a signed message: who signed it, for whom it is, and what its signer may do."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest

from deploykit.errors import (
    DeploykitError,
    KeyFileError,
    KeyNotTrusted,
    MessageError,
    NotAddressed,
    PolicyRefused,
    SignatureError,
)
from deploykit.messages import Message, NodeDescribed, NodeQueried, Notice
from deploykit.names import ObjectId, SiteName
from deploykit.settings import GrantSettings, TrustSettings
from deploykit.trust import check as module
from deploykit.trust.allowed_signers import AllowedSigners
from deploykit.trust.check import Authorized, Trust
from deploykit.trust.signature import HEADER, SigningKey, body_digest, copy_digest, frame_digest, sign
from deploykit.wire import CONTENT_TYPE, Frame, encode
from tests.support.asked import CAP, NOW, SECOND, SKEW, WEB1, WEB2, report, request
from tests.support.keys import fixed_key

OPERATOR, NODE, STRANGER, GONE = (fixed_key(n) for n in (1, 2, 3, 4))
SIGNERS = AllowedSigners.parse(
    f"ops {OPERATOR.public_openssh}\nweb1 {NODE.public_openssh}\nops {GONE.public_openssh}\n",
    revoked=GONE.public_openssh,
)
GRANT = GrantSettings(principal="ops", types=("deploy.requested",), sites=("shop",))
SETTINGS = TrustSettings(grants=(GRANT,), max_expiry=CAP.total_seconds(), skew=SKEW.total_seconds())
JSON = {"content-type": CONTENT_TYPE}


def trust(trusted: Callable[[], AllowedSigners] = lambda: SIGNERS, settings: TrustSettings = SETTINGS) -> Trust:
    return Trust.from_settings(settings, WEB1, trusted=trusted)


def signed(message: Message, key: SigningKey = OPERATOR) -> Frame:
    return sign(encode(message), key)


def decided(frame: Frame, now: datetime = NOW, *, by: Trust | None = None, **options: Any) -> Authorized:
    """Both steps, as a daemon takes them."""
    return (by or trust()).check(frame, now).authorize(now, **options)


def changed(frame: Frame) -> Frame:
    return attrs.evolve(frame, body=frame.body.replace(b'"shop"', b'"shoq"'))


def unreadable() -> AllowedSigners:
    raise KeyFileError("cannot read allowed_signers")


def out_of_files() -> AllowedSigners:
    raise OSError(24, "Too many open files")


# -- a command ---------------------------------------------------------------------------------------------------------


def test_a_command_of_a_known_key_tells_who_signed_it_and_all_that_an_id_needs() -> None:
    frame = signed(request())
    found = trust().check(frame, NOW)
    assert (found.message, found.key) == (request(), OPERATOR.fingerprint)
    assert found.signer.is_principal("ops")
    assert (found.digest, found.copy) == (body_digest(frame.body), copy_digest(frame))
    assert found.authorize(NOW) == Authorized(grant=GRANT, keep_until=request().expires + SKEW)


@pytest.mark.parametrize(
    ("frame", "error", "says"),
    [
        (encode(request()), SignatureError, "the message is not signed"),
        (signed(request(), STRANGER), KeyNotTrusted, "not among the allowed signers"),
        (signed(request(), GONE), KeyNotTrusted, "is revoked"),
        (changed(signed(request())), SignatureError, "does not fit the message"),
        (attrs.evolve(signed(request()), headers={**JSON, HEADER: "U1NI"}), SignatureError, "malformed"),
        (sign(Frame(JSON, b"{"), OPERATOR), MessageError, "JSON"),
        (sign(Frame({"content-type": "x/y"}, encode(request()).body), OPERATOR), MessageError, "content type"),
        (signed(request(audience=(WEB2,))), NotAddressed, "not for web1"),
        (signed(request(site=SiteName("blog"))), PolicyRefused, "may not send .* for site blog"),
        (signed(request(), NODE), PolicyRefused, "may not send"),
        (signed(Notice(time=NOW, text="x")), PolicyRefused, "may not send"),
        (signed(request(expires=NOW - SKEW - SECOND)), PolicyRefused, "expired 31 s ago"),
        (signed(request(expires=NOW + CAP + SKEW + SECOND)), PolicyRefused, "expires further ahead"),
        (signed(request(time=NOW + SKEW + SECOND)), PolicyRefused, "from the future"),
        (signed(report(), NODE), PolicyRefused, "a reply means nothing alone"),
    ],
)
def test_every_other_message_is_refused_with_its_own_error(
    frame: Frame, error: type[DeploykitError], says: str
) -> None:
    with pytest.raises(error, match=says) as caught:
        decided(frame)
    assert type(caught.value) is error


def test_a_grant_for_another_type_allows_nothing() -> None:
    grant = attrs.evolve(GRANT, types=("notice",), sites=("*",))
    with pytest.raises(PolicyRefused, match="may not send"):
        decided(signed(request()), by=trust(settings=attrs.evolve(SETTINGS, grants=(grant,))))


def test_a_message_for_others_is_known_by_the_first_step() -> None:
    """The caller ignores it before it looks for its id."""
    with pytest.raises(NotAddressed):
        trust().check(signed(request(audience=(WEB2,))), NOW)


@pytest.mark.parametrize("trusted", [unreadable, out_of_files])
def test_while_the_trusted_files_cannot_be_read_nothing_is_decided(trusted: Callable[[], AllowedSigners]) -> None:
    with pytest.raises(KeyFileError):
        decided(signed(request()), by=trust(trusted))


def test_a_file_that_changed_counts_at_once(tmp_path: Path) -> None:
    file = tmp_path / "allowed_signers"
    file.write_text(f"ops {OPERATOR.public_openssh}\n")
    file.chmod(0o644)
    node = Trust.from_settings(attrs.evolve(SETTINGS, allowed_signers=file), WEB1)
    assert decided(signed(request()), by=node).grant == GRANT
    file.write_text(f"ops {STRANGER.public_openssh}\n")
    with pytest.raises(SignatureError, match="not among"):
        decided(signed(request()), by=node)
    file.chmod(0o666)
    with pytest.raises(KeyFileError, match="others could add"):
        decided(signed(request()), by=node)
    file.unlink()
    with pytest.raises(KeyFileError, match="cannot read"):
        decided(signed(request()), by=node)


def test_an_unsigned_message_costs_no_file_and_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> AllowedSigners:
        raise AssertionError("it was looked at")

    monkeypatch.setattr(module, "decode", never)
    with pytest.raises(SignatureError):
        trust(never).check(encode(request()), NOW)


@pytest.mark.parametrize("frame", [signed(request(), STRANGER), changed(signed(request()))])
def test_a_body_is_not_decoded_before_its_signature_proved_good(frame: Frame, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("it was decoded")

    monkeypatch.setattr(module, "decode", never)
    with pytest.raises(SignatureError):
        trust().check(frame, NOW)


def test_a_bug_while_decoding_is_not_taken_for_unreadable_trust(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(module, "decode", broken)
    with pytest.raises(RuntimeError):
        trust().check(signed(request()), NOW)


def test_a_resumed_request_is_judged_by_the_instant_it_was_first_claimed() -> None:
    later = NOW + timedelta(hours=3)
    with pytest.raises(PolicyRefused, match="expired"):
        decided(signed(request()), later)
    assert decided(signed(request()), later, claimed_at=NOW).grant == GRANT
    with pytest.raises(PolicyRefused, match="from the future"):
        decided(signed(request()), NOW, claimed_at=NOW - CAP)


def test_a_copy_with_another_signature_has_another_name_and_the_same_digest() -> None:
    first, second = signed(request()), signed(request(), NODE)
    one, other = trust().check(first, NOW), trust().check(second, NOW)
    assert one.digest == other.digest
    assert one.copy != other.copy
    assert one.key != other.key


# -- a reply -----------------------------------------------------------------------------------------------------------

SENT = signed(request())
REPORT = report(answers=copy_digest(SENT))


def believed(frame: Frame) -> None:
    trust().check(frame, NOW).believe(request(), NOW, copy=copy_digest(SENT))


def test_threat_6_a_nodes_own_report_on_this_very_copy_is_believed() -> None:
    believed(signed(REPORT, NODE))


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (encode(REPORT), "not signed"),
        (signed(REPORT, STRANGER), "not among the allowed signers"),
        (signed(REPORT), "may not report for node web1"),
        (signed(attrs.evolve(REPORT, request="another"), NODE), "answers another request"),
        (signed(attrs.evolve(REPORT, node=WEB2), NODE), "was not asked"),
        (signed(attrs.evolve(REPORT, commit=ObjectId("b" * 40)), NODE), "another commit"),
        (signed(attrs.evolve(REPORT, answers="0" * 64), NODE), "another copy of this request"),
        (signed(attrs.evolve(REPORT, answers=""), NODE), "another copy of this request"),
        (signed(request()), "no reply"),
    ],
)
def test_threat_6_every_other_report_is_not(frame: Frame, says: str) -> None:
    with pytest.raises((SignatureError, PolicyRefused), match=says):
        believed(frame)


def test_a_refusal_by_a_node_that_could_not_verify_the_request_is_believed() -> None:
    """It names the frame as it came. Of one that was changed on the way the asker knows nothing."""
    answers = frame_digest(SENT)
    changed = frame_digest(attrs.evolve(SENT, headers={**SENT.headers, HEADER: "AAAA"}))

    def believed_as(**changes: Any) -> None:
        frame = signed(attrs.evolve(REPORT, **changes), NODE)
        trust().check(frame, NOW).believe(request(), NOW, copy=copy_digest(SENT), as_sent=answers)

    believed_as(outcome="refused", answers=answers)
    believed_as(outcome="refused")
    for outcome, named in (("refused", changed), ("success", answers), ("failure", answers)):
        with pytest.raises(PolicyRefused, match="another copy"):
            believed_as(outcome=outcome, answers=named)


QUESTION = NodeQueried(id="question-1", time=NOW, source="test")
ASKED = signed(QUESTION)
DESCRIBED = NodeDescribed(time=NOW, node=WEB1, request="question-1", answers=copy_digest(ASKED))


def test_threat_6_a_nodes_own_answer_to_this_very_question_is_believed() -> None:
    trust().check(signed(DESCRIBED, NODE), NOW).believe(QUESTION, NOW, copy=copy_digest(ASKED))


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (encode(DESCRIBED), "not signed"),
        (signed(DESCRIBED), "may not report for node web1"),
        (signed(attrs.evolve(DESCRIBED, request=None), NODE), "answers another request"),
        (signed(attrs.evolve(DESCRIBED, answers=""), NODE), "another copy of this request"),
        (signed(attrs.evolve(DESCRIBED, answers=copy_digest(signed(QUESTION, NODE))), NODE), "another copy"),
    ],
)
def test_threat_6_every_other_answer_is_not(frame: Frame, says: str) -> None:
    with pytest.raises((SignatureError, PolicyRefused), match=says):
        trust().check(frame, NOW).believe(QUESTION, NOW, copy=copy_digest(ASKED))
