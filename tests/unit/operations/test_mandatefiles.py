"""A mandate travels in a file: byte for byte, with the signatures of several people."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import attrs
import pytest

from deploykit.errors import DeploykitError, PolicyRefused, SignatureError, UsageError
from deploykit.fleet.mandates import HeldMandate
from deploykit.messages import Notice
from deploykit.operations.mandatefiles import (
    FORMAT,
    blobs_of,
    mandate_frame,
    mandate_text,
    merged,
    parse_mandate,
    read_mandate_file,
    require_canonical,
    write_mandate_file,
)
from deploykit.trust.signature import SigningKey, add_signature
from deploykit.wire import encode
from tests.unit.fleet.test_mandates import approved, held

KEYS = [SigningKey.generate() for _ in range(5)]


def signed(*keys: SigningKey) -> HeldMandate:
    frame = encode(approved())
    for key in keys:
        frame = add_signature(frame, key)
    return HeldMandate.of_frame(frame)


def of_body(body: bytes) -> HeldMandate:
    return HeldMandate.of_frame(mandate_frame(body))


def test_it_comes_back_byte_for_byte(tmp_path: Path) -> None:
    mandate = signed(*KEYS[:2])
    write_mandate_file(tmp_path / "m", mandate)
    again = read_mandate_file(tmp_path / "m")
    assert (again.frame.body, blobs_of(again), again.digest) == (mandate.frame.body, blobs_of(mandate), mandate.digest)
    require_canonical(again)


def test_what_two_people_signed_apart_is_put_together_whoever_comes_first() -> None:
    ann, bob = signed(KEYS[0]), signed(KEYS[1])
    both = merged(ann, bob)
    assert set(blobs_of(both)) == {*blobs_of(ann), *blobs_of(bob)} == set(blobs_of(merged(bob, ann)))
    assert blobs_of(merged(both, ann)) == blobs_of(both)
    with pytest.raises(SignatureError, match="at most 4 signatures"):
        merged(signed(*KEYS[:3]), signed(*KEYS[3:]))


def test_signatures_of_another_body_are_not_taken_over() -> None:
    other = HeldMandate.of_frame(add_signature(encode(approved(reason="another")), KEYS[1]))
    with pytest.raises(PolicyRefused, match="another wording"):
        merged(signed(KEYS[0]), other)
    with pytest.raises(PolicyRefused, match="rollout 'shop-2'"):
        merged(signed(KEYS[0]), held(rollout="shop-2"))


def test_a_body_that_we_would_write_otherwise_is_not_signed() -> None:
    body = encode(approved()).body
    value = json.loads(body)
    for changed, why in (
        (body + b"\n", "its bytes"),
        (json.dumps(value).encode(), "its bytes"),
        (json.dumps(dict(reversed(value.items())), separators=(",", ":")).encode(), "its bytes"),
        (encode(approved(extra={"also_nodes": ["bank1"]})).body, "fields that this version does not know: also_nodes"),
        (encode(approved(extensions={"tenant": "x"})).body, "does not know: tenant"),
        (encode(approved(nodes=(*approved().nodes, approved().nodes[0]))).body, "a node twice"),
        (encode(approved(phases=("discard",))).body, "phase discard"),
        (encode(approved(not_after=approved().not_before.replace(year=2025))).body, "ends before it begins"),
    ):
        with pytest.raises(PolicyRefused, match=why):
            require_canonical(of_body(changed))


def test_another_message_approves_nothing() -> None:
    with pytest.raises(UsageError, match="Notice approves no rollout"):
        mandate_frame(encode(Notice(text="x")).body)


GOOD = json.loads(mandate_text(signed(KEYS[0])))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"[" * 100_000,
        b"\xff\xfe",
        json.dumps({**GOOD, "format": "x"}).encode(),
        json.dumps({**GOOD, "version": 2}).encode(),
        json.dumps({**GOOD, "body": 1}).encode(),
        json.dumps({**GOOD, "body": "%"}).encode(),
        json.dumps({**GOOD, "body": ""}).encode(),
        json.dumps({**GOOD, "body": base64.b64encode(b"{}").decode()}).encode(),
        json.dumps({**GOOD, "signatures": None}).encode(),
        json.dumps({**GOOD, "signatures": "x"}).encode(),
        json.dumps({**GOOD, "signatures": ",".join([GOOD["signatures"]] * 5)}).encode(),
        json.dumps({"format": FORMAT}).encode(),
    ],
)
def test_what_is_no_mandate_is_an_error_of_ours(raw: bytes) -> None:
    with pytest.raises(DeploykitError):
        parse_mandate(raw)


def test_the_name_in_the_file_is_not_read_back() -> None:
    again = parse_mandate(json.dumps({**GOOD, "rollout": "another"}).encode())
    assert attrs.evolve(again).message.rollout == "shop-1"


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        read_mandate_file(tmp_path / "none")
    with pytest.raises(UsageError):
        read_mandate_file(tmp_path)
