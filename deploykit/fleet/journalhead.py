"""What the journal of a rollout begins with: the plan, and what its commands carry; and frames as JSON values."""

from __future__ import annotations

import base64
import binascii
import re
import socket
from typing import Final

import attrs

from deploykit.fleet.journalfile import Record
from deploykit.fleet.journalformat import decode_plan, encode_plan
from deploykit.fleet.mandates import HeldMandate
from deploykit.fleet.plan import Plan
from deploykit.messages import BuildEvidence
from deploykit.trust.mandate import Requirement
from deploykit.wire import Frame

#: Seconds from 1970 to the year 9999.
_LATEST: Final = 253_370_764_800.0
_ID: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}\Z", re.ASCII).match


@attrs.frozen(kw_only=True, slots=True)
class JournalHead:
    """What a journal begins with.

    Args:
        plan: what the rollout is to do.
        begun: wall-clock seconds.
        evidence, without_build: what commands carry for build gates.
        override_lock: why commands are to be obeyed although the site is locked; empty where they are not.
        mandate: what people signed for this rollout; None where nobody had to.
        host: where it was begun, in words for a person.
        asks: what the site asks of the mandate, as settings or nodes said where it was proposed; None: nothing.
    """

    plan: Plan
    begun: float
    evidence: tuple[BuildEvidence, ...] = ()
    without_build: bool = False
    override_lock: str = ""
    mandate: HeldMandate | None = None
    host: str = attrs.field(factory=socket.gethostname)
    asks: Requirement | None = None


def is_rollout_id(text: str) -> bool:
    """Return whether a text can be the id of a rollout, which is the name of a directory too."""
    return _ID(text) is not None


def encode_head(head: JournalHead) -> Record:
    """Return a head as a JSON value."""
    return {
        "rollout": head.plan.rollout,
        "begun": head.begun,
        "host": head.host,
        "plan": encode_plan(head.plan),
        "evidence": [{"body": e.body, "signature": e.signature} for e in head.evidence],
        "without_build": head.without_build,
        **({"override_lock": head.override_lock} if head.override_lock else {}),
        **({"mandate": encode_frame(head.mandate.frame)} if head.mandate is not None else {}),
        **({"asks": attrs.asdict(head.asks)} if head.asks is not None else {}),
    }


def decode_head(value: Record) -> JournalHead:
    """Return the head that a JSON value stands for.

    Raises:
        DeploykitError, ValueError, TypeError, KeyError: it is none.
    """
    evidence = value.get("evidence", [])
    begun = value["begun"]
    if not isinstance(evidence, list) or not isinstance(begun, int | float):
        raise TypeError("head")
    plan = decode_plan(value["plan"])
    if not is_rollout_id(plan.rollout):
        raise ValueError(f"{plan.rollout[:80]!a} is no id of a rollout")
    return JournalHead(
        plan=plan,
        begun=seconds(begun),
        evidence=tuple(BuildEvidence(body=str(e["body"]), signature=str(e["signature"])) for e in evidence),
        without_build=value.get("without_build") is True,
        override_lock=str(value.get("override_lock", "")),
        mandate=_mandate(value.get("mandate")),
        host=str(value.get("host", "")),
        asks=_asks(value.get("asks")),
    )


def _mandate(value: object) -> HeldMandate | None:
    match value:
        case None:
            return None
        case {"headers": headers, "body": body}:
            return HeldMandate.of_frame(decode_frame(headers, body))
    raise TypeError("mandate")


def _asks(value: object) -> Requirement | None:
    match value:
        case None:
            return None
        case {"require": "" | "person" as require, "signatures": int(signatures)} if signatures > 0:
            return Requirement(require=require, signatures=signatures)
    raise TypeError("asks")


def encode_frame(frame: Frame) -> dict[str, object]:
    """Return a frame as a JSON value: its headers, and its body in base64."""
    return {"headers": dict(frame.headers), "body": base64.b64encode(frame.body).decode()}


def decode_frame(headers: object, body: object) -> Frame:
    """Return the frame that JSON values stand for.

    Raises:
        TypeError, ValueError: they are none.
    """
    if not isinstance(headers, dict) or not isinstance(body, str):
        raise TypeError("a frame has headers and a body")
    if not all(isinstance(part, str) for item in headers.items() for part in item):
        raise TypeError("headers are texts")
    try:
        return Frame(headers, base64.b64decode(body, validate=True))
    except binascii.Error as error:
        raise ValueError(f"body: {error}") from error


def seconds(value: float) -> float:
    """Return a wall-clock time of a journal; JSON as we read it has infinite numbers and others that are no date.

    Raises:
        ValueError: it is no date.
    """
    if not 0 <= value < _LATEST:  # not true of NaN
        raise ValueError("a time that is no date")
    return float(value)


__all__ = ["JournalHead", "decode_frame", "decode_head", "encode_frame", "encode_head", "is_rollout_id", "seconds"]
