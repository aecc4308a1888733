"""A name for a plan: the same where the same would be done, so that nobody carries out what they were not shown. Pure.

It begins with when the plan was made, in milliseconds: what began on the site since then is looked at before it is
carried out. It is no secret and no authority: whoever invents one deceives only themselves.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Final

from deploykit.fleet.journalformat import encode_plan
from deploykit.fleet.plan import Plan
from deploykit.web.actions.shown import PlannedNode

_FORM: Final = re.compile(r"([0-9]{1,15})-([0-9a-f]{64})\Z", re.ASCII).match


def digest_of(plan: Plan, nodes: tuple[PlannedNode, ...], made: float, **further: object) -> str:
    """Return the digest of a plan.

    Args:
        plan: what would be done; its id, and who asks, count for nothing.
        nodes: what each of them has now.
        made: seconds since 1970.
        further: what else decides what is done, e.g. whether people must sign.
    """
    decided = dict(encode_plan(plan))
    for name in ("rollout", "requested_by", "correlation_id"):
        decided.pop(name, None)
    value = {
        "plan": decided,
        "live": [[node.node, node.live_release, node.live_ref, node.live_commit] for node in nodes],
        **further,
    }
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return f"{int(made * 1000)}-{hashlib.sha256(text.encode()).hexdigest()}"


def same_plan(shown: str, found: str) -> bool:
    """Return whether two digests name the same plan, whenever they were made."""
    old, new = _FORM(shown), _FORM(found)
    return old is not None and new is not None and old[2] == new[2]


def made_at(digest: str) -> float | None:
    """Return when a plan was made, in seconds since 1970; None for what is no digest."""
    found = _FORM(digest)
    return int(found[1]) / 1000 if found is not None else None


__all__ = ["digest_of", "made_at", "same_plan"]
