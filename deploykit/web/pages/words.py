"""How a state is shown: in which words, with which icon, in which tone. Pure.

Rules:

* A state is never shown by colour alone: its words and its icon say the same.
* A state that is not in the table is shown as it came, in the quietest tone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Literal, get_args

import attrs

#: From the worst to the quietest; names of CSS classes.
Tone = Literal["bad", "warn", "hold", "run", "ok", "off"]
TONES: Final[tuple[Tone, ...]] = get_args(Tone)


@attrs.frozen(slots=True)
class ShownState:
    """A state as a page shows it.

    Args:
        label: what people read.
        tone: names a CSS class.
        icon: names a symbol of `icons.html`.
    """

    label: str
    tone: Tone = "off"
    icon: str = "dot"


_STATES: Final[Mapping[str, ShownState]] = {
    # of a site on a node
    "current": ShownState("current", "ok", "ok"),
    "outdated": ShownState("outdated", "warn", "behind"),
    "other": ShownState("other release", "warn", "other"),
    "frozen": ShownState("held by a lock", "hold", "lock"),
    "modified": ShownState("modified by hand", "bad", "edit"),
    "silent": ShownState("silent", "warn", "silent"),
    "unexpected": ShownState("unexpected", "warn", "plus"),
    "empty": ShownState("nothing live", "off", "none"),
    # of rollouts
    "proposed": ShownState("proposed", "hold", "clock"),
    "planned": ShownState("planned", "run", "clock"),
    "preparing": ShownState("preparing", "run", "run"),
    "canary": ShownState("canary", "run", "run"),
    "rolling": ShownState("rolling", "run", "run"),
    "paused": ShownState("paused", "hold", "pause"),
    "aborting": ShownState("aborting", "warn", "run"),
    "rolling-back": ShownState("rolling back", "warn", "back"),
    "succeeded": ShownState("succeeded", "ok", "ok"),
    "failed": ShownState("failed", "bad", "bad"),
    "aborted": ShownState("aborted", "warn", "bad"),
    "rolled-back": ShownState("rolled back", "warn", "back"),
    # of somebody's access to a site
    "granted": ShownState("granted", "ok", "ok"),
    # of nodes and steps in them
    "pending": ShownState("pending", "off", "clock"),
    "asked": ShownState("asked", "run", "run"),
    "began": ShownState("at work", "run", "run"),
    "prepared": ShownState("prepared", "run", "ok"),
    "active": ShownState("active", "ok", "ok"),
    "refused": ShownState("refused", "bad", "bad"),
    "skipped": ShownState("skipped", "off", "none"),
    "went-back": ShownState("failed, went back", "bad", "back"),
    "success": ShownState("succeeded", "ok", "ok"),
    "failure": ShownState("failed", "bad", "bad"),
    "interrupted": ShownState("interrupted", "bad", "bad"),
    "done": ShownState("done", "ok", "ok"),
    # of builds and mirrors
    "requested": ShownState("requested", "run", "clock"),
    "queued": ShownState("queued", "run", "clock"),
    "joined": ShownState("joined a queued one", "run", "clock"),
    "scanned": ShownState("scanned", "off", "ok"),
    "started": ShownState("running", "run", "run"),
    "unstable": ShownState("unstable", "warn", "warn"),
    "cancelled": ShownState("cancelled", "off", "none"),
    "updated": ShownState("updated", "ok", "ok"),
    "unchanged": ShownState("unchanged", "ok", "ok"),
    # of pushes
    "created": ShownState("created", "ok", "plus"),
    "moved": ShownState("moved", "off", "push"),
    "forced": ShownState("forced", "warn", "warn"),
    "deleted": ShownState("deleted", "off", "none"),
    # of locks and nodes
    "locked": ShownState("locked", "hold", "lock"),
    "heard": ShownState("heard", "ok", "ok"),
}
#: What changed, and what is wrong, by kind.
KIND_ICONS: Final[Mapping[str, str]] = {
    "push": "push",
    "build": "build",
    "rollout": "rollout",
    "deploy": "rollout",
    "lock": "lock",
    "mirror": "mirror",
    "node": "node",
    "site": "site",
    "broker": "away",
    "database": "away",
    "distrust": "key",
    "notice": "note",
}


def shown_state(state: str) -> ShownState:
    """Return how a state is shown, whichever thing it is of."""
    return _STATES.get(state) or ShownState(state or "unknown")


def known_states() -> frozenset[str]:
    """Return the states that have words of their own."""
    return frozenset(_STATES)


def node_state(phase: str, state: str, kind: str) -> str:
    """Return the state of a node in a rollout, as the rollout's counts name it.

    Args:
        phase, state: of its last command: a `discard` that succeeded leaves the node skipped.
        kind: of the rollout.
    """
    if state == "rolled-back":
        return "went-back"  # it failed there, and the node went back by itself
    if state != "success":
        return state or "pending"
    if phase == "rollback" and kind == "rollback":
        return "active"
    return _ENDED_WELL.get(phase, "active")


_ENDED_WELL: Final = {"prepare": "prepared", "rollback": "rolled-back", "discard": "skipped"}


def in_order(counts: Mapping[str, int]) -> tuple[tuple[ShownState, int], ...]:
    """Return counts by state, the worst tone first, then by words; without those that are zero."""
    pairs = [(shown_state(state), count) for state, count in counts.items() if count > 0]
    return tuple(sorted(pairs, key=lambda pair: (TONES.index(pair[0].tone), pair[0].label)))


def worst(states: Iterable[str]) -> Tone:
    """Return the worst tone among states; the quietest where there are none."""
    return min((shown_state(state).tone for state in states), key=TONES.index, default="off")


@attrs.frozen(slots=True)
class BarPart:
    """A part of a bar that is 100 wide."""

    tone: Tone
    start: float
    width: float


def bar(counts: Mapping[str, int]) -> tuple[BarPart, ...]:
    """Return the parts of a bar for counts by state; each part is wide enough to be seen."""
    ordered = in_order(counts)
    total = sum(count for _, count in ordered)
    if not total:
        return ()
    widths = [max(100 * count / total, 3.0) for _, count in ordered]
    scale = 100 / sum(widths)
    parts, start = [], 0.0
    for (shown, _), width in zip(ordered, widths, strict=True):
        parts.append(BarPart(shown.tone, round(start, 2), round(width * scale, 2)))
        start += width * scale
    return tuple(parts)
