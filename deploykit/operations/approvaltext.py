"""A mandate as a person reads it before they sign, and as a script does. Decoded from the bytes that are signed.

Every text of the mandate is escaped (`visible`) and cut: none of it can hide what stands below it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from datetime import datetime
from typing import Final

from deploykit.fleet.folding import folded_names
from deploykit.fleet.mandates import HeldMandate
from deploykit.messages.site import parts_entry
from deploykit.operations.approval import ApprovalSheet, ShownSignature
from deploykit.operations.times import shown_time
from deploykit.operations.visible import visible

_WIDTH: Final = 9
_LINE: Final = 100
#: Characters of a text for people that are shown.
_MOST: Final = 300


def sheet_lines(sheet: ApprovalSheet, now: datetime) -> Iterator[str]:
    """Yield a mandate line by line."""
    message = sheet.held.message
    yield from _row("rollout", exact(message.rollout))
    yield from _row("site", exact(message.site))
    if message.parts:
        for part in message.parts:
            yield from _row("part", f"{exact(part.repo)}  {exact(part.ref)}  {part.commit}")
        yield from _row("id", message.commit or "none")
    elif message.phases or message.commit is not None:
        yield from _row("ref", exact(message.ref or "none"))
        yield from _row("commit", message.commit or "none")
        if sheet.commit is not None:
            line, author = visible(sheet.commit.line), visible(sheet.commit.author)
            yield from _row("", f"local mirror of {sheet.commit.repo}, not signed: {line} ({author.strip()})")
        else:
            yield from _row("", "no mirror of this machine has it")
    else:
        yield from _row("ref", "none: nodes may only go back")
    many = "1 node" if len(message.nodes) == 1 else f"{len(message.nodes)} nodes"
    yield from _row("nodes", f"{many}: {', '.join(folded_names(message.nodes))}")
    yield from _row("phases", ", ".join(message.phases) or "none")
    back = "each node may be told to go back to its own previous release" if message.allow_rollback else "no"
    yield from _row("back", back)
    yield from _row("from", both_times(message.not_before) + (", not yet" if now < message.not_before else ""))
    yield from _row("until", both_times(message.not_after) + (", OVER" if now > message.not_after else ""))
    if message.without_build:
        yield from _row("BUILDS", "MAY BE LEFT OUT: the site's required builds need not have succeeded")
    if message.override_lock:
        yield from _row("LOCK", f"IS OVERRIDDEN, for this reason: {_text(message.override_lock)}")
        yield from _row("", sheet.warning) if sheet.warning else ()
    who = _text(message.requested_by) or "nobody"
    yield from _row("says", f"requested by {who}" + (f": {_text(message.reason)}" if message.reason else ""))
    yield from _row(
        "", f"made by {_text(message.source)} at {both_times(message.time)}; nobody has checked these lines"
    )
    for name, value in (*message.extra.items(), *message.extensions.items()):
        yield from _row("UNKNOWN", f"{_text(name)}: {_text(value)}")
    yield from _row("digest", sheet.held.digest)
    for at, signature in enumerate(sheet.signatures):
        yield from _row("" if at else "signed", signature_words(signature))
    if not sheet.signatures:
        yield from _row("signed", "by nobody yet")
    if sheet.requirement is not None:
        yield from _row("site asks", requirement_words(sheet))


def signature_words(signature: ShownSignature) -> str:
    """Return one signature in words: who, with which kind of key, and what it shows."""
    signer = signature.signer
    who = " or ".join(",".join(patterns) for patterns in signer.principals) if signer is not None else "unknown here"
    shows = [] if signer is None or not signer.present else ["touched"]
    shows += ["person verified"] if signer is not None and signer.verified else []
    shows += [signer.certificate] if signer is not None and signer.certificate else []
    kind = ", ".join([signature.key_type, *shows])
    why = f"; does not count: {signature.problem}" if signature.problem else ""
    return visible(f"{who}  {signature.fingerprint} ({kind}){why}")


def requirement_words(sheet: ApprovalSheet) -> str:
    """Return what the site asks for, by the settings of this machine, and what is missing."""
    requirement = sheet.requirement
    if requirement is None:
        return ""
    asks = "1 signature" if requirement.signatures == 1 else f"{requirement.signatures} people's signatures"
    asks += " by keys that show that a person touched them" if requirement.require == "person" else ""
    return visible(f"{asks}: {sheet.missing or 'complete'}")


def sheet_entry(sheet: ApprovalSheet) -> dict[str, object]:
    """Return a mandate for a script."""
    message = sheet.held.message
    return {
        "rollout": message.rollout,
        "site": message.site,
        "ref": message.ref,
        "commit": message.commit,
        "parts": parts_entry(message.parts),
        "nodes": list(message.nodes),
        "phases": list(message.phases),
        "allow_rollback": message.allow_rollback,
        "not_before": message.not_before.isoformat(),
        "not_after": message.not_after.isoformat(),
        "without_build": message.without_build,
        "override_lock": message.override_lock,
        "requested_by": message.requested_by,
        "reason": message.reason,
        "digest": sheet.held.digest,
        "problems": list(sheet.problems),
        "local_commit": None
        if sheet.commit is None
        else {"repo": sheet.commit.repo, "line": sheet.commit.line, "author": sheet.commit.author},
        "signatures": [
            {
                "fingerprint": each.fingerprint,
                "key_type": each.key_type,
                "principals": [list(patterns) for patterns in each.signer.principals] if each.signer else [],
                "present": bool(each.signer and each.signer.present),
                "verified": bool(each.signer and each.signer.verified),
                "problem": each.problem,
            }
            for each in sheet.signatures
        ],
        "missing": sheet.missing,
        "warning": sheet.warning,
    }


def both_times(moment: datetime) -> str:
    """Return an instant in UTC and in the time of this machine."""
    local = moment.astimezone()
    return f"{shown_time(moment)} ({local:%Y-%m-%d %H:%M:%S} {local.tzname()} here)"


def exact(text: str) -> str:
    r"""Return a text that decides something: with its escapes where a letter could be taken for another one.

    >>> exact("shop"), exact("sh\N{CYRILLIC SMALL LETTER O}p").partition(", ")[2]
    ('shop', "written 'sh\\u043ep'")
    """
    return visible(text) if text.isascii() else f"{visible(text)}, written {text!a}"


def next_step(held: HeldMandate, *, file: str = "") -> str:
    """Return what to do with a mandate that was signed."""
    if file:
        return f"take {file} to whoever signs next, or back: deploykit approve {held.message.rollout} --add {file}"
    return f"when all have signed: deploykit rollout start {held.message.rollout}"


def _text(value: object) -> str:
    shown = visible(value)
    return shown if len(shown) <= _MOST else f"{shown[:_MOST]}… ({len(shown)} characters)"


def _row(label: str, text: str) -> Iterator[str]:
    lines = textwrap.wrap(text, _LINE - _WIDTH - 2, break_on_hyphens=False, replace_whitespace=False) or [""]
    for at, line in enumerate(lines):
        yield f"{label if not at else '':<{_WIDTH}}  {line}".rstrip()


__all__ = [
    "both_times",
    "exact",
    "next_step",
    "requirement_words",
    "sheet_entry",
    "sheet_lines",
    "signature_words",
]
