"""Rollouts that wait for people, as they are shown, and what a signature under one is worth.

Rules:

* All that is shown is decoded from the very bytes that are signed.
* A signature that does not fit the bytes, or that no grant covers here, is never added: nodes would refuse them all.
* Each key signs once. Two people who sign at once lose no signature.
"""

from __future__ import annotations

import base64
import shlex
from datetime import datetime
from functools import partial

from deploykit.errors import ActionRefused, MessageError, SignatureError
from deploykit.fleet.mandates import HeldMandate, time_objection
from deploykit.operations.approval import ApprovalDesk, ApprovalSheet, ShownSignature
from deploykit.operations.approvaltext import sheet_lines
from deploykit.operations.mandatefiles import blobs_of, with_blobs
from deploykit.trust.mandate import Requirement
from deploykit.trust.signature import decode_headers
from deploykit.trust.sshsig import decode_blob
from deploykit.web.actions.hostport import ConsoleRollout
from deploykit.web.actions.shown import ProposalShown, SignatureShown

#: Characters of a signature header that are looked at: four signatures with their certificates.
_MOST = 64 * 1024


def mandate_of(kept: ConsoleRollout) -> HeldMandate:
    """Return the mandate of a proposal.

    Raises:
        ActionRefused: 409: it waits for nobody.
    """
    mandate = kept.head.mandate
    if mandate is None:
        raise ActionRefused(f"rollout {kept.rollout} waits for no signature", status=409)
    return mandate


def approve_command(rollout: str, url: str) -> str:
    """Return the line that signs a proposal from a shell.

    Args:
        rollout: its id.
        url: of the console, as people type it; empty where the settings do not say.
    """
    return shlex.join(["deploykit", "approve", rollout, "--via", url.rstrip("/") or "URL", "--key", "KEY"])


def show_proposal(kept: ConsoleRollout, desk: ApprovalDesk, now: datetime, url: str = "") -> ProposalShown:
    """Return a proposal as people see it.

    Args:
        kept: it.
        desk: knows whose keys count.
        now: aware.
        url: as for `approve_command`.

    Raises:
        DeploykitError: what is kept of it cannot be read.
    """
    held = mandate_of(kept)
    sheet = desk.sheet(held, now)
    message = held.message
    return ProposalShown(
        rollout=message.rollout,
        site=message.site,
        kind=kept.head.plan.kind,
        ref=message.ref or "",
        commit=message.commit or "",
        nodes=message.nodes,
        not_before=message.not_before,
        not_after=message.not_after,
        requested_by=message.requested_by,
        reason=message.reason,
        body=base64.b64encode(held.frame.body).decode(),
        text=tuple(sheet_lines(sheet, now)),
        signatures=tuple(map(_shown, sheet.signatures)),
        missing=missing_of(sheet, desk, now),
        problems=(*sheet.problems, *_over(held, now)),
        command=approve_command(kept.rollout, url),
    )


def missing_of(sheet: ApprovalSheet, desk: ApprovalDesk, now: datetime) -> str:
    """Return what a mandate needs yet before its rollout can begin, but for the time; empty for nothing."""
    if not desk.knows_signers:
        return "whose signatures count is not known here: trust.allowed_signers is not set"
    counting, _ = desk.counting(sheet.held, now)
    why = desk.judge(counting, now)
    if not why:
        return ""
    asks = sheet.requirement or Requirement()
    signed = sum(not each.problem for each in sheet.signatures)
    if signed >= asks.signatures:
        return f"{why} ({asks} must sign)"  # enough signatures, and yet not enough people
    left = asks.signatures - signed
    return f"{left} {'more ' if signed else ''}{'person' if left == 1 else 'people'} must sign"


def add_signature(held: HeldMandate, value: str, desk: ApprovalDesk, now: datetime) -> HeldMandate:
    """Return a mandate with the signatures of a header value.

    Args:
        held: as it is kept at this moment.
        value: of the signature header, as typed or posted.
        desk: knows whose keys count.
        now: aware.

    Raises:
        ActionRefused: 422: it is no signature, or of other bytes; 403: nobody who may sign this made it; 409: its key
            has signed, or it is too late.
    """
    text = value.strip()
    if over := _over(held, now):
        raise ActionRefused(over[0], "propose the rollout again", status=409)
    try:
        if not text or len(text) > _MOST:
            raise SignatureError("it is empty, or too long")
        blobs = tuple(decode_headers(text))
        keys = [decode_blob(blob).key for blob in blobs]
        known = {decode_blob(blob).key for blob in blobs_of(held)}
    except MessageError as error:
        problem = f"that is no signature: {error.problem}"
        raise ActionRefused(problem, "give the value of a signature header", status=422, signature=problem) from error
    if len(set(keys)) != len(keys) or known.intersection(keys):
        problem = "this key has signed it already"
        raise ActionRefused(problem, "somebody else must sign", status=409, signature=problem)
    for each in desk.sheet(with_blobs(held, blobs), now).signatures:
        _require_counting(each)
    try:
        return with_blobs(held, (*blobs_of(held), *blobs))
    except SignatureError as error:
        raise ActionRefused(error.problem, error.remedy, status=409, signature=error.problem) from error


def signing(value: str, desk: ApprovalDesk, now: datetime) -> partial[HeldMandate]:
    """Return what adds a signature to the mandate that a proposal has when it is changed."""
    return partial(add_signature, value=value, desk=desk, now=now)


def _require_counting(each: ShownSignature) -> None:
    if not each.fits:
        problem = f"the signature by key {each.fingerprint} does not fit these bytes"
        raise ActionRefused(problem, "sign what the page shows now", status=422, signature=problem)
    if each.problem:
        problem = f"the signature by key {each.fingerprint} does not count here: {each.problem}"
        raise ActionRefused(problem, "trust and grants are given in the settings", status=403, signature=problem)


def _over(held: HeldMandate, now: datetime) -> tuple[str, ...]:
    return (time_objection(held.message, now),) if now > held.message.not_after else ()


def _shown(each: ShownSignature) -> SignatureShown:
    names = each.signer.principals if each.signer is not None else ()
    return SignatureShown(
        fingerprint=each.fingerprint,
        signer=" or ".join(",".join(patterns) for patterns in names),
        problem=each.problem,
    )


__all__ = ["add_signature", "approve_command", "mandate_of", "missing_of", "show_proposal", "signing"]
