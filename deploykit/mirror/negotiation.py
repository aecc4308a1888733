"""What to ask an origin for, and which objects to offer as held. Pure.

Rules:

* Only tips are offered, never history: a walk costs tens of thousands of lines in a large repository.
* Old values of the refs that change come first: the new ones almost always grow out of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from deploykit.mirror.refplan import RefPlan
from deploykit.names import ObjectId, RefName, is_zero

#: Offering more than this costs more than it can save: the changed refs' old tips come first anyway.
MAX_HAVES = 256


def wants(plan: RefPlan, holds: Callable[[ObjectId], bool]) -> tuple[ObjectId, ...]:
    """Return the new ids that the store does not hold, each once, in plan order."""
    needed = dict.fromkeys(change.new for change in plan.updates)
    return tuple(oid for oid in needed if not holds(oid))


def haves(
    plan: RefPlan, held: Mapping[RefName, ObjectId], *, first: Iterable[ObjectId] = (), limit: int = MAX_HAVES
) -> tuple[ObjectId, ...]:
    """Return the tips to offer, the best first: `first`, old values of changed refs, then all others up to `limit`."""
    ordered = dict.fromkeys(oid for oid in first if not is_zero(oid))
    ordered.update(dict.fromkeys(c.old for c in plan.changes if not is_zero(c.old)))
    for oid in held.values():
        if len(ordered) >= limit:
            break
        ordered.setdefault(oid)
    return tuple(ordered)[:limit]
